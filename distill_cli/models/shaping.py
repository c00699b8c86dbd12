"""Networks with other shapes than they were built with: layers left out, channels cut, a layer in two parts. In place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.models.quantized import LAYERS, NORMS
from distill_cli.models.resnet import Subsample


def keep(net: nn.Module, layers: Mapping[str, Sequence[int]]) -> None:
    """Leave those of each list's layers that have these numbers."""
    for path, numbers in layers.items():
        part: Any = net.get_submodule(path)
        net.set_submodule(path, type(part)(*_as_list(part, numbers)))


def _as_list(part: Any, numbers: Sequence[int]) -> list[Any]:
    kept = [part[int(number)] for number in numbers]
    return [kept] if isinstance(part, nn.ModuleList) else kept


def shape_of(module: nn.Module) -> list[int] | None:
    """What `resize` takes to give a module the shape it has: of its weight, and its groups after it; None: it has none."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not isinstance(module, (*LAYERS, *NORMS, nn.LayerNorm, nn.GroupNorm)):
        return None
    return [*weight.shape, getattr(module, "groups", 1)]


def resize(net: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give modules weights of other shapes, all 0; see `shape_of`."""
    for path, (*shape, groups) in shapes.items():
        module: Any = net.get_submodule(path)
        first = shape[0]
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = shape
        elif isinstance(module, LAYERS):
            module.out_channels, module.in_channels, module.groups = first, shape[1] * groups, groups
        elif isinstance(module, NORMS):
            module.num_features = first
        elif isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(shape)
        else:
            raise TypeError(f"{path} is a {type(module).__name__}")
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.dim():
                size = shape if name == "weight" else [first]
                empty = torch.zeros(size, dtype=tensor.dtype, device=tensor.device)
                setattr(module, name, nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty)


def low_rank(net: nn.Module, ranks: Mapping[str, int]) -> None:
    """Put two layers in place of each, whose weights `halves` tells."""
    for path, rank in ranks.items():
        layer: Any = net.get_submodule(path)
        weight = layer.weight.detach()
        rows, bias = len(weight), layer.bias is not None
        if isinstance(layer, nn.Linear):
            inner: Any = nn.Linear(layer.in_features, rank, bias=False)
            outer: Any = nn.Linear(rank, rows, bias=bias)
        elif isinstance(layer, LAYERS) and layer.groups == 1:
            inner = type(layer)(
                layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False,
                padding_mode=layer.padding_mode)  # fmt: skip
            outer = type(layer)(rank, rows, 1, bias=bias)
        else:
            raise TypeError(f"{path} is a {type(layer).__name__}")
        inner, outer = inner.to(weight), outer.to(weight)
        net.set_submodule(path, nn.Sequential(inner, outer).train(layer.training))


def halves(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two weights of so small a rank whose product is nearest to a layer's, flat, by its singular values."""
    left, values, right = torch.linalg.svd(weight.detach().flatten(1).cpu().double(), full_matrices=False)
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def explicit(net: nn.Module) -> list[dict[str, Any]]:
    """The edit after which shortcuts without parameters, whose channels cannot be cut, are convolutions, if there are any."""
    found = {
        path: [channels, module.before + channels + module.after, module.before, module.stride]
        for path, module in net.named_modules()
        if isinstance(module, Subsample) and (channels := _channels_before(net, path))
    }
    return [{"kind": "convolve", "shortcuts": found}] if found else []


def _channels_before(net: nn.Module, path: str) -> int:
    block: Any = net.get_submodule(path.rpartition(".")[0])
    return int(block.conv1.in_channels)


def convolve(net: nn.Module, shortcuts: Mapping[str, Sequence[int]]) -> None:
    """Put a 1x1 convolution with the same answers in place of a shortcut that subsamples and pads with zeros."""
    for path, (channels, after, first, stride) in shortcuts.items():
        old = net.get_submodule(path)
        if not isinstance(old, Subsample):
            raise TypeError(f"{path} is a {type(old).__name__}")
        layer = nn.Conv2d(channels, after, 1, stride, bias=False)
        if layer.weight.device.type != "meta":
            layer.weight.data.zero_()
            layer.weight.data[first + torch.arange(channels), torch.arange(channels)] = 1.0
        net.set_submodule(path, layer.to(next(net.parameters())).train(old.training))
