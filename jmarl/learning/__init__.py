"""Pure functions of arrays: returns, minibatches, value statistics, optimizer chains."""
