"""A finished student that answers: raw samples -> probabilities at T = 1. All that uses one goes through here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_cli.base import runtime
from distill_cli.data import Batch, Split
from distill_cli.data.inputs import Inputs
from distill_cli.models import evaluating, inference
from distill_cli.models.deployable import Deployable


def probabilities(logits: Tensor) -> Tensor:
    """Logits (N, C) -> probabilities (N, C) at T = 1, in double precision on the CPU."""
    return torch.softmax(logits.cpu().double(), dim=-1)


@dataclass(frozen=True)
class Predictor(Deployable):
    """A student that is asked; where its network runs is its own affair."""

    def __call__(self, raw: Inputs) -> Tensor:
        """Raw samples, as a source stores them -> probabilities (N, C)."""
        with evaluating(self.network), torch.inference_mode(), runtime.exact():
            return probabilities(self.network(self.spec.inputs(raw)))

    def answers(self, split: Split, batch_size: int | None = None) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch of a split with its probabilities (n, C); see `inference.outputs`, which evaluation goes through too."""
        for batch, output in inference.outputs(self.network, split, batch_size):
            yield batch, probabilities(output.logits)
