"""From a YAML node to a classifier that takes a batch's inputs; the networks themselves are in the files beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base.errors import ConfigError
from distill_cli.config import building, schema
from distill_cli.data import Spec
from distill_cli.data.inputs import Inputs

KINDS = {"teacher": schema.Teacher, "student": schema.Student}  # what tells our keys of a node from its class's
REBUILD = "rebuild"  # a network's attribute: what to change in its node to build the same again from a file


class Classifier(nn.Module):
    """A network behind the data's own inputs, which the data's spec fits to it: see `data.spec.Front`.

    Args:
        net: takes what the front makes of a batch's inputs, gives logits (N, K).
        spec: what the data's batches look like; `spec` of the model is that with what the network brings of its own.
        mean, std: the normalisation the network was trained with, where it is not the data's.
        role: what the model is called in messages.

    Raises:
        ConfigError: the network cannot take such inputs.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: Spec,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        role: str = "model",
    ) -> None:
        super().__init__()
        self.net = net
        self.spec = spec.of(net)
        self.front = self.spec.front(net, mean, std, role)

    def forward(self, inputs: Inputs) -> Tensor:
        """A batch's inputs -> logits (N, K)."""
        logits: Tensor = self.net(self.front(inputs))
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


def check(model: schema.Teacher | schema.Student, where: str) -> None:
    """Raise a ConfigError where a model's class or arguments, under the key `where`, do not exist; nothing is built."""
    building.check(model.node, nn.Module, where)


def network(
    node: Mapping[str, Any], role: str, spec: Spec, num_classes: int, trust: Sequence[str] | None = None
) -> nn.Module:
    """The bare network a node describes; see `build`."""
    arguments = {"num_classes": num_classes, **spec.arguments()}
    return building.build(schema.of_class(KINDS[role], node), nn.Module, role, trust=trust, **arguments)


def build(
    node: Mapping[str, Any], role: str, spec: Spec, num_classes: int, trust: Sequence[str] | None = None
) -> Classifier:
    """The model that a `teacher` or `student` node describes, in the memory format in which it answers soonest.

    Raises:
        ConfigError: unknown class or arguments, or it cannot take such inputs.
    """
    net = network(node, role, spec, num_classes, trust)
    mean, std = (node.get(key) if role == "teacher" else None for key in ("mean", "std"))
    model = Classifier(net, spec, mean, std, role)
    probe(model, role)
    model.front.quicken(net, lambda: probe(model, role))
    return model


def probe(model: Classifier, role: str) -> Tensor:
    """The model's answer to two random samples; its weights, buffers and mode stay as they were.

    Raises:
        ConfigError: it cannot take them, or answers no tensor.
    """
    try:
        with evaluating(model), torch.no_grad():
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            answer = model(model.spec.example(2, device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{role}: cannot take {model.spec.kind} of {model.spec.words()}: {error}", "try another dataset.size"
        ) from error
    if not isinstance(answer, Tensor):
        raise ConfigError(f"{role}: should give a tensor of logits, gave {type(answer).__name__}")
    return answer


def rebuild_node(node: Mapping[str, Any], model: Classifier) -> dict[str, Any]:
    """The node that builds the same network again when its weights come from a file: no download, the same stem."""
    return {**node, **getattr(model.net, REBUILD, {})}


def num_parameters(model: nn.Module) -> int:
    """How many numbers training could move."""
    return sum(p.numel() for p in model.parameters())
