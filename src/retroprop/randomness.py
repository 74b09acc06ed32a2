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


def _words(count: int, seed: Seed, stream: str, layer: str, step: int, block: int = 0) -> np.ndarray:
    """64-bit words from a block of four on."""
    generator = np.random.Philox(key=_key(seed, stream, layer), counter=[block, 0, step, 0])
    return np.atleast_1d(generator.random_raw(count))


def uniforms(
    shape: tuple[int, ...],
    seed: Seed,
    stream: str,
    layer: str = "",
    step: int = 0,
    *,
    skip: int = 0,
    device: torch.device | None = None,
) -> Tensor:
    """Float32 numbers in [0, 1) of the given shape, exact multiples of 2**-24.

    Args:
        shape: of the result.
        seed, stream, layer, step: name the sequence of numbers.
        skip: numbers of the sequence that come before the first one given.
        device: where they are wanted; they are the same on all.
    """
    count = int(np.prod(shape, dtype=np.int64))
    block, skip = divmod(skip, 8)  # four words a block, two numbers a word
    if device is not None and device.type == "cuda":
        key = _key(seed, stream, layer)
        halves = _philox(-(-(skip + count) // 8), key, (block, step), device)[skip : skip + count]
        return ((halves >> 8).to(torch.float32) * 2**-24).reshape(shape)
    words = _words((skip + count + 1) // 2, seed, stream, layer, step, block)
    drawn = words.view(np.uint32)[skip : skip + count]
    return torch.from_numpy((drawn >> 8).astype(np.float32) * np.float32(2**-24)).reshape(shape)


_LOW = 2**32 - 1


def _signed(value: int) -> int:
    """A 64-bit word as torch's int64 holds it."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def _product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a * b, both taken as unsigned."""
    low, high = a & _LOW, a >> 32
    b_low, b_high = b & _LOW, (b >> 32) & _LOW
    cross, other = low * b_high, high * b_low
    middle = ((low * b_low >> 32) & _LOW) + (cross & _LOW) + (other & _LOW)
    top = high * b_high + ((cross >> 32) & _LOW) + ((other >> 32) & _LOW) + (middle >> 32)
    return top, b * _signed(a)


def _philox(blocks: int, key: int, counter: tuple[int, int], device: torch.device) -> Tensor:
    """The 32-bit halves of NumPy's words, as int64 `(8 * blocks,)`, made on a device.

    Source: Salmon, Moraes, Dror & Shaw 2011, section 3.3, philox4x64-10 with its constants.
    """
    first, step = counter
    # NumPy counts up before it draws.
    c0 = torch.arange(first + 1, first + 1 + blocks, device=device)
    c1, c2, c3 = torch.zeros_like(c0), torch.full_like(c0, step), torch.zeros_like(c0)
    k0, k1 = key % 2**64, key >> 64
    for _ in range(10):
        high0, low0 = _product(0xD2E7470EE14C6C93, c0)
        high1, low1 = _product(0xCA5A826395121157, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ _signed(k0), low1, high0 ^ c3 ^ _signed(k1), low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % 2**64, (k1 + 0xBB67AE8584CAA73B) % 2**64
    words = torch.stack((c0, c1, c2, c3), dim=1).flatten()
    return torch.stack((words & _LOW, (words >> 32) & _LOW), dim=1).flatten()


def permutation(n: int, seed: Seed, stream: str, layer: str = "", step: int = 0) -> Tensor:
    """A permutation of 0 ... n-1 as int64 `(n,)`."""
    return torch.from_numpy(np.argsort(_words(n, seed, stream, layer, step), kind="stable"))


def derived_seed(*names: Seed) -> int:
    """A seed for a torch generator, hashed from names: 0 <= seed < 2**63."""
    return _key(*names) % 2**63
