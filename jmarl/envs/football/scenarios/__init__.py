"""Scenarios of football and their names; nothing here imports JAX."""
