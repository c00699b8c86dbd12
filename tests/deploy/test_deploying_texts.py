"""A student of texts answers, and leaves, as one of pictures does: with its tokenizer, whatever the batches are."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from helpers import distill, make_texts, read_json
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_cli.data.tokens import FILE
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import Classifier
from distill_cli.models.deployable import Deployable
from distill_cli.models.huggingface import huggingface

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


def exported(home: Path, precision: str) -> Path:
    """Where the student lies that was exported and moved away."""
    assert distill("export", f"ckpt={home / 'run'}", f"dataset.root={home / 'texts'}", f"precision={precision}",
                   "tolerance=0.2", f"output={home / precision}") == 0  # fmt: skip
    shutil.move(home / precision, f"moved-{precision}")
    return Path(f"moved-{precision}")


@pytest.mark.slow
def test_it_leaves_with_its_tokenizer(home: Path) -> None:
    fp32 = exported(home, "fp32")
    assert (fp32 / FILE).read_text() == (home / "run" / FILE).read_text()
    told = read_json(fp32 / "export.json")
    assert told["equal"] == told["samples"] == 45 and told["largest"] < 1e-5
    session = onnxruntime.InferenceSession(fp32 / "model.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["input_ids", "attention_mask"]
    ids = np.array([[2, 9, 8, 3], [2, 9, 3, 0]])
    (padded,) = session.run(None, {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)})
    (alone,) = session.run(None, {"input_ids": ids[1:, :3], "attention_mask": np.ones((1, 3), np.int64)})
    assert np.abs(padded[1] - alone[0]).max() < 1e-6
    ours, theirs = (answered(path, home / "texts" / "test.csv") for path in (home / "run", fp32))
    assert [row["predicted"] for row in ours] == [row["predicted"] for row in theirs]


@pytest.mark.slow
def test_it_leaves_in_8_bits_with_its_embeddings(home: Path) -> None:
    int8 = exported(home, "int8")
    told = read_json(int8 / "export.json")
    assert "embeddings" in told["quantisation"] and told["agreement"] >= 0.9
    tensors = onnx.load(int8 / "model.onnx").graph.initializer
    assert not [t.name for t in tensors if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1 and t.dims[0] > 60]
    assert len(answered(int8, home / "texts" / "test.csv")) == 45


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


ALBERT = {"model_type": "albert", "vocab_size": 71, "embedding_size": 8, "hidden_size": 16, "num_attention_heads": 2,
          "intermediate_size": 16, "num_hidden_layers": 3, "max_position_embeddings": 32, "pad_token_id": 0}  # fmt: skip


def left(home: Path, config: dict[str, Any], pooling: str) -> Path:
    """A folder with a network of transformers as a run leaves its student, on the texts of `home`."""
    student = Predictor.read(home / "run")
    net = huggingface(3, 0, config={**config, "vocab_size": student.spec.arguments()["vocab_size"]}, pooling=pooling)
    node = {"_target_": "distill_cli.models.huggingface.huggingface"}
    Path("left").mkdir()
    Deployable({**student.card, "model": node}, Classifier(net, student.spec)).write(Path("left").absolute())
    return Path("left")


def test_weights_that_layers_share_are_written_once_and_load_there(home: Path) -> None:
    ckpt = left(home, ALBERT, "own")
    assert distill("export", f"ckpt={ckpt}", f"dataset.root={home / 'texts'}", "format=huggingface", "output=hf") == 0
    again = AutoModelForSequenceClassification.from_pretrained("hf").eval()
    assert again.config.num_hidden_layers == 3
    stored = safetensors.torch.load_file("hf/model.safetensors")
    assert sum(value.numel() for value in stored.values()) == sum(value.numel() for value in again.parameters())
    assert sum("attention.query.weight" in name for name in stored) == 1
    student, ids = Predictor.read(ckpt), torch.randint(5, 60, (4, 9))
    raw = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        theirs = again(**raw).logits
        assert float((student.network.eval()(raw) - theirs).abs().max()) <= 1e-6
    assert read_json(Path("hf/export.json"))["largest"] <= 1e-6


def test_a_student_that_no_class_of_the_library_is_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = left(home, {**ALBERT, "model_type": "bert"}, "mean")
    assert distill("export", f"ckpt={ckpt}", f"dataset.root={home / 'texts'}", "format=huggingface", "output=hf") == 2
    said = capsys.readouterr().err
    assert "its head sees the mean of a text's states" in said and "format=onnx takes any" in said
    assert not Path("hf").exists()
