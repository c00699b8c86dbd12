"""Batch norm over several processes against batch norm of one that has all their samples."""

from __future__ import annotations

from typing import Any

import torch
from ranks import together
from torch import Tensor, nn

from distill_cli.base import world
from distill_cli.models.synced import synced

INPUTS = torch.randn(11, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 + 5


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 5),
        nn.BatchNorm1d(5, affine=False),
    )


def learnt(net: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Gradients and buffers after one backward pass."""
    (net(inputs) * torch.linspace(-1, 1, 5)).square().sum().backward()
    return [world.total(p.grad) for p in net.parameters() if p.grad is not None] + list(net.buffers())


def test_of_several_processes_it_is_that_of_one_with_all_samples() -> None:
    def work() -> Any:
        net = network()
        kinds = [type(module) for module in net]
        with synced(net):
            found = learnt(net, world.mine(INPUTS))
        assert [type(module) for module in net] == kinds
        return [values.tolist() for values in found]

    whole = network()
    expected = learnt(whole, INPUTS)
    for ended in together(3, work):
        assert ended.code == 0, ended.said
        for ours, theirs in zip(eval(ended.said), expected, strict=True):
            assert torch.allclose(torch.tensor(ours, dtype=theirs.dtype), theirs, rtol=1e-4, atol=1e-5)


def test_where_one_process_trains_nothing_is_exchanged() -> None:
    net = network()
    with synced(net):
        assert [type(module) for module in net] == [type(module) for module in network()]
