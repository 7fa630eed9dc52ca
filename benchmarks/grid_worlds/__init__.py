"""Speed of the warehouse and of foraging."""
