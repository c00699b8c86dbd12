"""The charts of the reports, each a function from numbers to inline SVG; what the numbers mean is said by the pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from distill_cli.report.drawing import COLOURS, drawing
from distill_cli.report.page import DASHES, Html, key

PATTERNS = {"solid": "-", "dashed": (0, (5, 3)), "dotted": (0, (1.2, 2.2))}
MARKERS = {"teacher": "s", "student": "o", "labels": "^"}
STEPS = [1, 2, 5, 10]  # between the ticks of an axis
NARROW, WIDE = 320, 440  # the widths of pictures three and two in a row

Bins = tuple[
    Sequence[float], Sequence[float], Sequence[int]
]  # mean confidence, accuracy, and number of samples in each


@dataclass(frozen=True)
class Line:
    """A line in a picture: `colour` is a role or ink, `dash` one of PATTERNS, its role's own if not given."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    dash: str = ""

    @property
    def style(self) -> dict[str, Any]:
        """As matplotlib's arguments."""
        return {"color": COLOURS[self.colour], "linestyle": PATTERNS[self.dash or DASHES[self.colour]]}

    @property
    def key(self) -> Html:
        """As the legend shows it."""
        return key(self.colour, self.label, self.dash)


def percent(value: float, _: object = None) -> str:
    """0.975 as 97.5%, for an axis."""
    return f"{100 * value:.4g}%"


def plain(value: float, _: object = None) -> str:
    return f"{value:.4g}"


def short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def logarithmic(lines: Sequence[Line]) -> bool:
    """Whether values are so far apart that only a logarithmic axis shows them all."""
    values = [value for line in lines for value in line.y]
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)


def curves(
    name: str,
    finding: str,
    lines: Sequence[Line],
    stages: Sequence[tuple[str, float, float]],
    width: float,
    written: Callable[[float, object], str] = plain,
    mark: tuple[float, float, str] | None = None,
    limits: tuple[float | None, float | None] = (None, None),
    log: bool = False,
) -> Html:
    """Lines over epochs, the stages as bands behind them.

    Args:
        stages: name, where it begins and where it ends. written: how the y axis shows a value, and `limits` its ends.
        mark: a point of the student's, and what is said of it. log: the y axis is logarithmic.
    """
    with drawing(name, finding, width, 0.54 * width) as canvas:
        axes = canvas.axes
        for line in lines:
            axes.plot(line.x, line.y, **line.style)
            if len(line.x) == 1:
                axes.plot(line.x, line.y, "o", color=COLOURS[line.colour], markersize=4)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(lambda *_: "")
        axes.yaxis.set_major_formatter(written)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(axis="y")
        _bands(axes, stages)
        axes.margins(y=0.1)
        axes.set_ylim(*limits)
        if mark:
            _mark(axes, *mark)
    return canvas.svg


def _bands(axes: Axes, stages: Sequence[tuple[str, float, float]]) -> None:
    end = stages[-1][2]
    axes.set_xlim(0, 1.01 * end)
    for number, (name, first, last) in enumerate(stages):
        if number % 2 == 0:
            axes.axvspan(first, last, color=COLOURS["faint"], linewidth=0, zorder=0)
        if (last - first) / end > 0.02 * len(name):  # or it would run into the next one
            _write(axes, name, (first, 1), (4, 3), xycoords=("data", "axes fraction"))


def _mark(axes: Axes, x: float, y: float, text: str) -> None:
    axes.plot(x, y, "o", color=COLOURS["student"], markerfacecolor=COLOURS["paper"], markersize=7)
    late = x > sum(axes.get_xlim()) / 2
    _write(axes, text, (x, y), (3 if late else -3, -19), "student", 11, ha="right" if late else "left")


def _write(
    axes: Axes,
    text: str,
    place: tuple[float, float],
    offset: tuple[float, float],
    colour: str = "muted",
    font: int = 10,
    **more: Any,
) -> None:
    """Text beside a place."""
    away: dict[str, Any] = {"xytext": offset, "textcoords": "offset points"}
    axes.annotate(text, place, color=COLOURS[colour], fontsize=font, **away, **more)


def reliability(name: str, finding: str, roles: Mapping[str, Bins]) -> Html:
    """Accuracy over confidence, a point a bin, its area growing with the bin's share of the samples.

    Args:
        roles: the bins that hold samples, per role.
    """
    with drawing(name, finding, WIDE, 380) as canvas:
        axes = canvas.axes
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1, linestyle=PATTERNS["dotted"])
        for role, (confidence, accuracy, count) in roles.items():
            areas = [18 + 180 * number / sum(count) for number in count]
            axes.plot(confidence, accuracy, **Line(role, role, confidence, accuracy).style, linewidth=1.2, alpha=0.7)
            axes.scatter(
                confidence, accuracy, s=areas, color=COLOURS[role], marker=MARKERS[role], linewidths=0, alpha=0.75
            )
        axes.set(xlim=(-0.03, 1.04), ylim=(-0.04, 1.05), xlabel="confidence", ylabel="accuracy")
        axes.xaxis.set_major_formatter(percent)
        axes.yaxis.set_major_formatter(percent)
        axes.grid()
    return canvas.svg


