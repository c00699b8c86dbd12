"""Proves that a folder's pictures are decoded once for all runs, and that what is kept of them is never wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import distill, make_pictures, pictures_in
from PIL import Image

from distill_cli.config.records import read as record
from distill_cli.config.schema import Dataset
from distill_cli.data import Data, decoded, load
from distill_cli.runs import store

SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def few_pictures_are_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "WORTH", 1)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The picture files that were opened."""
    paths: list[Path] = []
    really = Image.open

    def watched(path: Path) -> Image.Image:
        paths.append(path)
        return really(path)

    monkeypatch.setattr(Image, "open", watched)
    yield paths


def read(root: Path, kept: Path | None, **keys: object) -> Data:
    node = {"_target_": "distill_cli.data.folder.image_folder", "root": str(root), **keys}
    return load(record(Dataset, node), 0, store=kept)


def same(one: Data, other: Data) -> bool:
    return one.digest == other.digest and all(
        torch.equal(pictures_in(getattr(one, name)), pictures_in(getattr(other, name))) for name in SPLITS
    )


def test_a_second_run_opens_no_picture_and_gets_the_same_bits(tmp_path: Path, opened: list[Path]) -> None:
    root, kept = make_pictures(tmp_path / "photos"), tmp_path / "cache"
    plain = read(root, None)
    number = len(opened)
    first = read(root, kept)
    assert len(opened) == 2 * number
    second = read(root, kept)
    assert len(opened) == 2 * number
    assert same(first, plain) and same(second, plain)


def test_streamed_pictures_of_a_second_run_are_opened_only_to_be_read(tmp_path: Path, opened: list[Path]) -> None:
    root, kept = make_pictures(tmp_path / "photos"), tmp_path / "cache"
    keys = {"memory": 0, "mean": [0.5], "std": [0.5]}
    read(root, kept, **keys)
    opened.clear()
    data = read(root, kept, **keys)
    assert len(opened) == 1  # for its shape
    assert len(list(data.test.batches(4))) and len(opened) > 1


def test_another_size_is_read_anew_from_the_same_headers(tmp_path: Path, opened: list[Path]) -> None:
    root, kept = make_pictures(tmp_path / "photos"), tmp_path / "cache"
    read(root, kept)
    number = len(opened)
    opened.clear()
    assert same(read(root, kept, size=8), read(root, None, size=8))
    assert len(opened) == number // 2 + number


def test_a_picture_that_changed_under_its_size_and_time_is_seen(tmp_path: Path) -> None:
    root, kept = make_pictures(tmp_path / "photos"), tmp_path / "cache"
    path = root / "test" / "a" / "0.bmp"
    other = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(other).save(path)
    before, stat = read(root, kept), path.stat()
    Image.fromarray(255 - other).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = read(root, kept)
    assert after.digest != before.digest
    assert same(after, read(root, None))


def test_what_was_damaged_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, kept = make_pictures(tmp_path / "photos"), tmp_path / "cache"
    read(root, kept)
    for array in kept.glob("*/pictures.npy"):
        content = bytearray(array.read_bytes())
        content[-1] ^= 1
        array.write_bytes(content)
    capsys.readouterr()
    again, said = read(root, kept), capsys.readouterr().err
    assert same(again, read(root, None))
    assert said.count("making it again") == 3  # the headers, train and test
    assert all(entry.damage() is None for entry in store.entries(kept))


@pytest.mark.parametrize("how", ["full", "not a folder"])
def test_without_room_they_are_read_without_being_kept(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, kept = make_pictures(tmp_path / "photos"), tmp_path / "cache"
    if how == "full":
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    else:
        kept.write_text("in the way")
    data = read(root, kept)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("; ")[2] for line in said] == [
        f"photos, {part}, is read without being kept" for part in ("headers", "train", "test")
    ]
    assert same(data, read(root, None))
    assert how != "full" or store.entries(kept) == []


def test_runs_share_them_and_cache_lists_and_prunes_them(
    tmp_path: Path, opened: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_pictures(tmp_path / "photos")
    words = ["dataset=image_folder", f"dataset.root={root}", "teacher=smallcnn", "teacher.widths=[4]", "report=false",
             "student=tinycnn", "teacher.fit.epochs=0", "schedule=constant", "schedule.train.epochs=1"]  # fmt: skip
    assert distill("train", *words) == 0
    opened.clear()
    assert distill("train", *words, "seed=1") == 0
    assert opened == []
    capsys.readouterr()
    assert distill("cache", "prune") == 0
    assert distill("cache") == 0
    shown = [line.split()[1:5] for line in capsys.readouterr().out.splitlines() if "photos" in line]
    assert sorted(shown) == [
        ["photos", "headers", "32", "11"],
        ["photos", "test", "16", "3x16x16"],
        ["photos", "train", "16", "3x16x16"],
    ]
    shutil.rmtree(root)
    assert distill("cache", "prune") == 0
    assert capsys.readouterr().out.count(f"there is no {root} any more") == 3
