"""The report of a sweep: its leaderboard, whether distillation helps, and what each setting does, on one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from distill_cli.report import charts, headline, landscape
from distill_cli.report.headline import Score, chance, ends, interval, points
from distill_cli.report.leaderboard import Entry, Stat, remarks
from distill_cli.report.page import Child, Html, Section, figure, folded, markup, note, page, table, tag
from distill_cli.report.records import Record

OPEN = 20  # rows of the leaderboard that are not folded
DRAWN = 30  # intervals in one picture
TALLY = {"helps": "helps in", "hurts": "hurts in", "no difference shown": "shows no difference in"}
BOARD = (
    "",
    "settings",
    "val %",
    "test %",
    "difference",
    "distillation",
    "labels only %",
    "last %",
    "agree %",
    "KL",
    "seeds",
)


def sweep_page(entries: Sequence[Entry], home: Path, failures: Sequence[tuple[str, str]] = ()) -> str:
    """The page of a sweep.

    Args:
        entries: the leaderboard, best first. home: the folder the page will lie in, which its links start from.
        failures: the runs without final numbers, and how each stands.
    """
    best = entries[0]
    sections = [Section("Leaderboard", _leaderboard(entries, home))]
    if sum(entry.difference is not None for entry in entries) > 1:
        sections.append(Section("Against labels only", _against_labels(entries)))
    sections += landscape.sections(entries)
    if failures:
        rows = [(tag("code", run), reason) for run, reason in failures]
        unfinished = table("Runs without final numbers", ["run", "how it stands"], rows, "words")
        sections.append(Section("Unfinished runs", unfinished))
    names = [record.names for entry in entries for record in entry.records]
    teacher, student, data = (
        _one({name[key] for name in names}, many)
        for key, many in (("teacher", "teachers"), ("model", "students"), ("dataset", "data sets"))
    )
    runs = sum(len(entry.records) for entry in entries)
    seeds = sorted({seed for entry in entries for seed in entry.seeds})
    about = f"{_count(runs, 'run')}: {_count(len(entries), 'setting')}, {_count(len(seeds), 'seed')}"
    top = markup(
        headline.title(teacher, student, data),
        note(about, f"; {len(failures)} more without final numbers." if failures else "."),
        tag(
            "p",
            "Best on validation: ",
            tag("code", best.label or "the defaults"),
            f", {_percent(best.val)}%.",
            class_="best",
        ),
        headline.scores(_scores(best), "Its accuracy on test"),
        headline.verdict(best.difference, " ", _tally(entries)) if best.difference else headline.unknown(),
        headline.facts([headline.times(best.compression, "fewer parameters", "more parameters")]),
    )
    return page(f"{teacher} distilled into {student} on {data}, {_count(runs, 'run')}", top, sections)


def _one(names: set[str], many: str) -> str:
    return next(iter(names)) if len(names) == 1 else f"{len(names)} {many}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _percent(stat: Stat | None) -> str:
    """95.14 ± 0.40."""
    if stat is None:
        return "–"
    return f"{100 * stat.mean:.2f}" + ("" if stat.spread is None else f"\u00a0±\u00a0{100 * stat.spread:.2f}")


def _scores(best: Entry) -> list[Score]:
    def over(stat: Stat) -> str:
        return f"± {100 * stat.spread:.2f} over {stat.n} seeds" if stat.spread is not None else "one seed"

    teacher = fmean(record.summary["test"]["teacher"]["accuracy"] for record in best.records)
    size = best.records[0].summary["params"]["teacher"]
    compared = [
        Score("teacher", "teacher", teacher, f"{size:,} parameters"),
        Score("student", "student", best.test.mean, over(best.test)),
    ]
    if best.baseline:
        compared.append(Score("labels", "labels only", best.baseline.mean, over(best.baseline)))
    return compared


def _tally(entries: Sequence[Entry]) -> str:
    """In how many settings distilling helps."""
    words = [entry.verdict for entry in entries if entry.verdict]
    if len(words) == 1:
        return ""
    counts = [f"{says} {words.count(word)}" for word, says in TALLY.items() if word in words]
    return f"Of {len(words)} settings, distillation {', '.join(counts)}."


def _leaderboard(entries: Sequence[Entry], home: Path) -> Html:
    noted = len({entry.note for entry in entries}) > 1  # what holds for all is among the remarks
    rows = [_row(rank, entry, home, noted) for rank, entry in enumerate(entries, 1)]
    caption = (
        "Best on validation first. Accuracies are mean ± standard deviation over seeds; the difference is in points, with "
        "its 95% interval; last is the last epoch's test accuracy; a seed leads to its run's report."
    )
    more = folded(f"The other {len(rows) - OPEN}", table(caption, BOARD, rows[OPEN:], "board")) if rows[OPEN:] else None
    said = remarks(entries)
    listed = tag("ul", [tag("li", remark) for remark in said], class_="remarks") if said else None
    return markup(table(caption, BOARD, rows[:OPEN], "board"), more, listed)


def _row(rank: int, entry: Entry, home: Path, noted: bool) -> list[Child]:
    d = entry.difference
    return [
        str(rank),
        [tag("code", entry.label or "the defaults"), tag("small", entry.note) if noted else None],
        _percent(entry.val),
        _percent(entry.test),
        [points(d.mean), tag("small", ends(d)), tag("small", chance(d.p)) if d.p is not None else None] if d else "–",
        tag("span", entry.verdict or "–", class_=f"chip {entry.verdict.split(' ')[0]}"),
        _percent(entry.baseline),
        f"{100 * entry.test_last.mean:.2f}",
        f"{100 * entry.agreement.mean:.2f}" if entry.agreement else "–",
        f"{entry.kl.mean:.3f}" if entry.kl else "–",
        tag("span", [_link(record, home) for record in entry.records], class_="links"),
    ]


def _link(record: Record, home: Path) -> Html:
    """A run's seed, leading to its report if it has one."""
    report = record.folder / "report.html"
    if not report.exists():
        return tag("span", str(record.seed))
    place = quote(os.path.relpath(report, home))
    return tag("a", str(record.seed), href=place, aria_label=f"report of seed {record.seed}")


def _against_labels(entries: Sequence[Entry]) -> Html:
    compared = [(rank, entry, entry.difference) for rank, entry in enumerate(entries, 1) if entry.difference]
    shown = compared[:DRAWN]
    rows = [
        (f"{rank}  {entry.label}", d.mean, d.low, d.high, d.verdict != "no difference shown")
        for rank, entry, d in shown
    ]
    words = _tally(entries)
    first = f" The first {DRAWN} of {len(compared)} are drawn." if len(compared) > DRAWN else ""
    numbers = table("Difference to labels only on test, in points", ["", "settings", "difference", "interval"],
                    [(str(rank), entry.label, points(d.mean), interval(d)) for rank, entry, d in compared], "board")  # fmt: skip
    return figure(
        "Test accuracy against labels only, by setting",
        charts.intervals("against-labels", words, rows),
        note(words, first, " Lines are 95% intervals; a point is filled where a difference is shown."),
        folded("Numbers", numbers),
    )
