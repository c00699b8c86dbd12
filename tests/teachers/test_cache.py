"""Proves that cached logits are computed once and never wrong: damage, death, races and full disks, and `distill cache`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import QUICK, distill, only_run, read_json, rows, run_folders, without_times

from distill_cli.base import files
from distill_cli.cli.commands import cache as command
from distill_cli.teachers import cache

ABOUT = {"teacher": "net", "dataset": "data", "split": "train", "precision": "float32"}
SHAPE = (7, 3)
DAY = 24 * 60 * 60


def numbers(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Maker:
    """Asks for cached arrays, and counts how often one had to be computed."""

    def __init__(self, root: Path) -> None:
        self.root, self.computed = root, 0

    def __call__(self, seed: int = 0, shape: tuple[int, int] = SHAPE, **more: Any) -> np.ndarray:
        def compute() -> Iterator[np.ndarray]:
            self.computed += 1
            yield from np.array_split(numbers(seed, shape), 3)

        return cache.array(self.root, {"seed": seed, **more}, ABOUT, shape, compute)

    def folder(self, seed: int = 0) -> Path:
        """Where the array of this seed lies."""
        (found,) = (e.folder for e in cache.entries(self.root) if e.card and e.card["ingredients"]["seed"] == seed)
        return found


@pytest.fixture
def ask(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "cache")


def flip(path: Path, position: int, by: int = 1) -> None:
    """Change one byte of a file; `by` says which of its bits."""
    content = bytearray(path.read_bytes())
    content[position] ^= by
    path.write_bytes(content)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def leftovers(folder: Path) -> list[str]:
    """What a builder may leave behind besides its lock."""
    return [path.name for path in folder.iterdir() if path.name[0] == "." and path.suffix != ".lock"]


# --- made once


def test_an_array_comes_back_as_it_was_computed_and_is_computed_once(ask: Maker) -> None:
    for _ in range(3):
        found = ask()
        assert found.dtype == np.float32
        assert np.array_equal(found, numbers(0))
    assert ask.computed == 1
    assert len(visible(ask.root)) == 1


def test_the_file_is_one_that_numpy_reads(ask: Maker) -> None:
    ask()
    assert np.array_equal(np.load(ask.folder() / "logits.npy", allow_pickle=False), numbers(0))


def test_what_a_reader_changes_in_its_array_changes_nothing_on_disk(ask: Maker) -> None:
    ask()[:] = 0
    assert np.array_equal(ask(), numbers(0))
    assert ask.computed == 1


def test_other_ingredients_are_another_array_in_whatever_order_they_are_named(ask: Maker) -> None:
    base = {"a": 1, "b": {"x": [1, 2.5, None], "y": "z"}}
    others = [{**base, "a": 2}, {**base, "a": "1"}, {**base, "b": {"x": [1, 2.5, 0], "y": "z"}}, {**base, "c": None},
              {"a": 1}]  # fmt: skip
    for number, more in enumerate([base, *others], 1):
        assert np.array_equal(ask(**more), numbers(0))
        assert ask.computed == number
    assert len(visible(ask.root)) == 6
    ask(b={"y": "z", "x": [1, 2.5, None]}, a=1)
    assert ask.computed == 6


def test_words_for_people_are_no_ingredients(ask: Maker) -> None:
    ask()
    found = cache.array(ask.root, {"seed": 0}, {**ABOUT, "teacher": "renamed"}, SHAPE, lambda: pytest.fail("computed"))
    assert np.array_equal(found, numbers(0))


# --- damage

PART = len(cache._head(SHAPE))  # bytes of the head of logits.npy
WHOLE = PART + 4 * SHAPE[0] * SHAPE[1]

DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"byte {at} flipped": lambda f, at=at: flip(f / "logits.npy", at) for at in (0, 9, 20, PART - 1, PART, WHOLE - 1)},
    **{f"cut to {size}": lambda f, size=size: os.truncate(f / "logits.npy", size)
       for size in (0, 1, 10, PART - 1, PART, PART + 1, WHOLE - 4, WHOLE - 1)},
    "longer": lambda f: os.truncate(f / "logits.npy", WHOLE + 4),
    "no array": lambda f: (f / "logits.npy").unlink(),
    "a folder for an array": lambda f: ((f / "logits.npy").unlink(), (f / "logits.npy").mkdir()),
    "another array": lambda f: np.save(f / "logits.npy", numbers(9)),
    "no card": lambda f: (f / "cache.json").unlink(),
    "a cut card": lambda f: os.truncate(f / "cache.json", 100),
    "an empty card": lambda f: os.truncate(f / "cache.json", 0),
    "an empty folder": lambda f: (shutil.rmtree(f), f.mkdir()),
    **{f"a card of {text}": lambda f, text=text: (f / "cache.json").write_text(text)
       for text in ("nothing", "[]", "{}", "null", '{"ingredients": 1, "about": {}, "shape": [], "bytes": 1, "sha256": ""}')},
    "a card of bytes": lambda f: (f / "cache.json").write_bytes(b"\xff\xfe\x00"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_array_is_said_and_made_again(damage: str, ask: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    ask()
    folder = ask.folder()
    DAMAGES[damage](folder)
    capsys.readouterr()
    assert np.array_equal(ask(), numbers(0))
    said = capsys.readouterr().err
    assert "warning" in said and folder.name in said and "making it again" in said
    assert np.array_equal(ask(), numbers(0))
    assert ask.computed == 2
    assert capsys.readouterr().err == ""
    assert visible(ask.root) == [folder.name]
    assert leftovers(ask.root) == []


def test_damage_is_said_once(ask: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    ask()
    flip(ask.folder() / "logits.npy", PART)
    ask()
    assert capsys.readouterr().err.count("making it again") == 1


def test_every_byte_of_the_array_is_watched(ask: Maker) -> None:
    ask()
    entry = cache.entry(ask.folder())
    path = entry.folder / "logits.npy"
    assert entry.damage() is None
    for position in range(WHOLE):
        for bit in (1, 128):
            flip(path, position, bit)
            assert entry.damage() is not None, position
            flip(path, position, bit)
    assert entry.damage() is None


def test_whatever_byte_of_the_card_changes_the_numbers_stay_right(ask: Maker) -> None:
    ask()
    card = ask.folder() / "cache.json"
    whole = card.read_bytes()
    for position in range(len(whole)):
        flip(card, position, 1 << position % 8)
        assert np.array_equal(ask(), numbers(0)), position
        card.write_bytes(whole)
    # Names for people and blanks may change without a word; what was computed, its size and its digest may not.
    assert ask.computed > 0.3 * len(whole)


def test_an_array_under_anothers_name_is_not_taken_for_it(ask: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    ask(0)
    ask(1)
    zero, one = ask.folder(0), ask.folder(1)
    shutil.rmtree(one)
    zero.rename(one)
    assert np.array_equal(ask(1), numbers(1))
    assert "does not belong to this folder" in capsys.readouterr().err
    assert np.array_equal(ask(0), numbers(0))
    assert ask.computed == 4


def test_two_arrays_that_changed_places_are_both_made_again(ask: Maker) -> None:
    ask(0)
    ask(1)
    zero, one = ask.folder(0) / "logits.npy", ask.folder(1) / "logits.npy"
    content = zero.read_bytes()
    zero.write_bytes(one.read_bytes())
    one.write_bytes(content)
    assert np.array_equal(ask(0), numbers(0))
    assert np.array_equal(ask(1), numbers(1))
    assert ask.computed == 4


def test_an_array_being_read_survives_being_made_again(ask: Maker) -> None:
    held = ask()
    flip(ask.folder() / "cache.json", 0)
    ask()
    assert np.array_equal(held, numbers(0))


# --- builders that fail, die, or are not alone


def test_a_computation_that_fails_leaves_nothing(ask: Maker) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield numbers(0)[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.array(ask.root, {"seed": 0}, ABOUT, SHAPE, broken)
    assert visible(ask.root) == leftovers(ask.root) == []
    assert np.array_equal(ask(), numbers(0))


BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from distill_cli import cache
root, log, way = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
whole = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
def compute():
    with log.open("a") as file:
        file.write("computed\\n")
    yield whole[:4]
    if way == "hang":
        print("half", flush=True)
        sys.stdin.read()
    time.sleep(0.3)
    yield whole[4:]
about = {"teacher": "net", "dataset": "data", "split": "train", "precision": "float32"}
found = cache.array(root, {"seed": 0}, about, (7, 3), compute)
assert np.array_equal(found, whole)
print("equal")
"""


