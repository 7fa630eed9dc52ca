"""Results of runs on the host: rows of metrics, intervals, tables and learning curves.

This package reads files and NumPy arrays. It does not import the packages that train.
"""
