"""Flax modules from observations of entities to logits, Q-values and values.

Losses, gradients, environments and configuration files may not appear here.
"""
