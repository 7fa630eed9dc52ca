"""Scripted play: the race to the ball, formations, defense, and play with the ball."""
