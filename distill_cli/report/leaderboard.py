"""The leaderboard: runs that differ by their seed alone become one entry; as values, as CSV, and as printed."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich.table import Table

from distill_cli.base import ui
from distill_cli.base.metrics import Metric
from distill_cli.report import settings
from distill_cli.report.records import Record
from distill_cli.report.significance import Difference, Stat, over_samples, over_seeds
from distill_cli.report.words import listed

FEW = 3  # seeds below which a spread says little
MOST = 40  # rows that are printed
MANY = 5  # comparisons from which one may well look like something by chance

# What an entry is judged by, and where a summary has it: split, whose, metric ("": `Record.metric`).
MEASURED = {
    "val": ("val", "student", ""),
    "test": ("test", "student", ""),
    "test_last": ("test", "student_last", ""),
    "kl": ("test", "student", "kl"),
    "agreement": ("test", "student", "agreement"),
    "baseline": ("test", "baseline", ""),
}


@dataclass(frozen=True)
class Entry:
    """Runs with the same settings but for the seed.

    `settings` tell it from the other entries. `records` hold a run for each seed, in their order. Statistics are those of
    MEASURED, the student's at the epoch that was best on validation; what no run measured is None.
    """

    settings: dict[str, Any]
    records: list[Record]
    note: str
    difference: Difference | None
    val: Stat
    test: Stat
    test_last: Stat
    kl: Stat | None
    agreement: Stat | None
    baseline: Stat | None

    @property
    def label(self) -> str:
        """The settings in one line, as typed."""
        return settings.line(self.settings)

    @property
    def seeds(self) -> list[int]:
        return [record.seed for record in self.records]

    @property
    def judged(self) -> Metric:
        return self.records[0].judged

    @property
    def verdict(self) -> str:
        """The difference's, "" without a baseline."""
        return self.difference.verdict if self.difference else ""

    @property
    def params(self) -> int:
        return int(self.records[0].summary["params"]["student"])

    @property
    def compression(self) -> float:
        return float(self.records[0].summary["compression"])


def leaderboard(records: Sequence[Record]) -> list[Entry]:
    """Return the records by their settings, the best on validation first; ties by validation NLL (without labels KL), then by
    settings.
    """
    groups = settings.grouped(records)
    told = settings.telling([group[0] for group in groups])
    return sorted((_entry(own, group) for own, group in zip(told, groups, strict=True)), key=_rank)


def _rank(entry: Entry) -> tuple[str, float, float, str]:
    closeness = [
        scores.get("nll", scores.get("kl")) for r in entry.records for scores in (r.summary["val"]["student"],)
    ]
    return entry.judged.name, -entry.judged.gain(entry.val.mean), fmean(closeness), entry.label


def _entry(told: dict[str, Any], group: Sequence[Record]) -> Entry:
    newest = {record.seed: record for record in sorted(group, key=lambda record: record.started)}
    records = [newest[seed] for seed in sorted(newest)]
    paired = [record.summary for record in records if "baseline" in record.summary["test"]]
    metric = records[0].judged
    difference = over_samples(paired[0].get("difference") if paired else None, metric)
    if len(paired) > 1 and records[0].metric == metric.name:
        students, baselines = ([s["test"][who][metric.name] for s in paired] for who in ("student", "baseline"))
        difference = over_seeds(students, baselines, metric)
    stats: dict[str, Any] = {name: _stat(records, *keys) for name, keys in MEASURED.items()}
    note = "; ".join(_notes([record.seed for record in group], len(records), len(paired)))
    return Entry(told, records, note, difference, **stats)


def _stat(records: Sequence[Record], split: str, who: str, metric: str) -> Stat | None:
    parts = [(record.summary[split].get(who, {}), metric or record.metric) for record in records]
    values = [part[name] for part, name in parts if name in part]
    return Stat(fmean(values), stdev(values) if len(values) > 1 else None, len(values)) if values else None


def _notes(runs: list[int], seeds: int, paired: int) -> list[str]:
    """Return the caveats of an entry, from the seeds of its runs, how many seeds there are, and how many with a baseline."""
    notes = [f"{seeds} seed{'s: fewer than three' if seeds > 1 else ''}"] if seeds < FEW else []
    if 0 < paired < seeds:
        notes.append(f"{paired} of {seeds} seeds with a baseline")
    twice = sorted({seed for seed in runs if runs.count(seed) > 1})
    return notes + [f"seed {seed} was run {runs.count(seed)} times: the newest counts" for seed in twice]


