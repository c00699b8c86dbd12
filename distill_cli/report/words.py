"""Numbers in words, as the pages say them; each function is a filter of the templates too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill_cli.base.metrics import Metric
from distill_cli.report.significance import Difference, Stat

VERDICTS = {
    "helps": ("Distillation helps", "over"),
    "hurts": ("Distillation hurts", "against"),
    "no difference shown": ("No difference shown", "against"),
}


def change(difference: Difference, at: str = "mean") -> str:
    """Return a difference, or an end of its interval, without its unit: +1.11, with a minus as wide as the plus."""
    return difference.metric.change(getattr(difference, at)).replace("-", "−")


def spread(stat: Stat | None, metric: Metric) -> str:
    """Return a mean, in percent where it is a share, with its spread: 95.14 ± 0.40."""
    if stat is None:
        return "–"
    return metric.number(stat.mean) + ("" if stat.spread is None else f"\u00a0±\u00a0{metric.number(stat.spread)}")


def ends(difference: Difference) -> str:
    """Return the ends of the interval."""
    return f"{change(difference, 'low')} to {change(difference, 'high')}"


def chance(p: float) -> str:
    """Return p as in p = 0.02."""
    return f"p\u00a0=\u00a0{p:.2g}" if p >= 0.001 else "p\u00a0<\u00a00.001"


def interval(difference: Difference) -> str:
    """Return the interval of a difference, and over what it is taken."""
    p = "" if difference.p is None else f", {chance(difference.p)}"
    return f"95% interval {ends(difference)}, over {difference.n:,} {difference.over}{p}"


def verdict(difference: Difference) -> str:
    """Return a sentence that says whether distilling helped."""
    says, versus = VERDICTS[difference.verdict]
    what = f"{change(difference)} {difference.metric.differences}"
    return f"{says}: {what} {'against' if difference.metric.lower else versus} the same student trained on labels only."


def capital(text: str) -> str:
    """Return a text as a sentence begins with it."""
    return text[:1].upper() + text[1:]


def said(metrics: Sequence[Metric], scores: Mapping[str, float], unit: str) -> str:
    """Return what a model reaches in some metrics, each before a comma: "2.513 nats a token, "; of things judged in a unit."""
    return "".join(f"{one.said(scores[one.name], unit.removesuffix('s'))}, " for one in metrics)


def listed(texts: Sequence[str]) -> str:
    """Return texts as a sentence lists them: a, b and c."""
    *others, last = texts
    return f"{', '.join(others)} and {last}" if others else last


def times(ratio: float, more: str, less: str) -> tuple[str, str]:
    """Return a ratio as a number and its words: 15.1 as 15.1× and `more`, 0.5 as 2× and `less`."""
    return (f"{digits(ratio)}×", more) if ratio >= 1 else (f"{digits(1 / ratio)}×", less)


def digits(value: float) -> str:
    """Return three digits at least: 1,146, 64.2, 2.07."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(number: int, what: str) -> str:
    """Return 1 run, 18 runs."""
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def share(value: float) -> str:
    """Return a probability in whole percent."""
    return f"{value:.0%}" if value >= 0.005 else "<1%"


FILTERS = (change, spread, ends, chance, interval, verdict, capital, said, listed, digits, count, share)
