"""Coverage of intervals in simulated studies."""
