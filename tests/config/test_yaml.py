"""A user's YAML files: what YAML would take for something else than it looks, or cannot read, is told by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import QUICK, distill
from omegaconf import OmegaConf

from distill_cli.config import yamls
from distill_cli.config.places import conf_dir


def put(folder: Path, content: str | bytes, name: str = "mine.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


OPTIMIZER = "_target_: torch.optim.SGD\n"

TRAPS = [
    ("weight_decay: 010", 2, '010 is read as the octal number 8; write 10, or "010" in quotes'),
    ("weight_decay: -0_17", 2, '-0_17 is read as the octal number -15; write -17, or "-0_17" in quotes'),
    ("lr: 12:30", 2, '12:30 is read as the base-60 number 750; write 750, or "12:30" in quotes'),
    ("lr: 1:30.5", 2, '1:30.5 is read as the base-60 number 90.5; write 90.5, or "1:30.5" in quotes'),
    ("\n# a note\ncurve: no", 4, 'no is read as false; write false, or "no" in quotes'),
    ("nesterov: Yes", 2, 'Yes is read as true; write true, or "Yes" in quotes'),
    ("curve: on", 2, 'on is read as true; write true, or "on" in quotes'),
    ("curve: OFF", 2, 'OFF is read as false; write false, or "OFF" in quotes'),
    ("on: 1", 2, 'on is read as true; write true, or "on" in quotes'),
    ("milestones: [0.5, {deep: [on]}]", 2, "on is read as true"),
    ("base: &base\n  lr: 010\nagain: *base", 3, "010 is read as the octal number 8"),
    ("lr: 1\nclip: 2\nlr: 3", 4, "lr is given twice, first in line 2; keep one of them"),
    ("a:\n  b: 1\n  'b': 2", 4, "b is given twice, first in line 3; keep one of them"),
    ("lr: 1" + "0" * 400, 2, "must be at most 2147483647, got 1000"),
    ("lr: 1" + "0" * 9000, 2, "cannot be read as int"),
    ("lr: !!bool maybe", 2, "'maybe' cannot be read as bool"),
    ("a:\n\tb: 1", 3, "a tab, where YAML wants spaces; write spaces"),
    ("curve: a\tb", 2, "a tab"),
    ("lr: 1: 2", 2, 'a second ": " in one line; put quotes around text that holds one'),
    ("lr: 1\nclip\ngamma: 2", 3, 'a line that is neither "key: value" nor "- entry"'),
    ("a:\n  b: 1\n c: 2", 4, "it is indented unlike the lines above"),
    ("milestones: [0.5\nlr: 1", 2, "a list or mapping in brackets is not closed, or lacks a comma"),
    ('curve: "step\nlr: 1', 2, "a quote that is not closed"),
    ("curve: *.png", 2, "put quotes around text that begins with *"),
    ("curve: *nope", 2, "* starts an alias; put quotes around text that begins with *"),
    ("curve: !!python/object/apply:os.system [echo]", 2, "! starts a tag"),
    ("curve: !mine x", 2, "! starts a tag, of which none is needed here; put quotes around text"),
    ("curve: =", 2, "= alone means nothing; put quotes around it"),
    ("---\nlr: 1", 2, "a second document; take out the --- above it"),
    ("[a, b]: 1", 2, "a list or a mapping stands where a key should"),
    ("null: 1", 2, "null stands where a key should; write a word, or put it in quotes"),
    ("lr: 1\ncurve: a\x07b", 3, "holds the character U+0007, unknown to YAML; take it out"),
    (b"lr: 1\n# gr\xf6\xdfer", 3, "byte 0xf6 is not UTF-8 ('ö' in Latin-1); save the file as UTF-8"),
    ("lr: 1".encode("utf-16"), 2, "byte 0xff is not UTF-8"),
]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said to words that must be refused, without a traceback."""
    assert distill("train", *words) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.removeprefix("error: ").strip()


@pytest.mark.parametrize(("content", "line", "said"), TRAPS, ids=[repr(content)[:40] for content, _, _ in TRAPS])
def test_a_trap_is_told_by_file_and_line(
    content: str | bytes, line: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(Path("conf/optimizer"), OPTIMIZER.encode() + (content.encode() if isinstance(content, str) else content))
    shown = refused(["optimizer=mine"], capsys)
    assert shown.startswith(f"conf/optimizer/mine.yaml:{line}: ")
    assert said in shown
    assert len(shown.splitlines()) == 1


def test_every_trap_of_a_file_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    put(Path("conf/optimizer"), f"{OPTIMIZER}lr: 010\nnesterov: yes\nlr: 12:30\n")
    lines = refused(["optimizer=mine"], capsys).splitlines()
    assert [line.split(": ")[0].rpartition(":")[2] for line in lines] == ["2", "3", "4", "4"]


def test_a_value_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/odd.yaml").write_text("_target_: torch.nn.Identity\nmore: [!!binary aGk=]\n")
    assert distill("train", "student=odd") == 2
    assert "student.more: should be text, a number, true, false or null, got b'hi'" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["-1", "1.5", "true", "!!binary aGk="])
