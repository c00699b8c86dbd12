"""The charts of the reports, each a function from numbers to a picture; the pages say what the numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from distill_cli.base.metrics import Metric
from distill_cli.report.drawing import COLOURS, PATTERNS, Line, Picture, drawn
from distill_cli.report.significance import Difference

MARKERS = {"teacher": "s", "student": "o", "labels": "^"}
STEPS = [1, 2, 5, 10]  # between the ticks of an axis
NARROW, WIDE = 320, 440  # the widths of pictures three and two in a row
RANKED, FIRST = 12, 5  # up to so many points all have their rank beside them; of more, the first few have

Stage = tuple[str, float, float]  # its name, and the epochs at which it begins and ends


def short(text: str, limit: int) -> str:
    """Return the text, cut to `limit` letters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def curves(
    title: str,
    finding: str,
    lines: Sequence[Line],
    stages: Sequence[Stage],
    width: float,
    percent: bool = False,
    mark: tuple[float, float, str] | None = None,
    limits: tuple[float | None, float | None] = (None, None),
) -> Picture:
    """Return lines over epochs with the stages as bands behind them, on a logarithmic axis where values lie far apart.

    Args:
        percent: the y axis is in percent; it is linear then, and where it has `limits`.
        mark: a point of the student's, and its text.
    """
    values = [value for line in lines for value in line.y]
    logarithmic = not percent and limits == (None, None) and max(values) > 30 * min(values) > 0

    def draw(axes: Axes) -> None:
        for line in lines:
            axes.plot(line.x, line.y, marker="o" if len(line.x) == 1 else "", markersize=4, **line.style)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(lambda *_: "")
        axes.yaxis.set_major_formatter(PercentFormatter(1) if percent else "{x:.4g}")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(axis="y")
        end = stages[-1][2]
        axes.set_xlim(0, 1.01 * end)
        for number, (name, first, last) in enumerate(stages):
            if number % 2 == 0:
                axes.axvspan(first, last, color=COLOURS["faint"], linewidth=0, zorder=0)
            if (last - first) / end > 0.02 * len(name):  # or it would run into the next one
                _write(axes, name, (first, 1), (4, 3), xycoords=("data", "axes fraction"))
        axes.margins(y=0.1)
        axes.set_ylim(*limits)
        if mark:
            x, y, text = mark
            axes.plot(x, y, "o", color=COLOURS["student"], markerfacecolor=COLOURS["paper"], markersize=7)
            late = x > end / 2
            look = {"color": COLOURS["student"], "fontsize": 11, "ha": "right" if late else "left"}
            _write(axes, text, (x, y), (3 if late else -3, -19), **look)

    finding += " The scale is logarithmic." if logarithmic else ""
    return drawn(draw, title, finding, (width, 0.54 * width), top=16, lines=[line for line in lines if line.label])


def _format(metric: Metric) -> PercentFormatter | str:
    """Return how an axis shows a metric's values."""
    return PercentFormatter(1) if metric.share else "{x:.4g}"


def _write(axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **look: Any) -> None:
    """Write a text beside a place."""
    look = {"color": COLOURS["muted"], "fontsize": 10, **look}
    axes.annotate(text, place, xytext=offset, textcoords="offset points", **look)


def reliability(title: str, finding: str, bins: Mapping[str, Sequence[tuple[float, float, int]]]) -> Picture:
    """Return accuracy over confidence by role: a point a bin, its area growing with the bin's share of the samples.

    Args:
        bins: confidence, accuracy and number of samples of each bin that holds samples.
    """
    lines = [Line(role, role, [x for x, _, _ in rows], [y for _, y, _ in rows]) for role, rows in bins.items()]

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1, linestyle=PATTERNS["dotted"])
        for line in lines:
            counts = [count for _, _, count in bins[line.label]]
            areas = [18 + 180 * count / sum(counts) for count in counts]
            look: dict[str, Any] = {"color": COLOURS[line.colour], "marker": MARKERS[line.colour], "linewidths": 0}
            axes.plot(line.x, line.y, **line.style, linewidth=1.2, alpha=0.7)
            axes.scatter(line.x, line.y, s=areas, alpha=0.75, **look)
        axes.set(xlim=(-0.03, 1.04), ylim=(-0.04, 1.05), xlabel="confidence", ylabel="accuracy")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid()

    return drawn(draw, title, finding, (WIDE, 380), left=60, lines=lines)


