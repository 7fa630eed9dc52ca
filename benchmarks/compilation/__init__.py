"""Compilation of trials that differ in a number."""
