"""The interface of an objective: one term of the loss, what it asks of student and teacher, and how the header shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from distill_cli.config import schema
from distill_cli.data import Data
from distill_cli.models import Classifier
from distill_cli.tasks.rows import Rows, Signal


class Objective(nn.Module):
    """One term of the loss. Its parameters and buffers, if any, are trained and checkpointed with the student.

    Args:
        weight: what the term is multiplied with, beside alpha.
        warmup: share of the whole run over which that weight rises linearly from 0.
    """

    formula: ClassVar[str] = ""  # the term in the field's notation, for the run's header and `distill list objectives`
    source: ClassVar[str] = ""  # the paper, for `distill list objectives`
    labels_only: ClassVar[bool] = False  # it adds no term: the student learns from the labels alone
    needs_teacher: ClassVar[bool] = True
    # Whether alpha weighs it against the labels. If not, it is added with its own weight, and where all objectives are
    # so, the labels keep all of theirs.
    alpha_weighted: ClassVar[bool] = True
    summed: ClassVar[bool] = False  # it is a sum over the rows rather than a mean, which matters when a batch is cut
    # Each row's number depends on no other row and on no features: then `rows_at_once` may cut the rows into chunks.
    by_row: ClassVar[bool] = False
    compares: ClassVar[bool] = False  # it compares the samples of a batch with each other, so a sample must be one row
    uses_T: ClassVar[bool] = False  # the temperature has an effect on it
    # What it reads of the teacher's answers: "logits" of all classes; "few": probabilities of the likeliest are enough; "mean":
    # and so are samples of them; "": nothing, but features.
    reads: ClassVar[str] = ""
    fitted: schema.Objective | None = None  # how its weight is found in a run's first steps; None: it is what was given
    needs_labels: ClassVar[bool] = True  # it reads targets: refused where training samples have none
    # Module paths in student and teacher whose features `forward` reads.
    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()

    def __init__(self, weight: float = 1.0, warmup: float = 0.0) -> None:
        super().__init__()
        self.weight, self.warmup = weight, warmup

    def connect(self, student: Classifier, teacher: Classifier, data: Data) -> tuple[str, str]:
        """Choose layers, make adapters and buffers; called once, when both models exist, on the CPU.

        Returns:
            A label and a text for the run's header; ("", "") when there is nothing to say.

        Raises:
            ConfigError: the objective does not fit these models or data.
        """
        return "", ""

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        """The term's value, a scalar: a mean over the rows, or a sum if `summed`. Weight and alpha are applied outside."""
        raise NotImplementedError(type(self).__name__)

    def weight_at(self, progress: float) -> float:
        """The weight when this share, 0 to 1, of the whole run is done."""
        return self.weight * min(1.0, progress / self.warmup) if self.warmup else self.weight


class LogitObjective(Objective):
    """An objective that is a function of logits.

    A class whose function has constants takes them beside weight and warmup, and sets `constants`, by name.
    """

    needs_labels = False
    reads = "logits"
    # (student_logits, teacher_logits, labels, temperature, **constants) -> a scalar, as a staticmethod. The teacher's logits
    # are None where the class says `needs_teacher = False`.
    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, weight: float = 1.0, warmup: float = 0.0) -> None:
        super().__init__(weight, warmup)
        self.constants: dict[str, Any] = {}

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        if not self.needs_teacher:
            ours, theirs = student.logits(), None
        elif self.reads == "logits":
            ours, theirs = student.logits(), teacher.logits()
        else:
            ours, theirs = teacher.events(student, temperature)
        labels = student.targets if self.needs_labels else None
        return self.function(ours, theirs, labels, temperature, **self.constants)
