"""Which modules' features an objective reads, in the student and in the teacher; what it computes of them is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from distill_cli.base.errors import ConfigError
from distill_cli.data import Data
from distill_cli.models import Classifier
from distill_cli.models.features import Shapes, deepest_map, feature_map, pairs, penultimate, shape_of, shapes, sized
from distill_cli.objectives.base import Objective
from distill_cli.tasks.rows import Rows, Signal, wide

AUTO = ("auto",)


class OnFeatures(Objective):
    """An objective on features of modules in pairs: `student_layers` and `teacher_layers`, `auto` until it is connected."""

    student_layers: tuple[str, ...] = AUTO
    teacher_layers: tuple[str, ...] = AUTO

    def __init__(
        self, weight: float, warmup: float, student_layers: str | Sequence[str], teacher_layers: str | Sequence[str]
    ) -> None:
        super().__init__(weight, warmup)
        self.student_layers, self.teacher_layers = (
            (layers,) if isinstance(layers, str) else tuple(layers) for layers in (student_layers, teacher_layers)
        )
        if not self.student_layers or not self.teacher_layers:
            raise ConfigError("student_layers and teacher_layers: name at least one module each, or write auto")

    @property
    def name(self) -> str:
        """What the objective is called in keys and in the header."""
        return type(self).__name__.lower()

    def taken(self, student: Rows, teacher: Signal) -> tuple[list[Tensor], list[Tensor]]:
        """The features of the student's layers and of the teacher's, fp32 at least."""
        ours = [wide(student.features[path]) for path in self.student_layers]
        return ours, [wide(teacher.features[path]) for path in self.teacher_layers]

    def settle(self, ours: Shapes, theirs: Shapes, layers: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """Take these pairs of layers; returns the header's label and text, which name them with their shapes."""
        self.student_layers, self.teacher_layers = tuple(a for a, _ in layers), tuple(b for _, b in layers)
        (first, second), *rest = [(sized(ours, a), sized(theirs, b)) for a, b in layers]
        return self.name, ", ".join([f"student {first} → teacher {second}", *(f"{a} → {b}" for a, b in rest)])

    def pair_maps(
        self, student: Classifier, teacher: Classifier, data: Data
    ) -> tuple[tuple[str, str], list[tuple[int, int]]]:
        """Choose feature maps in pairs: by `pairs` where neither side is named, and where one is, the nearest in size.

        Returns:
            The header's label and text, and each pair's channels.

        Raises:
            ConfigError: a layer is missing or gives no feature map, or the numbers of layers differ.
        """
        ours, theirs = shapes(student, data.input), shapes(teacher, data.input)
        mine, guide = (f"objective.{self.name}.{role}_layers" for role in ("student", "teacher"))
        named, guides = self.student_layers, self.teacher_layers
        if named == guides == AUTO:
            layers = pairs(ours, theirs)
        elif guides == AUTO:
            layers = [(path, deepest_map(theirs, guide, feature_map(ours, path, mine)[2:])) for path in named]
        elif named == AUTO:
            layers = [(deepest_map(ours, mine, feature_map(theirs, path, guide)[2:]), path) for path in guides]
        elif len(named) != len(guides):
            raise ConfigError(
                f"{mine}: has {len(named)} layer(s), but teacher_layers has {len(guides)}; they are compared in pairs",
                "name as many of each, or leave one at auto",
            )
        else:
            layers = list(zip(named, guides, strict=True))
        channels = [(feature_map(ours, a, mine)[1], feature_map(theirs, b, guide)[1]) for a, b in layers]
        return self.settle(ours, theirs, layers), channels


class OnSamples(OnFeatures):
    """An objective on one output each of student and teacher, of any size; `auto` takes what the classifier is given."""

    def pick(self, model: Classifier, shapes: Shapes, key: str) -> str:
        """The path that `auto` stands for."""
        return penultimate(model, shapes, key)

    def pair_outputs(
        self, student: Classifier, teacher: Classifier, data: Data
    ) -> tuple[tuple[str, str], Shapes, Shapes]:
        """Choose one output of each model.

        Returns:
            The header's label and text, and both models' shapes.

        Raises:
            ConfigError: there is no such module, or it has one number a sample or none.
        """
        paths, sizes = [], []
        for role, model, layers in (
            ("student", student, self.student_layers),
            ("teacher", teacher, self.teacher_layers),
        ):
            key, shape_at = f"objective.{self.name}.{role}_layer", shapes(model, data.input)
            path = self.pick(model, shape_at, key) if layers == AUTO else layers[0]
            if len(shape_of(shape_at, path, key)) < 2 or shape_at[path][0] != 1:
                raise ConfigError(f"{key}: {path} gives {shape_at[path]}, not features (N, ...)")
            paths.append(path)
            sizes.append(shape_at)
        return self.settle(sizes[0], sizes[1], [(paths[0], paths[1])]), sizes[0], sizes[1]
