"""Rules of SMAC: units, maps, physics, opponents and observations."""
