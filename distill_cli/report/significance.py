"""Means over seeds with their spread, and the test of what distillation changed; knows neither files nor pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from distill_cli.base.metrics import Metric

SIGNIFICANT = 0.05
ROUNDING = 1e-12  # differences of two values that are closer than that are the same


@dataclass(frozen=True)
class Stat:
    """A mean over `n` seeds and the sample standard deviation, which one seed alone does not have."""

    mean: float
    spread: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """What the student reaches on test in a metric minus what the same student on labels only does, with its 95 % interval.

    It is over `n` "seeds", paired, with p of a t-test, or with one seed over `n` "test samples", without p.
    """

    mean: float
    low: float
    high: float
    p: float | None
    n: int
    over: str
    metric: Metric

    @property
    def shown(self) -> bool:
        """Whether there is a difference at 5 %."""
        return self.p < SIGNIFICANT if self.p is not None else not self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """One of: helps, hurts, no difference shown."""
        return "no difference shown" if not self.shown else "helps" if self.metric.gain(self.mean) > 0 else "hurts"


def over_samples(measured: Mapping[str, Any] | None, metric: Metric) -> Difference | None:
    """Return the difference of one run, from "difference" in its summary; None where the run has no baseline.

    Args:
        metric: what the run is judged by.
    """
    if not measured:
        return None
    mean, half = measured[metric.name], measured["half_interval"]
    return Difference(mean, mean - half, mean + half, None, measured["samples"], "test samples", metric)


def over_seeds(students: Sequence[float], baselines: Sequence[float], metric: Metric) -> Difference:
    """Return the difference over at least two seeds by a paired t-test (Student, 1908), two-sided.

    Where every seed shows the same difference there is no spread to test with: the interval then has no width, and p
    is that of the sign test, 2^(1-n), or 1 where the difference is zero.
    """
    deltas = [student - baseline for student, baseline in zip(students, baselines, strict=True)]
    mean, n = fmean(deltas), len(deltas)
    if max(deltas) - min(deltas) < ROUNDING:
        mean = mean if abs(mean) > ROUNDING else 0.0
        return Difference(mean, mean, mean, 2.0 ** (1 - n) if mean else 1.0, n, "seeds", metric)
    from scipy.stats import ttest_rel  # takes longer to import than a page to write

    tested = ttest_rel(students, baselines)
    low, high = tested.confidence_interval(0.95)
    return Difference(mean, float(low), float(high), float(tested.pvalue), n, "seeds", metric)
