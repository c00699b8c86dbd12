"""The first screen of a report: what became what, whether that helped, and how much smaller and faster the student is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill_cli.report import charts
from distill_cli.report.leaderboard import Difference
from distill_cli.report.page import Child, Html, key, note, tag

VERDICTS = {
    "helps": ("Distillation helps", "over"),
    "hurts": ("Distillation hurts", "against"),
    "no difference shown": ("No difference shown", "against"),
}


@dataclass(frozen=True)
class Score:
    """One of those compared: its role, what it is called, its accuracy, and what else is to be said of it."""

    role: str
    name: str
    accuracy: float
    more: str


def title(teacher: str, student: str, data: str) -> Html:
    names = [tag("span", teacher, class_="teacher"), " distilled into ", tag("span", student, class_="student")]
    return tag("h1", names, f" on {data}")


def scores(compared: Sequence[Score], what: str) -> Html:
    """Accuracies side by side, the number first."""
    tiles = [
        tag(
            "div",
            tag("dt", key(score.role, score.name)),
            tag("dd", f"{score.accuracy:.2%}", class_=f"number {score.role}"),
            tag("dd", score.more, class_="more"),
        )
        for score in compared
    ]
    return tag("section", tag("h2", what, class_="quiet"), tag("dl", tiles, class_="scores"))


def points(value: float) -> str:
    """A difference of accuracies: 0.0111 as +1.11, with a minus as wide as the plus."""
    return f"{100 * value:+.2f}".replace("-", "−")


def ends(difference: Difference) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def chance(p: float) -> str:
    return f"p\u00a0=\u00a0{p:.2g}" if p >= 0.001 else "p\u00a0<\u00a00.001"


def interval(difference: Difference) -> str:
    """Its interval in words, and over what."""
    p = "" if difference.p is None else f", {chance(difference.p)}"
    return f"95% interval {ends(difference)}, over {difference.n:,} {difference.over}{p}"


def verdict(difference: Difference, *more: Child) -> Html:
    """Whether distilling helped, with the interval; then `more`."""
    says, versus = VERDICTS[difference.verdict]
    sentence = f"{says}: {points(difference.mean)} points {versus} the same student trained on labels only."
    shown = difference.verdict != "no difference shown"
    row = ("", difference.mean, difference.low, difference.high, shown)
    return tag(
        "div",
        tag("p", sentence, class_="verdict"),
        note(f"{interval(difference)}.", more),
        tag(
            "div",
            charts.intervals("verdict", f"{sentence} {interval(difference)}.", [row], charts.NARROW),
            class_="picture",
        ),
        class_="answer",
    )


def unknown() -> Html:
    """The verdict where nothing was compared."""
    how = (tag("code", "baseline=true"), " trains the same student on labels only, and compares.")
    return tag(
        "div", tag("p", "Whether distilling helped was not measured.", class_="verdict"), note(how), class_="answer"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> Html:
    """A number and its words each."""
    return tag("ul", [tag("li", tag("b", number), f" {words}") for number, words in pairs], class_="facts")


def times(ratio: float, more: str, less: str) -> tuple[str, str]:
    """A ratio as a fact: 15.1 as 15.1× and `more`, 0.5 as 2× and `less`."""
    return (f"{ratio:,.3g}×", more) if ratio >= 1 else (f"{1 / ratio:,.3g}×", less)
