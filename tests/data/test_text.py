"""Proves that text files become data as they are written, broken ones are refused by line, and batches hold alike lengths."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_cli.base.errors import DataError, DistillError
from distill_cli.data.labels import UNKNOWN
from distill_cli.data.tables import rows
from distill_cli.data.text import text
from distill_cli.data.texts import Texts, TextSpec, made_from
from distill_cli.data.tokens import Tokenizer
from distill_cli.runs import store

SAID = {"good": "a fine day with sun", "bad": "rain and cold wind all night long"}


def written(folder: Path, name: str = "train.csv", number: int = 24, **more: str) -> Path:
    """A file of short texts of two classes, each with a number of its own."""
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["text", "label"])
        for place in range(number):
            label = list(SAID)[place % 2]
            lines.writerow([f"{name} {place} {SAID[label]}", label])
        for said, label in more.items():
            lines.writerow([said, label])
    return folder


def tokenizer(*texts: str) -> Tokenizer:
    return Tokenizer.made_from(texts or [*SAID.values()] * 2)


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", 'text,label\n"one, ""two""\nthree",x\nfour,y\n'),
    ("a.tsv", "text\tlabel\none, \"two\" three\tx\nfour\ty\n"),
    ("a.jsonl", '{"text": "one, \\"two\\"\\nthree", "label": "x"}\n\n{"text": "four", "label": "y"}\n'),
])  # fmt: skip
def test_quotes_line_breaks_and_a_byte_order_mark_are_read_as_they_are_meant(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text("\ufeff" + content, encoding="utf-8")
    (first, one), (second, two) = rows(tmp_path / name)
    three = "three" if name.endswith("tsv") else "\nthree"
    assert one == {"text": f'one, "two"{" " if name.endswith("tsv") else ""}{three}', "label": "x"}
    assert two == {"text": "four", "label": "y"}
    assert first == f"{name} line {1 if name.endswith('jsonl') else 2}"
    assert second == f"{name} line {3 if name.endswith(('tsv', 'jsonl')) else 4}"


@pytest.mark.parametrize(("name", "content", "told"), [
    ("a.csv", b"text,label\nfine,x\n\xff\xfe,y\n", "line 3 is not UTF-8"),
    ("a.csv", b'text,label\n"never closed,x\n', "line 2"),
    ("a.csv", b"text,label\none, two,x\n", "line 2 has 3 columns, the header has 2"),
    ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    ("a.jsonl", b'["a"]\n', "line 1 is a JSON list"),
])  # fmt: skip
def test_a_broken_file_is_refused_by_its_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        list(rows(tmp_path / name))


def test_files_become_three_splits_with_classes_in_order(tmp_path: Path) -> None:
    written(written(tmp_path / "d"), "test.csv", 6)
    data = text(str(tmp_path / "d"))
    assert data.classes == ("bad", "good") and (len(data.train), len(data.val), len(data.test)) == (22, 2, 6)
    assert data.test.targets.tolist() == [1, 0, 1, 0, 1, 0]
    assert data.test.shown(0) == {"text": "test. csv 0 a fine day with sun"}
    one = text(str(written(tmp_path / "e") / "train.csv"), val_fraction=0.25)
    assert (len(one.train), len(one.val), len(one.test)) == (14, 4, 6) and "test: 25% of all" in one.note
    numbers = tmp_path / "n.jsonl"
    numbers.write_text("".join(json.dumps({"text": f"t {n}", "label": n % 11}) + "\n" for n in range(66)))
    assert text(str(numbers)).classes == tuple(map(str, range(11)))  # 10 comes after 9


@pytest.mark.parametrize(("others", "val", "test"), [
    (["eval.csv"], "validation: 10% of train", "test: eval.csv"),
    (["Dev.csv"], "validation: 10% of train", "test: Dev.csv"),
    (["dev.csv", "testing.csv"], "val: dev.csv", "test: testing.csv"),
    (["evaluation.csv", "test.csv"], "val: evaluation.csv", "test: test.csv"),
])  # fmt: skip
def test_files_stand_for_the_parts_that_folders_of_pictures_of_their_names_stand_for(
    tmp_path: Path, others: list[str], val: str, test: str
) -> None:
    for name in ("training.csv", *others):
        written(tmp_path / "d", name, 24)
    data = text(str(tmp_path / "d"))
    assert val in data.note and test in data.note and len(data.test) == 24
    assert len(data.val) == (24 if val.startswith("val:") else 2)
    again = text(str(tmp_path / "d"), only="test", classes=["bad", "good"])  # as eval reads it
    assert again.test.shown(0) == data.test.shown(0) and len(again.test) == 24


@pytest.mark.parametrize(("more", "settings", "told"), [
    ({}, {"text": "body"}, "has no column 'body'; columns: text, label"),
    ({}, {"label": "labl"}, "did you mean label"),
    ({"  ": "good"}, {}, "train.csv line 26 has an empty text\ndataset.empty=skip"),
    ({"fine": "ugly"}, {"classes": ["good", "bad"]}, "train.csv line 26 has the label 'ugly'"),
    ({}, {"max_length": 1}, None),
])  # fmt: skip
def test_what_is_wrong_is_told_with_its_row(
    tmp_path: Path, more: dict[str, str], settings: dict[str, Any], told: str | None
) -> None:
    folder = written(written(tmp_path / "d", **more), "test.csv", 6)
    if told is None:
        assert len(text(str(folder), **settings).train) == 22
        return
    with pytest.raises(DistillError) as caught:
        text(str(folder), **settings)
    assert told in str(caught.value)


def test_what_cannot_be_classes_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "d", "test.csv", 6)
    written(tmp_path / "d", fine="ugly")
    written(tmp_path / "d", "test.csv", 6, fine="worse")
    with pytest.raises(DataError) as caught:
        text(str(tmp_path / "d"))
    assert "test.csv line 8 has the label 'worse', which train does not have; classes: bad, good, ugly" in str(
        caught.value
    )
    real = tmp_path / "r.jsonl"
    real.write_text("".join(json.dumps({"text": f"t {n}", "label": n / 7}) + "\n" for n in range(9)))
    with pytest.raises(DataError, match="to learn them would be regression"):
        text(str(real))
    with pytest.raises(DataError, match=r"it holds r\.jsonl\nit needs train and test"):
        text(str(tmp_path))


def test_a_text_without_a_label_is_kept_and_counted(tmp_path: Path) -> None:
    data = text(str(written(written(tmp_path / "d", fine="", more=""), "test.csv", 6)))
    assert (data.train.targets == UNKNOWN).sum() == 2 and "without a label: 2 of train" in data.note
    assert (data.val.targets != UNKNOWN).all()


def test_one_split_alone_is_read_for_a_model_that_knows_the_classes(tmp_path: Path) -> None:
    folder = written(tmp_path / "d", "test.csv", 6)
    data = text(str(folder), classes=["good", "bad"], only="test")
    assert (len(data.train), len(data.test)) == (0, 6) and data.test.targets.tolist() == [0, 1, 0, 1, 0, 1]
    alone = text(str(folder / "test.csv"), only="test", model_classes=lambda: ["good", "bad"])
    assert len(alone.test) == 6 and alone.classes == ("good", "bad")


def test_texts_without_labels_are_read_for_a_model_that_names_the_classes(tmp_path: Path) -> None:
    folder = written(written(tmp_path / "d"), "test.csv", 6)
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": f"more {n}"}) + "\n" for n in range(5)))
    data = text(str(folder), unlabeled=str(more))
    assert (data.train.targets == UNKNOWN).sum() == 5 and len(data.train) == 22 + 5
    none = text(str(folder), labels=False, model_classes=lambda: ["bad", "good"])
    assert (none.train.targets == UNKNOWN).all() and (none.test.targets != UNKNOWN).all()
    with pytest.raises(DataError, match="nothing names the classes"):
        text(str(folder), labels=False)
    with pytest.raises(DataError, match="should be a file that ends in"):
        text(str(folder), unlabeled="nowhere.csv")


def test_texts_that_are_in_train_too_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(written(tmp_path / "d"), "test.csv", 6, **{"TRAIN.csv 3 rain and cold wind all night long": "bad"})
    with caplog.at_level("INFO", "distill"):
        text(str(tmp_path / "d"))
    assert "1 of 7 test texts are in train too" in caplog.text


def test_a_batch_is_as_long_as_its_longest_text_and_padding_is_masked() -> None:
    source = Texts([("sun",), ("cold wind all night",), ("rain and",)], ["a", "b", "c"], TextSpec(tokenizer(), 6))
    assert source.lengths.tolist() == [3, 6, 4]  # with what begins and ends a text
    batch = source.read([0, 2])
    assert isinstance(batch, dict) and batch["input_ids"].shape == (2, 4)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["input_ids"][0, 3] == source.spec.tokenizer.pad
    assert source.spec.shown(source.read([1])) == {"text": "cold wind all night"}
    short = Texts(source.texts, source.names, TextSpec(tokenizer(), 4))
    assert short.lengths.tolist() == [3, 4, 4] and short.tokens.cut == 1


def test_a_pair_says_which_text_each_token_is_of() -> None:
    source = Texts([("sun", "cold wind")], ["a"], TextSpec(tokenizer(), 9, pair=True))
    batch = source.read([0])
    assert isinstance(batch, dict) and batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("samples", [40, 41, 47, 3])
def test_an_epoch_is_a_permutation_in_which_alike_lengths_stand_together(samples: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 9, samples)
    texts = [("sun " * length,) for length in lengths]
    source = Texts(texts, ["x"] * samples, TextSpec(tokenizer(), 64), bucket=4)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(1))
    drawn = [source.arranged(order, 4, torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(*drawn) and sorted(drawn[0].tolist()) == list(range(samples))
    widths = [source.lengths[part].max() - source.lengths[part].min() for part in drawn[0].split(4)]
    apart = [source.lengths[part].max() - source.lengths[part].min() for part in order.split(4)]
    assert sum(widths) < sum(apart) or samples < 4
    firsts = source.lengths[drawn[0]][::4].tolist()
    assert samples < 8 or firsts != sorted(firsts)  # the loss would saw
    still = source.arranged(torch.arange(samples), 4)
    assert sorted(still.tolist()) == list(range(samples))


def test_a_tokenizer_depends_on_its_texts_alone_and_knows_every_letter(tmp_path: Path) -> None:
    one, same = tokenizer(), tokenizer()
    assert one.json == same.json and one.digest == same.digest and tokenizer("other", "other").digest != one.digest
    many = [(f"{said} {place}",) for place in range(500) for said in SAID.values()]
    for _ in range(2):  # made, then found again
        assert made_from(many, tmp_path) == Tokenizer.made_from(" ".join(text) for text in many)
    assert len(store.entries(tmp_path)) == 1
    assert one.decode(one.encode([("Cold Wind, sundown",)], 99).ids) == "cold wind [UNK] sundown".replace(" [UNK]", "")
