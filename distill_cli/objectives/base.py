"""The interface of an objective: one term of the loss, what it asks of student and teacher, and how the header shows it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from distill_cli.data import Data
from distill_cli.models import Classifier
from distill_cli.tasks.rows import Rows, Signal


class Objective(nn.Module):
    """One term of the loss. Its parameters and buffers, if any, are trained and checkpointed with the student.

    Class attributes:
        formula: the term in the field's notation, for the run's header and `distill list objectives`.
        source: the paper, for `distill list objectives`.
        labels_only: whether it is no term of its own but says that the labels alone are learnt from.
        needs_teacher: whether the teacher is asked at all.
        alpha_weighted: whether alpha weighs it against the labels; if not, it is added as it is; alone, labels keep all weight.
        summed: whether it is a sum over the batch's rows rather than a mean, which matters when a batch is cut.
        by_row: whether it is a mean, or a sum, of what each row gives alone, whatever the others are, and reads no
            features: then `rows_at_once` may cut the rows into chunks. Where it is false, it is given all rows at once.
        uses_T: whether the temperature has an effect on it.

    Args:
        weight: what the term is multiplied with, beside alpha.
        warmup: share of the whole run over which that weight rises linearly from 0.
    """

    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    labels_only: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    alpha_weighted: ClassVar[bool] = True
    summed: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    uses_T: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0, warmup: float = 0.0) -> None:
        super().__init__()
        self.weight, self.warmup = weight, warmup

    def connect(self, student: Classifier, teacher: Classifier, data: Data) -> tuple[str, str]:
        """Called once when both models exist, on the CPU: choose layers, make adapters and buffers.

        Returns:
            A label and a text for the run's header; ("", "") when there is nothing to say.

        Raises:
            ConfigError: it does not fit these models or data.
        """
        return "", ""

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Module paths in the student whose features `forward` wants."""
        return ()

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Module paths in the teacher whose features `forward` wants."""
        return ()

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        """The term's value, a scalar: a mean over the rows, or a sum if `summed`. Weight and alpha are applied outside."""
        raise NotImplementedError(type(self).__name__)

    def weight_at(self, progress: float) -> float:
        """The weight when this share, 0 to 1, of the whole run is done."""
        return self.weight * min(1.0, progress / self.warmup) if self.warmup else self.weight
