"""A student of texts answers, and leaves, as one of pictures does: with its tokenizer, whatever the batches are."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from helpers import distill, make_texts, read_json
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_cli.data.tokens import FILE

SMALL = ("width=16", "inner=16", "heads=2", "layers=1")
WORDS = [
    *(
        "dataset=text",
        "dataset.root=texts",
        "dataset.bucket=2",
        "dataset.max_length=24",
        "batch_size=8",
        "report=false",
    ),
    *("teacher=words_tiny", "student=bert", *(f"{role}.{size}" for role in ("teacher", "student") for size in SMALL)),
    *("teacher.fit.epochs=2", "schedule=constant", "schedule.train.epochs=3", "optimizer.lr=0.01", "threads=1"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts/ and run/, a student of theirs that is one of transformers."""
    place = tmp_path_factory.mktemp("texts")
    make_texts(place / "texts")
    before = Path.cwd()
    os.chdir(place)
    assert distill("train", *WORDS, "run_dir=run") == 0
    os.chdir(before)
    return place


def answered(ckpt: Path, given: str | Path, *words: str, code: int = 0) -> list[dict[str, str]]:
    assert distill("predict", f"ckpt={ckpt}", f"input={given}", "output=p.csv", *words) == code
    return list(csv.DictReader(io.StringIO(Path("p.csv").read_text())))


def test_a_table_is_answered_as_evaluation_does_to_the_byte(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = answered(home / "run", home / "texts" / "test.csv", "batch_size=8")
    monkeypatch.chdir(home)
    assert distill("eval", "ckpt=run", "predictions=e.csv", "batch_size=8") == 0
    evaluated = list(csv.DictReader(io.StringIO((home / "e.csv").read_text())))
    assert len(rows) == 45
    for row, other in zip(rows, evaluated, strict=True):
        assert row["text"] == other["text"]
        assert [row[f"p_{name}"] for name in ("food", "music", "sport")] == [
            other[f"student_{name}"] for name in ("food", "music", "sport")
        ]


def test_a_text_a_file_of_lines_json_and_stdin_are_answered_alike(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["ball and goal", "the soup, ${very} salt; 'so'", "x" * 300]
    (first,) = answered(home / "run", texts[0])
    assert first["text"] == texts[0] and first["predicted"]
    assert answered(home / "run", texts[1])[0]["text"] == texts[1]
    Path("many.txt").write_text("\n".join(texts))
    many = answered(home / "run", "many.txt")
    assert [row["text"] for row in many] == texts
    assert float(many[0]["p_food"]) == pytest.approx(float(first["p_food"]), abs=1e-6)
    Path("many.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + '{"text": ""}\n[1]\n')
    rows = answered(home / "run", "many.jsonl", code=3)
    assert [row["p_food"] for row in rows[:3]] == [row["p_food"] for row in many]
    assert "an empty text" in rows[3]["error"] and "is a JSON list" in rows[4]["error"]
    monkeypatch.setattr("sys.stdin", io.StringIO(Path("many.jsonl").read_text()))
    assert [row["p_food"] for row in answered(home / "run", "-", code=3)] == [row["p_food"] for row in rows]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts)))
    assert [row["text"] for row in answered(home / "run", "-", "batch_size=1")] == texts


def test_a_file_that_is_not_there_is_no_text(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("predict", f"ckpt={home / 'run'}", "input=texts.jsonl") == 3
    assert "there is no such file" in capsys.readouterr().err


def test_it_leaves_with_its_tokenizer_in_fp32_and_int8(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    for precision in ("fp32", "int8"):
        assert distill("export", "ckpt=run", f"precision={precision}", "tolerance=0.2", f"output=../{precision}") == 0
        shutil.rmtree(f"moved-{precision}", ignore_errors=True)
        shutil.move(f"../{precision}", f"moved-{precision}")
    fp32, int8 = Path("moved-fp32"), Path("moved-int8")
    assert (fp32 / FILE).read_text() == Path("run", FILE).read_text()
    told = read_json(fp32 / "export.json")
    assert told["equal"] == told["samples"] == 45 and told["largest"] < 1e-5
    assert "embeddings" in read_json(int8 / "export.json")["quantisation"]
    assert (int8 / "model.onnx").stat().st_size < (fp32 / "model.onnx").stat().st_size
    session = onnxruntime.InferenceSession(fp32 / "model.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["input_ids", "attention_mask"]
    ids = np.array([[2, 9, 8, 3], [2, 9, 3, 0]])
    (padded,) = session.run(None, {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)})
    (alone,) = session.run(None, {"input_ids": ids[1:, :3], "attention_mask": np.ones((1, 3), np.int64)})
    assert np.abs(padded[1] - alone[0]).max() < 1e-6
    ours, theirs = (answered(path, "texts/test.csv") for path in (Path("run"), fp32))
    assert [row["predicted"] for row in ours] == [row["predicted"] for row in theirs]


def test_a_folder_of_transformers_loads_there_with_equal_logits(home: Path) -> None:
    assert (
        distill("export", f"ckpt={home / 'run'}", f"dataset.root={home / 'texts'}", "format=huggingface", "output=hf")
        == 0
    )
    model, words = AutoModelForSequenceClassification.from_pretrained("hf").eval(), AutoTokenizer.from_pretrained("hf")
    given = words(["ball and goal", "soup"], padding=True, return_tensors="pt")
    logits = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
    Path("two.txt").write_text("ball and goal\nsoup")
    rows = answered(home / "run", "two.txt")
    assert [row["predicted"] for row in rows] == [model.config.id2label[int(row.argmax())] for row in logits]
    assert [float(row["p_food"]) for row in rows] == pytest.approx(logits.softmax(-1)[:, 0].tolist(), abs=1e-6)
    assert read_json(Path("hf/export.json"))["largest"] <= 1e-6
