"""Scenarios of battles as files: teams, starts, orders and terrains."""
