"""Proves that runs make damaged answers again and say when the disk is full, and what `distill cache` shows and removes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import (
    QUICK,
    ROOT,
    distill,
    flip,
    leftovers,
    only_run,
    read_json,
    rows,
    run_folders,
    visible,
    without_times,
)

from distill_cli.base import files, locks
from distill_cli.cli.commands import cache as command
from distill_cli.runs import store
from distill_cli.teachers.store import own_code

DAY = 24 * 60 * 60


# --- whole runs: SMALL takes about a second, and leaves three arrays: train, val and test

SMALL = [*QUICK, "teacher.widths=[4]", "student.widths=[2]", "teacher.fit.epochs=0", "threads=1"]


class Kept(NamedTuple):
    """A folder of outputs with two teachers, and the rows of the first one's run."""

    outputs: Path
    rows: list[dict[str, Any]]

    def entry(self, split: str, teacher: int = 0) -> Path:
        """The array of that split by the teacher that was fitted with that seed."""
        wanted = [split, teachers(self.outputs)[teacher]]
        for found in store.entries(self.outputs / "cache"):
            if found.card and [found.card["ingredients"][key] for key in ("split", "weights")] == wanted:
                return found.folder
        raise LookupError(split)


def test_answers_depend_on_the_files_that_a_teacher_and_its_data_pass_through_and_on_no_other(tmp_path: Path) -> None:
    package = tmp_path / "distill_cli"
    shutil.copytree(ROOT / "distill_cli", package, ignore=shutil.ignore_patterns("__pycache__"))
    pictures = (
        "distill_cli.models.smallcnn.SmallCNN",
        "distill_cli.data.digits.digits",
        "distill_cli.models.inference",
    )
    texts = ("distill_cli.models.huggingface.fresh", "distill_cli.data.text.text", "distill_cli.models.inference")

    def keys() -> list[str]:
        own_code.cache_clear()
        return [own_code(parts, package) for parts in (pictures, texts)]

    def changed(file: str) -> list[bool]:
        before = keys()
        with (package / file).open("a") as code:
            code.write("# a change\n")
        return [one != other for one, other in zip(before, keys(), strict=True)]

    assert changed("models/new.py") == changed("data/new.py") == [False, False]
    assert changed("data/texts.py") == changed("models/wrapped.py") == [False, True]
    assert changed("models/smallcnn.py") == changed("data/digits.py") == [True, False]
    assert changed("data/split.py") == changed("models/features.py") == changed("models/__init__.py") == [True, True]
    assert changed("models/zoo.py") == changed("data/folder.py") == changed("base/ui.py") == [False, False]
    own_code.cache_clear()


