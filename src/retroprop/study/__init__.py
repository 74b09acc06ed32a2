"""A study: a design over factors, a grid of learning rates, seeds, one data set."""