def judged_by(entries: Sequence[Entry]) -> list[str]:
    """Return what the entries are judged by, each metric's name in words once."""
    return list(dict.fromkeys(entry.judged.head for entry in entries))


def remarks(entries: Sequence[Entry]) -> list[str]:
    """Return the caveats of the leaderboard, a sentence each."""
    total = len(entries)

    def among(number: int) -> str:
        return f" ({number} of {total} configurations)" if total > 1 else ""

    data = sorted({record.names["dataset"] for entry in entries for record in entry.records})
    lines = [f"Several data sets ({', '.join(data)}): compare the rows of one."] if len(data) > 1 else []
    called = judged_by(entries)
    if len(called) > 1:
        lines.append(f"The rows are judged by {listed(called)}: compare those of one.")
    if any(record.metric != record.judged.name for entry in entries for record in entry.records):
        lines.append(
            f"Where validation or test has no labels, what is called {called[0]} is agreement with the teacher."
        )
    notes = Counter(note for entry in entries for note in entry.note.split("; ") if note)
    lines += [f"{note[0].upper()}{note[1:]}{among(number)}." for note, number in notes.items()]
    if any(len(entry.seeds) < FEW for entry in entries):
        lines.append("Fewer than three seeds say little about the spread: -m seed=0,1,2 runs three.")
    compared = sum(entry.difference is not None for entry in entries)
    chance = "where distillation changes nothing, about one in twenty still shows as helps or hurts, by chance"
    if compared >= MANY:
        lines.append(f"{compared} configurations are compared on the same test set: {chance}.")
    how = "baseline=true trains the same student on labels only, and compares"
    trainable = any(record.summary.get("labelled") != 0 for entry in entries for record in entry.records)
    if compared < total and trainable:
        lines.append(f"What did distillation buy{among(total - compared)}? {how}.")
    return lines


def csv_text(entries: Sequence[Entry]) -> str:
    """Return the leaderboard as CSV with a header, every digit kept; what an entry does not have is empty."""
    text, rows = io.StringIO(), [_row(rank, entry) for rank, entry in enumerate(entries, 1)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([rows[0].keys(), *(row.values() for row in rows)])
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
    return {f"{name}_{key}": getattr(stat, key, None) for key in ("mean", "spread")}


def show(entries: Sequence[Entry]) -> None:
    """Print the leaderboard, or the best of a long one, and its caveats."""
    ui.show(table(entries[:MOST]))
    if len(entries) > MOST:
        ui.show(f"{len(entries) - MOST} more are in leaderboard.csv")
    ui.show("\n".join(["", *remarks(entries), ""]))


def table(entries: Sequence[Entry]) -> Table:
    """Return the leaderboard in 120 columns; differences of shares in points."""
    columns = ["", "settings", "n", "val", "test", "last", "kl", "labels only", "difference, 95 %", "distillation"]
    rows = [_cells(rank, entry) for rank, entry in enumerate(entries, 1)]
    made = ui.table(
        f"student, best on validation: {listed(judged_by(entries))}, mean ± deviation over n seeds", columns, rows
    )
    made.padding, made.show_edge = (0, 1, 0, 0), False
    for column in made.columns:
        column.no_wrap = column.header != "settings"
    made.columns[1].justify = made.columns[-1].justify = "left"
    made.columns[1].overflow = "fold"
    return made


def _cells(rank: int, entry: Entry) -> list[str]:
    """Return the texts of a row, labels only without its spread, for want of room."""
    d, test, metric = entry.difference, entry.test, entry.judged
    spread = f"±{test.spread:.4f}" if test.spread is not None else ""
    scores = [f"{entry.val.mean:.4f}", f"{test.mean:.4f}{spread}", f"{entry.test_last.mean:.4f}"]
    scores += [f"{stat.mean:.4f}" if stat else "-" for stat in (entry.kl, entry.baseline)]
    difference = f"{metric.change(d.mean)} [{metric.change(d.low)}, {metric.change(d.high)}]" if d else "-"
    return [str(rank), entry.label or "defaults", str(len(entry.seeds)), *scores, difference, entry.verdict or "-"]
