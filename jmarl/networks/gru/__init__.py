"""A GRU over time: its time step, the recurrence, and kernels for accelerators."""
