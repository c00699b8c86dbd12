"""Statistics over seeds: runs that differ by their seed alone become one entry, and distillation's gain is tested."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich.table import Table
from scipy.stats import ttest_rel

from distill_cli.base import ui
from distill_cli.report import settings
from distill_cli.report.records import Record

SIGNIFICANT = 0.05
ROUNDING = 1e-12  # differences of accuracies that are closer than that are the same
FEW = 3  # seeds below which a spread says little
MOST = 40  # rows that are printed
MANY = 5  # comparisons from which one may well look like something by chance


@dataclass(frozen=True)
class Stat:
    """A mean over `n` seeds and the sample standard deviation, which one seed alone does not have."""

    mean: float
    spread: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Test accuracy of the student minus that of the same student on labels only, with its 95 % interval.

    `over` says what varies in it: "seeds" (`n` of them, paired, and p of a t-test), or with one seed "test samples"
    (`n` of them, and no p).
    """

    mean: float
    low: float
    high: float
    p: float | None
    n: int
    over: str

    @property
    def verdict(self) -> str:
        """helps, hurts or no difference shown, at 5 %."""
        shown = self.p < SIGNIFICANT if self.p is not None else not self.low <= 0 <= self.high
        return "no difference shown" if not shown else "helps" if self.mean > 0 else "hurts"


@dataclass(frozen=True)
class Entry:
    """Runs with the same settings but for the seed. Accuracies and fidelity are those of the student that was best on
    validation, on test where not said otherwise; `test_last` is the last epoch's.

    `settings` tells it from the other entries. `verdict` is that of the difference, "" without a baseline. `records`
    holds one run for each seed, in their order.
    """

    settings: dict[str, Any]
    seeds: list[int]
    val: Stat
    test: Stat
    test_last: Stat
    kl: Stat | None
    agreement: Stat | None
    baseline: Stat | None
    difference: Difference | None
    verdict: str
    params: int
    compression: float
    records: list[Record]
    note: str

    @property
    def label(self) -> str:
        """The settings in one line, as they would be typed."""
        return settings.line(self.settings)


def leaderboard(records: Sequence[Record]) -> list[Entry]:
    """The records by their settings, the best on validation first; ties by validation NLL, then by settings."""
    groups = settings.grouped(records)
    told = settings.telling([group[0] for group in groups])
    return sorted((_entry(own, group) for own, group in zip(told, groups, strict=True)), key=_rank)


def _rank(entry: Entry) -> tuple[float, float, str]:
    return -entry.val.mean, fmean(r.summary["val"]["student"]["nll"] for r in entry.records), entry.label


def _entry(told: dict[str, Any], group: Sequence[Record]) -> Entry:
    by_seed = {record.seed: record for record in sorted(group, key=lambda record: record.started)}
    records = [by_seed[seed] for seed in sorted(by_seed)]
    paired = [record for record in records if "baseline" in record.summary["test"]]
    difference = _difference(paired)
    val, test, last = _stat(records, "val"), _stat(records, "test"), _stat(records, "test", "student_last")
    assert val and test and last, "records.read checks that they are there"
    return Entry(
        settings=told,
        seeds=[record.seed for record in records],
        val=val,
        test=test,
        test_last=last,
        kl=_stat(records, "test", key="kl"),
        agreement=_stat(records, "test", key="agreement"),
        baseline=_stat(paired, "test", "baseline"),
        difference=difference,
        verdict=difference.verdict if difference else "",
        params=records[0].summary["params"]["student"],
        compression=records[0].summary["compression"],
        records=records,
        note="; ".join(_notes(group, len(records), len(paired))),
    )


def _notes(group: Sequence[Record], seeds: int, paired: int) -> list[str]:
    every = [record.seed for record in group]
    notes = [f"{seeds} seed{'s: fewer than three' if seeds > 1 else ''}"] if seeds < FEW else []
    if 0 < paired < seeds:
        notes.append(f"{paired} of {seeds} seeds with a baseline")
    twice = sorted({seed for seed in every if every.count(seed) > 1})
    return notes + [f"seed {seed} was run {every.count(seed)} times: the newest counts" for seed in twice]


