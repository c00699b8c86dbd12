"""How large each term's gradient on the student is in a run's first steps, and the weights that are found from that."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from distill_cli.base import world
from distill_cli.base.errors import ConfigError
from distill_cli.objectives import Objective, Terms, gradient_norms

SETTLED = 9  # the step, from 0, at which a weight that was given is measured: at the very first ones gradients are odd


class Balance:
    """The ratios |grad CE| / |grad L_i| in the first steps that use an objective, and the weights that follow from them.

    A weight that is to be found is `balance` times the median of the ratios so far, the step's own among them, until
    `balance_steps` steps are measured; then it stays. A weight that was given is measured in one step and never changed.

    Args:
        objectives: by name; the weights of those that are `fitted` are set.
        parameters: the student's own, without those of adapters.
        scaler: scales the terms in half precision, where their gradients would round to 0; ratios do not depend on it.
    """

    def __init__(
        self, objectives: Mapping[str, Objective], parameters: Sequence[nn.Parameter], scaler: torch.amp.GradScaler
    ) -> None:
        self.objectives = {name: one for name, one in objectives.items() if not one.labels_only}
        self.ratios: dict[str, list[float]] = {name: [] for name in self.objectives}  # NaN: a gradient was 0
        self.norms: dict[str, float] = {}  # of the last step that was looked at
        self.seconds = 0.0  # spent on it by this process
        self._parameters, self._scaler = parameters, scaler

    @property
    def finds(self) -> bool:
        """Whether a weight is to be found."""
        return any(one.fitted for one in self.objectives.values())

    def settled(self, name: str) -> bool:
        """Whether an objective was measured as often as it is to be."""
        fitted = self.objectives[name].fitted
        return len(self.ratios[name]) >= (fitted.balance_steps if fitted else 1)

    def due(self, used: Mapping[str, Objective], step: int) -> list[str]:
        """Those of the objectives in use that are to be measured at a step of the run, from 0."""
        some = {name: one for name, one in used.items() if name in self.objectives}
        return [name for name, one in some.items() if (one.fitted or step >= SETTLED) and not self.settled(name)]

    def look(self, due: Sequence[str], terms: Terms) -> None:
        """Measure the terms of a step, and set the weights that are to be found.

        Args:
            due: the objectives whose ratios count.

        Raises:
            ConfigError: a weight is to be found, and the network allows no second backward pass through a step.
        """
        started = time.perf_counter()
        self.norms = {}
        try:
            norms = gradient_norms(((name, self._scaler.scale(term)) for name, term in terms), self._parameters)
            # The first part of a batch tells enough, so the first rank does.
            self.norms = world.gathered({name: norm if math.isfinite(norm) else 0.0 for name, norm in norms.items()})[0]
        except torch.OutOfMemoryError:
            if self.finds:
                raise
        except RuntimeError as error:
            if self.finds:
                message = f"weight=auto: the gradients of this student cannot be measured: {error}"
                raise ConfigError(message, "give the weight as a number") from error
        for name in due:
            labels, own = self.norms.get("ce", 0.0), self.norms.get(name, 0.0)
            self.ratios[name].append(labels / own if labels and own else math.nan)
            self._set(name)
        self.seconds += time.perf_counter() - started

    def ratio(self, name: str) -> float | None:
        """The median of an objective's ratios so far; None where there is none."""
        finite = [ratio for ratio in self.ratios[name] if math.isfinite(ratio)]
        return statistics.median(finite) if finite else None

    def _set(self, name: str) -> None:
        one = self.objectives[name]
        if one.fitted and (ratio := self.ratio(name)):
            one.weight = one.fitted.balance * ratio

    def weights(self, used: Mapping[str, Objective]) -> dict[str, float]:
        """The weights that are to be found, of the objectives in use, as they are now."""
        return {name: one.weight for name, one in used.items() if one.fitted}

    def snapshot(self) -> dict[str, list[float]]:
        """What a checkpoint must hold."""
        return self.ratios

    def restore(self, snapshot: Mapping[str, list[float]]) -> None:
        """Put back what `snapshot` returned; a checkpoint of an earlier version has none."""
        for name in self.objectives:
            self.ratios[name] = list(snapshot.get(name, ()))
            self._set(name)
