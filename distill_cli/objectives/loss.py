"""The loss of a stage: the labels' term and the objectives in use, each with its weight.

    L = (1 - alpha) * CE + alpha * sum_i weight_i * L_i

alpha weighs the teacher. An objective that is not `alpha_weighted` is added with its weight alone, and where all are so, alpha
has no effect: L = CE + weight * L_i. T and alpha come from the schedule at every step; no objective stores them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from distill_cli.base import world
from distill_cli.base.errors import ConfigError
from distill_cli.config import building, schema
from distill_cli.objectives.base import Objective
from distill_cli.objectives.chunks import by_chunks
from distill_cli.objectives.logits import CE
from distill_cli.tasks.rows import Dense, Rows, Signal, with_all_ranks

Terms = Iterable[tuple[str, Tensor]]  # scalars by name with their graph, `ce` first, computed as they are asked for
NOBODY = Dense(torch.empty(0, 0))  # the signal of a teacher that no objective asks


def build(chosen: Mapping[str, schema.Objective]) -> dict[str, Objective]:
    """The chosen objectives by name.

    Raises:
        ConfigError: an unknown class or argument, or labels-only beside a teacher's objective.
    """
    built = {}
    for name, one in chosen.items():
        fitted = one.weight == "auto"
        node = {**one.node, "weight": 1.0} if fitted else one.node  # until it is found
        built[name] = building.build(node, Objective, f"objective.{name}")
        built[name].fitted = one if fitted else None
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
            forward and backward, which bounds their memory; None: as many as `Rows.at_once` says.
        row_weights: of the label term, see `ce`. labels: whether any row has one; else there is no label term.
    """

    def __init__(
        self,
        objectives: Mapping[str, Objective],
        label_smoothing: float = 0.0,
        rows_at_once: int | None = None,
        row_weights: Tensor | None = None,
        labels: bool = True,
    ) -> None:
        self.objectives = {name: o for name, o in objectives.items() if not o.labels_only}
        of_labels = CE()
        of_labels.constants = {"label_smoothing": label_smoothing, "row_weights": row_weights}
        self.terms: dict[str, Objective] = {**({"ce": of_labels} if labels else {}), **self.objectives}
        self.rows_at_once = rows_at_once
        self.weighs_alpha = any(o.alpha_weighted for o in self.objectives.values())

    @cached_property
    def of_teacher(self) -> Loss:
        """The same without the label term, for rows that have no labels."""
        without = copy.copy(self)
        without.terms = dict(self.objectives)
        return without

    @property
    def asks_teacher(self) -> bool:
        return any(o.needs_teacher for o in self.objectives.values())

    @property
    def student_layers(self) -> set[str]:
        """Module paths in the student that some objective wants; settled once the objectives are connected."""
        return {path for objective in self.objectives.values() for path in objective.student_layers}

    @property
    def teacher_layers(self) -> set[str]:
        """Module paths in the teacher, likewise."""
        return {path for objective in self.objectives.values() for path in objective.teacher_layers}

    def weights(self, alpha: float, progress: float = 1.0) -> dict[str, float]:
        """What each term is multiplied with, `ce` first, when the share `progress` (0 to 1) of the whole run is done."""
        factors = {"ce": 1 - alpha if self.weighs_alpha else 1.0} if "ce" in self.terms else {}
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
        look: Callable[[Terms], None] | None = None,
        apart: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some rows and its unweighted terms.

        Args:
            signal: the teacher's on the same rows; None where no objective asks it.
            share: which part of the optimizer step's rows these are; means are weighted by it, sums are not.
            progress: as in `weights`.
            look: is shown each term with its graph before the weights are read, which it may set.
            apart: whether other ranks have other rows of the step: terms that compare samples are then of those of all ranks.

        Returns:
            The scalar to call backward on, and each term by name (`ce` first), scalars as of the whole step.
        """
        assert signal is not None or not self.asks_teacher
        signal = NOBODY if signal is None else signal
        size = self.rows_at_once or rows.at_once
        cut = {name: term for name, term in self.terms.items() if term.by_row and size < len(rows)}
        compare = [name for name, term in self.terms.items() if apart and term.compares]
        all_rows, all_signal = with_all_ranks(rows, signal) if compare else (rows, signal)
        seen = {name: (all_rows, all_signal) if name in compare else (rows, signal) for name in self.terms}
        values = {name: term(*seen[name], T) for name, term in self.terms.items() if name not in cut}

        def whole(name: str, value: Tensor) -> Tensor:
            return value / share if self.terms[name].summed else value

        def one_by_one() -> Iterator[tuple[str, Tensor]]:
            for name, term in self.terms.items():  # what is cut has no graph in the end: it is computed once more
                again = by_chunks({name: term}, {name: 1.0}, rows, signal, T, size)[0] if name in cut else values[name]
                yield name, whole(name, again)

        if look is not None:
            look(one_by_one())
        weights = self.weights(alpha, progress)
        factors = {name: weights[name] * (1.0 if term.summed else share) for name, term in self.terms.items()}
        factors |= {
            name: factors[name] * len(all_rows) / len(rows) / world.size() for name in compare
        }  # each adds a part
        total = torch.zeros((), device=rows.targets.device)
        if cut:
            total, of_chunks = by_chunks(cut, factors, rows, signal, T, size)
        for name, value in values.items():
            total = total + factors[name] * value
        if cut:
            values |= of_chunks
        return total, {name: whole(name, values[name]) for name in self.terms}

    def formula(self, T: str, alpha: str, rest: str) -> str:
        """The loss with its numbers in it, each as the header shows it: `3`, or `3→1` where it moves.

        Args:
            rest: 1 - alpha, the labels' weight.
        """
        parts = [f"{_factor(rest)}CE" if self.weighs_alpha else "CE"] if "ce" in self.terms else []
        for objective in self.objectives.values():
            weight = "auto·" if objective.fitted else f"{objective.weight:g}·" if objective.weight != 1 else ""
            parts.append((_factor(alpha) if objective.alpha_weighted else "") + weight + objective.formula)
        heat = f",  T={T}" if any(o.uses_T for o in self.objectives.values()) else ""
        return " + ".join(parts) + heat


def gradient_norms(terms: Terms, parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """By term, the L2 norm of its gradient on the parameters, whose own gradients stay as they are; the graph stays too."""
    norms = {}
    for name, term in terms:
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        norms[name] = nn.utils.get_total_norm([g for g in gradients if g is not None]).item()
    return norms


def influence(
    terms: Mapping[str, Tensor], weights: Mapping[str, float], norms: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """How much each term moves the student: its weighted value, and its weighted gradient's norm against CE's own.

    Args:
        terms: scalars, `ce` among them. weights: what each is multiplied with. norms: of their gradients, unweighted.

    Returns:
        By term, `weighted` and `gradient_ratio`: |weight * grad L_i| / |grad CE|, CE unweighted.
    """
    return {
        name: {
            "weighted": weights[name] * term.item(),
            "gradient_ratio": weights[name] * norms[name] / norms["ce"] if norms.get("ce") else 0.0,
        }
        for name, term in terms.items()
    }


def _factor(weight: str) -> str:
    return f"({weight})·" if "→" in weight else f"{weight}·"
