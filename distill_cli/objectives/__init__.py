"""How the teacher's signal enters the loss: the interface of an objective, and the weighted sum of several.

    L = (1 - alpha) * CE + alpha * sum_i weight_i * L_i

alpha weighs the teacher. An objective that is not `alpha_weighted` stands beside the whole label term instead:
L = CE + weight * L_i. T and alpha come from the schedule at every step; an objective stores neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli import config
from distill_cli.data import Batch, InputSpec
from distill_cli.errors import ConfigError
from distill_cli.models import Classifier
from distill_cli.models.features import Output


def wide(values: Tensor) -> Tensor:
    """fp32 at least, for loss arithmetic; float64 stays float64."""
    return values if values.dtype == torch.float64 else values.float()


class Objective(nn.Module):
    """One term of the loss. Its parameters, if any, are trained and checkpointed with the student.

    Class attributes:
        formula: the term in the field's notation, for the run's header.
        needs_teacher: whether the teacher is asked at all.
        alpha_weighted: whether alpha weighs it against the labels; if not, it is added to the whole label term.
        summed: whether it is a sum over the batch's samples rather than a mean, which matters when a batch is cut.
        uses_T: whether the temperature has an effect on it.
    """

    formula: ClassVar[str] = ""
    needs_teacher: ClassVar[bool] = True
    alpha_weighted: ClassVar[bool] = True
    summed: ClassVar[bool] = False
    uses_T: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def connect(self, student: Classifier, teacher: Classifier, spec: InputSpec) -> tuple[str, str]:
        """Called once when both models exist: choose layers, make adapters.

        Returns:
            A label and a text for the run's header; ("", "") when there is nothing to say.
        """
        return "", ""

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Module paths in the student whose features `forward` wants."""
        return ()

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Module paths in the teacher whose features `forward` wants; with any, the teacher must run live."""
        return ()

    def forward(self, student: Output, teacher: Output, batch: Batch, temperature: float) -> Tensor:
        """The term's value, a scalar; weight and alpha are applied outside."""
        raise NotImplementedError(type(self).__name__)


def build(nodes: Mapping[str, Mapping[str, object]]) -> dict[str, Objective]:
    """The chosen objectives by name.

    Raises:
        ConfigError: an unknown class or argument, or labels-only beside a teacher's objective.
    """
    built = {name: config.build(node, Objective, f"objective.{name}") for name, node in nodes.items()}
    alone = [name for name, objective in built.items() if not objective.needs_teacher]
    if alone and len(built) > 1:
        raise ConfigError(
            f"objective: {alone[0]} is labels only and cannot be combined with {', '.join(n for n in built if n not in alone)}",
            "the label term is part of every objective: drop it from the list",
        )
    return built


class Loss:
    """The loss of one stage: the label term and the objectives in use."""

    def __init__(self, objectives: Mapping[str, Objective], label_smoothing: float = 0.0) -> None:
        self.objectives = {name: o for name, o in objectives.items() if o.needs_teacher}
        self.label_smoothing = label_smoothing
        self.weighs_alpha = any(o.alpha_weighted for o in self.objectives.values())

    @property
    def student_layers(self) -> set[str]:
        """Module paths in the student that some objective wants; settled once the objectives are connected."""
        return {path for objective in self.objectives.values() for path in objective.student_layers}

    def __call__(
        self, student: Output, teacher: Output | None, batch: Batch, T: float, alpha: float, share: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The batch's loss and its unweighted terms.

        Args:
            share: which part of the optimizer step's samples this batch is; means are weighted by it, sums are not.

        Returns:
            The scalar to call backward on, and each term by name (`ce` first), detached scalars as of the whole step.
        """
        label_weight = 1 - alpha if self.weighs_alpha else 1.0
        ce = F.cross_entropy(wide(student.logits), batch.labels, label_smoothing=self.label_smoothing)
        total, terms = label_weight * share * ce, {"ce": ce.detach()}
        for name, objective in self.objectives.items():
            assert teacher is not None
            term = objective(student, teacher, batch, T)
            factor = objective.weight * (alpha if objective.alpha_weighted else 1.0)
            total = total + factor * (1.0 if objective.summed else share) * term
            terms[name] = term.detach() / (share if objective.summed else 1.0)
        return total, terms

    def formula(self, T: str, alpha: str, rest: str) -> str:
        """The loss with its numbers in it, each as the header shows it: `3`, or `3→1` where it moves.

        Args:
            rest: 1 - alpha, the labels' weight.
        """
        parts = [f"{_factor(rest)}CE" if self.weighs_alpha else "CE"]
        for objective in self.objectives.values():
            own = f"{objective.weight:g}·" if objective.weight != 1 else ""
            parts.append((_factor(alpha) if objective.alpha_weighted else "") + own + objective.formula)
        heat = f",  T={T}" if any(o.uses_T for o in self.objectives.values()) else ""
        return " + ".join(parts) + heat


def _factor(weight: str) -> str:
    return f"({weight})·" if "→" in weight else f"{weight}·"
