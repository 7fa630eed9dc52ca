"""Programs of all systems for accelerators that are not there."""
