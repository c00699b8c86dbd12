"""Proves that a path which no file can have is refused as a mistake, wherever a command line or a file of the user's names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import distill

from distill_cli.base import files
from distill_cli.base.errors import ConfigError

LINES = [
    "train output_dir={}",
    "train run_dir={}",
    "train dataset=image_folder dataset.root={}",
    "train teacher.checkpoint={}",
    "train -m seed=0 hydra.sweep.dir={}",
    "train logger=tensorboard logger.tensorboard.dir={}",
    "train --from {}",
    "train -cd {}",
    "eval ckpt={}",
    "eval ckpt=run predictions={}",
    "predict ckpt={} input=x",
    "predict ckpt=run input=x output={}",
    "resume {}",
    "report {}",
    "report run output={}",
    "cache output_dir={}",
]


@pytest.mark.parametrize("line", LINES)
def test_no_command_takes_a_path_that_cannot_be(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    for odd, told in (("~no-such-user/x", "names no user with a folder"), ("x" * 300, "can have 255 bytes")):
        code, said = distill(*line.format(odd).split()), capsys.readouterr().err
        assert (code, told in said) in ((2, True), (4, False)), said  # 4: there is no such run to evaluate
        assert code == 2 or "ckpt=run" in line


@pytest.mark.parametrize("key", ["run_dir", "output_dir", "dataset.root", "teacher.checkpoint"])
@pytest.mark.parametrize("odd", [r'"a\0b"', '"~no-such-user"', r'"\ud800"', '"' + "x/" * 3000 + '"'])
def test_nor_does_a_file(key: str, odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    first, _, rest = key.partition(".")
    text = f"{first}: {odd}\n" if not rest else f"{first}:\n  {rest}: {odd}\n"
    (tmp_path / "conf" / "experiment" / "odd.yaml").write_text(f"# @package _global_\n{text}")
    assert distill("train", "experiment=odd") == 2
    said = capsys.readouterr().err
    assert key in said or "odd.yaml" in said


def test_a_name_that_is_too_long_is_a_mistake_of_whoever_gave_it(capsys: pytest.CaptureFixture[str]) -> None:
    for word in (f"student={'x' * 300}", f"+model@chain.{'x' * 300}=tinycnn", f"schedule.{'x' * 300}.epochs=1"):
        assert distill("train", word) == 2
        assert "free some space" not in capsys.readouterr().err


def test_a_place_is_what_a_user_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert files.place("~/a b", "x") == Path("/home/me/a b")
    assert files.place("a/~", "x") == Path("a/~")
    with pytest.raises(ConfigError, match="x: ~no-such-user names no user"):
        files.place("~no-such-user", "x")
    assert not files.exists("x" * 300) and not files.exists("a\0") and files.exists(".")
