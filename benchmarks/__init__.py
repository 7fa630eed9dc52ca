"""Benchmarks; each module is a program, ``python -m benchmarks.<name> [key=value ...]``.

A ratio is measured within one run, after the results of both sides have been checked.
"""
