"""Numbers in words, as the pages say them; each function is a filter of the templates too."""

from __future__ import annotations

from distill_cli.report.significance import Difference, Stat

VERDICTS = {
    "helps": ("Distillation helps", "over"),
    "hurts": ("Distillation hurts", "against"),
    "no difference shown": ("No difference shown", "against"),
}


def points(value: float) -> str:
    """Return a difference of accuracies in points: 0.0111 as +1.11, with a minus as wide as the plus."""
    return f"{100 * value:+.2f}".replace("-", "−")


def percent(stat: Stat | None) -> str:
    """Return a mean accuracy in percent with its spread: 95.14 ± 0.40."""
    if stat is None:
        return "–"
    return f"{100 * stat.mean:.2f}" + ("" if stat.spread is None else f"\u00a0±\u00a0{100 * stat.spread:.2f}")


def ends(difference: Difference) -> str:
    """Return the ends of the interval in points."""
    return f"{points(difference.low)} to {points(difference.high)}"


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
    return f"{says}: {points(difference.mean)} points {versus} the same student trained on labels only."


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


FILTERS = (points, percent, ends, chance, interval, verdict, digits, count, share)
