"""Proves that a teacher's texts depend on the seed alone, and that whoever was killed goes on to the same file."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import QUICK, distill, only_run, read_json
from helpers import rows as rows_of

from distill_cli.pipeline.rows_file import RowsFile

NAMES = ["zero", "one", "two", "three", "four", "five", "six"]
LINE = [
    "generate",
    "teacher=bytes_tiny",
    "teacher.width=16",
    "teacher.layers=1",
    "teacher.fit.epochs=1",
    "dataset=language",
    "dataset.root=questions.jsonl",
    "dataset.prompt=prompt",
    "dataset.length=24",
    "max_tokens=12",
    "threads=1",
]


@pytest.fixture(autouse=True)
def questions(empty_directory: Path) -> Path:
    file = empty_directory / "questions.jsonl"
    lines = [{"prompt": f"number {at % 7} is ", "text": f"{NAMES[at % 7]}."} for at in range(20)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def made(*words: str, output: str = "texts.jsonl") -> list[dict[str, Any]]:
    assert distill(*LINE, f"output={output}", *words) == 0
    return [json.loads(line) for line in Path(output).read_text().splitlines()]


def killed_after(groups: int, *words: str) -> None:
    """Type the line in a fork that dies, as by kill -9, in the middle of the line after so many groups."""
    child = os.fork()
    if not child:
        sync, done = os.fsync, []

        def dying(handle: int) -> None:
            if "part" in Path(f"/proc/self/fd/{handle}").readlink().name:
                done.append(handle)
                if len(done) > groups:
                    os.ftruncate(handle, os.fstat(handle).st_size - 7)
                    os.kill(os.getpid(), signal.SIGKILL)
            sync(handle)

        os.fsync = dying
        sys.stdout = sys.stderr = Path("said").open("w")  # noqa: SIM115
        os._exit(distill(*LINE, *words))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), Path("said").read_text()


def test_a_text_for_each_prompt_as_the_settings_say(capsys: pytest.CaptureFixture[str]) -> None:
    texts = made("samples=2")
    out = capsys.readouterr()
    assert "tokens/s" in out.err and "dataset.root=texts.jsonl dataset.prompt=prompt" in out.out
    assert [(text["index"], text["sample"]) for text in texts] == [(at // 2, at % 2) for at in range(len(texts))]
    assert len(texts) == 2 * 16, "as many as train has documents"
    assert {text["prompt"] for text in texts} <= {f"number {at} is " for at in range(7)}
    assert all(text["tokens"] == 12 or text["ended"] for text in texts)
    assert len({text["text"] for text in texts}) > 20
    assert read_json(Path("texts.jsonl.json"))["max_tokens"] == 12


def test_texts_do_not_depend_on_how_many_are_written_together_but_on_the_seed() -> None:
    texts = made("batch_size=5")
    assert texts == made("batch_size=64", output="others.jsonl")
    assert texts != made("seed=1", output="third.jsonl")
    likeliest = made("temperature=0", output="four.jsonl")
    assert likeliest == made("top_k=1", "seed=3", output="five.jsonl")
    assert len({(text["prompt"], text["text"]) for text in likeliest}) == len({text["prompt"] for text in likeliest})


def test_whoever_was_killed_goes_on_to_the_same_file(capsys: pytest.CaptureFixture[str]) -> None:
    made("batch_size=3", output="whole.jsonl")
    killed_after(2, "output=run.jsonl", "batch_size=3")
    assert not Path("run.jsonl").exists() and not Path("run.jsonl.part").read_bytes().endswith(b"\n")
    capsys.readouterr()
    made("batch_size=3", output="run.jsonl")
    assert "run.jsonl: 8 of 16 texts are there; going on" in capsys.readouterr().err
    assert Path("run.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert not Path("run.jsonl.part").exists()
    made("batch_size=3", output="run.jsonl")
    assert "run.jsonl holds these 16 texts already" in capsys.readouterr().err


def test_a_group_is_asked_for_as_a_whole_wherever_it_was_stopped(tmp_path: Path) -> None:
    asked = []

    def rows(first: int, last: int) -> list[dict[str, Any]]:
        asked.append((first, last))
        return [{"number": number, "tokens": 1} for number in range(first, last)]

    file = RowsFile(tmp_path / "f.jsonl", {"seed": 1}, 8)
    file.fill(rows, 3)
    assert asked == [(0, 3), (3, 6), (6, 8)]
    whole = file.path.read_bytes()
    for size in range(len(whole)):
        file.path.unlink()
        file.part.write_bytes(whole[:size])
        asked.clear()
        file.fill(rows, 3)
        assert file.path.read_bytes() == whole
        assert asked[0][0] == whole[:size].count(b"\n") // 3 * 3


def test_other_settings_and_files_of_others_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    killed_after(1, "output=run.jsonl", "batch_size=3")
    begun = Path("run.jsonl.part").read_bytes()
    for words, said in (
        (["max_tokens=13"], "max_tokens was 12, is 13"),
        (["top_p=0.5"], "top_p was 1.0, is 0.5"),
        (["dataset.prompt=null"], "data was "),
        (["teacher.width=32"], "teacher was "),
    ):
        assert distill(*LINE, "output=run.jsonl", *words) == 2
        assert said in capsys.readouterr().err
    assert Path("run.jsonl.part").read_bytes() == begun
    Path("mine.jsonl").write_text("mine\n")
    assert distill(*LINE, "output=mine.jsonl") == 2
    assert "mine.jsonl is there, and nothing tells how it was made" in capsys.readouterr().err
    assert Path("mine.jsonl").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "output: where are the texts to go?"),
        (["output=texts.csv"], "texts.csv should be a file that ends in .jsonl"),
        (
            ["output=a.jsonl", "teacher.positions=30", "max_tokens=25"],
            "max_tokens=25: the teacher has 30 positions, and a",
        ),
        (["output=a.jsonl", "teacher.joint=true"], "one teacher writes, prepared before"),
        (["output=a.jsonl", "top_p=0"], "top_p: must be greater than 0, got 0"),
    ],
)
def test_what_cannot_be_is_refused(words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(*LINE, *words) == 2
    assert said in capsys.readouterr().err


def test_a_model_of_pictures_writes_none(capsys: pytest.CaptureFixture[str]) -> None:
    quick = [word for word in QUICK if not word.startswith("report")]
    assert distill("generate", *quick, "output=a.jsonl") == 2
    assert "distill generate: a model of images answers them and writes none" in capsys.readouterr().err
    assert not Path("a.jsonl.json").exists()


def test_a_student_trains_on_the_file() -> None:
    texts = made("samples=2")
    student = ["student=bytes_tiny", "student.width=16", "student.layers=1", "schedule=constant", "report=false"]
    other = ["dataset.root=texts.jsonl", "dataset.packing=none", "dataset.length=32", "schedule.train.epochs=1"]
    words = [word for word in LINE[1:] if word.split("=")[0] not in ("max_tokens", "dataset.root", "dataset.length")]
    assert distill("train", *words, *student, *other) == 0
    (row,) = rows_of(only_run(Path()))
    assert row["loss"]["kd"] > 0
    assert len(texts) == 32
