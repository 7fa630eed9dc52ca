"""Physics of combat in the rules of SMAC: weapons, damage, healing, walls and collisions."""
