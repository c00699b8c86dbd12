"""Proves that language models go through the command line as pictures do, whatever is kept of the teacher's answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import distill, goes_on_as_undisturbed, make_documents, read_json, rows

from distill_cli.tasks.language import LanguageMeter

QUICK = [
    *("dataset=language", "dataset.root=texts", "dataset.separator=\\n\\n", "dataset.length=32"),
    *("teacher=bytes_small", "teacher.layers=1", "teacher.width=32", "teacher.heads=2", "teacher.inner=32"),
    *("teacher.fit.epochs=2", "teacher.fit.lr=0.01", "student=bytes_tiny", "student.layers=1", "student.width=16"),
    *("student.heads=2", "student.inner=16", "optimizer.lr=0.01", "batch_size=4", "T=1", "report=false", "threads=1"),
    *("schedule.imitate.epochs=2", "schedule.refine.epochs=1", "schedule.refine.T=1"),
]


@pytest.fixture(autouse=True)
def texts(tmp_path: Path) -> None:
    make_documents(tmp_path / "texts")


def test_a_student_learns_from_what_is_kept_and_is_judged_by_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *QUICK, "run_dir=run") == 0
    said = capsys.readouterr()
    assert "its logits are cached" in said.out and "tokens/s" in said.err
    epochs, summary = rows(tmp_path / "run"), read_json(tmp_path / "run" / "summary.json")
    assert summary["best"]["epoch"] == min(epochs, key=lambda row: row["val"]["nll"])["epoch"]
    scores = summary["test"]["student"]
    assert {"nll", "perplexity", "bits_per_byte", "accuracy", "kl", "agreement"} <= scores.keys()
    assert scores["nll"] < 5.3  # ln 257 is 5.55: something was learnt
    assert scores["bits_per_byte"] > scores["nll"] / 0.6932  # the end of a text is a token of no byte
    assert distill("eval", "ckpt=run") == 0
    again = read_json(tmp_path / "run" / "eval" / "language-test.json")["student"]
    assert again == pytest.approx(scores, rel=1e-5)


def test_hidden_states_teach_what_a_live_teacher_does_to_the_bit(tmp_path: Path) -> None:
    for name, words in {"hidden": ["teacher.keep=hidden"], "live": ["teacher.cache=off"]}.items():
        assert distill("train", *QUICK, *words, f"run_dir={name}") == 0
    kept, live = (rows(tmp_path / name) for name in ("hidden", "live"))
    for one, other in zip(kept, live, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["val"] == pytest.approx(other["val"], rel=1e-4)


def test_likely_words_teach_nearly_what_all_words_do_and_are_judged_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in {"all": [], "topk": ["teacher.keep=topk", "teacher.words=16"]}.items():
        assert distill("train", *QUICK, *words, f"run_dir={name}") == 0
    said = capsys.readouterr()
    assert "its 16 likeliest words of each token are cached" in said.out
    assert "the 16 likeliest words have " in said.err and " of the teacher's probability at T = 1" in said.err
    for row in rows(tmp_path / "topk"):
        assert "kl16" in row["val"] and "kl" not in row["val"] and row["loss"]["kd"] > 0
    scores = [read_json(tmp_path / name / "summary.json")["test"] for name in ("all", "topk")]
    assert "kl" in scores[1]["student"] and scores[1]["teacher"]["nll"] == pytest.approx(scores[0]["teacher"]["nll"])
    assert scores[1]["student"]["nll"] < 5.3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["objective=dist"],
            "objective.dist: compares samples with each other, and a sample of these data has many tokens",
        ),
        (
            ["objective=rkd"],
            "objective.rkd: compares samples with each other, and a sample of these data has many tokens",
        ),
        (["objective=dkd", "teacher.keep=topk"], "objective.dkd: needs the whole vocabulary, and teacher.keep=topk"),
        (
            ["objective=jsd", "teacher.keep=sampled"],
            "objective.jsd: needs the whole vocabulary, and teacher.keep=sampled",
        ),
        (["teacher.words=300", "teacher.keep=topk"], "teacher.words=300: the data have 257 to choose from"),
        (["T=0.5", "teacher.keep=topk"], "the rest's mass is known from T = 1 on, and the schedule goes to T = 0.5"),
        (["T=2", "teacher.keep=sampled"], "the samples are drawn at T = 1, and the schedule has T = 2"),
        (["optimize=val.kl", "teacher.keep=topk"], "optimize=val.kl needs all words in every epoch"),
    ],
)
def test_what_few_words_cannot_give_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, *words, "run_dir=run") == 2
    assert said in capsys.readouterr().err


def test_a_high_temperature_with_few_words_is_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, "T=4", "teacher.keep=topk", "teacher.words=4", "run_dir=run") == 0
    assert "at T = 4 the other words have " in capsys.readouterr().err


@pytest.mark.parametrize("more", ["optimizer.accumulate=3", "rows_at_once=7"])
def test_a_step_that_is_cut_learns_the_same(more: str, tmp_path: Path) -> None:
    for name, words in {"whole": [], "cut": [more]}.items():
        assert distill("train", *QUICK, *words, "dataset.packing=none", f"run_dir={name}") == 0
    for one, other in zip(rows(tmp_path / "whole"), rows(tmp_path / "cut"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)  # shares are of tokens, not of samples


@pytest.mark.parametrize("keep", ["logits", "hidden", "topk", "sampled"])
def test_killed_and_gone_on_with_it_is_the_same_to_the_bit(keep: str) -> None:
    words = [*QUICK, f"teacher.keep={keep}", "teacher.words=8", "optimizer.accumulate=2", "save_every=2"]
    goes_on_as_undisturbed(*words, saves=3)


def test_out_of_memory_says_what_to_lower(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(LanguageMeter, "update", full)
    assert distill("train", *QUICK, "run_dir=run") == 8
    said = capsys.readouterr().err
    assert "Tried to allocate 9 GiB" in said and "a shorter dataset.length, or rows_at_once=64" in said
