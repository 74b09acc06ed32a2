"""Run by test_kernels.py in a process of its own, where Triton interprets its kernels on the CPU."""

import itertools
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from retroprop.sparse.kernels import products


def check(cases: int, inputs: int, units: int, k: int, *, weighed: bool, layout: str, block: int) -> None:
    """Products of some shape against plain ones."""
    generator = torch.Generator().manual_seed(cases + k)
    gradient, x, weight = (
        torch.randn(*shape, generator=generator)
        for shape in ((cases, units), (cases, inputs), (units, inputs))
    )
    if layout == "views":  # strides of rows, and one that has none
        gradient, weight = torch.cat((gradient, gradient), 1)[:, :units], weight.T.contiguous().T
    blocks = torch.randperm(units // block, generator=generator)[: max(1, k // block)]
    kept = (blocks[:, None] * block + torch.arange(block)).flatten()
    factor = torch.rand(len(kept), generator=generator) + 0.5 if weighed else None
    found = products(gradient, x, weight, kept, factor, (True, True, True), block)
    times = torch.zeros(units).index_copy(0, kept, torch.ones(len(kept)) if factor is None else factor)
    g = (gradient * times).double()
    for one, other in zip(found, (g @ weight.double(), g.T @ x.double(), g.sum(0)), strict=True):
        assert one is not None
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-4)


if __name__ == "__main__":
    shapes = [(5, 7, 9, 3), (130, 20, 40, 17), (33, 150, 64, 40), (1, 16, 16, 16), (64, 64, 8, 1)]
    for shape, weighed, layout in itertools.product(shapes, (False, True), ("contiguous", "views")):
        check(*shape, weighed=weighed, layout=layout, block=1)
    for block in (2, 8):
        check(40, 24, 64, 16, weighed=False, layout="contiguous", block=block)
    x = torch.randn(4, 6)
    for wanted in itertools.product((False, True), repeat=3):
        got = products(torch.randn(4, 8), x, torch.randn(8, 6), torch.tensor([1, 5]), None, wanted)
        assert all(one is not None for one, asked in zip(got, wanted, strict=True) if asked)
    print("agreed")  # noqa: T201
