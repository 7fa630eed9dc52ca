"""Runs as a table, and the comparison of groups of runs: ``jmarl compare``.

This package does not import JAX.
"""
