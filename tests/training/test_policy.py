"""Proves that a share of the steps learns from what the student writes: from the data's beginnings, without labels, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICK, distill, killed, only_run
from helpers import rows as rows_of
from torch import Tensor

from distill_cli.base import files
from distill_cli.data import IGNORED, UNKNOWN, Batch, Data
from distill_cli.data.language import language
from distill_cli.models import Classifier
from distill_cli.models.huggingface import fresh
from distill_cli.objectives import Loss
from distill_cli.tasks.continuing import Continuing, beginnings
from distill_cli.tasks.rows import Rows, Signal

NAMES = ["zero", "one", "two", "three", "four", "five", "six"]


def questions(folder: Path, number: int = 24) -> Path:
    file = folder / "questions.jsonl"
    lines = [{"prompt": f"number {at % 7} is ", "text": f"{NAMES[at % 7]}."} for at in range(number)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def bytes_data(folder: Path, prompt: str | None = "prompt", **how: object) -> Data:
    return language(str(questions(folder)), prompt=prompt, length=24, **how)  # type: ignore[arg-type]


def model_of(data: Data, width: int = 16) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(width)
        net = fresh(257, 257, 256, "llama", layers=1, width=width, dropout=0.2, positions=64, head="tokens")
    return Classifier(net, data.input)


def first(data: Data) -> Batch:
    return next(data.train.batches(6))


def texts(batch: Batch) -> list[str]:
    """What each text of a batch has as its inputs."""
    assert not isinstance(batch.inputs, Tensor)
    return [
        bytes(ids[own > 0].tolist()).decode(errors="replace")
        for ids, own in zip(batch.inputs["input_ids"], batch.inputs["segments"], strict=True)
    ]


# --- batches


def test_a_beginning_is_the_prompt_or_the_first_tokens_of_each_document(tmp_path: Path) -> None:
    prompted = [[bytes(ids.tolist()) for ids in sample] for sample in beginnings(first(bytes_data(tmp_path)))]
    assert all(text in {f"number {at} is ".encode() for at in range(7)} for sample in prompted for text in sample)
    plain = [[bytes(ids.tolist()) for ids in sample] for sample in beginnings(first(bytes_data(tmp_path, None)), 2)]
    assert all(text in {name[:2].encode() for name in NAMES} for sample in plain for text in sample)
    assert max(map(len, plain)) > 1, "several documents share a block"


def test_a_batch_that_is_made_holds_what_the_model_writes_and_each_token_of_it_is_a_row(tmp_path: Path) -> None:
    data = bytes_data(tmp_path, packing="none")
    model, given = model_of(data), first(data)
    made = Continuing(data.input)(model, given, 5)  # type: ignore[arg-type]
    again = Continuing(data.input)(model, given, 5)  # type: ignore[arg-type]
    other = Continuing(data.input)(model, given, 6)  # type: ignore[arg-type]
    assert made.made and not given.made and len(made) == len(given) and torch.equal(made.index, given.index)
    assert texts(made) == texts(again) != texts(other)
    assert all(text.startswith(f"number {str(text)[7]} is ") for text in texts(made))
    prompts = [sample[0] for sample in beginnings(given)]
    assert not isinstance(made.inputs, Tensor)
    lengths = (made.inputs["segments"] > 0).sum(1).tolist()
    assert max(lengths) == 24
    for prompt, length, targets in zip(prompts, lengths, made.targets, strict=True):
        asked = range(len(prompt) - 1, length)
        assert [at for at, target in enumerate(targets.tolist()) if target != IGNORED] == list(asked)
        assert (targets[targets != IGNORED] == UNKNOWN).all()
    parts = list(made.parts(2))
    assert all(part.made for part in parts) and sum(map(len, parts)) == len(made)


# --- steps

LINE = [
    "train",
    "dataset=language",
    "dataset.root=questions.jsonl",
    "dataset.prompt=prompt",
    "dataset.packing=none",
    "dataset.length=24",
    *(f"{role}{word}" for role in ("teacher", "student") for word in ("=bytes_tiny", ".width=16", ".layers=1")),
    "student.dropout=0.2",
    "teacher.fit.epochs=1",
    "schedule=constant",
    "schedule.train.epochs=2",
    "T=1",
    "alpha=0.5",
    "batch_size=4",
    "report=false",
    "threads=1",
]


@pytest.mark.parametrize(("share", "own"), [("0.5", [1, 3, 5, 7, 9]), ("1", list(range(10))), ("0.25", [3, 7])])
def test_so_many_steps_have_no_label_term_and_means_are_over_the_rows_of_each_term(
    empty_directory: Path, share: str, own: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions(empty_directory)
    taken, call = list[tuple[int, dict[str, float]]](), Loss.__call__

    def noted(loss: Loss, rows: Rows, signal: Signal | None, *more: Any) -> Any:
        total, terms = call(loss, rows, signal, *more)
        values = {name: term.item() for name, term in terms.items()}
        if signal is not None:  # that of the teacher's fit has none
            assert len(signal) == len(rows)
            assert (rows.targets == UNKNOWN).all() == ("ce" not in terms)
            assert total.item() == pytest.approx(0.5 * sum(values.values()), rel=1e-5)
            taken.append((len(rows), values))
        return total, terms

    monkeypatch.setattr(Loss, "__call__", noted)
    assert distill(*LINE, f"on_policy={share}") == 0
    assert [step for step, (_, terms) in enumerate(taken) if "ce" not in terms] == own
    for row, part in zip(rows_of(only_run(empty_directory)), (taken[:5], taken[5:]), strict=True):
        for name in ("ce", "kd"):
            counted = [(number, terms[name]) for number, terms in part if name in terms]
            mean = sum(n * value for n, value in counted) / sum(n for n, _ in counted) if counted else None
            assert row["loss"].get(name) == (mean and pytest.approx(mean, rel=1e-5))


def test_the_header_says_what_it_costs_and_a_killed_run_goes_on_to_the_same_bits(
    empty_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions(empty_directory)
    line = [*LINE, "on_policy=0.5", "save_every=1"]
    assert distill(*line, "run_dir=whole") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "its logits are cached" in shown
    assert "on_policy 50% of the steps learn from what the student writes, and the teacher runs live on it" in shown
    killed(*line, "run_dir=run", saves=4)
    assert distill("resume", "run") == 0
    one, two = Path("whole"), Path("run")
    assert files.sha256(one / "student.safetensors") == files.sha256(two / "student.safetensors")
    assert [row["loss"] for row in rows_of(one)] == [row["loss"] for row in rows_of(two)]
    assert distill(*LINE, "run_dir=plain") == 0
    assert files.sha256(one / "student.safetensors") != files.sha256(Path("plain") / "student.safetensors")


def test_a_part_of_a_batch_teaches_what_the_whole_does(empty_directory: Path) -> None:
    questions(empty_directory)
    still = [*LINE, "student.dropout=0", "on_policy=1", "optimizer=sgd", "schedule.train.epochs=1"]
    assert distill(*still, "run_dir=one") == 0
    assert distill(*still, "run_dir=parts", "optimizer.accumulate=3") == 0
    one, parts = (rows_of(Path(name))[0]["loss"]["kd"] for name in ("one", "parts"))
    assert parts == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["objective=nkd"], "objective.nkd: reads the label of every sample, and with on_policy=0.5 what the student"),
        (["teacher.joint=true"], "teacher.joint: learns from the label of every sample, and with on_policy=0.5"),
        (["on_policy=1", "objective.kd.weight=auto"], "weight=auto: is found against the labels' gradient"),
        (["on_policy=1.5"], "on_policy: must be at most 1, got 1.5"),
    ],
)
def test_what_reads_labels_is_refused(
    empty_directory: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    questions(empty_directory)
    assert distill(*LINE, "on_policy=0.5", *words) == 2
    assert said in capsys.readouterr().err


def test_a_task_whose_samples_nothing_follows_refuses_in_its_own_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, "on_policy=0.5") == 2
    assert "on_policy: a model of images answers them and writes none" in capsys.readouterr().err
