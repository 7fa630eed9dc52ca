"""Benchmarks: every figure is a ratio measured inside one run, after equality has been checked."""
