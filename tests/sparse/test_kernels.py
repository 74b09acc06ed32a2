"""The Triton kernels: interpreted on the CPU in a process of their own, and compiled on a CUDA device."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retroprop.sparse import Rule, linear
from retroprop.sparse.selection import SELECT
from tests.sparse import reference

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_interpreted_kernels_are_the_plain_products():
    command = [sys.executable, "-m", "tests.sparse.kernels_in_interpreter"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this version of Triton's interpreter does not work with this NumPy")
    assert done.stdout.strip() == "agreed", done.stderr[-2000:]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("select", SELECT)
@pytest.mark.parametrize("block", [1, 16])
def test_compiled_kernels_are_the_plain_loop(block: int, select: str, dtype: torch.dtype):
    rule = Rule(0.25, "batch", select, block)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    x, weight, pull = (
        torch.randn(*s, generator=generator).to("cuda", dtype) for s in ((200, 300), (128, 300), (200, 128))
    )
    noise = torch.rand(1, 128, generator=generator).cuda() if rule.draws else None
    bias = torch.zeros(128, device="cuda", dtype=dtype, requires_grad=True)
    there = (x.requires_grad_(), weight.requires_grad_(), bias)
    y = linear(*there, keep=0.25, select=rule.select, block=block, noise=noise)
    found = torch.autograd.grad(y, there, pull)
    host = [t.detach().double().cpu() for t in (x, weight, pull)]
    expected = reference.linear(*host, rule, None if noise is None else noise.double().cpu())
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for one, other in zip(found, expected, strict=True):
        gap = float((one.double().cpu() - other).norm() / other.norm())
        assert gap < tolerance, f"off by {gap:.1e}"
