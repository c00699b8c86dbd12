"""Classifiers of torchvision and timm by name, with the head and the stem the data ask for."""

from __future__ import annotations

from typing import Any, Literal
from urllib.error import URLError

from torch import nn
from torchvision import models

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError, ConfigError, did_you_mean
from distill_cli.models import REBUILD

AUXILIARY = ("googlenet", "inception_v3")  # in training these would answer with several logits
SMALL_FROM, SMALL_BELOW = 32, 64  # pixels between which stem=auto takes the small stem
# The first convolution of the architectures whose stem can be made small.
STEMS = {models.ResNet: "conv1", models.MobileNetV3: "features.0.0", models.EfficientNet: "features.0.0"}
HEAD = "{}: its head for {:,} classes is made anew for {:,}"
HEADS = ("fc", "classifier", "head", "heads", "linear")


def torchvision(
    name: str,
    num_classes: int,
    input_size: tuple[int, int],
    weights: str | None = None,
    stem: Literal["imagenet", "small", "auto"] = "imagenet",
) -> nn.Module:
    """A classifier of torchvision for (N, 3, H, W).

    Args:
        weights: a name in torchvision's weights enumeration, e.g. IMAGENET1K_V1; downloaded at first use.
        stem: "small" puts a 3x3 convolution with stride 1 and no pooling in place of the first layers, the usual choice
            at 32 pixels; "auto" does so from 32 to below 64 pixels for models that have such a stem and no weights.

    Raises:
        ConfigError: no such model, weights or stem. CheckpointError: the weights cannot be fetched.
    """
    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"torchvision has no classifier called {name!r}; {did_you_mean(name, known)}".rstrip("; "))
    if weights is None:
        auxiliary: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
        model = models.get_model(name, weights=None, num_classes=num_classes, **auxiliary)
    else:
        model = _pretrained(name, weights)
        replace_head(model, num_classes)
    small = stem == "small"
    if stem == "auto":
        small = SMALL_FROM <= min(input_size) < SMALL_BELOW and weights is None and isinstance(model, tuple(STEMS))
    elif small and weights is not None:
        raise ConfigError(
            f"stem=small: {weights} was trained with the other stem", "use stem=imagenet, or weights=null"
        )
    if small:
        _make_small(model, name)
    model.__dict__[REBUILD] = {"weights": None, "stem": "small" if small else "imagenet"}
    return model


def timm(name: str, num_classes: int, in_channels: int, weights: str | bool | None = None) -> nn.Module:
    """A classifier of timm; `weights` is a pretrained tag, or true for timm's default.

    Raises:
        ConfigError: timm is not installed, or has no such model. CheckpointError: the weights cannot be fetched.
    """
    try:
        import timm as library
    except ModuleNotFoundError as error:
        raise ConfigError("timm is not installed", 'pip install "distill-cli[timm]"') from error
    base, _, tag = name.partition(".")
    if tag:
        raise ConfigError(f"name={name}: this names weights too", f"write name={base} weights={tag}")
    full = f"{name}.{weights}" if isinstance(weights, str) else name
    if isinstance(weights, str) and not library.is_model_pretrained(full):
        tags = [known.partition(".")[2] for known in library.list_pretrained(f"{name}.*")]
        raise ConfigError(f"weights={weights}: timm's {name} has no such weights\nchoices: {', '.join(tags) or 'none'}")
    if not library.is_model(name):
        guess = did_you_mean(name, library.list_models())
        raise ConfigError(f"timm has no model called {name!r}; {guess}".rstrip("; "))
    try:
        model: nn.Module = library.create_model(
            full, pretrained=bool(weights), num_classes=num_classes, in_chans=in_channels
        )
    except (RuntimeError, OSError) as error:
        if not weights:
            raise
        raise _not_fetched(full, error) from error
    if weights and (theirs := model.__dict__.get("pretrained_cfg", {}).get("num_classes", num_classes)) != num_classes:
        ui.say(HEAD.format(name, theirs, num_classes))
    model.__dict__[REBUILD] = {"weights": None}
    return model


def replace_head(model: nn.Module, num_classes: int) -> None:
    """Give the model a fresh last linear layer when its own has another number of classes."""
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, nn.Linear) and name.split(".")[0] in HEADS:
            if module.out_features != num_classes:
                ui.say(HEAD.format(type(model).__name__, module.out_features, num_classes))
                model.set_submodule(name, nn.Linear(module.in_features, num_classes, module.bias is not None))
            return
    raise ConfigError(
        f"cannot tell which layer of {type(model).__name__} is its head", "bring the model as a class of your own"
    )


def _pretrained(name: str, weights: str) -> nn.Module:
    choices = [w.name for w in models.get_model_weights(name)]
    if weights not in [*choices, "DEFAULT"]:
        raise ConfigError(f"weights={weights}: {name} has no such weights\nchoices: {', '.join(choices)}")
    try:
        return models.get_model(name, weights=weights)
    except (URLError, ConnectionError, TimeoutError, RuntimeError) as error:
        raise _not_fetched(f"{name} {weights}", error) from error


def _not_fetched(what: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the weights {what} are not on this machine and could not be downloaded: {error}",
        "fetch them where there is a network, or give a file: teacher.checkpoint=PATH",
    )


def _make_small(model: nn.Module, name: str) -> None:
    path = next((path for kind, path in STEMS.items() if isinstance(model, kind)), None)
    if path is None:
        raise ConfigError(f"stem=small: {name} has no such stem", "it exists for ResNets, MobileNetV3 and EfficientNet")
    old: Any = model.get_submodule(path)
    fresh = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=old.bias is not None)
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    model.set_submodule(path, fresh)
    if isinstance(model, models.ResNet):
        model.maxpool = nn.Identity()
