"""What a run's page shows of a language model's answers: KL by place and by frequency as pictures, texts with tokens in colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill_cli.base.metrics import METRICS
from distill_cli.report.charts import WIDE, effect
from distill_cli.report.drawing import Picture
from distill_cli.report.words import capital

DEEPEST = 0.6  # share of the colour on the token that differs most; text is read on it, light or dark
PICTURES = {
    "places": ("KL by place in the block", "place in the block", ""),
    "counts": ("KL by frequency in train", "how often the token is asked for in train", " times"),
}


def answers(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows of an evaluation: its pictures, each with its numbers, and its texts."""
    pictures = [_picture(evaluation[name], *words) for name, words in PICTURES.items()]
    largest = max(known[0] for sample in evaluation["samples"] for _, known in sample["tokens"] if known)
    texts = [{**sample, "tokens": _merged(sample["tokens"], largest)} for sample in evaluation["samples"]]
    return {"pictures": pictures, "texts": texts, "largest": largest}


def _picture(groups: Sequence[tuple[int, int, float, float, int]], title: str, axis: str, what: str) -> dict[str, Any]:
    """Return a picture of groups: first, last, mean KL, half its interval, how many rows."""
    kl = METRICS["kl"]
    values = [(_span(first, last), mean, half) for first, last, mean, half, _ in groups]
    ends = zip(kl.ends, (choose(values, key=lambda one: one[1]) for choose in (min, max)), strict=True)
    finding = capital(", ".join(f"{end} at {name}{what} with {kl.written(mean)}" for end, (name, mean, _) in ends))
    picture: Picture = effect(title, f"{finding}; lines are 95% intervals.", values, kl, WIDE, axis)
    rows = [
        (name, kl.written(mean), kl.written(half), f"{group[4]:,}")
        for (name, mean, half), group in zip(values, groups, strict=True)
    ]
    return {"picture": picture, "axis": axis, "rows": rows}


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _merged(tokens: Sequence[tuple[str, Any]], largest: float) -> list[tuple[str, float, str]]:
    """Return text, depth of colour and note of each token; those that end within a letter go with what follows them."""
    merged, text, worst = list[tuple[str, float, str]](), "", None
    for added, known in tokens:
        text += added
        worst = max(filter(None, (worst, known)), key=lambda one: one[0], default=None)
        if added:
            merged.append((text, DEEPEST * worst[0] / largest if worst and largest else 0.0, _note(worst)))
            text, worst = "", None
    return merged


def _note(known: Any) -> str:
    """Return what is known of a token in words: its KL, and what each of the two found likeliest in its place."""
    if known is None:
        return ""
    kl, *likeliest = known
    said = (f"{who} {name!r} {share:.0%}" for who, (name, share) in zip(("teacher", "student"), likeliest, strict=True))
    return f"KL {kl:.2f}; likeliest: {', '.join(said)}"
