"""Networks: from entity observations to logits, Q-values and values."""