def test_a_key_is_text(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/odd.yaml").write_text(f"_target_: torch.nn.Identity\nmore:\n  {key}: 1\n")
    assert distill("train", "student=odd") == 2
    assert "put it in quotes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- lr: 1\n- clip: 2\n", "mine.yaml:1: should hold keys and values, as in lr: 0.1, got a list"),
        ("\n\njust words\n", "mine.yaml:3: should hold keys and values, as in lr: 0.1, got text"),
        ("3\n", "mine.yaml:1: should hold keys and values"),
        ("? \n: 1\n", "mine.yaml:1: nothing stands where a key should; write a word"),
        ("a: " + "[" * 5000, "mine.yaml: cannot be read: it is nested too deeply"),
        ("a: &a [*a]\n", "mine.yaml: cannot be read"),
        ("lr: ${oops\n", "mine.yaml: cannot be read"),
        ("lr: !!set {a}\n", "mine.yaml: cannot be read"),
        ("# @package one two three\nlr: 1\n", "mine.yaml: its header cannot be read"),
    ],
)
def test_a_file_that_is_no_configuration_is_told_by_name(
    content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(Path("conf/optimizer"), content)
    assert said in refused(["optimizer=mine"], capsys)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that even root cannot read")
def test_a_file_that_cannot_be_read_is_told_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/optimizer").mkdir(parents=True)
    Path("conf/optimizer/mine.yaml").symlink_to("/proc/self/mem")
    assert refused(["optimizer=mine"], capsys) == "conf/optimizer/mine.yaml: cannot be read: Input/output error"


@pytest.mark.parametrize("group", ["model", "student", "teacher", "dataset", "objective", "schedule", "experiment"])
@pytest.mark.parametrize("place", ["conf", "named", "common"])
def test_files_of_every_group_and_folder_are_read_so(
    group: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISTILL_CONF", str(tmp_path / "common"))
    put(tmp_path / place / group, "a: 1\na: 2\n")
    words = [f"{'student' if group == 'model' else group}=mine", *(["--config-dir=named"] if place == "named" else [])]
    assert refused(words, capsys) == f"{place}/{group}/mine.yaml:2: a is given twice, first in line 1; keep one of them"
    assert refused([*words, "--cfg", "job"], capsys).startswith(f"{place}/{group}/mine.yaml:2: ")


def test_a_file_elsewhere_is_named_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path.parent / f"{tmp_path.name} elsewhere" / "optimizer", "lr: 010\n")
    assert refused(["--config-dir", str(file.parent.parent), "optimizer=mine"], capsys).startswith(f"{file}:1: ")


def test_a_root_file_of_the_users_is_read_so(capsys: pytest.CaptureFixture[str]) -> None:
    put(Path("conf"), "defaults: [train, _self_]\nT: 010\n", "own.yaml")
    assert refused(["-cn", "own"], capsys).startswith("conf/own.yaml:2: 010 is read as the octal number 8")


def test_the_teachers_optimizer_is_read_so(capsys: pytest.CaptureFixture[str]) -> None:
    put(Path("conf/optimizer"), f"{OPTIMIZER}lr: 010\n")
    assert "conf/optimizer/mine.yaml:2: 010" in refused([*QUICK, "teacher.fit.optimizer=mine"], capsys)


def test_what_looks_like_a_trap_but_is_meant_is_taken(tmp_path: Path) -> None:
    text = """\ufeff# a note
text: ["010", '12:30', "no", 'on', y, n, 08, 0o17, 2024-01-01]
numbers: [0, 10, -3, 0.5, 1e3, 0x1F, 1_000]
flags: [true, False, TRUE]
base: &base {lr: 1}
more: {<<: *base, clip: 2}
nothing: ~
"""
    file = put(tmp_path, text.replace("\n", "\r\n"))
    found = OmegaConf.to_container(yamls.parsed(yamls.read(file), file))
    assert found == {
        "text": ["010", "12:30", "no", "on", "y", "n", "08", "0o17", "2024-01-01"],
        "numbers": [0, 10, -3, 0.5, 1000.0, 31, 1000],
        "flags": [True, False, True],
        "base": {"lr": 1},
        "more": {"lr": 1, "clip": 2},
        "nothing": None,
    }


def test_a_package_line_after_a_byte_order_mark_counts(capsys: pytest.CaptureFixture[str]) -> None:
    put(Path("conf/experiment"), "\ufeff# @package _global_\r\nT: 7\r\n")
    assert distill("train", "experiment=mine", "--cfg", "job") == 0
    assert "T: 7.0\n" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(conf_dir().rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_shipped_files_hold_no_trap(path: Path) -> None:
    strictly, freely = yamls.parsed(yamls.read(path), path), OmegaConf.load(path)
    assert OmegaConf.to_container(strictly) == OmegaConf.to_container(freely)
