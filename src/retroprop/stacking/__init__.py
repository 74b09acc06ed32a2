"""Modules with a leading member dimension, so that many networks run as one.

Layout: vectors are `(member, unit, batch)`, the batch last, so that a weight `(member, out, in)` multiplies
them as they lie; images `(member, batch, channel, height, width)` and all else keep the batch second. What
all members share, such as the minibatch, has member dimension 1.
"""

from retroprop.stacking import images as images
from retroprop.stacking import norms as norms
from retroprop.stacking import twins as twins
