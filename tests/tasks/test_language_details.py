"""Proves that what a page shows of a language model is what its logits say, at the token that they are about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from distill_cli.data import IGNORED, Data, Split
from distill_cli.data.blocks import LanguageSpec
from distill_cli.data.language import language
from distill_cli.data.source import Held
from distill_cli.data.vocabulary import Bytes, pieces
from distill_cli.report import tokens
from distill_cli.tasks.language import Language
from distill_cli.tasks.rows import Dense, Rows

TEXTS = ["aab <i>ü</i>", "ba", "abba ab"]
LENGTH, V = 14, 257


def made() -> Data:
    words = Bytes()
    ids = torch.full((len(TEXTS), LENGTH), words.pad)
    segments = torch.zeros_like(ids)
    targets = torch.full((len(TEXTS), LENGTH), IGNORED)
    for row, text in enumerate(words.encode(TEXTS)):
        whole = torch.tensor([*text.tolist(), words.end])
        ids[row, : len(whole)], segments[row, : len(whole)] = whole, 1
        targets[row, : len(whole) - 1] = whole[1:]
    targets[2, :3] = IGNORED  # a prompt
    raw = {"input_ids": ids, "position_ids": torch.arange(LENGTH).expand_as(ids), "segments": segments}
    split = Split(Held(raw), targets, LanguageSpec(words, LENGTH))
    return Data(
        split, split, split, classes=words.tokens, digest="", note="", task="distill_cli.tasks.language.Language"
    )


def test_kl_is_told_by_place_by_frequency_and_at_the_token_that_it_is_about() -> None:
    data, draw = made(), torch.Generator().manual_seed(0)
    task, split = Language(data), data.test
    details, student, teacher = task.details(), *(3 * torch.randn(3, LENGTH, V, generator=draw) for _ in range(2))
    for row in (2, 0, 1):  # batches come in an order of their own
        asked = split.targets[row] != IGNORED
        index = torch.full((int(asked.sum()),), row)
        details.update(Rows(student[row][asked], split.targets[row][asked], index), Dense(teacher[row][asked]))
    found = details.compute(split)

    log_s, log_t = (log_softmax(logits.double().numpy(), axis=-1) for logits in (student, teacher))
    kl, asked = (np.exp(log_t) * (log_t - log_s)).sum(-1), (split.targets != IGNORED).numpy()
    for first, last, mean, _, count in found["places"]:
        part = kl[:, first - 1 : last][asked[:, first - 1 : last]]
        assert (mean, count) == (pytest.approx(part.mean()), len(part))
    often = np.bincount(split.targets[split.targets != IGNORED], minlength=V)[split.targets.numpy()]
    for first, last, mean, _, count in found["counts"]:
        part = kl[asked & (first <= often) & (often <= last)]
        assert (mean, count) == (pytest.approx(part.mean()), len(part))
    means = [kl[row][asked[row]].mean() for row in range(3)]
    assert [sample["index"] for sample in found["samples"]] == list(np.argsort(means)[::-1])
    (first_text,) = (sample["tokens"] for sample in found["samples"] if sample["index"] == 0)
    assert "".join(text for text, _ in first_text) == f"{TEXTS[0]}<end>" and first_text[0][1] is None
    for place, (_, known) in enumerate(first_text[1:]):
        assert known[0] == pytest.approx(kl[0, place])
        assert known[1][1] == pytest.approx(np.exp(log_t[0, place].max()))
    (prompted,) = (sample["tokens"] for sample in found["samples"] if sample["index"] == 2)
    assert [known is None for _, known in prompted] == [True] * 4 + [False] * 4


def test_what_ends_a_document_is_no_token_of_the_next_in_its_block(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n\n".join(["ab", "cde", "fghi"] * 3))
    data = language(str(tmp_path / "texts.txt"), separator="\\n\\n", length=6, val_fraction=0.2)
    details, split = Language(data).details(), data.train
    for row in range(len(split)):
        targets = split.targets[row][split.targets[row] != IGNORED]
        logits = torch.zeros(len(targets), V)
        sure = 9.0 * torch.nn.functional.one_hot(targets.long(), V)  # KL is largest where the end is asked for
        sure[targets == Bytes.end] *= 2
        details.update(Rows(logits, targets, torch.full_like(targets, row)), Dense(sure))
    for sample in details.compute(split)["samples"]:
        shown, whole = sample["tokens"], "".join(text for text, _ in sample["tokens"])
        assert {*whole.replace("<end>", " ").split()} <= {"ab", "cde", "fghi", "fg", "fgh"}, whole
        assert [known is None for text, known in shown if text in "acf"] == [True] * sum(
            text in "acf" for text, _ in shown
        )
        for text, known in shown:
            assert known is None or ((known[0] > 5.5) == (text == "<end>") and known[1][0] == text)


def test_a_letter_of_two_tokens_is_coloured_as_one_and_the_deepest_is_the_largest() -> None:
    spans = tokens._merged(
        [("a", None), ("", [1.0, ["x", 0.5], ["y", 0.5]]), ("ü", [2.0, ["x", 0.5], ["y", 0.25]])], 4.0
    )
    assert spans == [("a", 0.0, ""), ("ü", 0.3, "KL 2.00; likeliest: teacher 'x' 50%, student 'y' 25%")]


def test_pieces_are_the_text() -> None:
    words, text = Bytes(), "aü日 b"
    ids = [*words.encode([text])[0].tolist(), words.end]
    assert pieces(words, ids) == ["a", "", "ü", "", "", "日", " ", "b", "<end>"]
