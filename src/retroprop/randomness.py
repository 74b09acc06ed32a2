"""Counter-based streams: what is random in a trial depends on its seed alone.

A number is a pure function of (seed, stream, layer, step) and of its place in the stream, so it does
not depend on what was drawn before, on a trial's companions, or on the device. The generator is
NumPy's Philox 4x64-10; the key is a hash of the names and the step sits in a counter word of its own.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

Seed = int | str


def _key(*names: Seed) -> int:
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def _words(count: int, seed: Seed, stream: str, layer: str, step: int) -> np.ndarray:
    generator = np.random.Philox(key=_key(seed, stream, layer), counter=[0, 0, step, 0])
    return np.atleast_1d(generator.random_raw(count))


def uniforms(shape: tuple[int, ...], seed: Seed, stream: str, layer: str = "", step: int = 0) -> Tensor:
    """Float32 numbers in [0, 1) of the given shape, exact multiples of 2**-24."""
    count = int(np.prod(shape, dtype=np.int64))
    halves = _words((count + 1) // 2, seed, stream, layer, step).view(np.uint32)[:count]
    return torch.from_numpy((halves >> 8).astype(np.float32) * np.float32(2**-24)).reshape(shape)


def permutation(n: int, seed: Seed, stream: str, layer: str = "", step: int = 0) -> Tensor:
    """A permutation of 0 ... n-1 as int64 `(n,)`."""
    return torch.from_numpy(np.argsort(_words(n, seed, stream, layer, step), kind="stable"))


def derived_seed(*names: Seed) -> int:
    """A seed for a torch generator, hashed from names: 0 <= seed < 2**63."""
    return _key(*names) % 2**63
