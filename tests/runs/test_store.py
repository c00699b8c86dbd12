"""Proves that arrays on disk are computed once and never wrong: damage, death, races."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import distill, flip, leftovers, visible

from distill_cli.runs import store

ABOUT = {"teacher": "net", "dataset": "data", "split": "train", "precision": "float32"}
SHAPE = (7, 3)
WORDS = store.Words("asking net about data", "the answers", "do without")
DAY = 24 * 60 * 60


def numbers(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Maker:
    """Asks for cached arrays, and counts how often one had to be computed."""

    def __init__(self, root: Path) -> None:
        self.root, self.computed = root, 0

    def __call__(self, seed: int = 0, shape: tuple[int, int] = SHAPE, **more: Any) -> np.ndarray:
        def compute() -> Iterator[dict[str, np.ndarray]]:
            self.computed += 1
            yield from ({"logits": block} for block in np.array_split(numbers(seed, shape), 3))

        wanted = {"logits": store.Array(shape)}
        return store.arrays(self.root, {"seed": seed, **more}, ABOUT, wanted, compute, WORDS)["logits"]

    def folder(self, seed: int = 0) -> Path:
        """Where the array of this seed lies."""
        (found,) = (e.folder for e in store.entries(self.root) if e.card and e.card["ingredients"]["seed"] == seed)
        return found


@pytest.fixture
def ask(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "cache")


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
    renamed, wanted = {**ABOUT, "teacher": "renamed"}, {"logits": store.Array(SHAPE)}
    found = store.arrays(ask.root, {"seed": 0}, renamed, wanted, lambda: pytest.fail("computed"), WORDS)
    assert np.array_equal(found["logits"], numbers(0))


def test_an_entry_of_several_arrays_is_made_in_one_pass_and_made_again_as_a_whole(tmp_path: Path) -> None:
    pixels, passes = np.arange(24, dtype=np.uint8).reshape(4, 1, 2, 3), []
    wanted = {"logits": store.Array((4, 3)), "layer2.0": store.Array((4, 1, 2, 3), "|u1")}

    def compute() -> Iterator[dict[str, np.ndarray]]:
        passes.append(1)
        for rows in ([0, 1], [2, 3]):
            yield {"layer2.0": pixels[rows], "logits": numbers(0, (4, 3))[rows]}

    def ask() -> dict[str, np.ndarray]:
        return store.arrays(tmp_path, {}, ABOUT, wanted, compute, WORDS)

    for damaged in (None, "logits.npy", "layer2.0.npy"):
        if damaged:
            flip(next(tmp_path.glob(f"*/{damaged}")), -1)
        for _ in range(2):
            found = ask()
            assert np.array_equal(found["logits"], numbers(0, (4, 3)))
            assert found["layer2.0"].dtype == np.uint8 and np.array_equal(found["layer2.0"], pixels)
    assert len(passes) == 3


# --- damage

PART = 128  # bytes of the head of logits.npy
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
    entry = store.entry(ask.folder())
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
    def broken() -> Iterator[dict[str, np.ndarray]]:
        yield {"logits": numbers(0)[:2]}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.arrays(ask.root, {"seed": 0}, ABOUT, {"logits": store.Array(SHAPE)}, broken, WORDS)
    assert visible(ask.root) == leftovers(ask.root) == []
    assert np.array_equal(ask(), numbers(0))


BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from distill_cli.runs import store
root, log, way = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
whole = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
def compute():
    with log.open("a") as file:
        file.write("computed\\n")
    yield {"logits": whole[:4]}
    if way == "hang":
        print("half", flush=True)
        sys.stdin.read()
    time.sleep(0.3)
    yield {"logits": whole[4:]}
about = {"teacher": "net", "dataset": "data", "split": "train", "precision": "float32"}
words = store.Words("asking", "answers", "do without")
found = store.arrays(root, {"seed": 0}, about, {"logits": store.Array((7, 3))}, compute, words)
assert np.array_equal(found["logits"], whole)
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
    assert store.entries(ask.root) == []
    (aside,) = store.unfinished(ask.root)
    assert (aside / "logits.npy").is_file()
    assert np.array_equal(ask(), numbers(0))
    assert ask.computed == 1
    assert leftovers(ask.root) == []


def test_what_is_being_built_is_not_among_the_unfinished(ask: Maker, tmp_path: Path) -> None:
    process = hanging(ask, tmp_path / "log")
    try:
        assert len(leftovers(ask.root)) == 1
        assert list(store.unfinished(ask.root)) == []
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
