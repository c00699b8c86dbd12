"""From a YAML node to a classifier that takes a batch's inputs; the networks themselves are in the files beside."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base.errors import ConfigError
from distill_cli.config import building, schema
from distill_cli.data import InputSpec

# Keys of a node that are ours rather than its class's.
OURS = {"teacher": [f.name for f in dataclasses.fields(schema.Teacher) if f.name != "_target_"], "student": []}
VECTOR = 16  # floats that the widest of today's CPU vectors hold
REBUILD = "rebuild"  # a network's attribute: what to change in its node to build the same again from a file


class Classifier(nn.Module):
    """A network behind the data's own inputs: grey is expanded to its channels, and its normalisation applied.

    Args:
        net: takes (N, channels, H, W), gives logits (N, K).
        spec: what the data's batches look like.
        mean, std: the normalisation the network was trained with, where it is not the data's.
    """

    def __init__(
        self, net: nn.Module, spec: InputSpec, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.net = net
        first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
        self.channels = first.in_channels if first is not None else spec.channels
        self.scale: Tensor | None
        self.shift: Tensor | None
        scale = shift = None
        if mean is not None and std is not None and (tuple(mean), tuple(std)) != (spec.mean, spec.std):
            theirs, own = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.mean, mean))
            spread, own_spread = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.std, std))
            scale, shift = spread / own_spread, (theirs - own) / own_spread
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.layout = torch.contiguous_format

    def lay_out(self, layout: torch.memory_format) -> None:
        """Keep inputs and convolutions' weights in this order in memory; numbers differ by rounding at most."""
        self.layout = layout
        self.net.to(memory_format=layout)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) as the data normalises it -> logits (N, K)."""
        if inputs.shape[1] != self.channels:
            inputs = inputs.expand(-1, self.channels, -1, -1)
        if self.scale is not None and self.shift is not None:
            inputs = inputs * self.scale + self.shift
        logits: Tensor = self.net(inputs.contiguous(memory_format=self.layout))
        return logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside, and in the mode it was in after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def check(node: Mapping[str, Any], role: str, where: str | None = None) -> None:
    """Check a `teacher` or `student` node's class and arguments without building it.

    Args:
        where: its key, where that is not its role.

    Raises:
        ConfigError: unknown class or arguments.
    """
    building.check(node, nn.Module, where or role, leave_out=OURS[role])


def network(
    node: Mapping[str, Any], role: str, spec: InputSpec, num_classes: int, trust: Sequence[str] | None = None
) -> nn.Module:
    """The bare network a node describes; see `build`."""
    return building.build(
        node,
        nn.Module,
        role,
        leave_out=OURS[role],
        trust=trust,
        num_classes=num_classes,
        in_channels=spec.channels,
        input_size=spec.size,
    )


def build(
    node: Mapping[str, Any], role: str, spec: InputSpec, num_classes: int, trust: Sequence[str] | None = None
) -> Classifier:
    """Build the model a `teacher` or `student` node describes and check it on two blank pictures.

    Raises:
        ConfigError: unknown class or arguments, or it does not give (N, num_classes) logits on such inputs.
    """
    net = network(node, role, spec, num_classes, trust)
    mean, std = (node.get(key) if key in OURS[role] else None for key in ("mean", "std"))
    model = Classifier(net, spec, mean, std)
    if mean is not None and len(mean) not in (1, model.channels):
        raise ConfigError(f"{role}.mean: has {len(mean)} values, but the network takes {model.channels} channel(s)")
    if model.channels != spec.channels and spec.channels != 1:
        raise ConfigError(
            f"{role}: takes {model.channels} channel(s), but the pictures have {spec.channels}",
            f"drop {role}.in_channels",
        )
    shape = probe(model, spec, role)
    if shape != (2, num_classes):
        raise ConfigError(f"{role}: should give logits of shape (N, {num_classes}), gave {('N', *shape[1:])}")
    _quicken(model, spec)
    return model


def _quicken(model: Classifier, spec: InputSpec) -> None:
    """Lay the network out with channels last, which convolutions are quicker in, unless its code cannot work on that (a
    `view` over a feature map is then refused), or oneDNN cannot.
    """
    if any(_overruns(module) for module in model.net.modules()):
        return
    model.lay_out(torch.channels_last)
    try:
        probe(model, spec, "")
    except ConfigError:
        model.lay_out(torch.contiguous_format)


def _overruns(module: nn.Module) -> bool:
    """Whether training it with channels last corrupts memory on a CPU: oneDNN writes past its workspace where a strided
    1x1 convolution has fewer channels than a vector holds (uxlfoundation/oneDNN#6035).
    """
    if not isinstance(module, nn.Conv2d) or max(module.kernel_size) > 1 or max(module.stride) == 1:
        return False
    return module.in_channels // module.groups < VECTOR


def probe(model: nn.Module, spec: InputSpec, role: str) -> tuple[int, ...]:
    """The shape of the model's answer to two blank pictures; its weights, buffers and mode stay as they were."""
    try:
        with evaluating(model), torch.no_grad():
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            answer = model(torch.zeros(2, spec.channels, *spec.size, device=device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        size = f"{spec.channels} x {spec.size[0]} x {spec.size[1]}"
        raise ConfigError(f"{role}: cannot take pictures of {size}: {error}", "try another dataset.size") from error
    if not isinstance(answer, Tensor):
        raise ConfigError(f"{role}: should give a tensor of logits, gave {type(answer).__name__}")
    return tuple(answer.shape)


def rebuild_node(node: Mapping[str, Any], model: Classifier) -> dict[str, Any]:
    """The node that builds the same network again when its weights come from a file: no download, the same stem."""
    return {**node, **getattr(model.net, REBUILD, {})}


def num_parameters(model: nn.Module) -> int:
    """How many numbers training could move."""
    return sum(p.numel() for p in model.parameters())
