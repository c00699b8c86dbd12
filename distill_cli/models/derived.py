"""A student made of its teacher: fewer layers, fewer channels, or layers in two thin parts; how a card tells it: edits.py."""

from __future__ import annotations

import copy
import importlib
from typing import Any, cast

from torch import Tensor, nn

from distill_cli import models
from distill_cli.base.errors import ConfigError
from distill_cli.config import schema
from distill_cli.models import EDITS, OF_TEACHER, REBUILD, Classifier, calibration, edits, shaping
from distill_cli.models.quantized import LAYERS, Layer
from distill_cli.models.stack import evenly

ROUND_TO = 8  # channels: what is left of a layer is a multiple of it, which kernels are quick at

Edit = dict[str, Any]


def of_teacher(
    teacher: Classifier | None,
    classes: int,
    layers: int | None = None,
    prune: float | None = None,
    low_rank: float | None = None,
) -> nn.Module:
    """A network made of a teacher's, with weights from its own.

    Args:
        classes: how many it answers; of the teacher's head those are taken that the data have.
        layers: how many are kept in each list of alike layers. prune: share of channels that is cut. low_rank: share of the
            parameters that a layer keeps. They are done in this order.

    Raises:
        ConfigError: there is no teacher, or it does not allow it.
    """
    if teacher is None:
        raise ConfigError("student.from_teacher: there is no teacher to make it of")
    model = Classifier(copy.deepcopy(teacher.net), teacher.spec, teacher.taken)
    model.eval().requires_grad_(True)
    head = _head(model.net)
    if teacher.order is not None and head is not None:
        head.out_features = classes
        for tensors in head.parameters():
            tensors.data = tensors.data[teacher.order]
    said = []
    if layers is not None:
        said.append(_keep(model, layers))
    if prune is not None:
        said.append(_prune(model, prune, head))
    if low_rank is not None:
        said.append(_thin(model, low_rank, head))
    net = model.net
    node = schema.of_class(schema.Teacher, models.rebuild_node(teacher.node, teacher))
    net.__dict__[REBUILD] = {**node, EDITS: edits.of(net)}
    net.__dict__[OF_TEACHER] = "the teacher with " + ", ".join(said)
    return net.requires_grad_(True)


def _head(net: nn.Module) -> nn.Linear | None:
    """The last linear layer, which answers."""
    return next((module for module in reversed(list(net.modules())) if isinstance(module, nn.Linear)), None)


def _keep(model: Classifier, number: int) -> str:
    """Keep so many layers of each list, evenly spaced with the last among them, and with those that change a shape."""
    sizes: dict[str, tuple[Any, Any]] = {}

    def measure(path: str, module: nn.Module, inputs: Tensor, output: Any) -> None:
        output = output if isinstance(output, Tensor) else output[0]
        sizes[path] = inputs.shape, output.shape

    with calibration.watching(model.net, measure):
        calibration.answer(model)
    kept = dict[str, list[int]]()
    for path, part in model.net.named_modules():
        inside = [f"{path}.{name}" for name, _ in part.named_children()]
        alike = isinstance(part, nn.Sequential | nn.ModuleList) and len({type(child) for child in part.children()}) == 1
        if not alike or len(inside) < 2 or not set(inside) <= set(sizes) or any(path.startswith(f"{p}.") for p in kept):
            continue
        free = [place for place, name in enumerate(inside) if sizes[name][0] == sizes[name][1]]
        fixed = [place for place in range(len(inside)) if place not in free]
        if not free:
            continue
        if not max(1, len(fixed)) <= number <= len(inside):
            raise ConfigError(f"student.from_teacher.layers={number}: {path} of the teacher has {len(inside)}, of which "
                              f"{len(fixed)} have to stay")  # fmt: skip
        kept[path] = sorted([*fixed, *(free[place] for place in evenly(number - len(fixed), len(free)))])
    if not kept:
        raise ConfigError("student.from_teacher.layers: the teacher has no list of layers that are alike")
    edits.apply(model.net, [{"kind": "keep", "layers": kept}])
    numbers = dict[str, list[str]]()
    for path, places in kept.items():
        numbers.setdefault(",".join(map(str, places)), []).append(path)
    return "layers " + "; ".join(f"{places} of {', '.join(paths)}" for places, paths in numbers.items())


def _prune(model: Classifier, share: float, head: nn.Linear | None) -> str:
    """Cut a share of the channels of each layer, those whose weights are smallest together with what depends on them."""
    try:
        pruning: Any = importlib.import_module("torch_pruning")
    except ModuleNotFoundError as error:
        raise ConfigError("torch-pruning is not installed", 'pip install "distill-cli[prune]"') from error
    inputs = model.front(model.spec.example(2, next(model.parameters()).device))
    if not isinstance(inputs, Tensor):
        raise ConfigError(
            "student.from_teacher.prune: a network of texts has no channels to cut",
            "student.from_teacher.layers=3, or low_rank",
        )
    edits.apply(model.net, shaping.explicit(model.net))
    before = {path: shaping.shape_of(module) for path, module in model.net.named_modules()}
    try:
        importance = pruning.importance.GroupMagnitudeImportance(p=2)
        pruner = pruning.pruner.BasePruner(
            model.net, inputs, importance, pruning_ratio=share, ignored_layers=[head] if head else [], round_to=ROUND_TO
        )
        pruner.step()
        changed = {
            path: shape
            for path, module in model.net.named_modules()
            if (shape := shaping.shape_of(module)) != before[path]
        }
        calibration.answer(model)
    except Exception as error:
        told = f"student.from_teacher.prune: this teacher's channels cannot be cut: {type(error).__name__}: {error}"
        raise ConfigError(told, "student.from_teacher.low_rank or layers") from error
    model.net.zero_grad(set_to_none=True)
    edits.note(model.net, {"kind": "resize", "shapes": changed})
    return f"{share:.0%} of its channels cut"


def _thin(model: Classifier, share: float, head: nn.Linear | None) -> str:
    """Put two layers in place of one, through the directions that hold most of its weights; the head stays."""
    ranks, layers = dict[str, int](), dict[str, Any]()
    for path, module in model.net.named_modules():
        if type(module) not in LAYERS or module is head or not path or getattr(module, "groups", 1) > 1:
            continue
        rows, columns = module.weight.flatten(1).shape
        rank = int(share * rows * columns / (rows + columns))
        if rank:
            ranks[path], layers[path] = rank, module
    if not ranks:
        raise ConfigError("student.from_teacher.low_rank: the teacher has no layer that could be cut in two")
    edits.apply(model.net, [{"kind": "low_rank", "ranks": ranks}])
    for path, layer in layers.items():
        inner, outer = (cast("Layer", model.net.get_submodule(f"{path}.{place}")) for place in (0, 1))
        for half, weight in zip((inner, outer), shaping.halves(layer.weight, ranks[path]), strict=True):
            half.weight.data.copy_(weight.view_as(half.weight))
        if outer.bias is not None:
            outer.bias.data.copy_(layer.bias.data)
    return f"{len(ranks)} layers in two parts of {share:.0%} of their parameters"
