"""Building blocks of learning, as pure functions of arrays.

They cover returns, minibatches, replay, exploration, value statistics, optimizers and gradients.
"""
