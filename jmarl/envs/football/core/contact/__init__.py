"""Players at the ball: who has it, dribbles, tackles, and touches."""