def teachers(outputs: Path) -> dict[int, str]:
    """SHA-256 of each teacher's weights by the seed it was fitted with."""
    folders = [path for path in (outputs / "teachers").iterdir() if path.name[0] != "."]
    seeds = {path: read_json(path / "teacher.json")["ingredients"]["seed"] for path in folders}
    return {seed: read_json(path / "model.json")["sha256"] for path, seed in seeds.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    place = tmp_path_factory.mktemp("made")
    for seed in (0, 1):
        words = [f"teacher.fit.seed={seed}", f"output_dir={place / 'outputs'}", f"run_dir={place / str(seed)}"]
        assert distill("train", *SMALL, *words) == 0
    return Kept(place / "outputs", [without_times(row) for row in rows(place / "0")])


@pytest.fixture
def kept(made: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Kept:
    """A copy of it as this test's outputs."""
    shutil.copytree(made.outputs, tmp_path / "outputs")
    capsys.readouterr()
    return Kept(tmp_path / "outputs", made.rows)


def test_a_run_makes_damaged_arrays_again_and_comes_out_the_same(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [kept.entry(split) for split in ("train", "val", "test")]
    before = [(entry / "logits.npy").read_bytes() for entry in entries]
    for entry in entries:
        flip(entry / "logits.npy", 1000)
    assert distill("train", *SMALL) == 0
    said = capsys.readouterr().err
    assert all(f"{entry.name}: logits.npy is not what was written" in said for entry in entries)
    assert [(entry / "logits.npy").read_bytes() for entry in entries] == before
    (run,) = run_folders(kept.outputs.parent)
    assert [without_times(row) for row in rows(run)] == kept.rows


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead of killing us, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
from distill_cli.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_is_one_error_and_leaves_no_part_of_an_array(tmp_path: Path) -> None:
    # The logits on train take 51,848 bytes; nothing that is written before them takes as many.
    command = [sys.executable, "-B", "-c", LIMITED, "train", *SMALL]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 6, done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    (said,) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert "File too large" in said and "logits.npy" in said
    assert read_json(only_run(tmp_path) / "status.json")["exit_code"] == 6
    found = store.entries(tmp_path / "outputs" / "cache")
    assert sorted(entry.card["ingredients"]["split"] for entry in found) == ["test", "val"]
    assert [entry.damage() for entry in found] == [None, None]
    assert leftovers(tmp_path / "outputs" / "cache") == []


def test_too_little_free_space_is_said_before_anything_is_computed(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(kept.entry("train"))
    usage = shutil.disk_usage(kept.outputs)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert distill("train", *SMALL) == 6
    said = capsys.readouterr().err
    assert "no space for the teacher's answers: " in said and "logits.npy needs 114.5 KiB" in said
    assert "97.7 KiB are free" in said
    assert "teacher.cache=off" in said
    assert leftovers(kept.outputs / "cache") == []
    assert len(store.entries(kept.outputs / "cache")) == 5

    assert distill("train", *SMALL, "teacher.cache=off") == 0
    assert len(store.entries(kept.outputs / "cache")) == 5


# --- distill cache


def test_nothing_is_cached_at_first(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["list"], ["check"]):
        assert distill("cache", *words) == 0
        assert "nothing is cached in outputs/cache" in capsys.readouterr().out
    assert distill("cache", "prune") == 0
    assert "0 removed" in capsys.readouterr().out


def test_list_shows_whose_logits_on_what_are_kept(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["list"], ["list", f"output_dir={kept.outputs}"]):
        assert distill("cache", *words) == 0
        lines = capsys.readouterr().out.splitlines()
        for split, samples in (("train", "1,293"), ("val", "144"), ("test", "360")):
            (line,) = (line for line in lines if kept.entry(split).name in line)
            assert line.split()[1:7] == ["smallcnn", "digits", split, samples, "10", "float32"]
        assert lines[-1].startswith("6 kept, ")


def test_list_shows_the_last_used_first(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    names = visible(kept.outputs / "cache")
    for age, name in enumerate(names):
        used = time.time() - age * 3 * DAY
        os.utime(kept.outputs / "cache" / name, (used, used))
    assert distill("cache") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.split() and line.split()[0] in names]
    assert [line.split()[0] for line in lines] == names
    assert "15 days ago" in lines[-1]


def test_list_says_which_is_damaged_and_shows_the_others(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    train, val, test = (kept.entry(split) for split in ("train", "val", "test"))
    (train / "cache.json").write_text("{")
    (val / "cache.json").unlink()
    assert distill("cache", "list") == 0
    shown = capsys.readouterr().out
    second = {line.split()[0]: line.split()[1] for line in shown.splitlines() if len(line.split()) > 1}
    assert [second[entry.name] for entry in (train, val, test)] == ["damaged", "damaged", "smallcnn"]
    assert "6 kept" in shown


def test_list_survives_a_card_whose_shape_is_none(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    card = kept.entry("train") / "cache.json"
    for shape in ([], ["many", "few"], "7"):
        facts = {"logits": {**read_json(card)["arrays"]["logits"], "shape": shape}}
        files.write_json(card, {**read_json(card), "arrays": facts})
        assert distill("cache", "list") == 0
        assert "6 kept" in capsys.readouterr().out


def test_check_reads_everything_and_names_what_is_damaged(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("cache", "check") == 0
    assert capsys.readouterr().out.count("intact") == 6
    train, val, test = (kept.entry(split) for split in ("train", "val", "test"))
    flip(train / "logits.npy", -1)
    os.truncate(val / "logits.npy", 500)
    (test / "cache.json").write_text("{}")
    assert distill("cache", "check") == 4
    shown = capsys.readouterr()
    assert shown.out.count("intact") == 3
    (said,) = (line for line in shown.err.splitlines() if "error:" in line)
    assert "3 of 6 damaged" in said
    assert all(entry.name in said for entry in (train, val, test))
    assert "distill cache prune" in shown.err
    assert len(store.entries(kept.outputs / "cache")) == 6


def test_prune_removes_what_is_damaged_unfinished_or_without_its_teacher_and_nothing_else(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    root = kept.outputs / "cache"
    flip(kept.entry("val") / "logits.npy", 200)
    damaged, stays = kept.entry("val").name, sorted(kept.entry(split).name for split in ("train", "test"))
    orphans = [kept.entry(split, teacher=1).name for split in ("train", "val", "test")]
    (root / ".0123456789ab.making").mkdir()
    (root / ".0123456789ab.making" / "logits.npy").write_bytes(b"half")
    for folder in (kept.outputs / "teachers").iterdir():
        if folder.is_dir() and read_json(folder / "teacher.json")["ingredients"]["seed"] == 1:
            shutil.rmtree(folder)
    assert distill("cache", "prune") == 0
    shown = capsys.readouterr().out
    assert visible(root) == stays
    assert leftovers(root) == []
    assert f"removed {damaged}  logits.npy is not what was written" in shown
    assert "removed 0123456789ab  unfinished" in shown
    assert all(f"removed {name}  its teacher is no longer in" in shown for name in orphans)
    assert "5 removed" in shown and "2 kept" in shown

    assert distill("cache", "prune") == 0
    assert "0 removed, 0 B freed; 2 kept" in capsys.readouterr().out
    assert distill("train", *SMALL) == 0
    assert len(visible(root)) == 3
    (run,) = run_folders(kept.outputs.parent)
    assert [without_times(row) for row in rows(run)] == kept.rows


def test_prune_by_days_removes_what_no_run_has_read_since(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (kept.outputs / "cache").glob("[!.]*"):
        used = time.time() - 31 * DAY
        os.utime(folder, (used, used))
    stays = sorted(kept.entry(split).name for split in ("train", "val", "test"))
    assert distill("cache", "prune", "days=32") == 0
    assert "0 removed" in capsys.readouterr().out
    assert distill("train", *SMALL) == 0  # which reads the first teacher's
    assert distill("cache", "prune", "days=30") == 0
    assert "3 removed" in capsys.readouterr().out
    assert visible(kept.outputs / "cache") == stays


@pytest.mark.parametrize("word", ["all", "days=0"])
def test_prune_all_removes_everything(kept: Kept, word: str) -> None:
    assert distill("cache", "prune", word) == 0
    assert visible(kept.outputs / "cache") == leftovers(kept.outputs / "cache") == []


def test_prune_looks_where_it_is_told(kept: Kept, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other ü"
    kept.outputs.rename(elsewhere)
    assert distill("cache", "prune", "all") == 0
    assert len(visible(elsewhere / "cache")) == 6
    assert distill("cache", "prune", "all", f"output_dir={elsewhere}") == 0
    assert visible(elsewhere / "cache") == []


@contextmanager
def prune_waiting_for(entry: Path, *words: str) -> Iterator[None]:
    """Start pruning while `entry` is locked, as by a run that makes it again; inside it waits, after it has ended."""
    failed: list[BaseException] = []

    def prune() -> None:
        try:
            command.run(["prune", *words])
        except BaseException as error:
            failed.append(error)

    pruning = threading.Thread(target=prune)
    with locks.exclusive(entry.parent / f".{entry.name}.lock"):
        pruning.start()
        pruning.join(0.3)
        assert pruning.is_alive()
        yield
    pruning.join()
    assert failed == []


def test_prune_leaves_an_array_that_was_made_again_while_it_waited(kept: Kept) -> None:
    entry = kept.entry("train")
    whole = (entry / "logits.npy").read_bytes()
    flip(entry / "logits.npy", 200)
    with prune_waiting_for(entry):
        (entry / "logits.npy").write_bytes(whole)
    assert store.entry(entry).damage() is None


@pytest.mark.parametrize("words", [[], ["all"], ["days=30"]], ids=["prune", "all", "days"])
def test_two_prunes_at_once_do_not_stumble_over_each_other(kept: Kept, words: list[str]) -> None:
    entry = kept.entry("train")
    flip(entry / "logits.npy", 200)
    with prune_waiting_for(entry, *words):
        shutil.rmtree(entry)
    assert len(visible(kept.outputs / "cache")) == (0 if words == ["all"] else 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prun"], "'prun' is not a word it takes"),
        (["prun"], "did you mean prune?"),
        (["all"], "'all' is not a word it takes"),
        (["check", "all"], "'all' is not a word it takes"),
        (["list", "days=3"], "'days=3' is not a word it takes"),
        (["prune", "check"], "'check' is not a word it takes"),
        (["prune", "days=soon"], "days: should be a number of days, at least 0, got 'soon'"),
        (["prune", "days=-1"], "days: should be a number of days, at least 0, got '-1'"),
        (["prune", "days=nan"], "got 'nan'"),
        (["prune", "days="], "got ''"),
        (["prune", "output_dir="], "'output_dir=' is not a word it takes"),
        (["prune", "--force"], "'--force' is not a word it takes"),
    ],
)
def test_words_that_mean_nothing_are_refused_and_nothing_is_removed(
    kept: Kept, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("cache", *words) == 2
    assert said in capsys.readouterr().err
    assert len(visible(kept.outputs / "cache")) == 6