def cells(
    name: str,
    finding: str,
    values: Mapping[tuple[int, int], tuple[float, str, str]],
    rows: Sequence[str],
    columns: Sequence[str],
    axis_labels: tuple[str, str],
    height: float,
    width: float = WIDE,
) -> Html:
    """A heat map.

    Args:
        values: by row and column: depth of the colour from 0 to 1, its name, and what is written in the cell.
    """
    with drawing(name, finding, width, height) as canvas:
        axes, font = canvas.axes, 11 if len(columns) <= 12 else 8
        for (row, column), (depth, colour, text) in values.items():
            for shade, alpha in (("paper", 1), (colour, depth)):  # or the grid would be seen through it
                cell = Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, color=COLOURS[shade], alpha=alpha, lw=0)
                axes.add_patch(cell)
            written = COLOURS["paper" if depth > 0.6 else "ink"]
            axes.text(column, row, text, color=written, ha="center", va="center_baseline", fontsize=font)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        upright = max(map(len, columns)) * len(columns) > 60
        axes.set_xticks(range(len(columns)), [short(text, 16) for text in columns], rotation=90 if upright else 0)
        axes.set_yticks(range(len(rows)), [short(text, 16) for text in rows])
        axes.set(ylabel=axis_labels[0], xlabel=axis_labels[1])
        axes.spines[:].set_visible(False)
        axes.grid(color=COLOURS["faint"], linewidth=1)
    return canvas.svg


def intervals(
    name: str, finding: str, rows: Sequence[tuple[str, float, float, float, bool]], width: float = WIDE
) -> Html:
    """Differences in accuracy with their intervals against the line of no difference.

    Args:
        rows: what it is, the difference, the ends of its interval, and whether that shows a difference: a filled point.
    """
    with drawing(name, finding, width, 44 + (38 if any(row[0] for row in rows) else 18) * len(rows)) as canvas:
        axes = canvas.axes
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        for place, (text, mean, low, high, shown) in enumerate(rows):
            filled = COLOURS["student" if shown else "paper"]
            axes.plot([low, high], [place, place], color=COLOURS["student"], linewidth=2)
            axes.plot(mean, place, "o", color=COLOURS["student"], markerfacecolor=filled, markersize=7)
            if text:  # over the line at zero, not through it
                under = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 1}
                _write(
                    axes, short(text, 60), (0, place), (0, 9), font=11, xycoords=("axes fraction", "data"), bbox=under
                )
        axes.set_ylim(len(rows) - 0.6, -0.8)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g}".replace("-", "−") if value else "0")
        axes.set_xlabel("points of accuracy")
        axes.spines["left"].set_visible(False)
    return canvas.svg


def points(
    name: str,
    finding: str,
    places: Sequence[tuple[float, float, str]],
    axis_labels: tuple[str, str],
    levels: Sequence[Line] = (),
    sizes: bool = False,
) -> Html:
    """Accuracy (y) against something else: the first place filled, each with its text beside it.

    Args:
        levels: horizontal lines. sizes: x are counts of parameters, on a logarithmic axis.
    """
    with drawing(name, finding, WIDE, 300) as canvas:
        axes = canvas.axes
        for line in levels:
            axes.axhline(line.y[0], linewidth=1.4, **line.style)
        for number, (x, y, text) in enumerate(places):
            filled = COLOURS["paper" if number else "student"]
            axes.plot(
                x, y, "o", color=COLOURS["student"], markerfacecolor=filled, markersize=6, zorder=3 - (number > 0)
            )
            _write(axes, text, (x, y), (6, 3))
        if sizes:
            counts = sorted({x for x, _, _ in places})
            axes.set_xscale("log")
            axes.set_xticks(counts[:: -(-len(counts) // 6)], minor=False)
            axes.set_xticks([], minor=True)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
        axes.yaxis.set_major_formatter(percent)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.margins(0.12)
        axes.grid()
    return canvas.svg


def effect(name: str, finding: str, values: Sequence[tuple[str, float, float]]) -> Html:
    """A mean accuracy with its spread for each value of a setting."""
    with drawing(name, finding, NARROW, 190) as canvas:
        axes = canvas.axes
        texts, means, spreads = zip(*values, strict=True)
        axes.errorbar(
            range(len(means)), means, spreads, fmt="o", color=COLOURS["student"], elinewidth=1.4, markersize=6
        )
        step = -(-len(texts) * (3 + max(map(len, texts))) // 48)  # room for as many of their letters
        axes.set_xticks(range(0, len(texts), step), [short(text, 14) for text in texts[::step]])
        axes.set_xlim(-0.5, len(means) - 0.5)
        axes.yaxis.set_major_formatter(percent)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        axes.grid(axis="y")
    return canvas.svg
