"""Launchers: run the command of a job in a process here, or on a cluster."""
