"""What several teachers say together, by their weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_cli.config import arrangement, schema


def mixture(logits: Sequence[Tensor], weights: Tensor, T: float = 1.0) -> Tensor:
    """What teachers say together: logits z, (M, C), with softmax(z / T) = sum_m w_m softmax(z_m / T); one's are its own.

    Args:
        logits: of each teacher, (M, C). weights: one for each teacher; they are normalised.
    """
    if len(logits) == 1:
        return logits[0]
    log_p = torch.stack([F.log_softmax(z.float() / T, dim=-1) for z in logits])
    shares = (weights / weights.sum(0)).to(log_p.device, non_blocking=True).view(len(logits), -1, 1)
    return T * torch.logsumexp(log_p + shares.log(), dim=0)


def weights_of(settings: schema.Train) -> Tensor:
    """The weight of each teacher among several."""
    return torch.tensor([teacher.weight for teacher in arrangement.teachers(settings).values()])
