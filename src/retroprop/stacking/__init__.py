"""Modules with a leading member dimension, so that many networks run as one.

Layout: `(member, unit, batch)`, the batch last; weights `(member, out, in)`. What all members share, such
as the minibatch, has member dimension 1.
"""
