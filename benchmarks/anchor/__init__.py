"""Learning beside JaxMARL's script."""
