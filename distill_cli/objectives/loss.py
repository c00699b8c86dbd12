"""The loss of a stage: the labels' term and the objectives in use, each with its weight.

    L = (1 - alpha) * CE + alpha * sum_i weight_i * L_i

alpha weighs the teacher. An objective that is not `alpha_weighted` is added with its weight alone, and where all are so, alpha
has no effect: L = CE + weight * L_i. T and alpha come from the schedule at every step; no objective stores them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from distill_cli.base.errors import ConfigError
from distill_cli.config import building, schema
from distill_cli.objectives.base import Objective
from distill_cli.objectives.chunks import by_chunks
from distill_cli.objectives.logits import CE
from distill_cli.tasks.rows import Dense, Rows, Signal

NOBODY = Dense(torch.empty(0, 0))  # the signal of a teacher that no objective asks


def build(chosen: Mapping[str, schema.Objective]) -> dict[str, Objective]:
    """The chosen objectives by name.

    Raises:
        ConfigError: an unknown class or argument, or labels-only beside a teacher's objective.
    """
    built = {name: building.build(one.node, Objective, f"objective.{name}") for name, one in chosen.items()}
    alone = [name for name, objective in built.items() if objective.labels_only]
    if alone and len(built) > 1:
        raise ConfigError(
            f"objective: {alone[0]} is labels only and cannot be combined with {', '.join(n for n in built if n not in alone)}",
            "the label term is part of every objective: drop it from the list",
        )
    return built


class Loss:
    """The loss of one stage: the label term and the objectives in use.

    Args:
        objectives: by name; those that are labels only add no term.
        label_smoothing: of the label term.
        rows_at_once: how many rows the label term and the objectives that are `by_row` are computed on at a time,
            forward and backward, which bounds their memory; None: all.
    """

    def __init__(
        self, objectives: Mapping[str, Objective], label_smoothing: float = 0.0, rows_at_once: int | None = None
    ) -> None:
        self.objectives = {name: o for name, o in objectives.items() if not o.labels_only}
        labels = CE()
        labels.constants["label_smoothing"] = label_smoothing
        self.terms: dict[str, Objective] = {"ce": labels, **self.objectives}
        self.rows_at_once = rows_at_once
        self.weighs_alpha = any(o.alpha_weighted for o in self.objectives.values())

    @property
    def asks_teacher(self) -> bool:
        return any(o.needs_teacher for o in self.objectives.values())

    @property
    def student_layers(self) -> set[str]:
        """Module paths in the student that some objective wants; settled once the objectives are connected."""
        return {path for objective in self.objectives.values() for path in objective.student_layers}

    def weights(self, alpha: float, progress: float = 1.0) -> dict[str, float]:
        """What each term is multiplied with, `ce` first, when the share `progress` (0 to 1) of the whole run is done."""
        factors = {"ce": 1 - alpha if self.weighs_alpha else 1.0}
        for name, objective in self.objectives.items():
            factors[name] = (alpha if objective.alpha_weighted else 1.0) * objective.weight_at(progress)
        return factors

    def __call__(
        self,
        rows: Rows,
        signal: Signal | None,
        T: float,
        alpha: float,
        share: float = 1.0,
        progress: float = 1.0,
        whole: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some rows and its unweighted terms.

        Args:
            signal: the teacher's on the same rows; None where no objective asks it.
            share: which part of the optimizer step's rows these are; means are weighted by it, sums are not.
            progress: as in `weights`.
            whole: compute on all rows at once whatever `rows_at_once` says. Terms that are computed by chunks have no
                graph, which `influence` needs.

        Returns:
            The scalar to call backward on, and each term by name (`ce` first), scalars as of the whole step.
        """
        assert signal is not None or not self.asks_teacher
        signal = NOBODY if signal is None else signal
        weights = self.weights(alpha, progress)
        factors = {name: weights[name] * (1.0 if term.summed else share) for name, term in self.terms.items()}
        size = len(rows) if whole or self.rows_at_once is None else self.rows_at_once
        cut = {name: term for name, term in self.terms.items() if term.by_row and size < len(rows)}
        total, values = torch.zeros((), device=rows.targets.device), dict[str, Tensor]()
        if cut:
            total, values = by_chunks(cut, factors, rows, signal, T, size)
        for name, term in self.terms.items():
            if name not in cut:
                values[name] = term(rows, signal, T)
                total = total + factors[name] * values[name]
        return total, {name: values[name] / share if term.summed else values[name] for name, term in self.terms.items()}

    def formula(self, T: str, alpha: str, rest: str) -> str:
        """The loss with its numbers in it, each as the header shows it: `3`, or `3→1` where it moves.

        Args:
            rest: 1 - alpha, the labels' weight.
        """
        parts = [f"{_factor(rest)}CE" if self.weighs_alpha else "CE"]
        for objective in self.objectives.values():
            weight = f"{objective.weight:g}·" if objective.weight != 1 else ""
            parts.append((_factor(alpha) if objective.alpha_weighted else "") + weight + objective.formula)
        heat = f",  T={T}" if any(o.uses_T for o in self.objectives.values()) else ""
        return " + ".join(parts) + heat


def influence(
    terms: Mapping[str, Tensor], weights: Mapping[str, float], parameters: Sequence[nn.Parameter]
) -> dict[str, dict[str, float]]:
    """How much each term moves the student: its weighted value, and its weighted gradient's norm against CE's own.

    Args:
        terms: scalars with their graph, which stays, `ce` first. weights: what each is multiplied with.
        parameters: the student's; their gradients stay as they are.

    Returns:
        By term, `weighted` and `gradient_ratio`: |weight * grad L_i| / |grad CE|, CE unweighted.
    """
    told, of_labels = {}, 0.0
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        norm = nn.utils.get_total_norm([g for g in gradients if g is not None]).item()
        of_labels = norm if name == "ce" else of_labels
        ratio = weights[name] * norm / of_labels if of_labels else 0.0
        told[name] = {"weighted": weights[name] * term.item(), "gradient_ratio": ratio}
    return told


def _factor(weight: str) -> str:
    return f"({weight})·" if "→" in weight else f"{weight}·"
