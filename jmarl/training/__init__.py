"""Running a system: the Anakin loop, evaluation, checkpoints, loggers, configuration, command line."""
