"""Adapters of low rank beside a network's layers, which learn in its place: put in by peft, merged into its weights after.

Hu et al., 2022, arXiv 2106.09685. Outside of training a network has none: what is judged and written is merged.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError
from distill_cli.config.schema import Lora
from distill_cli.models import BROUGHT, OF_TEACHER, Classifier, num_parameters
from distill_cli.models.wrapped import HuggingFace

INSTALL = 'pip install "distill-cli[lora]"'
NAME = "default"  # of an adapter, as peft has it
NOTED = "peft_config"  # what it writes on a model that it has put adapters into
TURNED = "Conv1D"  # the class of GPT-2's linear layers, whose weights lie the other way round


def put_in(model: Classifier, how: Lora, seed: int, key: str) -> None:
    """Put adapters beside a model's layers, in place of any that it has, so that they alone learn, and a head that was made anew.

    Until they have learnt something, the model answers as before.

    Args:
        seed: of their start. key: what asks for them, for messages.

    Raises:
        ConfigError: peft is missing, the model is none of transformers, or has no such layers.
    """
    net = model.net
    if not isinstance(net, HuggingFace):
        raise ConfigError(f"{key}: adapters go into models of transformers, and this is a {type(net).__name__}")
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError as error:
        raise ConfigError(f"{key} needs the package peft", INSTALL) from error
    take_out(net, merge=False)
    learns = {name for name, parameter in net.named_parameters() if parameter.requires_grad}  # others are frozen
    net.requires_grad_(False)
    root: Any = net.model.base_model
    alpha = 2 * how.rank if how.alpha is None else how.alpha  # type: ignore[operator]
    turned = any(type(part).__name__ == TURNED for part in root.modules())
    config = peft.LoraConfig(
        r=how.rank, lora_alpha=alpha, lora_dropout=how.dropout, target_modules=how.targets or None, fan_in_fan_out=turned
    )  # fmt: skip
    try:
        with runtime.seeded("adapters", seed):
            peft.inject_adapter_in_model(config, root, NAME)
    except ValueError as error:
        take_out(net, merge=False)
        linear = dict.fromkeys(path.rpartition(".")[2] for path, part in root.named_modules() if _fits(part))
        told = str(error).split(". ")[0]
        raise ConfigError(f"{key}.targets: {told}", f"{key}.targets=[{','.join(linear)}], or some of them") from error
    if odd := [path for path, layer in _layers(net).items() if not _fits(layer.get_base_layer())]:
        take_out(net, merge=False)
        raise ConfigError(f"{key}.targets: adapters stand beside linear layers, and {odd[0]} is none")
    if net.head_is_new:
        inside = {id(parameter) for parameter in root.parameters()}
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(parameter.requires_grad or (id(parameter) not in inside and name in learns))
    model.train(model.training)  # the adapters too


def words(model: Classifier, how: Lora, key: str, started: bool) -> str:
    """How a model would learn by adapters, for people; it stays as it is, and raises as `put_in`.

    Args:
        started: whether it starts from weights that a file or its teacher gives it.
    """
    before = {name: parameter.requires_grad for name, parameter in model.net.named_parameters()}
    put_in(model, how, 0, key)
    learn = sum(one.numel() for one in model.net.parameters() if one.requires_grad)
    beside = dict.fromkeys(path.rpartition(".")[2] for path in _layers(model.net))
    every = num_parameters(model)
    take_out(model.net, merge=False)
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(before[name])
    brought = started or any(hasattr(model.net, mark) for mark in (BROUGHT, OF_TEACHER))
    new = "" if brought else "; its own weights are new, and stay so"
    return f"rank {how.rank} beside {', '.join(beside)}: {learn:,} of {every:,} parameters learn ({learn / every:.2%}){new}"


def learnt(net: nn.Module) -> dict[str, Tensor]:
    """All that learns where adapters do; empty: there are none."""
    return {name: p.detach() for name, p in net.named_parameters() if p.requires_grad} if _layers(net) else {}


@torch.no_grad()
def merged(net: nn.Module) -> dict[str, Tensor]:
    """The state dict of a network without its adapters, which answers as the network does with them."""
    layers, state = _layers(net), net.state_dict()
    if layers:
        state = {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}
    for path, layer in layers.items():
        state[f"{path}.weight"] = layer.get_base_layer().weight + layer.get_delta_weight(NAME)
    return state


def take_out(net: nn.Module, merge: bool = True) -> None:
    """Take the adapters out of a network, in place; with `merge` it answers as it did with them."""
    state, layers = merged(net) if merge else {}, _layers(net)
    for path, layer in layers.items():
        net.set_submodule(path, layer.get_base_layer())
    for part in net.modules():
        part.__dict__.pop(NOTED, None)
    if layers and merge:
        net.load_state_dict(state)


def _layers(net: nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by path."""
    return {path: part for path, part in net.named_modules() if hasattr(part, "lora_A")}


def _fits(layer: nn.Module) -> bool:
    """Whether a layer is a linear one."""
    return isinstance(layer, nn.Linear) or type(layer).__name__ == TURNED
