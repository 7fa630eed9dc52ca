"""Battle: two teams of units on an open map, exact to SMAX of JaxMARL 0.2.0 with its options at their defaults."""
