"""Which modules' features an objective reads, in the student and in the teacher; what it computes of them is elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from distill_cli.base.errors import ConfigError
from distill_cli.data import Data
from distill_cli.models import Classifier
from distill_cli.models.features import Shape, Shapes, deepest_map, pairs, penultimate, shape_of, shapes
from distill_cli.objectives.base import Objective
from distill_cli.tasks.rows import Rows, Signal, wide

AUTO = ("auto",)
Paths = str | list[str]  # of modules, or auto


class Side(NamedTuple):
    """The student, or the teacher, while layers are chosen: its modules' shapes, what is asked of it, and by which key."""

    model: Classifier
    shapes: Shapes
    layers: tuple[str, ...]
    key: str

    def map_at(self, path: str) -> Shape:
        """Shape (1, C, H, W) of the feature map at `path`; a ConfigError where there is none."""
        shape = shape_of(self.shapes, path, self.key)
        if len(shape) != 4:
            raise ConfigError(f"{self.key}: {path} gives {shape}, not a feature map (N, C, H, W)")
        return shape

    def deepest(self, near: Shape | None = None) -> str:
        return deepest_map(self.shapes, self.key, near)

    def sized(self, path: str) -> str:
        """The path with its output's shape, as in `layer2 32x14x14`."""
        return f"{path} {'x'.join(map(str, self.shapes[path][1:]))}"


Pairs = list[tuple[str, str]]  # paths in student and teacher


class OnFeatures(Objective):
    """An objective on features of modules in pairs: `student_layers` and `teacher_layers`, `auto` until it is connected."""

    needs_labels = False
    function: ClassVar[
        Callable[..., Tensor]
    ]  # (student_features, teacher_features, **constants) -> a scalar, for `forward`
    choose: ClassVar[Callable[..., Pairs]]  # (student, teacher), a Side each -> the pairs; raises ConfigErrors
    setting: ClassVar[str] = "layer"  # what a side's key is called: `student_layer`, or `student_layers`

    def __init__(self, weight: float, warmup: float, student_layers: Paths, teacher_layers: Paths) -> None:
        super().__init__(weight, warmup)
        self.constants: dict[str, Any] = {}
        self.student_layers, self.teacher_layers = (
            (layers,) if isinstance(layers, str) else tuple(layers) for layers in (student_layers, teacher_layers)
        )
        if not self.student_layers or not self.teacher_layers:
            raise ConfigError("student_layers and teacher_layers: name at least one module each, or write auto")

    @property
    def name(self) -> str:
        """What the objective is called in keys and in the header."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def connect(self, student: Classifier, teacher: Classifier, data: Data) -> tuple[str, str]:
        key = f"objective.{self.name}"
        ours = Side(student, shapes(student), self.student_layers, f"{key}.student_{self.setting}")
        theirs = Side(teacher, shapes(teacher), self.teacher_layers, f"{key}.teacher_{self.setting}")
        layers = self.choose(ours, theirs)
        self.student_layers, self.teacher_layers = tuple(a for a, _ in layers), tuple(b for _, b in layers)
        self.adapt([(ours.shapes[a], theirs.shapes[b]) for a, b in layers], data)
        first, *rest = layers
        text = f"student {ours.sized(first[0])} → teacher {theirs.sized(first[1])}"
        return self.name, ", ".join([text, *(f"{ours.sized(a)} → {theirs.sized(b)}" for a, b in rest)])

    def adapt(self, layers: Sequence[tuple[Shape, Shape]], data: Data) -> None:
        """Make adapters and buffers for pairs of features of these shapes, (1, ...) each."""

    def taken(self, student: Rows, teacher: Signal) -> tuple[list[Tensor], list[Tensor]]:
        """The features of the student's layers and of the teacher's, fp32 at least; those of positions (N, L, D) that samples
        have in unlike number are averaged over each sample's own.
        """
        ours = [pooled(wide(student.features[path]), student.present) for path in self.student_layers]
        return ours, [pooled(wide(teacher.features[path]), student.present) for path in self.teacher_layers]

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        return self.function(*self.taken(student, teacher), **self.constants)


def pooled(features: Tensor, present: Tensor | None) -> Tensor:
    """Features (N, L, D) averaged over the positions that are `present` (N, L), as (N, D); others as they are."""
    if present is None or features.dim() != 3 or features.shape[:2] != present.shape:
        return features
    return (features * present[..., None]).sum(1) / present.sum(1, keepdim=True)


def stages_in_pairs(ours: Side, theirs: Side) -> Pairs:
    """Feature maps in pairs: by `pairs` where neither side is named, and where one is, the nearest in size."""
    if ours.layers == theirs.layers == AUTO:
        return pairs(ours.shapes, theirs.shapes)
    if theirs.layers == AUTO:
        return [(path, theirs.deepest(ours.map_at(path)[2:])) for path in ours.layers]
    if ours.layers == AUTO:
        return [(ours.deepest(theirs.map_at(path)[2:]), path) for path in theirs.layers]
    if len(ours.layers) != len(theirs.layers):
        raise ConfigError(
            f"{ours.key}: has {len(ours.layers)} layer(s), but teacher_layers has {len(theirs.layers)}; "
            "they are compared in pairs",
            "name as many of each, or leave one at auto",
        )
    for side in (ours, theirs):
        for path in side.layers:
            side.map_at(path)
    return list(zip(ours.layers, theirs.layers, strict=True))


def deepest_maps(ours: Side, theirs: Side) -> Pairs:
    """The student's deepest feature map, and the teacher's deepest one of the nearest size, where they are not named."""
    layer = ours.deepest() if ours.layers == AUTO else ours.layers[0]
    size = ours.map_at(layer)[2:]
    other = theirs.deepest(size) if theirs.layers == AUTO else theirs.layers[0]
    theirs.map_at(other)
    return [(layer, other)]


def classifiers_inputs(ours: Side, theirs: Side) -> Pairs:
    """What each model's classifier is given, where no other module is named."""
    paths = []
    for side in (ours, theirs):
        path = penultimate(side.model, side.shapes, side.key) if side.layers == AUTO else side.layers[0]
        shape = shape_of(side.shapes, path, side.key)
        if len(shape) < 2 or shape[0] != 1:
            raise ConfigError(f"{side.key}: {path} gives {shape}, not features (N, ...)")
        paths.append(path)
    return [(paths[0], paths[1])]


def deepest_maps_or_inputs(ours: Side, theirs: Side) -> Pairs:
    """Each model's deepest feature map; of a model that has none, what its classifier is given."""
    sides = []
    for side in (ours, theirs):
        try:
            layers = (side.deepest(),) if side.layers == AUTO else side.layers
        except ConfigError:
            layers = AUTO
        sides.append(side._replace(layers=layers))
    return classifiers_inputs(*sides)
