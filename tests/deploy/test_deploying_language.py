"""A language model answers single texts, and leaves as a folder of transformers, whatever its tokens are."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
from helpers import distill, make_documents, read_json
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_cli.base.errors import ConfigError
from distill_cli.data import IGNORED
from distill_cli.data.blocks import LanguageSpec
from distill_cli.data.language import typed
from distill_cli.data.vocabulary import Bytes, Subwords
from distill_cli.deploy.formats import huggingface
from distill_cli.deploy.predictor import Predictor
from distill_cli.deploy.verification import made_up
from distill_cli.models import edits

SMALL = [
    f"{role}.{size}" for role in ("teacher", "student") for size in ("layers=1", "width=16", "heads=2", "inner=16")
]
WORDS = [
    *("dataset=language", "dataset.root=texts", "dataset.separator=\\n\\n", "dataset.length=32", "batch_size=4"),
    *("teacher=bytes_tiny", "student=bytes_tiny", *SMALL, "student.positions=64", "teacher.fit.epochs=1", "T=1"),
    *("schedule=constant", "schedule.train.epochs=1", "optimizer.lr=0.01", "report=false", "threads=1"),
]
TEXT = "the old cat sees a dog and"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts/, run/, a student of theirs, and hf/, what transformers takes of it."""
    place = tmp_path_factory.mktemp("language")
    make_documents(place / "texts")
    before = Path.cwd()
    os.chdir(place)
    assert distill("train", *WORDS, "run_dir=run") == 0
    assert distill("export", "ckpt=run", "format=huggingface", "output=hf") == 0
    os.chdir(before)
    return place


def said(home: Path, given: str | Path, *words: str, code: int = 0) -> list[dict[str, Any]]:
    assert distill("predict", f"ckpt={home / 'run'}", f"input={given}", "output=p.jsonl", *words) == code
    return [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]


def test_a_folder_of_transformers_scores_and_goes_on_as_the_student_does(home: Path) -> None:
    model, words = AutoModelForCausalLM.from_pretrained(home / "hf").eval(), AutoTokenizer.from_pretrained(home / "hf")
    ids = words(TEXT, return_tensors="pt")["input_ids"]
    (row,) = said(home, TEXT, "max_tokens=9")
    assert row["text"] == TEXT and row["tokens"] == len(TEXT) - 1
    assert row["nll"] == pytest.approx(model(ids, labels=ids).loss.item(), abs=1e-6)
    assert row["perplexity"] == pytest.approx(math.exp(row["nll"]))
    written = words.decode(model.generate(ids, max_new_tokens=9, do_sample=False)[0], skip_special_tokens=True)
    assert TEXT + row["continuation"] == written
    told = read_json(home / "hf" / "export.json")
    assert told["largest"] <= 1e-6 and told["samples"] > 5
    with safe_open(home / "hf" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in list(file.keys()), "it shares the table, which is stored once"
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 256 and model.config.use_cache


def test_bytes_are_a_tokenizer_of_that_library_too(home: Path) -> None:
    words, ours, again = AutoTokenizer.from_pretrained(home / "hf"), Bytes(), Subwords.read(home / "hf")
    assert (again.tokens, again.end, again.pad, again.start) == (ours.tokens, ours.end, ours.pad, ())
    assert (again.bytes_of == ours.bytes_of).all()
    draw, planes = random.Random(0), [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0x10000, 0x110000)]
    for _ in range(50):
        text = "".join(chr(draw.randrange(*draw.choice(planes))) for _ in range(draw.randrange(30)))
        ids = words(text)["input_ids"]
        assert ids == ours.encode([text])[0].tolist() == again.encode([text])[0].tolist()
        assert words.decode(ids) == text


