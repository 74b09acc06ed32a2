"""Sparse backward passes: the forward pass is exact, the backward keeps k output units."""
