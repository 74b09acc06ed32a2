"""Sparse backward passes: the forward pass is exact, the backward keeps k output units.

from retroprop.sparse import SparseLinear, linear
"""

from retroprop.sparse.conv_op import conv2d
from retroprop.sparse.layers import SparseConv2d, SparseLinear
from retroprop.sparse.linear_op import linear
from retroprop.sparse.schedule import Schedule, begin_epoch
from retroprop.sparse.selection import Rule
from retroprop.sparse.twins import StackedSparseConv2d, StackedSparseLinear

__all__ = [
    "Rule",
    "Schedule",
    "SparseConv2d",
    "SparseLinear",
    "StackedSparseConv2d",
    "StackedSparseLinear",
    "begin_epoch",
    "conv2d",
    "linear",
]
