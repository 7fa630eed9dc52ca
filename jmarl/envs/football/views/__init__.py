"""Observations of football: entity groups, flat vectors and available actions."""