def intervals(title: str, finding: str, rows: Sequence[tuple[str, Difference]], width: float = WIDE) -> Picture:
    """Return differences in a metric, each under its label, against the line of no difference; a filled point is one that is
    shown.
    """
    metric = rows[0][1].metric

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        for place, (label, d) in enumerate(rows):
            filled = COLOURS["student" if d.shown else "paper"]
            axes.plot([d.low, d.high], [place, place], color=COLOURS["student"], linewidth=2)
            axes.plot(d.mean, place, "o", color=COLOURS["student"], markerfacecolor=filled, markersize=7)
            if label:  # over the line at zero, not through it
                under = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 1}
                where = ("axes fraction", "data")
                _write(axes, short(label, 60), (0, place), (0, 9), fontsize=11, xycoords=where, bbox=under)
        axes.set_ylim(len(rows) - 0.6, -0.8)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.xaxis.set_major_formatter(lambda x, _: f"{metric.scaled(x):+.3g}".replace("-", "−") if x else "0")
        axes.set_xlabel(f"{metric.differences} of {metric.head}")
        axes.spines["left"].set_visible(False)

    height = 44 + (38 if any(label for label, _ in rows) else 18) * len(rows)
    return drawn(draw, title, finding, (width, height), left=12)


def points(
    title: str,
    finding: str,
    places: Sequence[tuple[float, float]],
    label: str,
    levels: Sequence[Line],
    metric: Metric,
    sizes: bool = False,
) -> Picture:
    """Return a metric on test (y) against something else (`label`): the first place filled, ranks beside the places.

    Args:
        levels: horizontal lines. sizes: x are counts of parameters, on a logarithmic axis.
    """

    def draw(axes: Axes) -> None:
        for line in levels:
            axes.axhline(line.y[0], linewidth=1.4, **line.style)
        for number, (x, y) in enumerate(places):
            look: dict[str, Any] = {"markerfacecolor": COLOURS["paper" if number else "student"], "markersize": 6}
            axes.plot(x, y, "o", color=COLOURS["student"], zorder=3 - (number > 0), **look)
            if len(places) <= RANKED or number < FIRST:
                _write(axes, str(number + 1), (x, y), (6, 3))
        if sizes:
            counts = sorted({x for x, _ in places})
            axes.set_xscale("log")
            axes.set_xticks(counts[:: -(-len(counts) // 6)], minor=False)
            axes.set_xticks([], minor=True)
            axes.xaxis.set_major_formatter("{x:,.0f}")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.set(xlabel=label, ylabel=f"test {metric.head}")
        axes.yaxis.set_major_formatter(_format(metric))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.margins(0.12)
        axes.grid()

    return drawn(draw, title, finding, (WIDE, 300), left=60, lines=levels)


def effect(
    title: str,
    finding: str,
    values: Sequence[tuple[str, float, float]],
    metric: Metric,
    width: float = NARROW,
    label: str = "",
) -> Picture:
    """Return a metric's mean with its spread for each value of a setting, or of something else (`label`)."""
    texts, means, spreads = zip(*values, strict=True)

    def draw(axes: Axes) -> None:
        look: dict[str, Any] = {"fmt": "o", "color": COLOURS["student"], "elinewidth": 1.4, "markersize": 6}
        axes.errorbar(range(len(means)), means, spreads, **look)
        step = -(-len(texts) * (3 + max(map(len, texts))) // (48 * width / NARROW))  # room for as many of their letters
        axes.set_xlabel(label)
        axes.set_xticks(range(0, len(texts), int(step)), [short(text, 14) for text in texts[:: int(step)]])
        axes.set_xlim(-0.5, len(means) - 0.5)
        axes.yaxis.set_major_formatter(_format(metric))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        axes.grid(axis="y")

    return drawn(draw, title, finding, (width, 190), bottom=36 if label else 20)
