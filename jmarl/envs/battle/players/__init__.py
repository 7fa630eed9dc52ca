"""Scripted players: policies for the allies without parameters, which read observations."""
