"""Where a transformer's layers, its queries, keys and values, and its embeddings are among its modules, and some of its layers."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from distill_cli.base.errors import ConfigError
from distill_cli.models import Classifier
from distill_cli.models.features import Shapes

# The linear layers of queries, keys and values, as libraries call them; one layer may give all three in that order.
APART = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q_proj", "k_proj", "v_proj"))
TOGETHER = ("c_attn", "qkv")
HEADS = ("num_attention_heads", "n_heads", "num_heads")


class Attention(NamedTuple):
    """One layer's attention.

    Attributes:
        paths: of the modules that give queries, keys and values: three, or one three times, each of whose thirds is one.
        heads: in how many parts they are cut. causal: whether a position sees none after it. turned: whether queries and keys
            are turned by their positions before they meet.
    """

    paths: tuple[str, str, str]
    heads: int
    causal: bool
    turned: bool

    @property
    def together(self) -> bool:
        """Whether one module gives all three."""
        return self.paths[0] == self.paths[1]


def evenly(number: int, there: int) -> list[int]:
    """The numbers of so many of `there` layers, evenly spaced with the last among them."""
    return [round((place + 1) * there / number) - 1 for place in range(number)]


def numbers_of(layers: int | list[int], there: int) -> list[int]:
    """The numbers of the layers that are kept of `there`: so many, evenly spaced with the last among them, or as listed.

    Raises:
        ConfigError: there are not so many, or not these.
    """
    if isinstance(layers, int):
        if not 1 <= layers <= there:
            raise ConfigError(f"layers={layers}: the model has {there}")
        return evenly(layers, there)
    odd = [number for number in layers if not 0 <= number < there]
    if odd or not layers or len(set(layers)) < len(layers):
        raise ConfigError(f"layers={layers}: the model has layers 0 to {there - 1}, each once")
    return layers


def narrow(config: Any, numbers: list[int]) -> None:
    """Leave only some layers in a configuration of transformers, and in what it lists by layer."""
    there = config.num_hidden_layers
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == there:
            setattr(config, key, [value[number] for number in numbers])
    config.num_hidden_layers = len(numbers)


def keep_layers(model: nn.Module, numbers: list[int]) -> None:
    """Leave only some of the layers of a model of transformers."""
    config: Any = model.config
    path, stack = next(
        (path, part)
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == config.num_hidden_layers
    )
    parent, _, name = path.rpartition(".")
    kept = [stack[number] for number in numbers]
    setattr(model.get_submodule(parent), name, nn.ModuleList(kept))
    for place, layer in enumerate(kept):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.__dict__["layer_idx"] = place  # in the cache of a model that generates
    narrow(config, numbers)


def layers_of(model: Classifier, shapes: Shapes, whose: str) -> list[str]:
    """Paths of a transformer's layers: the longest list of modules of one class that all give (N, L, D).

    Args:
        whose: the model's role, for the message.

    Raises:
        ConfigError: there is no such list.
    """
    longest: list[str] = []
    for path, part in model.net.named_modules():
        inside = [f"{path}.{name}" for name, _ in part.named_children()]
        sizes = {shapes.get(each, ()) for each in inside}
        alike = len(sizes) == 1 and len({type(child) for child in part.children()}) == 1
        if isinstance(part, nn.ModuleList | nn.Sequential) and alike and len(sizes.pop()) == 3:
            longest = max(longest, inside, key=len)
    if not longest:
        raise ConfigError(
            f"{whose}: is no transformer: no list of its modules gives positions (N, L, D)",
            "choose an objective on logits, on feature maps (hint, attention) or on any features (similarity, rkd, crd)",
        )
    return longest


def embedded_by(shapes: Shapes, layer: str, whose: str) -> str:
    """Path of the module that gives the first layer, at `layer`, its input, which has the layer's own shape.

    Raises:
        ConfigError: no module does.
    """
    paths = list(shapes)
    first = next(number for number, path in enumerate(paths) if f"{path}.".startswith(f"{layer}."))
    before = [path for path in paths[:first] if shapes[path] == shapes[layer]]
    if not before:
        raise ConfigError(f"{whose}: no module gives {layer} its input", "leave the objective embedding out")
    return before[-1]


def attention_of(model: Classifier, shapes: Shapes, layer: str, whose: str) -> Attention:
    """The attention of the layer at a path.

    Raises:
        ConfigError: its queries, keys and values are called by no name that is known.
    """
    named = {path.rpartition(".")[2]: path for path in reversed(shapes) if path.startswith(f"{layer}.")}
    known = [names for names in (*APART, *((name,) * 3 for name in TOGETHER)) if set(names) <= set(named)]
    if not known:
        names = ", ".join(names[0] for names in APART)
        raise ConfigError(f"{whose}: {layer} has no queries, keys and values that are called {names} or c_attn")
    query, key, value = (named[name] for name in known[0])
    around = model.net.get_submodule(query.rpartition(".")[0])
    places = (around, getattr(around, "config", None))
    heads = next((getattr(place, name) for place in places for name in HEADS if hasattr(place, name)), 1)
    turned = any("rotary" in path.lower() for path, _ in model.net.named_modules())
    return Attention((query, key, value), heads, bool(getattr(around, "is_causal", False)), turned)
