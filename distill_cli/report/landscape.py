"""What the settings of a sweep do: accuracy by T and alpha, by each setting, and against fidelity and size."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from distill_cli.report import charts
from distill_cli.report.charts import Line
from distill_cli.report.leaderboard import Entry, Stat
from distill_cli.report.page import Html, Section, figure, folded, markup, note, table, tag
from distill_cli.report.settings import text

COLUMNS = 20  # values of T up to which the map of T and alpha can be read
NAMED, FIRST = 12, 5  # up to so many points all have their rank beside them; of more, the first few have


def sections(entries: Sequence[Entry]) -> list[Section]:
    """Those in which there is something to compare."""
    found, axes = [], _axes(entries)
    if axes:
        effects = tag("div", [_effect(entries, name, axes) for name in axes], class_="three")
        found.append(Section("Settings", markup(_grid(entries, axes), effects)))
    scatters = []
    if len(entries) > 1 and all(entry.kl for entry in entries):
        scatters.append(_fidelity(entries))
    if len({entry.params for entry in entries}) > 1:
        scatters.append(_size(entries))
    if scatters:
        found.append(Section("Trade-offs", tag("div", scatters, class_="two")))
    return found


def _axes(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    """The settings that vary and their values, numbers by size and the rest by name."""
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


def _averaged(axes: dict[str, list[Any]], *shown: str) -> str:
    """What else varies, in words."""
    others = [name for name in axes if name not in shown]
    return f", averaged over {', '.join(others)}" if others else ""


def _grid(entries: Sequence[Entry], axes: dict[str, list[Any]]) -> Html | None:
    """Validation accuracy by T and alpha, where they vary and were tried in most combinations, as in a sweep over both."""
    means: dict[tuple[int, int], float] = {}
    for row, alpha in enumerate(axes.get("alpha", [])):
        for column, T in enumerate(axes.get("T", [])):
            found = [e.val.mean for e in entries if (e.settings["T"], e.settings["alpha"]) == (T, alpha)]
            if found:
                means[row, column] = fmean(found)
    if not means or 2 * len(means) < len(axes["T"]) * len(axes["alpha"]) or len(axes["T"]) > COLUMNS:
        return None
    low, high = min(means.values()), max(means.values())
    depth = {place: 0.1 + 0.8 * (mean - low) / (high - low or 1) for place, mean in means.items()}
    cells = {place: (depth[place], "student", f"{100 * mean:.1f}") for place, mean in means.items()}
    rows, columns = [text(value) for value in axes["alpha"]], [text(value) for value in axes["T"]]
    row, column = max(means, key=lambda place: means[place])
    words = f"Highest at T = {columns[column]} and α = {rows[row]} with {high:.2%}; lowest {low:.2%}"
    words += f"{_averaged(axes, 'T', 'alpha')}."
    height = 70 + 36 * len(rows)
    picture = charts.cells("grid", f"Validation accuracy. {words}", cells, rows, columns, ("α", "T"), height)
    numbers = [
        [rows[r], *(f"{100 * means[r, c]:.2f}" if (r, c) in means else "–" for c in range(len(columns)))]
        for r in range(len(rows))
    ]
    listed = table("Mean validation accuracy in percent", ["α \\ T", *columns], numbers)
    title = "Validation accuracy in percent, by T and α"
    return tag("div", figure(title, picture, note(words), folded("Numbers", listed)), class_="two")


def _effect(entries: Sequence[Entry], name: str, axes: dict[str, list[Any]]) -> Html:
    """Validation accuracy at each value of one setting, all others averaged."""
    values = []
    for value in axes[name]:
        found = [entry.val for entry in entries if entry.settings[name] == value]
        values.append((text(value) or "default", fmean(stat.mean for stat in found), _spread(found)))
    best, worst = (choose(values, key=lambda item: item[1]) for choose in (max, min))
    words = f"Highest at {best[0]} with {best[1]:.2%}, lowest at {worst[0]} with {worst[1]:.2%}{_averaged(axes, name)}."
    picture = charts.effect(f"effect-{list(axes).index(name)}", f"Validation accuracy by {name}. {words}", values)
    rows = [(shown, f"{mean:.2%}", f"{100 * spread:.2f}") for shown, mean, spread in values]
    numbers = table(f"Mean validation accuracy by {name}", [name, "mean", "± points"], rows)
    return figure(f"Validation accuracy by {name}", picture, note(words), folded("Numbers", numbers))


def _spread(found: Sequence[Stat]) -> float:
    """Among the settings that have a value; where only one has it, among its seeds."""
    return stdev(stat.mean for stat in found) if len(found) > 1 else found[0].spread or 0.0


def _levels(entries: Sequence[Entry]) -> list[Line]:
    """Teacher and labels-only student, each where all the settings share it."""
    teachers = {r.summary["test"]["teacher"]["accuracy"] for entry in entries for r in entry.records}
    baselines = {entry.baseline.mean for entry in entries if entry.baseline}
    known = (("teacher", "teacher", teachers), ("labels only", "labels", baselines))
    return [Line(label, colour, [0], list(found)) for label, colour, found in known if len(found) == 1]


def _ranks(number: int) -> list[str]:
    return [str(rank) if number <= NAMED or rank <= FIRST else "" for rank in range(1, number + 1)]


def _fidelity(entries: Sequence[Entry]) -> Html:
    ranks = _ranks(len(entries))
    places = [(e.kl.mean, e.test.mean, rank) for e, rank in zip(entries, ranks, strict=True) if e.kl]
    nearest = min(range(len(places)), key=lambda number: places[number][0])
    words = (
        f"Nearest to its teacher is the setting of rank {nearest + 1}, with a KL of {places[nearest][0]:.3f} and a test "
        f"accuracy of {places[nearest][1]:.2%}; the first has {places[0][0]:.3f} and {places[0][1]:.2%}."
    )
    lines = _levels(entries)
    picture = charts.points("fidelity", words, places, ("KL(teacher ‖ student) on test", "test accuracy"), lines)
    return _scatter("Accuracy against distance from the teacher", picture, words, lines)


def _size(entries: Sequence[Entry]) -> Html:
    places = [(e.params, e.test.mean, rank) for e, rank in zip(entries, _ranks(len(entries)), strict=True)]
    small, large = (choose(places, key=lambda place: (place[0], place[1])) for choose in (min, max))
    words = (
        f"From {small[0]:,} parameters with a test accuracy of {small[1]:.2%} to {large[0]:,} with {large[1]:.2%}; "
        f"the first has {places[0][0]:,} and {places[0][1]:.2%}."
    )
    lines = _levels(entries)
    picture = charts.points("size", words, places, ("parameters", "test accuracy"), lines, sizes=True)
    return _scatter("Accuracy against size", picture, words, lines)


def _scatter(title: str, picture: Html, words: str, lines: Sequence[Line]) -> Html:
    about = note(words, " A number is a setting's rank in the leaderboard, the filled point the first.")
    return figure(title, picture, about, keys=[line.key for line in lines])
