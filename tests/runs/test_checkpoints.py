"""Proves that the newest whole checkpoint is found whatever happened to the others, and that no damaged byte is used."""

from __future__ import annotations

import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.runs import checkpoints
from distill_cli.runs.checkpoints import BEST, LAST, MANIFEST, PREVIOUS, Checkpoints


def snapshot(step: int) -> dict[str, Any]:
    torch.manual_seed(step)
    return {"student": {"w": torch.randn(50)}, "step": step, "epoch": step // 10}


def saved(folder: Path, *steps: int, best: int | None = None) -> Checkpoints:
    kept = Checkpoints(folder)
    for step in steps:
        named = {"best": {"epoch": best // 10}} if best is not None and step >= best else {}
        kept.save({**snapshot(step), **named}, best=step == best)
    return kept


def same(one: Any, other: Any) -> bool:
    return one["step"] == other["step"] and torch.equal(one["student"]["w"], other["student"]["w"])


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_comes_back_and_two_generations_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    saved(tmp_path / "c", 10, 20, 30, 40, 50, best=20)
    assert inside(tmp_path / "c") == [BEST, LAST, MANIFEST, PREVIOUS]
    found = Checkpoints(tmp_path / "c").latest()
    assert found is not None and same(found, snapshot(50))
    assert torch.equal(found["best_weights"]["w"], snapshot(20)["student"]["w"])
    for name, step in ((LAST, 50), (PREVIOUS, 40), (BEST, 20)):
        assert same(checkpoints.read(tmp_path / "c" / name), snapshot(step))


def test_the_best_weights_are_on_disk_once_and_without_what_moves_them(tmp_path: Path) -> None:
    kept, weights = Checkpoints(tmp_path), {"w": torch.zeros(50_000)}
    moved = {"student": weights, "optimizer": {"m": torch.zeros(100_000)}, "card": {"a": 1}, "best": {"epoch": 0}}
    for step in range(1, 4):
        kept.save({**moved, "best_weights": weights, "step": step, "epoch": 0}, best=step == 1)
    sizes = {name: (tmp_path / name).stat().st_size for name in (LAST, PREVIOUS, BEST)}
    assert sizes[BEST] < 210_000 and sizes[LAST] < 610_000 and sizes[PREVIOUS] < 610_000
    assert checkpoints.read(tmp_path / BEST).keys() == {"student", "card", "step", "epoch"}


def test_a_checkpoint_comes_back_with_the_best_weights_of_its_own_time(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for step in (10, 20):
        kept.save({**snapshot(step), "best": {"epoch": step // 10}}, best=True)
    (tmp_path / LAST).write_bytes(b"cut short")
    kept = Checkpoints(tmp_path)
    found = kept.latest()
    assert found is not None and found["step"] == 10
    assert torch.equal(found["best_weights"]["w"], snapshot(10)["student"]["w"])
    kept.save({**snapshot(25), "best": {"epoch": 1}})
    kept.save({**snapshot(26), "best": {"epoch": 1}})
    again = Checkpoints(tmp_path).latest()
    assert again is not None and torch.equal(again["best_weights"]["w"], snapshot(10)["student"]["w"])


def test_a_checkpoint_of_an_earlier_version_brings_its_best_weights_itself(tmp_path: Path) -> None:
    weights = {"w": torch.ones(3)}
    torch.save({**snapshot(10), "best": {"epoch": 1}, "best_weights": weights}, tmp_path / LAST)
    found = Checkpoints(tmp_path).latest()
    assert found is not None and torch.equal(found["best_weights"]["w"], weights["w"])


def test_whoever_falls_back_keeps_what_else_is_whole(tmp_path: Path) -> None:
    saved(tmp_path, 10, 20, 30, best=10)
    (tmp_path / LAST).write_bytes(b"cut short")
    for lost in ("the newest", "the manifest"):
        kept = Checkpoints(tmp_path)
        found = kept.latest()
        assert found is not None, lost
        kept.save({**snapshot(found["step"] + 10), "best": found["best"]})
        steps = [checkpoints.read(tmp_path / name)["step"] for name in (LAST, PREVIOUS, BEST)]
        assert steps == [found["step"] + 10, found["step"], 10], lost
        (tmp_path / MANIFEST).unlink()


@pytest.mark.parametrize("content", [{}, {"files": 3}, {"files": {"last.pt": 1}}])
def test_a_manifest_of_another_kind_is_no_traceback(content: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path, 1)
    files.write_json(tmp_path / MANIFEST, content)
    found = Checkpoints(tmp_path).latest()
    assert found is not None and same(found, snapshot(1))


def test_compressed_records_are_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoints.read(tmp_path / "bomb.pt")


def test_where_nothing_was_saved_there_is_nothing(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "c").latest() is None
    (tmp_path / "c").mkdir()
    assert Checkpoints(tmp_path / "c").latest() is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_a_truncated_newest_falls_back_to_the_one_before_and_says_so(
    share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 1, 2, 3)
    os.truncate(tmp_path / LAST, int(share * (tmp_path / LAST).stat().st_size))
    kept = Checkpoints(tmp_path)
    found = kept.latest()
    assert found is not None and same(found, snapshot(2))
    said = capsys.readouterr().err
    assert str(tmp_path / LAST) in said and "going on from previous.pt, step 2" in said
    # The next save must not put the damaged file in the place of the good one.
    kept.save(snapshot(7))
    assert same(checkpoints.read(tmp_path / PREVIOUS), snapshot(2))
    assert same(checkpoints.read(tmp_path / LAST), snapshot(7))


def test_without_its_best_weights_a_checkpoint_is_not_used_and_none_good_is_exit_4(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for step in (10, 11, 12):
        kept.save({**snapshot(step), "best": {"epoch": 1}}, best=step == 10)
    (tmp_path / BEST).write_bytes(b"nothing of ours")
    with pytest.raises(CheckpointError, match="no checkpoint can be used") as caught:
        Checkpoints(tmp_path).latest()
    assert all(name in caught.value.message for name in (LAST, PREVIOUS, BEST))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("manifest", ["beside", "damaged", "missing"])
def test_no_flipped_bit_is_ever_used(manifest: str, tmp_path: Path) -> None:
    saved(tmp_path, 1)
    if manifest == "missing":
        (tmp_path / MANIFEST).unlink()
    if manifest == "damaged":
        (tmp_path / MANIFEST).write_text("{}")
    path = tmp_path / LAST
    whole = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        try:
            assert same(checkpoints.read(path), snapshot(1)), f"byte {place} changed and was used"
        except CheckpointError:
            refused += 1
    assert refused == 150 if manifest == "beside" else refused > 50  # without it, what matters is refused


def test_a_lone_copy_is_read_and_its_damage_seen(tmp_path: Path) -> None:
    saved(tmp_path / "c", 4)
    shutil.copy(tmp_path / "c" / LAST, tmp_path / "alone.pt")
    assert same(checkpoints.read(tmp_path / "alone.pt"), snapshot(4))
    content = bytearray((tmp_path / "alone.pt").read_bytes())
    place = content.index(snapshot(4)["student"]["w"].numpy().tobytes())
    content[place + 3] ^= 64
    (tmp_path / "alone.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="CRC-32"):
        checkpoints.read(tmp_path / "alone.pt")


def dying_save(folder: Path, call: int, name: str) -> int:
    """Save in a process that dies at the `call`-th use of a function of `os` or, for `replace`, of Path; its exit code."""
    child = os.fork()
    if not child:
        kept, left = Checkpoints(folder), [call]
        found = kept.latest()
        place: Any = Path if name == "replace" else os
        whole = getattr(place, name)

        def dying(*args: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return whole(*args)

        setattr(place, name, dying)
        assert found is not None
        kept.save({**snapshot(found["step"] + 10), "best": {"epoch": found["epoch"] + 1}}, best=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_killed_anywhere_in_a_save_the_checkpoint_before_it_is_there(name: str, tmp_path: Path) -> None:
    start = Checkpoints(tmp_path / "start")
    for step in (10, 20):
        start.save({**snapshot(step), "best": {"epoch": step // 10}}, best=True)
    codes, steps = [], []
    for call in range(1, 30):
        folder = tmp_path / f"{call}"
        shutil.copytree(tmp_path / "start", folder)
        code = dying_save(folder, call, name)
        codes.append(code)
        kept = Checkpoints(folder)
        found = kept.latest()
        assert found is not None and same(found, snapshot(found["step"]))
        assert torch.equal(found["best_weights"]["w"], snapshot(found["best"]["epoch"] * 10)["student"]["w"])
        steps.append(found["step"])
        assert not list(folder.glob("*.tmp")) and not list(folder.glob(".*.tmp"))
        # and so it goes on: two generations again, whichever was cut short
        for step in (80, 90):
            kept.save({**snapshot(step), "best": found["best"]})
        assert [checkpoints.read(folder / name)["step"] for name in (LAST, PREVIOUS)] == [90, 80]
        again = Checkpoints(folder).latest()
        assert again is not None and len(again["best_weights"])
        if code == 0:
            break
    assert codes[:-1] == [9] * (len(codes) - 1) and codes[-1] == 0
    assert len(codes) > 4
    assert set(steps[:-1]) <= {20, 30} and steps[-1] == 30


def test_saving_is_due_by_steps_or_by_time(tmp_path: Path) -> None:
    by_steps = Checkpoints(tmp_path, steps=5)
    assert [step for step in range(1, 21) if by_steps.due(step)] == [5, 10, 15, 20]
    assert not Checkpoints(tmp_path).due(5)
    assert Checkpoints(tmp_path, seconds=1e-9).due(1)
    assert not Checkpoints(tmp_path, seconds=1e9).due(1)


def test_a_file_that_is_no_checkpoint_is_told_apart(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"is not a checkpoint of a run") as caught:
        checkpoints.read(tmp_path / "weights.pt")
    assert "teacher.checkpoint=PATH" in caught.value.hint
