"""Algorithms, one a file, and the two kits they call: ``ppo`` and ``value``."""
