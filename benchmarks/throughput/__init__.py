"""Training throughput beside JaxMARL's scripts."""
