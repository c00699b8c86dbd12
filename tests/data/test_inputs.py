"""Proves that inputs of several tensors pass through sources, splits, workers and batches as pictures do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Items
from torch import Tensor

from distill_cli.data import Batch, Part, Split
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Held, Source
from distill_cli.data.spec import Spec

NUMBER = 11


def sentences() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "ids": torch.randint(0, 50, (NUMBER, 6), generator=draw),
        "mask": torch.rand(NUMBER, 6, generator=draw) > 0.3,
    }


class Doubled:
    """Changes of no pictures: token ids become odd or even with the view."""

    settings: Mapping[str, Any] = {"shift": True}

    def __call__(self, raw: Inputs, index: Tensor, view: int) -> Inputs:
        assert not isinstance(raw, Tensor)
        return {**raw, "ids": 2 * raw["ids"] + view}


class Sentences(Spec):
    def inputs(self, raw: Inputs) -> Inputs:
        return raw


@dataclass
class ReadOneByOne:
    """The same sentences as a data set of torch's kind gives them."""

    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: tensor[self.rows[index]] for name, tensor in sentences().items()}

    def take(self, rows: np.ndarray) -> ReadOneByOne:
        return ReadOneByOne(self.rows[rows])

    def digest(self) -> str:
        return str(self.rows.tolist())


def split_of(source: Source, workers: int = 0) -> Split:
    return Split(source, torch.arange(NUMBER), Sentences(), workers, Doubled())


def everything(batches: Sequence[Batch]) -> dict[str, Tensor]:
    joined = {name: torch.cat([batch.inputs[name] for batch in batches]) for name in ("ids", "mask")}
    return {**joined, "targets": torch.cat([batch.targets for batch in batches])}


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_a_split_gives_them_in_order_whole_and_in_parts(workers: int | None) -> None:
    source: Source = Held(sentences()) if workers is None else Items(ReadOneByOne(np.arange(NUMBER)))
    split = split_of(source, workers or 0).to(torch.device("cpu"))
    order = torch.randperm(NUMBER, generator=torch.Generator().manual_seed(1))
    batches = list(split.batches(4, order, view=1))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    parts = [part for batch in batches for part in batch.parts(2)]
    assert [len(part.inputs["ids"]) for part in parts] == [2, 2, 2, 2, 2, 1]
    for found in (everything(batches), everything(parts)):
        assert torch.equal(found["ids"], 2 * sentences()["ids"][order] + 1)
        assert torch.equal(found["mask"], sentences()["mask"][order])
        assert torch.equal(found["targets"], order)
    assert torch.equal(everything(list(split.batches(4, order, skip=2)))["targets"], order[8:])


def test_a_digest_follows_every_tensor_and_its_name() -> None:
    whole = sentences()
    others = [
        {**whole, "mask": ~whole["mask"]},
        {**whole, "ids": whole["ids"] + 1},
        {"words": whole["ids"], "mask": whole["mask"]},
        {"ids": whole["ids"]},
    ]
    labels = np.arange(NUMBER)
    digests = [Part(inputs, labels).digest() for inputs in (whole, *others)]
    assert len(set(digests)) == 5
    assert Part({name: whole[name] for name in reversed(whole)}, labels).digest() == digests[0]
    assert Part(whole, labels[::-1]).digest() != digests[0]


def test_a_part_of_a_source_holds_the_rows_it_was_asked_for() -> None:
    rows = np.array([7, 2])
    for source in (Held(sentences()), Items(ReadOneByOne(np.arange(NUMBER)))):
        taken = source.take(rows)
        read = taken.read([1, 0])
        assert len(taken) == 2 and not isinstance(read, Tensor)
        assert torch.equal(read["ids"], sentences()["ids"][[2, 7]])
