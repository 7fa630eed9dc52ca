"""Learning beside JaxMARL's scripts."""
