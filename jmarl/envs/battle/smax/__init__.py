"""Rules of SMAX: its physics, opponents, starts and observations, exact to JaxMARL."""
