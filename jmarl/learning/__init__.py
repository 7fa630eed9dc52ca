"""Pure functions of arrays: returns, minibatches, value statistics, optimiser chains."""
