"""What the study's raw rows say: which setting validation chose, paired differences with their intervals, tables, a picture.

A difference is taken seed by seed between two rows on the same data, and its interval is Student's t over the seeds that
both have. Trials choose, by validation alone; their test numbers are not even recorded.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from study_rows import DATASETS, Row, ordered

PARTS = ("objectives", "schedules", "defaults", "arrangements", "conditions")
SETTING = ("T", "alpha", "weight", "lr")
FIELDS = (
    "part", "dataset", "row", "phase", "number", "seed", *SETTING, "epochs", "val_accuracy", "val_nll", "test_accuracy",
    "test_f1", "test_nll", "test_ece", "test_kl", "test_agreement", "teacher_test_accuracy", "seconds_per_epoch",
    "parameters", "device", "overrides",
)  # fmt: skip
HEAD = ("", *SETTING, "test accuracy", "against labels", "against kd", "KL", "agreement", "s an epoch")
BETTER, WORSE, NEITHER = "#2f6fb0", "#b5533c", "#80868d"

Line = dict[str, str]


@dataclass(frozen=True)
class Interval:
    """A mean over so many seeds, and half its 95 % interval; None with fewer than two."""

    mean: float
    half: float | None
    seeds: int

    @property
    def sign(self) -> int:
        """Which side of 0 the whole interval is on; 0: neither."""
        return 0 if self.half is None or abs(self.mean) <= self.half else (1 if self.mean > 0 else -1)

    def __str__(self) -> str:
        text = f"{self.mean:+.2f}" + ("" if self.half is None else f" ± {self.half:.2f}")
        return f"**{text}**" if self.sign else text


def read(file: Path) -> list[Line]:
    """The raw rows; none where there is no file yet."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def choose(trials: Iterable[Line]) -> Line | None:
    """The best trial on validation: by accuracy, then nll, then the earlier one; None where none has a number."""
    able = [line for line in trials if line["val_accuracy"]]
    return min(able, default=None, key=lambda x: (-float(x["val_accuracy"]), float(x["val_nll"]), int(x["number"])))


def paired(ours: dict[int, float], theirs: dict[int, float]) -> Interval | None:
    """The mean difference in points over the seeds that both have."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    found = 100 * np.array([ours[seed] - theirs[seed] for seed in seeds])
    n = len(found)
    half = float(stats.t.ppf(0.975, n - 1) * found.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return Interval(float(found.mean()), half, n)


class Study:
    """The raw rows of all rows of the plan, with as many trials and seeds as were planned."""

    def __init__(self, lines: Iterable[Line], trials: int, seeds: int) -> None:
        self.planned = trials + seeds
        self.runs: dict[tuple[str, str], list[Line]] = {}
        self.chosen: dict[tuple[str, str], Line | None] = {}
        self.repeats: dict[tuple[str, str], list[Line]] = {}
        for line in lines:
            if int(line["number"]) < trials if line["phase"] == "trial" else 1 <= int(line["number"]) <= seeds:
                self.runs.setdefault((line["dataset"], line["row"]), []).append(line)
        for key, runs in self.runs.items():
            self.chosen[key] = best = choose(line for line in runs if line["phase"] == "trial")
            self.repeats[key] = [
                line for line in runs
                if line["phase"] == "seed" and best and all(line[name] == best[name] for name in SETTING)
            ]  # fmt: skip

    def column(self, key: tuple[str, str], name: str) -> dict[int, float]:
        """A column of a row's repeats by seed, those that came to an end."""
        lines = self.repeats.get(key, [])
        return {int(line["seed"]): float(line[name]) for line in lines if line[name]}

    def against(self, row: Row, which: int) -> Interval | None:
        """The difference to labels alone (0) or to kd (1); None for the row itself, and where there is nothing."""
        other = row.dataset, row.against[which]
        if other == row.key:
            return None
        return paired(self.column(row.key, "test_accuracy"), self.column(other, "test_accuracy"))

    def state(self, row: Row) -> str:
        """What there is to say of a row that is not all there."""
        runs = self.runs.get(row.key, [])
        trials = [line for line in runs if line["phase"] == "trial"]
        done = len(trials) + len(self.repeats.get(row.key, []))
        broken = sum(not line["val_accuracy"] for line in runs)
        said = ["not run" if not done else f"unfinished ({done} of {self.planned})"] * (done < self.planned)
        return ", ".join(said + [f"{broken} diverged"] * bool(broken))

    def cells(self, row: Row) -> list[str]:
        """The row as its table shows it."""
        name = f"{row.name} ({row.label})" if row.label else row.name
        state, best = self.state(row), self.chosen.get(row.key)
        name += f", {state}" if state else ""
        if best is None:
            return [name, *[""] * (len(HEAD) - 1)]
        accuracy = 100 * np.array(list(self.column(row.key, "test_accuracy").values()))
        spread = f" ± {accuracy.std(ddof=1):.2f}" if len(accuracy) > 1 else ""
        of = f" ({len(accuracy)})" if state else ""
        figures = [f"{accuracy.mean():.2f}{spread}{of}" if len(accuracy) else ""]
        figures += [str(self.against(row, which) or "") for which in (0, 1)]
        for column, form in (("test_kl", ".3f"), ("test_agreement", ".3f"), ("seconds_per_epoch", ".1f")):
            values = list(self.column(row.key, column).values())
            middle = np.median(values) if column == "seconds_per_epoch" and values else np.mean(values or [0])
            figures.append(f"{middle:{form}}" if values else "")
        return [name, *(f"{float(best[key]):g}" if best[key] else "" for key in SETTING), *figures]

    def mean(self, key: tuple[str, str], column: str) -> float | None:
        values = list(self.column(key, column).values())
        return 100 * float(np.mean(values)) if values else None

    def standing(self, dataset: str) -> str:
        """Where the data set's teacher and its student on labels alone stand on test."""
        found = {"teacher": self.mean((dataset, "kd"), "teacher_test_accuracy"),
                 "labels": self.mean((dataset, "ce"), "test_accuracy")}  # fmt: skip
        return ", ".join(f"{name} {value:.1f} %" for name, value in found.items() if value is not None)

    def devices(self, rows: Iterable[Row]) -> str:
        """What the rows' seeds ran on."""
        return ", ".join(sorted({line["device"] for row in rows for line in self.repeats.get(row.key, [])}))


