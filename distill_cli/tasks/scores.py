"""Scores of decisions and confidences, from a number a row: per class, macro F1, correlation, calibration."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ECE_BINS = 15


def per_class(target: Tensor, decided: Tensor, num_classes: int) -> dict[str, list[float]]:
    """precision, recall, f1 and support of each class, in class order; a score without rows is 0.

    Args:
        target, decided: (M,) int64.
    """
    true, said, hits = _counts(target, decided, num_classes)
    scores = {"precision": _ratio(hits, said), "recall": _ratio(hits, true), "f1": _ratio(2 * hits, true + said)}
    return {**{name: values.tolist() for name, values in scores.items()}, "support": true.astype(int).tolist()}


def balanced_accuracy(target: Tensor, decided: Tensor, num_classes: int) -> float:
    """The mean recall over the classes that occur among targets (M,): 1 / their number for whoever names one class always.

    Brodersen et al., 2010, doi 10.1109/ICPR.2010.764.
    """
    true, _, hits = _counts(target, decided, num_classes)
    return float(np.mean(_ratio(hits, true)[true > 0]))


def macro_f1(target: Tensor, decided: Tensor, num_classes: int) -> float:
    """The mean F1 over the classes that occur among targets (M,) or decisions (M,)."""
    true, said, hits = _counts(target, decided, num_classes)
    occurs = true + said > 0
    return float(np.mean(_ratio(2 * hits, true + said)[occurs]))


def matthews(target: Tensor, decided: Tensor) -> float:
    """The correlation of targets (M,) and decisions (M,) between two classes, -1 to 1; 0 where all of either are of one class.

    Matthews, 1975, doi 10.1016/0005-2795(75)90109-9.
    """
    true, said = (values.double() - values.double().mean() for values in (target, decided))
    spread = float((true @ true) * (said @ said)) ** 0.5
    return float(true @ said) / spread if spread else 0.0


def matching(target: Tensor, decided: Tensor, num_classes: int) -> tuple[np.ndarray, float, float]:
    """The one-to-one renaming of the classes under which most decisions are right.

    Args:
        target, decided: (M,) int64.

    Returns:
        by class, the decision that it should be the meaning of, (C,); the accuracy with that; and what is reached so by
        luck, the most of ten times that the targets are shuffled.
    """
    from scipy.optimize import linear_sum_assignment  # takes its time to import

    def best(target: Tensor) -> tuple[np.ndarray, float]:
        confusion = (
            torch.bincount(target * num_classes + decided, minlength=num_classes**2).view(num_classes, -1).numpy()
        )
        true, said = linear_sum_assignment(
            confusion + 0.5 * np.eye(num_classes), maximize=True
        )  # of equals, no renaming
        return said, float(confusion[true, said].sum() / len(target))

    shuffles = np.random.default_rng(0)
    luck = max(best(target[torch.from_numpy(shuffles.permutation(len(target)))])[1] for _ in range(10))
    return *best(target), luck


def _counts(target: Tensor, decided: Tensor, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each class is the target, is decided for, and is both."""
    both = target[target == decided]
    counts = (torch.bincount(values, minlength=num_classes) for values in (target, decided, both))
    true, said, hits = (count.double().numpy() for count in counts)
    return true, said, hits


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def calibration_error(confidence: Tensor, right: Tensor) -> Tensor:
    """The expected calibration error: the gap between confidence and accuracy in equally wide bins of confidence, weighted
    by how many rows fall in each.

    Guo et al., 2017, arXiv 1706.04599, equation 3.

    Args:
        confidence: the probability of each row's decision, (M,) float64. right: 1.0 where it is right, else 0.0.
    """
    gaps = torch.zeros(ECE_BINS, dtype=confidence.dtype)
    gaps.index_add_(0, bins_of(confidence), confidence - right)
    return gaps.abs().sum() / len(right)


def reliability(confidence: Tensor, right: Tensor) -> dict[str, list[float | int | None]]:
    """Mean confidence, accuracy and number of rows by bin of confidence; a mean of no rows is None.

    Args:
        confidence, right: as for `calibration_error`.
    """
    bins = bins_of(confidence)
    counts = torch.bincount(bins, minlength=ECE_BINS).tolist()

    def means(values: Tensor) -> list[float | int | None]:
        sums = torch.bincount(bins, values, ECE_BINS).tolist()
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]

    return {"confidence": means(confidence), "accuracy": means(right), "count": counts}


def bins_of(confidence: Tensor) -> Tensor:
    """The bin of each confidence (M,), from 0 to ECE_BINS - 1."""
    return (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
