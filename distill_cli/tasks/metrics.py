"""Numbers about a trained classifier: accuracy, F1, likelihood and calibration, and its fidelity to its teacher."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.metrics import f1_score, precision_recall_fscore_support
from torch import Tensor
from torch.nn import functional as F

from distill_cli.base import runtime, stopping
from distill_cli.base.errors import NonFiniteError
from distill_cli.data import Split
from distill_cli.models import Classifier, evaluating
from distill_cli.models.features import Tap

ECE_BINS = 15


def answers(
    model: Classifier,
    split: Split,
    batch_size: int | None = None,
    view: int | None = None,
    dtype: torch.dtype = torch.float32,
    layer: str | None = None,
) -> Iterator[Tensor]:
    """The model's logits (n, K), fp32, on a split in its own order, batch by batch: eval mode, T = 1.

    Args:
        batch_size: None: as many as the split says. view: see `Split.batches`. dtype: in which the model computes.
        layer: a module's path: what it gives, each sample's flattened, in place of the logits.

    Raises:
        NonFiniteError: some number of them is not finite. KeyboardInterrupt: we were asked to stop.
    """
    paths = [layer] if layer is not None else []
    # Whoever draws while measured, draws the same.
    with evaluating(model), runtime.seeded("answers"), Tap(model.net, paths) as tap:
        for batch in split.batches(batch_size or split.at_once, view=view):
            with torch.inference_mode(), runtime.exact(), runtime.autocast(batch.index.device, dtype):
                output = tap(model, batch.inputs)
            given = (output.logits if layer is None else output.features[layer].flatten(1)).float()
            if not torch.isfinite(given).all():
                raise NonFiniteError(
                    f"{type(model.net).__name__} gives {layer or 'logits'} that are not finite",
                    "a damaged checkpoint, or a diverged training: try a smaller learning rate, or optimizer.clip=1",
                )
            yield given.clone()  # out of inference mode
            stopping.check()


def logits_of(model: Classifier, split: Split, batch_size: int | None = None) -> Tensor:
    """The model's logits (N, K) on a split, as `answers` gives them; its mode is put back."""
    return torch.cat(list(answers(model, split, batch_size)))


def measure(logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None) -> dict[str, float]:
    """Metrics at T = 1 of logits (N, K) against labels (N,), and against a teacher's logits (N, K) when given.

    accuracy; f1: macro over the classes that occur; nll: mean negative log-likelihood in nats; ece: expected
    calibration error with 15 bins; kl: mean KL(teacher || student) in nats; agreement: share of equal decisions.
    """
    logits, labels = logits.cpu(), labels.cpu()  # double precision, which not every device has
    log_probabilities = F.log_softmax(logits.double(), dim=1)
    decided = logits.argmax(1)
    found = {
        "accuracy": (decided == labels).double().mean(),
        "f1": f1_score(labels, decided, average="macro", zero_division=0),
        "nll": F.nll_loss(log_probabilities, labels),
        "ece": calibration_error(log_probabilities.exp(), labels),
    }
    if teacher_logits is not None:
        teacher_logits = teacher_logits.cpu()
        theirs = F.log_softmax(teacher_logits.double(), dim=1)
        found["kl"] = F.kl_div(log_probabilities, theirs, reduction="batchmean", log_target=True)
        found["agreement"] = (decided == teacher_logits.argmax(1)).double().mean()
    return {name: float(value) for name, value in found.items()}


def calibration_error(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Expected calibration error of (N, K) probabilities: the gap between confidence and accuracy in equal-width bins
    of confidence, weighted by how many samples fall in each.

    Guo et al., 2017, arXiv 1706.04599, equation 3.
    """
    bins, confidence, right = binned(probabilities, labels)
    gaps = torch.zeros(ECE_BINS, dtype=probabilities.dtype, device=probabilities.device)
    gaps.index_add_(0, bins, confidence - right)
    return gaps.abs().sum() / len(labels)


def binned(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each sample of (N, K) probabilities: its bin of confidence, of ECE_BINS equally wide ones, its confidence, and
    1.0 where the decision is right, else 0.0.
    """
    confidence, decided = probabilities.max(1)
    bins = (confidence * ECE_BINS).long().clamp(max=ECE_BINS - 1)
    return bins, confidence, (decided == labels).to(confidence.dtype)


def per_class(logits: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """precision, recall, f1 and support of each class, in class order; a score without samples is 0."""
    every = np.arange(logits.shape[1])
    scores = precision_recall_fscore_support(labels.cpu(), logits.argmax(1).cpu(), labels=every, zero_division=0)
    return {name: v.tolist() for name, v in zip(("precision", "recall", "f1", "support"), scores, strict=True)}


def paired_difference(logits: Tensor, others: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy of `logits` minus that of `others` on the same samples, and half its 95 % interval.

    Only the samples on which exactly one of the two is right tell them apart (McNemar, 1947): with b and c of those
    the difference is (b - c) / n, its variance (b + c - (b - c)^2 / n) / n^2.
    """
    n = len(labels)
    ours, theirs = logits.argmax(1) == labels, others.argmax(1) == labels
    b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return (b - c) / n, 1.96 * (b + c - (b - c) ** 2 / n) ** 0.5 / n
