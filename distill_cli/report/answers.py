"""What a run's student answers on test: its mistakes, its confidence, and where it and the teacher differ most."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from distill_cli.report import charts
from distill_cli.report.page import Child, Html, Section, figure, folded, key, markup, note, table, tag

DRAWN = 30  # classes up to which the confusion matrix is drawn
BESIDE = 12  # classes up to which it leaves room for their table beside it
CONFUSIONS = 20
UNFOLDED = 20  # classes up to which the table of them is open
SMALL = 64  # pixels up to which a picture is enlarged as it is, not smoothed

Evaluation = Mapping[str, Any]


def sections(evaluation: Evaluation, summary: Mapping[str, Any]) -> list[Section]:
    """All of them."""
    beside = "two" if len(evaluation["classes"]) <= BESIDE else "stack"
    mistakes = tag("div", _confusion(evaluation), tag("div", _classes(evaluation)), class_=beside)
    return [
        Section("Mistakes", mistakes),
        Section("Confidence", _reliability(evaluation, summary)),
        Section("Where student and teacher differ", _samples(evaluation)),
    ]


def _confusion(evaluation: Evaluation) -> Html:
    classes, found = evaluation["classes"], evaluation["confusion"]
    totals: dict[int, int] = {}
    for true, _, count in found:
        totals[true] = totals.get(true, 0) + count
    errors = sorted((cell for cell in found if cell[0] != cell[1]), key=lambda cell: -cell[2])
    right = sum(count for true, said, count in found if true == said)
    words = f"{right:,} of {sum(totals.values()):,} test samples are classified right."
    if errors:
        true, said, count = errors[0]
        words += f" Most often {classes[true]} is taken for {classes[said]}: {count:,} of {totals[true]:,}."
    rows = [
        (classes[true], classes[said], f"{count:,}", f"{count / totals[true]:.1%}")
        for true, said, count in errors[:CONFUSIONS]
    ]
    listed = table("Most frequent confusions of the student", ["class", "taken for", "times", "of its samples"], rows)
    if len(classes) > DRAWN:
        return tag("div", note(words), listed)
    most = max((count for _, _, count in errors), default=1)
    cells = {
        (true, said): (
            (0.14 * count / totals[true], "ink", f"{count}")
            if true == said
            else (0.15 + 0.75 * count / most, "student", f"{count}")
        )
        for true, said, count in found
    }
    side = max(charts.WIDE, 60 + 22 * len(classes))
    picture = charts.cells(
        "confusion", words, cells, classes, classes, ("true class", "predicted by the student"), 0.9 * side, side
    )
    return figure(
        "Confusion matrix",
        picture,
        note(words, " The stronger a wrong cell's colour, the more samples fell in it."),
        folded("Numbers", listed) if errors else None,
    )


def _classes(evaluation: Evaluation) -> Html:
    per = evaluation["per_class"]
    order = sorted(
        range(len(evaluation["classes"])), key=lambda number: (not per["support"][number], per["f1"][number])
    )
    rows = [
        (
            evaluation["classes"][n],
            *(f"{per[metric][n]:.4f}" for metric in ("precision", "recall", "f1")),
            f"{per['support'][n]:,}",
        )
        for n in order
    ]
    shown = table(
        "Each class on test, the student's worst first", ["class", "precision", "recall", "F1", "samples"], rows
    )
    if len(order) <= UNFOLDED:
        return markup(tag("h3", "By class"), shown)
    worst = ", ".join(f"{evaluation['classes'][n]} ({per['f1'][n]:.2f})" for n in order[:3])
    return markup(tag("h3", "By class"), note(f"Lowest F1: {worst}."), folded(f"All {len(order):,} classes", shown))


def _reliability(evaluation: Evaluation, summary: Mapping[str, Any]) -> Html:
    roles: dict[str, charts.Bins] = {}
    rows: list[Sequence[Child]] = []
    for role in ("teacher", "student"):
        bins = evaluation["reliability"][role]
        kept = [n for n, count in enumerate(bins["count"]) if count]
        confidence, accuracy, count = ([bins[what][n] for n in kept] for what in ("confidence", "accuracy", "count"))
        roles[role] = confidence, accuracy, count
        rows += [(key(role, role), f"{c:.1%}", f"{a:.1%}", f"{n:,}") for c, a, n in zip(*roles[role], strict=True)]
    errors = {role: summary["test"][role]["ece"] for role in roles}
    words = f"Expected calibration error on test: teacher {errors['teacher']:.2%}, student {errors['student']:.2%}."
    picture = charts.reliability("reliability", words, roles)
    return figure(
        "Accuracy at each confidence",
        picture,
        note(
            words, " On the dotted line confidence is just right, below it too high. Larger points hold more samples."
        ),
        folded("Numbers", table("Bins of confidence", ["", "mean confidence", "accuracy", "samples"], rows)),
        keys=[key(role, role) for role in roles],
    )


def _samples(evaluation: Evaluation) -> Html:
    classes = evaluation["classes"]
    cards = [tag("li", _sample(sample, classes)) for sample in evaluation["samples"]]
    about = "The test samples with the largest KL(teacher ‖ student), with what each of the two finds most likely."
    return markup(note(about), tag("ol", cards, class_="samples"))


def _sample(sample: Mapping[str, Any], classes: Sequence[str]) -> Html:
    label = classes[sample["label"]]
    small = " small" if sample["picture"] and _width(sample["picture"]) <= SMALL else ""
    about = f"test sample {sample['index']}, labelled {label}"
    return markup(
        tag("img", src=sample["picture"], alt=about, class_=f"sample{small}") if sample["picture"] else None,
        tag(
            "p",
            "labelled ",
            tag("b", label),
            tag("span", f"sample {sample['index']}, KL {sample['kl']:.2f}"),
            class_="truth",
        ),
        [_votes(role, sample[role], sample["label"], classes) for role in ("teacher", "student")],
    )


def _votes(role: str, votes: Sequence[tuple[int, float]], label: int, classes: Sequence[str]) -> Html:
    """What one of the two finds most likely, as bars."""
    bars = [
        tag(
            "li",
            tag("span", classes[number], class_="name", title=classes[number]),
            tag("span", tag("i", style=f"width:{100 * share:.1f}%"), class_="bar", aria_hidden="true"),
            tag("span", f"{share:.0%}" if share >= 0.005 else "<1%"),
        )
        for number, share in votes
    ]
    answer = "right" if votes[0][0] == label else "wrong"
    return tag("div", tag("p", f"{role}, {answer}"), tag("ul", bars), class_=f"votes {role}")


def _width(picture: str) -> int:
    """In pixels, from the header of the PNG."""
    head = base64.b64decode(picture.partition(",")[2][:32])
    return int.from_bytes(head[16:20], "big")