def builder(ask: Maker, log: Path, way: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(ask.root), str(log), way]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, **pipes)


def hanging(ask: Maker, log: Path) -> subprocess.Popen[str]:
    """A builder in the middle of its work."""
    process = builder(ask, log, "hang")
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    return process


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_builder_that_is_killed_leaves_nothing_under_the_final_name(ask: Maker, tmp_path: Path) -> None:
    killed(hanging(ask, tmp_path / "log"))
    assert visible(ask.root) == []
    assert cache.entries(ask.root) == []
    (aside,) = cache.unfinished(ask.root)
    assert (aside / "logits.npy").is_file()
    assert np.array_equal(ask(), numbers(0))
    assert ask.computed == 1
    assert leftovers(ask.root) == []


def test_what_is_being_built_is_not_among_the_unfinished(ask: Maker, tmp_path: Path) -> None:
    process = hanging(ask, tmp_path / "log")
    try:
        assert len(leftovers(ask.root)) == 1
        assert list(cache.unfinished(ask.root)) == []
        for words in (["prune"], ["prune", "all"]):
            assert distill("cache", *words, f"output_dir={tmp_path}") == 0
            assert len(leftovers(ask.root)) == 1
    finally:
        said, errors = process.communicate("")  # its input ends, so it goes on
    assert said == "equal\n", errors
    assert np.array_equal(ask(), numbers(0))
    assert ask.computed == 0


