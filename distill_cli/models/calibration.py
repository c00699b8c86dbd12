"""What to fold and which ranges to round to, found by watching a network at work; how it then computes: quantized.py."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError
from distill_cli.data import Split
from distill_cli.models import Classifier, edits, evaluating, inference, num_parameters
from distill_cli.models.quantized import INPUTS, LARGEST, LAYERS, NORMS, Quantized

SAMPLES = 256  # of train, that show which ranges inputs of layers have
SAME = 1e-3  # of the largest logit: so far answers may move where batch norm is folded

Edit = dict[str, Any]


def quantize(model: Classifier, train: Split) -> str:
    """Make a model's network compute as in 8 bits from now on, with ranges of samples of train; returns what was done, in words.

    Raises:
        ConfigError: it has no layer that could.
    """
    pairs = foldable(model)
    edits.apply(model.net, [{"kind": "fold", "pairs": pairs}] if pairs else [])
    rows = runtime.sample_order(len(train), 0, 0)[:SAMPLES]
    found = ranges(model, train.take(rows))
    if not found:
        raise ConfigError("quantize: the student has no convolution and no linear layer", "choose another student")
    edits.apply(model.net, [{"kind": "quantize", "ranges": found, "largest": LARGEST}])
    return told(model, len(pairs), len(rows))


def told(model: Classifier, folded: int, samples: int) -> str:
    """What of a network computes in 8 bits, and what does not."""
    modules = dict(model.net.named_modules())
    inside = [module for module in modules.values() if isinstance(module, Quantized)]
    norms = [path for path, module in modules.items() if "BatchNorm" in type(module).__name__]
    share = sum(map(num_parameters, inside)) / max(1, num_parameters(model))
    text = f"{len(inside)} layers with {share:.1%} of the parameters, ranges of {samples} samples of train"
    text += f"; {folded} batch norms folded" if folded else ""
    text += f"; not folded, so in fp32: {', '.join(norms[:3])}{' and more' * (len(norms) > 3)}" if norms else ""
    left = [path for path, module in modules.items() if isinstance(module, LAYERS) and module not in inside]
    return text + (f"; called otherwise, so in fp32: {', '.join(left[:3])}" if left else "")


def foldable(model: Classifier) -> list[list[str]]:
    """Paths of layers, each with that of the batch norm that takes its output and is alone in doing so, in forward order.

    Modules alone are watched: so the pairs are folded in a copy, and there are none where its answers are others.
    """
    seen: list[tuple[str, nn.Module, Tensor, Any]] = []
    with watching(model.net, lambda path, module, inputs, output: seen.append((path, module, inputs, output))):
        before = answer(model)
    users = Counter(id(inputs) for _, _, inputs, _ in seen)  # they are all kept, so no two have one id
    calls = Counter(path for path, *_ in seen)
    makers = {id(output): path for path, module, _, output in seen if isinstance(module, LAYERS)}
    found = [
        [makers[id(inputs)], path]
        for path, module, inputs, _ in seen
        if type(module) in NORMS and module.track_running_stats and id(inputs) in makers and users[id(inputs)] == 1
    ]
    found = [pair for pair in found if calls[pair[0]] == calls[pair[1]] == 1]
    trial = copy.deepcopy(model)
    edits.apply(trial.net, [{"kind": "fold", "pairs": found}])
    apart = (answer(trial) - before).abs().max()
    return found if apart <= SAME * before.abs().max() else []


def ranges(model: Classifier, split: Split) -> dict[str, list[float]]:
    """By path of a layer, the (scale, zero point) under which all that it is given on a split fits 0 .. 255; 0 is kept exactly."""
    lows, highs = dict[str, float](), dict[str, float]()

    def widen(path: str, module: nn.Module, inputs: Tensor, output: Any) -> None:
        if type(module) in LAYERS and path:
            low, high = (float(value) for value in inputs.detach().aminmax())
            lows[path], highs[path] = min(low, lows.get(path, 0.0)), max(high, highs.get(path, 0.0))

    with watching(model.net, widen):
        for _ in inference.outputs(model, split):
            pass
    found = {}
    for path, low in lows.items():
        scale = (highs[path] - low) / INPUTS or 1.0
        found[path] = [scale, round(-low / scale)]
    return found


@contextmanager
def watching(net: nn.Module, watch: Callable[[str, nn.Module, Tensor, Any], None]) -> Iterator[None]:
    """Inside, `watch(path, module, first input, output)` is called after each module."""

    def hook(path: str) -> Any:
        def called(module: nn.Module, inputs: Any, output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                watch(path, module, inputs[0], output)

        return called

    handles = [module.register_forward_hook(hook(path)) for path, module in net.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def answer(model: Classifier) -> Tensor:
    """What a model says of two samples, always the same ones."""
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad(), runtime.seeded("answers"):
        return model(model.spec.example(2, device))
