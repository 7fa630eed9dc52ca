"""Algorithm kits: PPO, PPO of sequence policies, and Q-learning of a team.

A system module calls a kit with its networks. The kit returns a ``System``.
"""
