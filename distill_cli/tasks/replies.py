"""What a classifier says of single inputs: a class, how sure it is, and the probabilities; a language model's: continuing.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import Tensor

from distill_cli.config.schema import Predict
from distill_cli.data import Split
from distill_cli.models import Classifier, inference
from distill_cli.tasks.answers import probabilities
from distill_cli.tasks.watchers import Facts

TOP = 3  # classes that are shown of each input where nobody says


class Decisions:
    """The class of each input, none below the threshold, with the probabilities of all classes or of the likeliest; see
    `watchers.Replies`.

    Args:
        classes: by name. how: `top` and `threshold` are read.
    """

    keys, head = ("top", "threshold", "sort_into"), ("predicted", "confidence", "likeliest")

    def __init__(self, classes: Sequence[str], how: Predict) -> None:
        self.classes, self.top, self.threshold = classes, how.top, how.threshold
        self.counts = Counter[str]()
        names = [f"p_{name}" for name in classes]
        if self.top is not None:
            names = [
                part for place in range(1, 1 + min(self.top, len(classes))) for part in (f"top_{place}", f"p_{place}")
            ]
        self.columns = ["predicted", "confidence", "error", *names]

    def of(self, model: Classifier, split: Split, size: int) -> Iterator[tuple[int, Facts]]:
        for batch, output in inference.outputs(model, split, size):
            for row, values in zip(batch.index.tolist(), probabilities(output.logits), strict=True):
                yield row, self._facts(values)

    def _facts(self, values: Tensor) -> Facts:
        sure, place = float(values.max()), int(values.argmax())
        name = self.classes[place] if sure >= self.threshold else ""
        self.counts[name] += 1
        pairs = dict(zip(self.classes, values.tolist(), strict=True))
        likeliest = pairs if self.top is None else dict(_likeliest(pairs, self.top))
        return {"predicted": name or None, "confidence": sure, "probabilities": likeliest}

    def cells(self, facts: Facts) -> Facts:
        pairs = facts["probabilities"].items()
        numbers = [value for _, value in pairs] if self.top is None else [part for pair in pairs for part in pair]
        told = {"predicted": facts["predicted"] or "", "confidence": facts["confidence"]}
        return told | dict(zip(self.columns[3:], numbers, strict=True))

    def shown(self, facts: Facts) -> list[str]:
        others = "  ".join(f"{name} {p:.4f}" for name, p in _likeliest(facts["probabilities"], self.top or TOP))
        return [facts["predicted"] or "unsure", f"{facts['confidence']:.4f}", others]

    def total(self) -> tuple[Sequence[str], list[list[str]]]:
        return ["predicted", "inputs"], [[name or "unsure", f"{n:,}"] for name, n in self.counts.most_common()]


def _likeliest(pairs: dict[str, float], number: int) -> list[tuple[str, float]]:
    """The classes of the largest of some probabilities, with these; of equal ones the first comes first."""
    return sorted(pairs.items(), key=lambda pair: -pair[1])[:number]
