"""What is kept of a teacher's answer to a row: all logits, the states that its head makes them of, few classes, or samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError
from distill_cli.base.names import fingerprint
from distill_cli.models import Classifier, probe
from distill_cli.runs.store import Array
from distill_cli.tasks.rows import Dense, Head, Rows, Signal
from distill_cli.tasks.signals import LOWEST, Few, drawn, likeliest

HALF, LOWEST_HALF = "<f2", -65504.0
LARGE = 2**32  # bytes of the logits or hidden states of one view, above which they are kept in fp16 where nobody says
FEW = 1024  # classes, of which all logits are kept where nobody says what is
# What gives an objective what it reads of a teacher's answers: all logits, probabilities of few classes, or means over classes.
GIVE = {
    "logits": ("logits", "hidden"),
    "few": ("logits", "hidden", "topk"),
    "mean": ("logits", "hidden", "topk", "sampled"),
}


class Keeper(Protocol):
    """Turns a teacher's answers into arrays by name, in each of which a row is a row of the signal, and back."""

    def arrays(self, rows: int) -> dict[str, Array]:
        """What of `rows` rows is kept."""

    def pack(self, rows: Rows) -> dict[str, Tensor]:
        """The numbers of those arrays for a teacher's answers on some rows."""

    def unpack(self, arrays: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> Signal:
        """The signal that some rows of those arrays hold."""


@dataclass(frozen=True)
class Logits:
    """The logits of all classes, in fp32; or how far each is below the largest in fp16, which is finest where the probability is,
    and the largest in fp32.
    """

    classes: int
    half: bool = False

    def arrays(self, rows: int) -> dict[str, Array]:
        if self.half:
            return {"logits": Array((rows, self.classes), HALF), "largest": Array((rows, 1))}
        return {"logits": Array((rows, self.classes))}

    def pack(self, rows: Rows) -> dict[str, Tensor]:
        logits = rows.logits()
        if not self.half:
            return {"logits": logits}
        largest = logits.max(-1, keepdim=True).values
        return {"logits": (logits - largest).clamp(min=LOWEST_HALF).half(), "largest": largest}

    def unpack(self, arrays: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> Signal:
        logits = arrays["logits"]
        return Dense(logits.float() + arrays["largest"] if self.half else logits, features)


@dataclass(frozen=True)
class Hidden:
    """What the teacher's head makes logits of, in fp32 or fp16; the head is run again for each answer."""

    width: int
    head: Head
    half: bool = False

    def arrays(self, rows: int) -> dict[str, Array]:
        return {"hidden": Array((rows, self.width), HALF if self.half else "<f4")}

    def pack(self, rows: Rows) -> dict[str, Tensor]:
        states = rows.answers.half() if self.half else rows.answers
        if not states.isfinite().all():
            raise ConfigError(
                "teacher.cache_dtype=fp16: hidden states go beyond what it can hold", "teacher.cache_dtype=fp32"
            )
        return {"hidden": states}

    def unpack(self, arrays: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> Signal:
        return Dense(arrays["hidden"].float(), features, self.head)


@dataclass(frozen=True)
class TopK:
    """The likeliest classes: log-probabilities in fp16, ids, and what is needed of the rest's mass at any T from 1."""

    classes: int
    words: int

    def arrays(self, rows: int) -> dict[str, Array]:
        return {
            "ids": _ids(rows, self.words, self.classes),
            "logs": Array((rows, self.words), "<f2"),
            "rest": Array((rows, 5)),
        }

    def pack(self, rows: Rows) -> dict[str, Tensor]:
        made = [likeliest(logits, self.words) for logits in _by_part(rows)]
        ids, logs, rest = (torch.cat(values) for values in zip(*made, strict=True))
        return {"ids": _narrow(ids, self.classes), "logs": logs.clamp(min=LOWEST).half(), "rest": rest}

    def unpack(self, arrays: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> Signal:
        others = self.classes - self.words
        return Few(_ids_again(arrays["ids"]), arrays["logs"].float(), arrays["rest"], others, features)


@dataclass(frozen=True)
class Sampled:
    """Classes drawn as the teacher finds them likely, each with the log of its share of the draws."""

    classes: int
    words: int

    def arrays(self, rows: int) -> dict[str, Array]:
        return {"ids": _ids(rows, self.words, self.classes), "logs": Array((rows, self.words), "<f2")}

    def pack(self, rows: Rows) -> dict[str, Tensor]:
        # of its samples alone, so that whoever asks for them again draws the same
        seed = runtime.seed_of("teacher's samples", fingerprint(rows.index.tolist()))
        draw = torch.Generator().manual_seed(seed)
        ids, logs = (
            torch.cat(values)
            for values in zip(*(drawn(logits, self.words, draw) for logits in _by_part(rows)), strict=True)
        )
        return {"ids": _narrow(ids, self.classes), "logs": logs.half()}

    def unpack(self, arrays: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> Signal:
        return Few(_ids_again(arrays["ids"]), arrays["logs"].float(), None, self.classes - self.words, features)


def whole(model: Classifier) -> str:
    """How answers are kept of which all classes are to be known, in the fewest bytes: `logits` or `hidden`."""
    return "logits" if model.head is None or classes_of(model) <= FEW else "hidden"


def classes_of(model: Classifier) -> int:
    """How many logits a row gets."""
    head = model.head
    with torch.no_grad():
        return (probe(model, "teacher") if head is None else head(probe(model, "teacher"))).shape[-1]


def halved(cache_dtype: str, rows: int) -> bool:
    """Whether logits or hidden states of so many bytes in fp32 are kept in fp16, as `teacher.cache_dtype` says."""
    return cache_dtype == "fp16" or (cache_dtype == "auto" and rows > LARGE)


def keeper(name: str, model: Classifier, classes: int, words: int, dtype: torch.dtype, half: bool = False) -> Keeper:
    """The keeper that `teacher.keep` calls so.

    Args:
        classes: of the data. words: classes kept of each row by topk and sampled. dtype: in which the model answers.
        half: whether logits and hidden states are kept in fp16.
    """
    if name == "hidden":
        device = model.device
        with torch.no_grad(), runtime.exact(), runtime.autocast(device, dtype):
            head = model.head
        assert head is not None
        return Hidden(probe(model, "teacher").shape[-1], lambda states: head(states.to(device)), half)
    if name == "logits":
        return Logits(classes, half)
    return TopK(classes, words) if name == "topk" else Sampled(classes, words)


def _by_part(rows: Rows) -> Iterator[Tensor]:
    """Logits of some rows after the other's."""
    with torch.no_grad():
        yield from (rows.logits(chunk) for chunk in rows.chunks(None))


def _ids(rows: int, words: int, classes: int) -> Array:
    return Array((rows, words), "<i2" if classes <= 2**16 else "<i4")


def _narrow(ids: Tensor, classes: int) -> Tensor:
    return ids.to(torch.int16 if classes <= 2**16 else torch.int32)


def _ids_again(ids: Tensor) -> Tensor:
    """Ids as they were: of two bytes, which have no sign."""
    return ids.long() & 0xFFFF if ids.dtype == torch.int16 else ids.long()
