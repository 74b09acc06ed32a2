"""Sparse layers under DistributedDataParallel: two gloo processes on the CPU."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retroprop.sparse import SparseConv2d, SparseLinear


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        SparseConv2d(1, 8, 3, keep=0.25), nn.Flatten(), nn.ReLU(), SparseLinear(8 * 4, 8, keep=0.5)
    )


def portion(rank: int) -> torch.Tensor:
    return torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(rank))


def work(rank: int, port: int, folder: str) -> None:
    """One of two processes: a backward pass on its own portion."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    wrapped = DistributedDataParallel(network())
    wrapped(portion(rank)).square().mean().backward()
    torch.save([p.grad for p in wrapped.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_two_processes_have_the_mean_of_their_own_sparse_gradients(tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)
    alone = []
    for rank in (0, 1):
        plain = network()
        plain(portion(rank)).square().mean().backward()
        alone.append([p.grad for p in plain.parameters()])
    for rank in (0, 1):
        for found, *own in zip(torch.load(tmp_path / f"{rank}.pt"), *alone, strict=True):
            torch.testing.assert_close(found, sum(own) / 2)
