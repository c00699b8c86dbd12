"""What the settings of a sweep do: accuracy by T and alpha, by each setting, and against fidelity and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from distill_cli.report import charts
from distill_cli.report.drawing import Line, Picture
from distill_cli.report.leaderboard import Entry
from distill_cli.report.settings import text

COLUMNS = 20  # values of T up to which the map of T and alpha can be read
NAMED, FIRST = 12, 5  # up to so many points all have their rank beside them; of more, the first few have

Axes = dict[str, list[Any]]  # the settings that vary, and their values


class Grid(NamedTuple):
    """Mean validation accuracy by alpha (rows) and T (columns): by place its text, depth and colour."""

    rows: list[str]
    columns: list[str]
    cells: Mapping[tuple[int, int], tuple[str, float, str]]
    finding: str


class Effect(NamedTuple):
    """Mean validation accuracy and its spread at each value of one setting, all others averaged."""

    name: str
    values: list[tuple[str, float, float]]
    picture: Picture


def content(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what the template of a sweep's page shows where there is something to compare."""
    axes = _axes(entries)
    tradeoffs = []
    if len(entries) > 1 and all(entry.kl for entry in entries):
        tradeoffs.append(_fidelity(entries))
    if len({entry.params for entry in entries}) > 1:
        tradeoffs.append(_size(entries))
    effects = [_effect(entries, name, axes) for name in axes]
    return {"grid": _grid(entries, axes), "effects": effects, "tradeoffs": tradeoffs}


def _axes(entries: Sequence[Entry]) -> Axes:
    """Return the settings that vary and their values, numbers by size and the rest by name."""
    axes: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for name, value in entry.settings.items():
            axes.setdefault(name, {})[text(value)] = value
    return {name: sorted(values.values(), key=_order) for name, values in axes.items() if len(values) > 1}


def _order(value: Any) -> tuple[bool, float, str]:
    try:
        return False, float(value), ""
    except (TypeError, ValueError):
        return True, 0.0, text(value)


def _averaged(axes: Axes, *shown: str) -> str:
    """Return what else varies, in words."""
    others = [name for name in axes if name not in shown]
    return f", averaged over {', '.join(others)}" if others else ""


def _grid(entries: Sequence[Entry], axes: Axes) -> Grid | None:
    """Return the map of T and alpha, where both vary and most combinations were tried."""
    means: dict[tuple[int, int], float] = {}
    for row, alpha in enumerate(axes.get("alpha", [])):
        for column, T in enumerate(axes.get("T", [])):
            tried = [e.val.mean for e in entries if (e.settings["T"], e.settings["alpha"]) == (T, alpha)]
            if tried:
                means[row, column] = fmean(tried)
    if not means or 2 * len(means) < len(axes["T"]) * len(axes["alpha"]) or len(axes["T"]) > COLUMNS:
        return None
    low, high = min(means.values()), max(means.values())
    cells = {
        place: (f"{100 * mean:.2f}", 0.1 + 0.8 * (mean - low) / (high - low or 1), "student")
        for place, mean in means.items()
    }
    rows, columns = ([text(value) for value in axes[name]] for name in ("alpha", "T"))
    row, column = max(means, key=lambda place: means[place])
    finding = f"Highest at T = {columns[column]} and α = {rows[row]} with {high:.2%}; lowest {low:.2%}"
    return Grid(rows, columns, cells, f"{finding}{_averaged(axes, 'T', 'alpha')}.")


def _effect(entries: Sequence[Entry], name: str, axes: Axes) -> Effect:
    values = []
    for value in axes[name]:
        stats = [entry.val for entry in entries if entry.settings[name] == value]
        # among the settings that have the value; where only one has it, among its seeds
        spread = stdev(stat.mean for stat in stats) if len(stats) > 1 else stats[0].spread or 0.0
        values.append((text(value) or "default", fmean(stat.mean for stat in stats), spread))
    best, worst = (choose(values, key=lambda item: item[1]) for choose in (max, min))
    finding = f"Highest at {best[0]} with {best[1]:.2%}, lowest at {worst[0]} with {worst[1]:.2%}"
    title = f"Validation accuracy by {name}"
    return Effect(name, values, charts.effect(title, f"{finding}{_averaged(axes, name)}.", values))


def _levels(entries: Sequence[Entry]) -> list[Line]:
    """Return teacher and labels-only student, each where all the settings share it."""
    teachers = {r.summary["test"]["teacher"]["accuracy"] for entry in entries for r in entry.records}
    baselines = {entry.baseline.mean for entry in entries if entry.baseline}
    roles = (("teacher", "teacher", teachers), ("labels", "labels only", baselines))
    return [Line(colour, label, [0], list(levels)) for colour, label, levels in roles if len(levels) == 1]


def _ranks(number: int) -> list[str]:
    """Return what is written beside each point."""
    return [str(rank) if number <= NAMED or rank <= FIRST else "" for rank in range(1, number + 1)]


def _fidelity(entries: Sequence[Entry]) -> Picture:
    ranks = _ranks(len(entries))
    places = [(e.kl.mean, e.test.mean, rank) for e, rank in zip(entries, ranks, strict=True) if e.kl]
    nearest = min(range(len(places)), key=lambda number: places[number][0])
    finding = (
        f"Nearest to its teacher is the setting of rank {nearest + 1}, with a KL of {places[nearest][0]:.3f} and a test "
        f"accuracy of {places[nearest][1]:.2%}; the first has {places[0][0]:.3f} and {places[0][1]:.2%}."
    )
    title = "Accuracy against distance from the teacher"
    return charts.points(title, finding, places, "KL(teacher ‖ student) on test", _levels(entries))


def _size(entries: Sequence[Entry]) -> Picture:
    places = [(e.params, e.test.mean, rank) for e, rank in zip(entries, _ranks(len(entries)), strict=True)]
    small, large = (choose(places, key=lambda place: (place[0], place[1])) for choose in (min, max))
    finding = (
        f"From {small[0]:,} parameters with a test accuracy of {small[1]:.2%} to {large[0]:,} with {large[1]:.2%}; "
        f"the first has {places[0][0]:,} and {places[0][1]:.2%}."
    )
    return charts.points("Accuracy against size", finding, places, "parameters", _levels(entries), sizes=True)
