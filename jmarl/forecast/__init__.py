"""Programs compiled for GPUs and TPUs that are not there: memory, kernels and a forecast."""
