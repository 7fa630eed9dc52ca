"""Command line of jmarl."""
