"""Rebuilds a model from its card, model.json, and its weights; the card is checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distill_cli import models
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.data import Spec
from distill_cli.models import Classifier, weights

LARGEST = 2**16  # no channels, layers or other counts of a network are beyond it


def rebuild(
    card: Mapping[str, Any], role: str, spec: Spec, state: Mapping[str, Tensor], source: str, trust: Sequence[str]
) -> Classifier:
    """The model that a card from a file describes, with the weights `state`.

    Raises:
        CheckpointError: it names code that is not trusted, or describes another network than the weights are of; that is
            found out before memory is taken for it.
    """
    described = card["model"], role, spec, len(card["classes"]), trust
    try:
        with torch.device("meta"):
            outline = models.network(*described)
        weights.load_into(outline, {name: tensor.to("meta") for name, tensor in state.items()}, source)
    except RuntimeError as error:  # a network that cannot be built without numbers, or of a size that has none
        if _largest(card["model"]) > LARGEST:
            raise CheckpointError(f"{source}: what its card describes cannot be built: {error}") from error
    except ConfigError as error:
        raise CheckpointError(
            f"{source}: what its card describes cannot be built: {error.message}", error.hint
        ) from error
    model = models.build(*described)
    weights.load_into(model.net, state, source)
    return model


def _largest(value: Any) -> int:
    """The largest whole number anywhere in a node."""
    if isinstance(value, Mapping | list):
        return max((_largest(inner) for inner in (value.values() if isinstance(value, Mapping) else value)), default=0)
    return value if isinstance(value, int) else 0
