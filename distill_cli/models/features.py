"""Features by forward hook and module path; models are never edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distill_cli.data import InputSpec
from distill_cli.errors import ConfigError, did_you_mean
from distill_cli.models import Classifier, evaluating


@dataclass(frozen=True)
class Output:
    """A model's answer: logits (N, K), and the features asked for, by module path."""

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)


class Tap:
    """Calls a model and keeps what the modules at `paths` gave during that call; as a context it lets go of them after."""

    def __init__(self, net: nn.Module, paths: Sequence[str]) -> None:
        self._caught: dict[str, Tensor] = {}
        self._handles = [net.get_submodule(path).register_forward_hook(self._catcher(path)) for path in paths]

    def _catcher(self, path: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._caught[path] = output

        return hook

    def __call__(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Output:
        logits = model(inputs)
        caught, self._caught = self._caught, {}
        return Output(logits, caught)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()


def shapes(model: Classifier, spec: InputSpec) -> dict[str, tuple[int, ...]]:
    """Shape of every module's output for one picture, by path in its net, in the order of the forward pass."""
    found: dict[str, tuple[int, ...]] = {}
    handles = []
    for path, module in model.net.named_modules():

        def hook(_module: nn.Module, _inputs: object, output: object, path: str = path) -> None:
            if path and isinstance(output, Tensor):
                found[path] = tuple(output.shape)

        handles.append(module.register_forward_hook(hook))
    with evaluating(model), torch.no_grad():
        device = next(model.parameters()).device
        model(torch.zeros(1, spec.channels, *spec.size, device=device))
    for handle in handles:
        handle.remove()
    return found


def feature_map(shapes: dict[str, tuple[int, ...]], path: str, key: str) -> tuple[int, ...]:
    """Shape (1, C, H, W) of the module at `path`.

    Raises:
        ConfigError: there is no such module, or it gives no feature map.
    """
    if path not in shapes:
        guess = did_you_mean(path, shapes)
        top = ", ".join(p for p in shapes if "." not in p)
        raise ConfigError(f"{key}: there is no module {path!r}\n{guess}top-level modules: {top}")
    if len(shapes[path]) != 4:
        raise ConfigError(f"{key}: {path} gives {shapes[path]}, not a feature map (N, C, H, W)")
    return shapes[path]


def deepest_map(shapes: dict[str, tuple[int, ...]], near: int | None = None) -> str:
    """Path of the last feature map with more than one pixel; with `near`, of the side closest to that many pixels.

    Raises:
        ConfigError: the model has no feature maps.
    """
    maps = {path: shape for path, shape in shapes.items() if len(shape) == 4 and shape[2] > 1}
    if not maps:
        raise ConfigError("no feature map to take a hint from", "name the layers: objective.hint.student_layer=PATH")
    if near is None:
        return list(maps)[-1]
    distance = {path: abs(shape[2] - near) for path, shape in maps.items()}
    return [path for path in maps if distance[path] == min(distance.values())][-1]
