"""Physics under the rules of SMAC: weapons, damage, healing, walls and collisions."""
