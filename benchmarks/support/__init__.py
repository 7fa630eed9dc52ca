"""Shared parts of the benchmarks: timing, records, tables, policies and reference programs.

``python -m benchmarks.<name>`` runs the modules one folder above. No module here is a program.
"""
