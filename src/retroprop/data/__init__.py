"""Data sets as tensors, and how a seed splits them."""
