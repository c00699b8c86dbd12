"""Labels that are missing and classes that are rare: what an epoch shows then, and what a row counts in the label term."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError

UNKNOWN = -1  # the target of a row that has no label
IGNORED = -100  # where a sample with several targets has none: that position is no row
PART = 2**14  # samples whose targets are looked at together: those of a language model may be more than memory holds


def balanced_order(targets: Tensor, seed: int, epoch: int) -> Tensor:
    """The samples (N,) that an epoch shows where each class is to be shown equally often; it depends on (seed, epoch) alone.

    Of a class with more samples than its share some are left out, others in other epochs; of one with fewer, each is shown
    as often as any other of it, or once more. Samples without a label are shown once.

    Args:
        targets: (N,) int64.
    """
    draw = torch.Generator().manual_seed(runtime.seed_of("balanced order", seed, epoch))
    targets = targets.cpu()
    classes = targets[targets != UNKNOWN].unique()
    labelled = int((targets != UNKNOWN).sum())
    share = torch.full((len(classes),), labelled // max(1, len(classes)))
    share[torch.randperm(len(classes), generator=draw)[: labelled - int(share.sum())]] += 1
    shown = [(targets == UNKNOWN).nonzero()[:, 0]]
    for label, number in zip(classes, share.tolist(), strict=True):
        samples = (targets == label).nonzero()[:, 0]
        rounds = -(-number // len(samples))
        shown.append(torch.cat([samples[torch.randperm(len(samples), generator=draw)] for _ in range(rounds)])[:number])
    together = torch.cat(shown)
    return together[torch.randperm(len(together), generator=draw)]


def row_weights(
    targets: Tensor, classes: Sequence[str], weights: str | Sequence[float] | None, balanced: bool
) -> Tensor | None:
    """What a row counts in the label term by its class, (C,) fp32, so that an epoch's mean over all rows, those without a
    label being 0, is the mean over those with one; None: each row has a label and counts 1.

    Args:
        targets: of the training samples. balanced: whether each class is shown equally often.
        weights: of the classes against each other, one each; "balanced": in inverse proportion to how often they are shown;
            None: equal. They are scaled so that their mean over the rows is 1, and alpha keeps its meaning.

    Raises:
        ConfigError: there are no labels, another number of weights than classes, or a class without samples.
    """
    unknown = sum(int((part == UNKNOWN).sum()) for part in targets.split(PART))
    if weights is None and not balanced and not unknown:
        return None
    shown = torch.bincount(targets[targets >= 0], minlength=len(classes)).double()
    asked = [f"dataset.{key}={value}" for key, value in (("class_weights", weights), ("sampler", balanced)) if value]
    key = ", ".join(asked).replace("sampler=True", "sampler=balanced")
    if not shown.sum():
        if asked:
            raise ConfigError(f"{key}: train has no labels", f"leave {key.split('=')[0]} out")
        return None
    if balanced or weights == "balanced":
        if targets.dim() > 1 and balanced:
            raise ConfigError("dataset.sampler=balanced: a sample of these data has several targets, not one class")
        if len(empty := (shown == 0).nonzero()):
            raise ConfigError(
                f"{key}: class {classes[int(empty[0])]!r} has no training samples",
                f"add some, or leave {key.split('=')[0]} out",
            )
    if weights is None and not unknown:
        return None
    rows = shown.sum() + unknown
    if balanced:
        shown = torch.full_like(shown, 1 / len(classes)) * shown.sum()
    relative = torch.ones_like(shown)
    if weights == "balanced":
        relative = 1 / shown
    elif weights is not None:
        if len(weights) != len(classes):
            raise ConfigError(
                f"dataset.class_weights: has {len(weights)} values, but there are {len(classes)} classes",
                f"give one for each, in this order: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}",
            )
        relative = relative.new_tensor(weights)
    if not (total := (relative * shown).sum()):
        raise ConfigError("dataset.class_weights: every training sample would count 0", "give one class more than 0")
    return (relative * rows / total).float()