def test_texts_are_answered_alike_wherever_they_come_from(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [TEXT, "x", 'a ä € 😀, "so"', "the dog " * 12]
    Path("many.txt").write_text("\n".join(texts), encoding="utf-8")
    rows = said(home, "many.txt", "max_tokens=5")
    assert [row["text"] for row in rows] == texts
    assert [row["tokens"] for row in rows] == [len(text.encode()) - 1 for text in texts]
    assert rows[1]["nll"] is None and len(rows[1]["continuation"]) > 0
    Path("many.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts) + '{"text": "\\ud800"}\n7\n'
    )
    assert said(home, "many.jsonl", "max_tokens=5", code=3)[:4] == rows
    assert ["error" in row for row in said(home, "many.jsonl", "max_tokens=0", code=3)] == [False] * 4 + [True] * 2
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts)))
    assert distill("predict", f"ckpt={home / 'run'}", "input=-", "output=p.csv", "max_tokens=5", "batch_size=2") == 0
    table = list(csv.DictReader(io.StringIO(Path("p.csv").read_text(encoding="utf-8"))))
    assert [row["continuation"] for row in table] == [row["continuation"] for row in rows]
    assert float(table[3]["nll"]) == pytest.approx(rows[3]["nll"], abs=1e-6) and table[1]["perplexity"] == ""
    capsys.readouterr()
    said(home, "many.txt", "max_tokens=5", "top=2", "seed=1")
    err = capsys.readouterr().err
    assert "top has no effect" in err and "seed has no effect" in err and "max_tokens has" not in err


def test_what_is_drawn_depends_on_the_seed_and_the_texts_number(home: Path) -> None:
    Path("many.txt").write_text(f"{TEXT}\n" * 25)
    rows = said(home, "many.txt", "temperature=1", "max_tokens=8", "batch_size=7")
    assert len({row["continuation"] for row in rows}) > 20
    assert said(home, "many.txt", "temperature=1", "max_tokens=8") == rows
    assert said(home, "many.txt", "temperature=1", "max_tokens=8", "seed=1") != rows


def test_no_more_is_read_than_leaves_room_to_go_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "the dog " * 12
    (row,) = said(home, long, "max_tokens=40")
    (end,) = said(home, long[-25:], "max_tokens=40")
    assert row["continuation"] == end["continuation"]
    assert (
        "a text has 96 tokens, and the student 64 positions: of such a text the last 25 tokens"
        in capsys.readouterr().err
    )
    assert distill("predict", f"ckpt={home / 'run'}", f"input={TEXT}", "max_tokens=65") == 2
    assert "max_tokens=65: the student has 64 positions" in capsys.readouterr().err
    assert distill("predict", f"ckpt={home / 'run'}", f"input={TEXT}", "sort_into=sorted") == 2
    assert "this student names no classes" in capsys.readouterr().err


def test_all_but_a_texts_first_token_and_its_prompt_is_asked_for() -> None:
    split = typed(LanguageSpec(Bytes(), 4), [("ab", "cd"), ("", "abcdefghi"), ("xyz", ""), ("", "q")])
    assert split.source.texts.tolist() == [0, 1, 1, 1, 2, 3]  # type: ignore[attr-defined]
    asked = [bytes(token for token in row if token != IGNORED) for row in split.targets.tolist()]
    assert asked == [b"cd", b"bcde", b"fghi", b"", b"", b""]
    (batch,) = split.batches(6)
    ids = batch.inputs["input_ids"]  # type: ignore[call-overload, index]
    assert [bytes(row[: len(each)].tolist()) for row, each in zip(ids, [b"abcd", b"abcd", b"efgh"], strict=False)] == [
        *(b"abcd", b"abcd", b"efgh")
    ]


def test_what_is_no_model_of_that_library_any_more_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("export", f"ckpt={home / 'run'}") == 2
    assert "a language model answers at every token" in capsys.readouterr().err
    student = Predictor.read(home / "run")
    edits.apply(student.network.net, [{"kind": "low_rank", "ranks": {"model.layers.0.mlp.up_proj": 4}}])
    with pytest.raises(ConfigError, match=r"it was changed after it was built \(low_rank\)"):
        huggingface(student, made_up(student, 2), Path())
