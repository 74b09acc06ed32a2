"""In what precision matrix products are computed."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch

Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")


def products_in(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Forward passes within it, and their backward passes, multiply in that precision.

    bf16 is torch's autocast, so parameters, updates, statistics of batch norm and losses stay in float32.
    """
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def tf32(precision: Precision) -> Iterator[None]:
    """Within it a CUDA device rounds the factors of products to TF32, when that is the precision."""
    backends: Any = torch.backends
    products = [backends.cuda.matmul, backends.cudnn.conv]
    held = [product.fp32_precision for product in products]
    if precision == "tf32":
        for product in products:
            product.fp32_precision = "tf32"
    try:
        yield
    finally:
        for product, before in zip(products, held, strict=True):
            product.fp32_precision = before
