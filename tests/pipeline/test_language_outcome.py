"""Proves that a run of a language model is told, judged, reported and evaluated in what its task is judged by: nats a token."""

from __future__ import annotations

import csv
import math
import random
import re
from pathlib import Path

import pytest
from helpers import distill, read_json

from distill_cli.pipeline import outcome
from distill_cli.sweep import jobs, live
from distill_cli.sweep.jobs import State

QUICK = [
    *("dataset=language", "dataset.root=texts.txt", "dataset.separator=\\n\\n", "dataset.length=32", "T=1"),
    *("teacher=bytes_small", "teacher.layers=1", "teacher.width=32", "teacher.heads=2", "teacher.inner=32"),
    *("teacher.fit.epochs=2", "teacher.fit.lr=0.01", "student=bytes_tiny", "student.layers=1", "student.width=16"),
    *("student.heads=2", "student.inner=16", "optimizer.lr=0.01", "batch_size=4", "threads=1"),
    *("schedule=constant", "schedule.train.epochs=2"),
]
WORDS = ["naïve", "cats", "<b>see</b>", "日本", "old", "dogs", "and", "rain"]


@pytest.fixture(autouse=True)
def texts(tmp_path: Path) -> None:
    draw = random.Random(0)
    documents = [" ".join(draw.choices(WORDS, k=draw.randint(3, 15))) for _ in range(60)]
    (tmp_path / "texts.txt").write_text("\n\n".join(documents), encoding="utf-8")


def test_a_run_is_told_and_reported_in_nats_and_perplexity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, "baseline=true", "run_dir=run") == 0
    said = capsys.readouterr()
    told, summary = " ".join(said.out.split()), read_json(tmp_path / "run" / "summary.json")
    assert "32 tokens of 257" in told and "257 classes" not in told
    assert re.search(r"val nll \d\.\d{4}  kl \d\.\d{3}  [\d,]+ tokens/s", said.err)
    assert "nll perplexity bits/byte accuracy kl agreement" in told
    test, difference = summary["test"], summary["difference"]
    assert summary["metric"] == "nll" and difference["nll"] == pytest.approx(
        test["student"]["nll"] - test["baseline"]["nll"]
    )
    for who in ("The student reaches", "the teacher"):
        assert re.search(rf"{who} [\d.]+ perplexity \([\d.]+ nats a token, [\d.]+ bits a byte\)", told)
    assert re.search(r"labels only: [+-]\d\.\d{3} nats \(95 % interval .* over \d+ test samples\): ", told)

    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for words in ("Perplexity on test", "Validation NLL", "Validation perplexity", "KL by place in the block", "nats of NLL",
                  "KL by frequency in train", "tokens/s at batch", "latency at batch 1, 32 tokens, median", "on 32 tokens",
                  "lower for NLL, perplexity, bits a byte and KL(teacher ‖ student)"):  # fmt: skip
        assert words in page, words
    shown = "".join(re.findall(r"<blockquote>(.*?)</blockquote>", page, re.DOTALL))
    assert shown.count('class="token"') > 100 and "<b>" not in shown and "Confusion" not in page
    assert "\ufffd" not in shown and ("日" in shown or "ï" in shown)

    assert distill("eval", "ckpt=run", "predictions=p.csv") == 0
    with (tmp_path / "p.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["index"]) for line in lines] == list(range(len(lines)))
    tokens = [int(line["tokens"]) for line in lines]
    for column, value in (("student_nll", test["student"]["nll"]), ("teacher_nll", test["teacher"]["nll"]),
                          ("kl", test["student"]["kl"])):  # fmt: skip
        mean = sum(n * float(line[column]) for n, line in zip(tokens, lines, strict=True)) / sum(tokens)
        assert mean == pytest.approx(value, rel=1e-4), column
    capsys.readouterr()
    assert distill("eval", "ckpt=run", "per_class=true") == 2
    assert "per_class=true: tokens are not judged by class" in capsys.readouterr().err
    assert distill("report", "run") == 0
    assert "student, best on validation: NLL, mean" in capsys.readouterr().out

    worse = {**test, "teacher": {**test["teacher"], "nll": 9.0}, "baseline": {**test["baseline"], "nll": 2.5}}
    doubt = outcome.closing({**summary, "val": worse})
    assert (
        "the teacher (9.000 nats a token) is worse than the student trained on labels only (2.500 nats a token)"
        in doubt
    )
    assert "teacher.fit.epochs" in doubt and "teacher.classes" not in doubt
    assert "is worse than" not in outcome.closing(
        {**summary, "val": {**worse, "teacher": {**worse["teacher"], "nll": 2.4}}}
    )


@pytest.mark.parametrize("metric", ["f1", "ece", "mcc"])
def test_what_is_not_measured_of_tokens_chooses_nothing(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *QUICK, f"optimize=val.{metric}", "run_dir=run") == 2
    assert f"optimize=val.{metric}: " in (said := capsys.readouterr().err)
    assert metric == "mcc" or "choices: val.nll, val.perplexity, val.bits_per_byte, val.accuracy, val.kl" in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_picture_has_no_perplexity(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", "optimize=val.perplexity", "run_dir=run") == 2
    assert "optimize=val.perplexity: that is not measured of images" in capsys.readouterr().err


def test_a_sweep_is_told_the_lowest_nll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = {"nll": 2.5, "perplexity": math.exp(2.5), "accuracy": 0.3}
    summaries = {"a": student, "b": {**student, "nll": 2.25, "accuracy": 0.2}, "c": {**student, "nll": 3.0}}
    made = {name: {"metric": "nll", "val": {"student": scores}} for name, scores in summaries.items()}
    assert [jobs.score_of(made[name], None) for name in "ab"] == [-2.5, -2.25]  # to be maximized
    assert [jobs.score_of(made[name], "val.nll") for name in "ab"] == [2.5, 2.25]  # to be minimized
    assert jobs.score_of({"val": {"student": {"accuracy": 0.5}}}, None) == 0.5
    monkeypatch.setattr(jobs, "state", lambda folder, since, over=False: State("finished"))
    monkeypatch.setattr(jobs, "summary_of", lambda folder: made[folder.name])
    for optimize, best in ((None, "best val.nll 2.2500 (b)"), ("val.accuracy", "best val.accuracy 0.3000 (a)")):
        view = live.View(lambda: {name: tmp_path / name for name in made}, 3, optimize, 0.0)
        assert best in view.line()
