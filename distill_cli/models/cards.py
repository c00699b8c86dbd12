"""A model again from its card, the model.json that tells how to build it, and its weights; the card is not believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distill_cli import models
from distill_cli.data import InputSpec
from distill_cli.errors import CheckpointError, ConfigError
from distill_cli.models import Classifier, weights


def rebuild(
    card: Mapping[str, Any], role: str, spec: InputSpec, state: Mapping[str, Tensor], source: str, trust: Sequence[str]
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
    except (NotImplementedError, RuntimeError):
        pass  # a network that cannot be built without numbers
    except ConfigError as error:
        raise CheckpointError(
            f"{source}: what its card describes cannot be built: {error.message}", error.hint
        ) from error
    model = models.build(*described)
    weights.load_into(model.net, state, source)
    return model
