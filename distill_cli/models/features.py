"""Features by forward hook and module path; models are never edited."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.data.inputs import Inputs
from distill_cli.models import Classifier, evaluating


@dataclass(frozen=True)
class Output:
    """What a model gives for a batch.

    Attributes:
        answers: logits (N, K), or of several positions (N, L, K); where there is a `head`, what that makes logits of.
        features: those asked for, by module path. head: see `Classifier.head`.
    """

    answers: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    head: Callable[[Tensor], Tensor] | None = None

    @property
    def logits(self) -> Tensor:
        """The logits of all that was answered at once."""
        return self.answers if self.head is None else self.head(self.answers)


Shape = tuple[int, ...]
Shapes = dict[str, Shape]  # of every module's output for one sample, (1, ...), by path


class Tap:
    """Calls a model and keeps what the modules at `paths` gave during that call; as a context it lets go of them after."""

    def __init__(self, net: nn.Module, paths: Iterable[str]) -> None:
        self._caught: dict[str, Tensor] = {}
        self._handles = [net.get_submodule(path).register_forward_hook(partial(self._catch, path)) for path in paths]

    def _catch(self, path: str, module: nn.Module, inputs: object, output: Any) -> None:
        self._caught.pop(path, None)  # of several calls the last counts, also for the order
        if not isinstance(output, Tensor) and isinstance(output, Sequence) and output:
            output = output[0]  # modules of transformers give what others want of them beside their output
        self._caught[path] = output

    def __call__(self, model: Callable[[Inputs], Tensor], inputs: Inputs) -> Output:
        answers = model(inputs)
        caught, self._caught = self._caught, {}
        return Output(answers, caught, getattr(model, "head", None))

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the hooks and of what they have caught."""
        for handle in self._handles:
            handle.remove()
        self._caught = {}


def shapes(model: Classifier) -> Shapes:
    """Shape of every module's output for one sample, by path in its net, in the order of the forward pass.

    A module comes after those inside it, and one that is called more than once where it was called last.
    """
    paths = [path for path, _ in model.net.named_modules() if path]
    with evaluating(model), torch.no_grad(), Tap(model.net, paths) as tap:
        outputs = tap(model, model.spec.example(1, next(model.parameters()).device)).features
    return {path: tuple(output.shape) for path, output in outputs.items() if isinstance(output, Tensor)}


def uneven(model: Classifier, paths: Sequence[str]) -> bool:
    """Whether what some of these modules give differs in size from sample to sample: it has a part for each position of samples
    of unlike length.
    """
    if not paths or model.spec.present(model.spec.example(1)) is None:
        return False
    sizes = shapes(model)
    return any(len(sizes[path]) > 2 for path in paths)


def shape_of(shapes: Shapes, path: str, key: str) -> Shape:
    """Shape (1, ...) of the module at `path`, for which a setting `key` asks; a ConfigError where there is no such module."""
    if path not in shapes:
        guess = did_you_mean(path, shapes)
        top = ", ".join(p for p in shapes if "." not in p)
        raise ConfigError(f"{key}: there is no module {path!r}\n{guess}top-level modules: {top}")
    return shapes[path]


def stages(shapes: Shapes, whose: str) -> list[str]:
    """Where a network's stages end: for each size above one pixel one feature map of it, the deepest at the end.

    That is a module with others inside rather than one layer, and an outer one rather than an inner: `layer1` and not the
    first layer of the next stage, which has that size too. Maps that are larger than one before them are left out.

    Args:
        whose: the model's role, or a key, for the message.

    Raises:
        ConfigError: it has no feature maps, or goes on with tokens (N, L, D) after them, as vision transformers do.
    """
    maps = dict[str, Shape]()  # (H, W)
    size: Shape = ()
    for path, shape in shapes.items():
        if len(shape) == 4 and max(shape[2:]) > 1 and all(map(operator.le, shape[2:], size or shape[2:])):
            maps[path] = size = shape[2:]
    paths = list(shapes)
    past = paths[paths.index(list(maps)[-1]) :] if maps else paths
    tokens = next((path for path in past if len(shapes[path]) == 3), None)
    if tokens or not maps:
        what = f"{tokens} gives {shapes[tokens]}" if tokens else "no module gives one of more than one pixel"
        raise ConfigError(
            f"{whose}: there is no feature map (N, C, H, W) to take: {what}",
            "name a module, or choose an objective that takes any features (similarity, rkd or crd), or layers of a transformer "
            "(hidden or relation)",
        )
    inside = {path.rpartition(".")[0] for path in paths}
    whole = sorted(maps, key=lambda path: (path in inside, -path.count(".")))  # stable: the last of equals wins
    return sorted({maps[path]: path for path in whole}.values(), key=paths.index)


def deepest_map(shapes: Shapes, key: str, near: Shape | None = None) -> str:
    """Path of the last stage's end, or of the one whose size is closest to `near`, (H, W); raises as `stages`."""
    ends = stages(shapes, key)
    return ends[-1] if near is None else min(reversed(ends), key=lambda path: _apart(shapes[path][2:], near))


def pairs(student_shapes: Shapes, teacher_shapes: Shapes) -> list[tuple[str, str]]:
    """Which of the student's stages to compare with which of the teacher's, the deepest last: those nearest in size.

    Where several of the student's stages are nearest to one of the teacher's, the closest, or deepest, has it. It raises
    as `stages`.
    """
    stages(teacher_shapes, "teacher")
    taken = dict[str, tuple[int, str]]()  # by the teacher's stage: how far in size, and the student's
    ours = stages(student_shapes, "student")
    for path in reversed(ours):
        size = student_shapes[path][2:]
        other = deepest_map(teacher_shapes, "teacher", size)
        apart = _apart(size, teacher_shapes[other][2:])
        if other not in taken or apart < taken[other][0]:
            taken[other] = apart, path
    return sorted(((path, other) for other, (_, path) in taken.items()), key=lambda pair: ours.index(pair[0]))


def penultimate(model: Classifier, shapes: Shapes, key: str) -> str:
    """Path of what the classifier is given: the last output before the last linear layer, dropout aside; where there is no
    linear layer, the deepest feature map.

    Raises:
        ConfigError: nothing comes before it.
    """
    modules = dict(model.net.named_modules())
    linear = [number for number, path in enumerate(shapes) if isinstance(modules[path], nn.Linear)]
    if not linear:
        return deepest_map(shapes, key)
    before = [path for path in list(shapes)[: linear[-1]] if not isinstance(modules[path], nn.Dropout)]
    if not before:
        raise ConfigError(f"{key}: nothing comes before the network's only layer", "choose an objective on logits")
    return before[-1]


def _apart(one: Shape, other: Shape) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