def panels() -> list[tuple[str, str, list[Row]]]:
    """Data set, part and rows of each table: ce and kd come first in every one."""
    rows = ordered()
    found = []
    for dataset in DATASETS:
        base = [row for row in rows if row.dataset == dataset and row.name in ("ce", "kd")]
        for part in PARTS:
            own = [row for row in rows if (row.dataset, row.part) == (dataset, part) and row not in base]
            if own:
                found.append((dataset, part, [*base, *own]))
    return found


def markdown(study: Study, trials: int, seeds: int) -> str:
    """All tables."""
    lines = [
        f"Each row: {trials} settings tried with seed 0, the best on validation run with {seeds} other seeds, which alone "
        "were looked at on test. Accuracy in %: mean ± standard deviation; differences in points, seed by seed: mean ± half "
        "of the 95 % interval (Student's t), bold where it leaves 0 out. Each interval stands alone: of twenty rows that "
        "change nothing, one would be bold by chance. Seconds are those of a machine that ran other things beside.",
    ]
    for dataset, part, rows in panels():
        facts = "; ".join(filter(None, [study.standing(dataset), study.devices(rows)]))
        title = f"### {DATASETS[dataset].title}: {part}" + (f" ({facts})" if facts else "")
        lines += ["", title, "", row_of(HEAD), row_of(["---", *["---:"] * (len(HEAD) - 1)])]
        lines += [row_of(study.cells(row)) for row in rows]
    return "\n".join(lines) + "\n"


def row_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw(study: Study, file: Path) -> bool:
    """The differences to labels alone, a panel for each table in two columns; False where there is nothing to show."""
    shown = []
    for dataset, part, rows in panels():
        found = [(row, delta) for row in rows if (delta := study.against(row, 0))]
        if len(found) > 1 or (found and part == "objectives"):
            under = study.standing(dataset) if part != "conditions" else "kd, by condition"
            title = f"{DATASETS[dataset].title}: {part}\n{under}"
            shown.append((title, sorted(found, key=lambda item: item[1].mean)))
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    heights = [len(found) + 2.4 for _, found in shown]
    cut = min(range(1, len(shown) + 1), key=lambda n: max(sum(heights[:n]), sum(heights[n:])))
    columns = [column for column in (range(cut), range(cut, len(shown))) if column]
    tallest = max(sum(heights[n] for n in column) for column in columns)
    figure = plt.figure(figsize=(5.2 * len(columns), 0.25 * tallest + 0.6), layout="constrained")
    for place, column in zip(np.atleast_1d(figure.subfigures(1, len(columns))), columns, strict=True):
        own = [heights[n] for n in column]
        rest = [tallest - sum(own)] if tallest > sum(own) else []
        grid = place.add_gridspec(len(own) + len(rest), 1, height_ratios=own + rest)
        for n, index in enumerate(column):
            panel(place.add_subplot(grid[n]), *shown[index], study)
    figure.supxlabel("points of test accuracy against labels alone, 95 % interval; hollow: unfinished", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=160)
    plt.close(figure)
    return True


def panel(axes: object, title: str, found: Sequence[tuple[Row, Interval]], study: Study) -> None:
    """One row a dot, with its interval."""
    names = [row.label or ("base" if title.endswith("by condition") else row.name) for row, _ in found]
    axes.axvline(0, color="#404448", linewidth=1)
    for place, (row, delta) in enumerate(found):
        colour = (NEITHER, BETTER, WORSE)[delta.sign]
        face = "white" if study.state(row).startswith("unfinished") else colour
        axes.errorbar(delta.mean, place, xerr=delta.half, fmt="o", color=colour, markerfacecolor=face, markersize=5.5,
                      elinewidth=1.6)  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=10)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.tick_params(length=0, labelsize=10)
    axes.grid(axis="x", color="#e4e6e9")
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
