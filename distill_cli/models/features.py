"""Features by forward hook and module path; models are never edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.data import Spec
from distill_cli.data.inputs import Inputs
from distill_cli.models import Classifier, evaluating


@dataclass(frozen=True)
class Output:
    """A model's answer: logits (N, K), and the features asked for, by module path."""

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)


Shapes = dict[str, tuple[int, ...]]  # of every module's output for one sample, (1, ...), by path


class Tap:
    """Calls a model and keeps what the modules at `paths` gave during that call; as a context it lets go of them after."""

    def __init__(self, net: nn.Module, paths: Sequence[str]) -> None:
        self._caught: dict[str, Tensor] = {}
        self._handles = [net.get_submodule(path).register_forward_hook(self._catcher(path)) for path in paths]

    def _catcher(self, path: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._caught[path] = output

        return hook

    def __call__(self, model: Callable[[Inputs], Tensor], inputs: Inputs) -> Output:
        logits = model(inputs)
        caught, self._caught = self._caught, {}
        return Output(logits, caught)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the hooks and of what they have caught."""
        for handle in self._handles:
            handle.remove()
        self._caught = {}


def shapes(model: Classifier, spec: Spec) -> Shapes:
    """Shape of every module's output for one sample, by path in its net, in the order of the forward pass.

    A module comes after those inside it, and one that is called more than once where it was called last: that is what a
    Tap catches.
    """
    found: Shapes = {}
    handles = []
    for path, module in model.net.named_modules():

        def hook(_module: nn.Module, _inputs: object, output: object, path: str = path) -> None:
            if path and isinstance(output, Tensor):
                found.pop(path, None)
                found[path] = tuple(output.shape)

        handles.append(module.register_forward_hook(hook))
    with evaluating(model), torch.no_grad():
        device = next(model.parameters()).device
        model(spec.blank(1, device))
    for handle in handles:
        handle.remove()
    return found


def shape_of(shapes: Shapes, path: str, key: str) -> tuple[int, ...]:
    """Shape (1, ...) of the module at `path`.

    Raises:
        ConfigError: there is no such module.
    """
    if path not in shapes:
        guess = did_you_mean(path, shapes)
        top = ", ".join(p for p in shapes if "." not in p)
        raise ConfigError(f"{key}: there is no module {path!r}\n{guess}top-level modules: {top}")
    return shapes[path]


def feature_map(shapes: Shapes, path: str, key: str) -> tuple[int, ...]:
    """Shape (1, C, H, W) of the module at `path`.

    Raises:
        ConfigError: there is no such module, or it gives no feature map.
    """
    shape = shape_of(shapes, path, key)
    if len(shape) != 4:
        raise ConfigError(f"{key}: {path} gives {shape}, not a feature map (N, C, H, W)")
    return shape


def stages(shapes: Shapes, whose: str) -> list[str]:
    """Where a network's stages end: for each size above one pixel one feature map of it, the deepest at the end.

    That is a module with others inside rather than one layer, and an outer one rather than an inner: `layer1` and not the
    first layer of the next stage, which has that size too. Maps that are larger than one before them are left out.

    Args:
        whose: the model's role, or a key, for the message.

    Raises:
        ConfigError: it has no feature maps, or goes on with tokens (N, L, D) after them, as vision transformers do.
    """
    paths = list(shapes)
    inside = {path.rpartition(".")[0] for path in paths}
    sizes = _shrinking(shapes)
    past = paths[paths.index(list(sizes)[-1]) :] if sizes else paths
    tokens = next((path for path in past if len(shapes[path]) == 3), None)
    if tokens or not sizes:
        what = f"{tokens} gives {shapes[tokens]}" if tokens else "no module gives one of more than one pixel"
        raise ConfigError(
            f"{whose}: there is no feature map (N, C, H, W) to take: {what}",
            "name a module, or choose an objective that takes any features: similarity, rkd or crd",
        )
    whole = sorted(sizes, key=lambda path: (path in inside, -path.count(".")))  # stable: the last of equals wins
    return sorted({sizes[path]: path for path in whole}.values(), key=paths.index)


def _shrinking(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """(H, W) by path of the feature maps that have more than one pixel and are not larger than a map before them."""
    found: dict[str, tuple[int, ...]] = {}
    least: tuple[int, ...] = ()
    for path, shape in shapes.items():
        size = shape[2:]
        if len(shape) == 4 and max(size) > 1 and all(a <= b for a, b in zip(size, least or size, strict=True)):
            found[path] = least = size
    return found


def deepest_map(shapes: Shapes, key: str, near: tuple[int, ...] | None = None) -> str:
    """Path of the last feature map of more than one pixel; with `near`, of the size closest to that (H, W).

    Raises:
        ConfigError: as `stages`.
    """
    ends = stages(shapes, key)
    return ends[-1] if near is None else min(reversed(ends), key=lambda path: _apart(shapes[path][2:], near))


def pairs(student_shapes: Shapes, teacher_shapes: Shapes) -> list[tuple[str, str]]:
    """Which of the student's stages to compare with which of the teacher's, the deepest last: those nearest in size.

    Where several of the student's stages are nearest to one of the teacher's, the closest, or deepest, has it.

    Raises:
        ConfigError: as `stages`.
    """
    taken: dict[str, str] = {}
    stages(teacher_shapes, "teacher")
    for path in reversed(stages(student_shapes, "student")):
        size = student_shapes[path][2:]
        other = deepest_map(teacher_shapes, "teacher", near=size)
        rival = student_shapes[taken[other]][2:] if other in taken else None
        if rival is None or _apart(size, teacher_shapes[other][2:]) < _apart(rival, teacher_shapes[other][2:]):
            taken[other] = path
    order = list(student_shapes)
    return sorted(((ours, theirs) for theirs, ours in taken.items()), key=lambda pair: order.index(pair[0]))


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


def sized(shapes: Shapes, path: str) -> str:
    """A path with its output's shape, as in `layer2 32x14x14`."""
    return f"{path} {'x'.join(map(str, shapes[path][1:]))}"


def _apart(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
