"""What people need to know of each metric: its name in words, which way is better, how a value and a difference are written.

What it measures is said where it is computed, in tasks/; nothing is computed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A metric as people meet it.

    Attributes:
        title: what it is called in a sentence. head: over a column or beside an axis.
        lower: whether lower is better. share: whether it is a share, written in percent, its differences in points.
        unit: of a value that is no share. per: what one is of; empty: not said.
        places: digits after the point in a sentence, and in a table.
        told: the metrics that tell of it in a sentence; empty: it alone. fidelity: whether it compares with a teacher, and so
            needs no labels. shown: whether tables have it.
    """

    name: str
    title: str
    head: str
    lower: bool = False
    share: bool = False
    unit: str = ""
    per: str = ""
    places: tuple[int, int] = (3, 4)
    told: tuple[str, ...] = ()
    fidelity: bool = False
    shown: bool = True

    @property
    def differences(self) -> str:
        """What differences are counted in."""
        return "points" if self.share else self.unit

    @property
    def ends(self) -> tuple[str, str]:
        """Where the best value is, and where the worst."""
        return ("lowest", "highest") if self.lower else ("highest", "lowest")

    def gain(self, value: float) -> float:
        """A value or a difference as one that is better when it is higher, and back."""
        return -value if self.lower else value

    def scaled(self, value: float) -> float:
        """A value or a difference in percent or points where it is a share."""
        return 100 * value if self.share else value

    def number(self, value: float) -> str:
        """A value without its unit: 95.14, 2.513."""
        return f"{self.scaled(value):.{2 if self.share else self.places[0]}f}"

    def written(self, value: float) -> str:
        """A value, a share with its sign: 95.14%, 2.513."""
        return self.number(value) + "%" * self.share

    def said(self, value: float, row: str) -> str:
        """A value with its unit: 95.14%, 2.513 nats a token.

        Args:
            row: what is judged, in the singular.
        """
        per = self.per.format(row=row)
        return " ".join([self.written(value), *filter(None, [self.unit, per and f"a {per}"])])

    def change(self, delta: float) -> str:
        """A difference without its unit: +1.11, -0.120."""
        return f"{self.scaled(delta):+.{2 if self.share else self.places[0]}f}"

    def cell(self, value: float) -> str:
        """A value in a table."""
        return f"{value:.{self.places[1]}f}"


def _share(name: str, title: str, head: str, **more: Any) -> Metric:
    return Metric(name, title, head, share=True, **more)


_ALL = (
    _share("accuracy", "accuracy", "accuracy"),
    _share("balanced_accuracy", "balanced accuracy", "balanced accuracy", shown=False),
    _share("f1", "macro F1", "F1"),
    Metric("mcc", "Matthews’ correlation (MCC)", "MCC"),
    _share("agreement", "agreement with the teacher", "agreement", fidelity=True),
    Metric("nll", "NLL", "NLL", lower=True, unit="nats", per="{row}", told=("perplexity", "nll", "bits_per_byte")),
    Metric("perplexity", "perplexity", "perplexity", lower=True, unit="perplexity", places=(2, 2)),
    Metric("bits_per_byte", "bits a byte", "bits/byte", lower=True, unit="bits", per="byte"),
    _share("ece", "calibration error (ECE)", "ECE", lower=True),
    Metric("kl", "KL(teacher ‖ student)", "KL", lower=True, unit="nats", fidelity=True),
)
METRICS = {metric.name: metric for metric in _ALL}
DEFAULT = "accuracy"  # what runs were judged by that do not say it


def of(name: str) -> Metric | None:
    """The metric of a name, as in accuracy, or kl64: the KL of so many classes and all others together; None: nobody knows it."""
    if (few := re.fullmatch(r"kl(\d+)", name)) is None:
        return METRICS.get(name)
    title = f"KL(teacher ‖ student) of the {few[1]} likeliest and the rest"
    return replace(METRICS["kl"], name=name, title=title, head=f"KL of {few[1]}")


def direction(key: str | None) -> str:
    """Where to a search moves what it is told, maximize or minimize: a metric, as in val.accuracy; with None, how good a run is."""
    return "minimize" if key and METRICS[key.rpartition(".")[2]].lower else "maximize"


def judged(summary: Mapping[str, Any]) -> Metric:
    """What a run is judged by: what its task named."""
    return METRICS[summary.get("metric", DEFAULT)]


def compared(summary: Mapping[str, Any], *splits: str) -> str:
    """The name of what runs are compared by on some splits: what they are judged by or, where one of these has no labels, agreement
    with the teacher.
    """
    name = judged(summary).name
    return name if all(name in summary[split]["student"] for split in splits) else "agreement"


def columns(scores: Iterable[Mapping[str, float]]) -> list[Metric]:
    """What a table shows of models: the metrics that some of them have, in the order in which they were measured."""
    names = dict.fromkeys(name for one in scores for name in one)
    return [metric for name in names if (metric := of(name)) and metric.shown]


def forms(metric: Metric, scores: Mapping[str, float]) -> list[Metric]:
    """The metrics that tell in a sentence what a model reaches, of those that were measured."""
    return [METRICS[name] for name in metric.told or (metric.name,) if name in scores]


def sentence(metric: Metric, scores: Mapping[str, float], row: str) -> str:
    """What a model reaches, for a sentence: 95.14%; or 12.31 perplexity (2.510 nats a token, 1.214 bits a byte).

    Args:
        row: what is judged, in the singular.
    """
    first, *others = [one.said(scores[one.name], row) for one in forms(metric, scores)]
    return first + (f" ({', '.join(others)})" if others else "")
