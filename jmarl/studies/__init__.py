"""Studies: questions that a set of runs answers, with what is measured and reported."""