def _stat(records: Sequence[Record], split: str, who: str = "student", key: str = "accuracy") -> Stat | None:
    """None where no run says it."""
    values = [scores[key] for r in records if key in (scores := r.summary[split].get(who, {}))]
    if not values:
        return None
    return Stat(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def _difference(paired: Sequence[Record]) -> Difference | None:
    """What distillation changed, over the seeds by a paired t-test (Student, 1908), two-sided.

    Where every seed shows the same difference there is no spread to test with: the interval then has no width, and p
    is that of the sign test, 2^(1-n), or 1 where the difference is zero.
    """
    if len(paired) < 2:
        known = paired[0].summary.get("difference") if paired else None
        if not known:
            return None
        mean, half = known["accuracy"], known["half_interval"]
        return Difference(mean, mean - half, mean + half, None, known["samples"], "test samples")
    ours, theirs = ([r.summary["test"][who]["accuracy"] for r in paired] for who in ("student", "baseline"))
    deltas = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, n = fmean(deltas), len(deltas)
    if max(deltas) - min(deltas) < ROUNDING:
        mean = mean if abs(mean) > ROUNDING else 0.0
        return Difference(mean, mean, mean, 2.0 ** (1 - n) if mean else 1.0, n, "seeds")
    tested = ttest_rel(ours, theirs)
    low, high = tested.confidence_interval(0.95)
    return Difference(mean, float(low), float(high), float(tested.pvalue), n, "seeds")


# --- shown


def show(entries: Sequence[Entry]) -> None:
    """Print the leaderboard, the best of a long one, and what to know before believing it."""
    ui.show(table(entries[:MOST]))
    if len(entries) > MOST:
        ui.show(f"{len(entries) - MOST} more are in leaderboard.csv")
    ui.show("\n".join(["", *remarks(entries), ""]))


def table(entries: Sequence[Entry]) -> Table:
    """The leaderboard in 120 columns; the difference in points."""
    columns = ["", "settings", "n", "val", "test", "last", "kl", "labels only", "difference, 95 %", "distillation"]
    rows = [_cells(rank, entry) for rank, entry in enumerate(entries, 1)]
    made = ui.table("student, best on validation: accuracy, mean ± deviation over n seeds", columns, rows)
    made.padding, made.show_edge = (0, 1, 0, 0), False
    for column in made.columns:
        column.no_wrap = column.header != "settings"
    made.columns[1].justify = made.columns[-1].justify = "left"
    made.columns[1].overflow = "fold"
    return made


def _cells(rank: int, entry: Entry) -> list[str]:
    """Labels only without its spread, for want of room."""
    d = entry.difference
    scores = [f"{entry.val.mean:.4f}", _spread(entry.test), f"{entry.test_last.mean:.4f}"]
    scores += [f"{stat.mean:.4f}" if stat else "-" for stat in (entry.kl, entry.baseline)]
    difference = f"{100 * d.mean:+.2f} [{100 * d.low:+.2f}, {100 * d.high:+.2f}]" if d else "-"
    return [str(rank), entry.label or "defaults", str(len(entry.seeds)), *scores, difference, entry.verdict or "-"]


def _spread(stat: Stat) -> str:
    return f"{stat.mean:.4f}" + (f"±{stat.spread:.4f}" if stat.spread is not None else "")


def csv_text(entries: Sequence[Entry]) -> str:
    """The leaderboard as CSV with a header, every digit kept; what an entry does not have is empty."""
    text = io.StringIO()
    rows = [_row(rank, entry) for rank, entry in enumerate(entries, 1)]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(rank: int, entry: Entry) -> dict[str, Any]:
    d = entry.difference
    return {
        "rank": rank,
        "settings": entry.label,
        **{key: settings.text(value) for key, value in entry.settings.items()},
        "seeds": " ".join(map(str, entry.seeds)),
        "n": len(entry.seeds),
        **_columns("val", entry.val),
        **_columns("test", entry.test),
        **_columns("test_last", entry.test_last),
        "kl_mean": entry.kl and entry.kl.mean,
        "agreement_mean": entry.agreement and entry.agreement.mean,
        **_columns("baseline", entry.baseline),
        "difference": d and d.mean,
        **{key: d and getattr(d, key) for key in ("low", "high", "p")},
        "verdict": entry.verdict,
        "over": d and d.over,
        "params": entry.params,
        "compression": entry.compression,
        "runs": "; ".join(str(record.folder) for record in entry.records),
    }


def _columns(name: str, stat: Stat | None) -> dict[str, float | None]:
    mean, spread = (stat.mean, stat.spread) if stat else (None, None)
    return {f"{name}_mean": mean, f"{name}_spread": spread}


def remarks(entries: Sequence[Entry]) -> list[str]:
    """What to know before believing the leaderboard, a sentence each."""
    total = len(entries)

    def among(number: int) -> str:
        return f" ({number} of {total} configurations)" if total > 1 else ""

    data = sorted({record.names["dataset"] for entry in entries for record in entry.records})
    found = [f"Several data sets ({', '.join(data)}): compare the rows of one."] if len(data) > 1 else []
    notes = Counter(note for entry in entries for note in entry.note.split("; ") if note)
    found += [f"{note[0].upper()}{note[1:]}{among(number)}." for note, number in notes.items()]
    if any(len(entry.seeds) < FEW for entry in entries):
        found.append("Fewer than three seeds say little about the spread: -m seed=0,1,2 runs three.")
    compared = sum(entry.difference is not None for entry in entries)
    if compared >= MANY:
        found.append(
            f"{compared} configurations are compared on the same test set: where distillation changes nothing, about "
            "one in twenty still shows as helps or hurts, by chance."
        )
    if compared < total:
        found.append(
            f"What did distillation buy{among(total - compared)}? baseline=true trains the same student on labels only, "
            "and compares."
        )
    return found
