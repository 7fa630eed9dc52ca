"""Report of runs as one HTML page: ``jmarl report``.

This package does not import JAX.
"""