def test_of_four_processes_at_once_one_computes_and_all_get_the_same(ask: Maker, tmp_path: Path) -> None:
    log = tmp_path / "log"
    racers = [builder(ask, log, "go") for _ in range(4)]
    answers = [racer.communicate() for racer in racers]
    assert [said for said, _ in answers] == ["equal\n"] * 4, answers
    assert log.read_text() == "computed\n"
    assert len(visible(ask.root)) == 1


def test_four_processes_at_once_make_a_damaged_array_again_once(ask: Maker, tmp_path: Path) -> None:
    ask()
    flip(ask.folder() / "logits.npy", WHOLE - 1)
    log = tmp_path / "log"
    racers = [builder(ask, log, "go") for _ in range(4)]
    answers = [racer.communicate() for racer in racers]
    assert [said for said, _ in answers] == ["equal\n"] * 4, answers
    assert log.read_text() == "computed\n"


# --- whole runs: SMALL takes about a second, and leaves three arrays: train, val and test

SMALL = [*QUICK, "teacher.widths=[4]", "student.widths=[2]", "teacher.fit.epochs=0", "threads=1"]


class Kept(NamedTuple):
    """A folder of outputs with two teachers, and the rows of the first one's run."""

    outputs: Path
    rows: list[dict[str, Any]]

    def entry(self, split: str, teacher: int = 0) -> Path:
        """The array of that split by the teacher that was fitted with that seed."""
        wanted = [split, teachers(self.outputs)[teacher]]
        for found in cache.entries(self.outputs / "cache"):
            if found.card and [found.card["ingredients"][key] for key in ("split", "weights")] == wanted:
                return found.folder
        raise LookupError(split)


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
    found = cache.entries(tmp_path / "outputs" / "cache")
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
    assert len(cache.entries(kept.outputs / "cache")) == 5

    assert distill("train", *SMALL, "teacher.cache=off") == 0
    assert len(cache.entries(kept.outputs / "cache")) == 5


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
    for shape in ([], ["many", "few"], [1, 2, 3]):
        files.write_json(card, {**read_json(card), "shape": shape})
        assert distill("cache", "list") == 0
        assert "6 kept" in capsys.readouterr().out


def test_check_reads_everything_and_names_what_is_damaged(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("cache", "check") == 0
    assert capsys.readouterr().out.count("as it was written") == 6
    train, val, test = (kept.entry(split) for split in ("train", "val", "test"))
    flip(train / "logits.npy", -1)
    os.truncate(val / "logits.npy", 500)
    (test / "cache.json").write_text("{}")
    assert distill("cache", "check") == 4
    shown = capsys.readouterr()
    assert shown.out.count("as it was written") == 3
    (said,) = (line for line in shown.err.splitlines() if "error:" in line)
    assert "3 of 6 damaged" in said
    assert all(entry.name in said for entry in (train, val, test))
    assert "distill cache prune" in shown.err
    assert len(cache.entries(kept.outputs / "cache")) == 6


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
    with files.exclusive(entry.parent / f".{entry.name}.lock"):
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
    assert cache.entry(entry).damage() is None


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
        (["prun"], "'prun' means nothing here"),
        (["prun"], "did you mean prune?"),
        (["all"], "'all' means nothing here"),
        (["check", "all"], "'all' means nothing here"),
        (["list", "days=3"], "'days=3' means nothing here"),
        (["prune", "check"], "'check' means nothing here"),
        (["prune", "days=soon"], "days: should be a number of days, at least 0, got 'soon'"),
        (["prune", "days=-1"], "days: should be a number of days, at least 0, got '-1'"),
        (["prune", "days=nan"], "got 'nan'"),
        (["prune", "days="], "got ''"),
        (["prune", "output_dir="], "'output_dir=' means nothing here"),
        (["prune", "--force"], "'--force' means nothing here"),
    ],
)
def test_words_that_mean_nothing_are_refused_and_nothing_is_removed(
    kept: Kept, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("cache", *words) == 2
    assert said in capsys.readouterr().err
    assert len(visible(kept.outputs / "cache")) == 6
