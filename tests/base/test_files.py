"""Proves that files are whole or absent, that shared folders are made once, and that names and kinds keep their word."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from distill_cli.base import files, locks, names, ui
from distill_cli.base.errors import BusyError, CheckpointError, StorageError
from distill_cli.config import values

RACER = """
import sys, time
from pathlib import Path
from distill_cli.base import locks
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
def make(place):
    with log.open("a") as file:
        file.write("made\\n")
    (place / "part").write_text("half")
    time.sleep(0.3)
    (place / "part").write_text("whole")
made = locks.once(folder, make)
assert (folder / "part").read_text() == "whole"
print(int(made))
"""

HOLDER = """
import os, sys, time
from pathlib import Path
from distill_cli.base import locks
held = locks.claim(Path(sys.argv[1]))
ready, told = os.pipe()
worker = os.fork()
if worker:
    os.read(ready, 1)  # a child lets go of the lock when it first runs
    print(worker, flush=True)
else:
    os.write(told, b".")
time.sleep(600)
"""


def inside(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_device_is_written_to_and_not_replaced() -> None:
    reader, terminal = os.openpty()
    path = Path(os.ttyname(terminal))
    files.write(path, "said")
    assert path.is_char_device() and os.read(reader, 99) == b"said"
    os.close(reader), os.close(terminal)


def test_write_replaces_the_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "facts.txt"
    files.write(path, "a long first content\n")
    files.write(path, b"short")
    assert path.read_bytes() == b"short"
    assert inside(tmp_path) == ["facts.txt"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    files.write_json(path, {"a": 1})
    before = path.read_bytes()
    for unwritable in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            files.write_json(path, unwritable)
    with pytest.raises(TypeError):
        files.write(path, 3.5)  # type: ignore[arg-type] - fails after the file beside was opened
    assert path.read_bytes() == before
    assert inside(tmp_path) == ["facts.json"]


def test_a_rename_that_fails_leaves_no_stray_file(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inner").mkdir(parents=True)
    with pytest.raises(OSError):
        files.write(tmp_path / "taken", "text")
    assert inside(tmp_path) == ["taken"]
    assert inside(tmp_path / "taken") == ["inner"]


def test_write_into_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "no" / "file", "text")
    assert inside(tmp_path) == []


def test_json_keeps_its_value_and_its_letters(tmp_path: Path) -> None:
    value = {"größe": [1, 2.5, None, True], "b": {"c": "ß"}}
    files.write_json(tmp_path / "v.json", value)
    text = (tmp_path / "v.json").read_text(encoding="utf-8")
    assert files.read_json(tmp_path / "v.json") == value
    assert {key: kept for key, kept in json.loads(text).items() if key != files.CHECKSUM} == value
    assert "größe" in text and text.endswith("}\n")


def test_every_flipped_bit_of_a_json_file_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    value = {"accuracy": 0.9875, "epochs": 12, "names": ["a", "ü"], "nested": {"on": True, "none": None}}
    path = tmp_path / "v.json"
    files.write_json(path, value)
    whole = path.read_bytes()
    refused = 0
    for bit in range(8 * len(whole)):
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        try:
            assert files.read_json(path) == value
        except CheckpointError:
            refused += 1
    assert refused > 7 * len(whole)  # what is left lies in the white space
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            files.read_json(path)


def test_a_json_file_by_another_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    for text in ('{"a": 1}', "[1]", "3", "", "{", '{"checksum": "x"}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"v\.json"):
            files.read_json(path)
    with pytest.raises(CheckpointError, match=r"there is no other\.json"):
        files.read_json(tmp_path / "other.json")


def test_what_is_replaced_can_be_kept(tmp_path: Path) -> None:
    for content in ("one", "two", "three"):
        files.write(tmp_path / "last", content, keep=tmp_path / "previous")
    assert ((tmp_path / "last").read_text(), (tmp_path / "previous").read_text()) == ("three", "two")
    assert inside(tmp_path) == ["last", "previous"]


def test_a_full_disk_is_told_with_what_was_needed_and_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    files.write(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            files.write(path, bytes(2**20), keep=tmp_path / "previous")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{path} needs at least 1.0 MiB" in caught.value.message
    assert "are free" in caught.value.message
    assert path.read_bytes() == b"old"
    assert inside(tmp_path) == ["checkpoint"]


def test_a_function_may_write_and_what_it_wrote_is_told(tmp_path: Path) -> None:
    def content(sink: files.Sink) -> None:
        sink.write(b"ab")
        sink.write(b"c")

    # The first example of FIPS 180 again.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.write(tmp_path / "f", content) == {"sha256": digest, "bytes": 3}
    assert files.write(tmp_path / "g", "abc") == {"sha256": digest, "bytes": 3}
    assert (tmp_path / "f").read_bytes() == b"abc"


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    files.write(tmp_path / "kept", "whole")
    (tmp_path / ".kept.0123abcd.tmp").write_text("ha")
    files.sweep(tmp_path)
    files.sweep(tmp_path / "not there")
    assert inside(tmp_path) == ["kept"]


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # The first example of FIPS 180.
    assert files.sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_once_makes_a_folder_once_among_four_processes(tmp_path: Path) -> None:
    folder, log = tmp_path / "shared" / "teacher", tmp_path / "log"
    command = [sys.executable, "-c", RACER, str(folder), str(log)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert sorted(answers) == ["0", "0", "0", "1"]
    assert log.read_text() == "made\n"
    assert inside(folder) == ["part"]


def test_a_make_that_fails_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "x"

    def broken(place: Path) -> None:
        (place / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locks.once(folder, broken)
    assert [p.name for p in folder.parent.iterdir() if p.is_dir()] == []
    assert locks.once(folder, lambda place: (place / "whole").touch())
    assert inside(folder) == ["whole"]


def test_what_a_killed_process_left_is_not_taken_for_finished(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (tmp_path / ".x.making").mkdir()
    (tmp_path / ".x.making" / "half").touch()
    assert locks.once(folder, lambda place: (place / "whole").touch())
    assert inside(folder) == ["whole"]


def test_what_can_be_resumed_is_kept_for_the_next_try(tmp_path: Path) -> None:
    folder, seen = tmp_path / "x", []

    def make(place: Path) -> None:
        seen.append(inside(place))
        (place / "half").touch()
        (place / ".half.0123abcd.tmp").touch()
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locks.once(folder, make, resumable=Path.exists)
    assert not folder.exists()
    assert locks.once(folder, make, resumable=Path.exists)
    assert seen == [[], ["half"]]


def test_a_finished_folder_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    calls: list[Path] = []
    assert not locks.once(tmp_path / "x", calls.append)
    assert calls == []


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds tmp_path/.lock, and whose forked child says its own process id and lives on."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(worker, signal.SIGKILL)


def test_a_claimed_folder_is_refused_to_others_until_its_process_dies(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    lock = tmp_path / ".lock"
    for _ in range(2):  # asking changes nothing
        with pytest.raises(BusyError) as caught:
            locks.claim(lock)
        assert f"process {holder.pid}" in caught.value.message
        assert str(tmp_path) in caught.value.message
    holder.kill()
    holder.wait()  # its worker is alive still
    held = locks.claim(lock)
    assert lock.read_text() == str(os.getpid())
    held.release()


def test_who_waits_is_told_so_and_has_the_lock_afterwards(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    told = []

    def waiting() -> None:
        told.append("waiting")
        holder.kill()

    with locks.exclusive(tmp_path / ".lock", waiting), pytest.raises(BusyError):
        locks.claim(tmp_path / ".lock")
    assert told == ["waiting"]
    with locks.exclusive(tmp_path / ".lock", waiting):
        assert told == ["waiting"]


def test_of_two_in_one_folder_by_chance_the_second_takes_another_name(tmp_path: Path) -> None:
    def taken(folder: Path) -> bool:
        return (folder / "run.json").exists()

    first, held = locks.own(tmp_path / "run", ".lock", False, taken)
    second, other = locks.own(tmp_path / "run", ".lock", False, taken)
    with pytest.raises(BusyError):
        locks.own(tmp_path / "run", ".lock", True, taken)
    (first / "run.json").touch()
    held.release()
    other.release()
    third, last = locks.own(tmp_path / "run", ".lock", False, taken)
    last.release()
    assert [first.name, second.name, third.name] == ["run", "run-2", "run-2"]


def test_a_link_in_a_locks_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        locks.claim(tmp_path / ".lock")
    with pytest.raises(OSError), locks.exclusive(tmp_path / ".lock"):
        pass
    assert (tmp_path / "precious").read_text() == "text"


AWKWARD = [
    "a/b",
    "../../etc/passwd",
    ".hidden",
    "--flag",
    "größe=3 µm",
    "x" * 300,
    "C:\\data",
    "a\nb",
    "${T}",
    "résumé",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_slug_is_one_portable_file_name(text: str) -> None:
    found = names.slug(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", found)
    assert len(found) <= 150
    assert found == names.slug(text)


def test_a_clean_name_is_its_own_slug() -> None:
    assert names.slug("resnet18_v1.5-b") == "resnet18_v1.5-b"
    assert names.slug("x" * 150) == "x" * 150


def test_long_names_that_begin_alike_stay_apart() -> None:
    assert names.slug("x" * 200 + "a") != names.slug("x" * 200 + "b")


def test_overrides_become_a_readable_folder() -> None:
    assert names.overrides_slug(["T=1", "alpha=0.5"]) == "T-1_alpha-0.5"
    assert names.overrides_slug([]) == "default"
    long = [[f"schedule.refine.epochs={n}", f"teacher.checkpoint=/data/{'deep/' * 30}w.pt"] for n in (1, 2)]
    found = [names.overrides_slug(overrides) for overrides in long]
    assert found[0] != found[1] and max(map(len, found)) <= 150


def test_fingerprints_tell_values_apart_whatever_the_order_of_keys() -> None:
    base = names.fingerprint({"a": 1, "b": [1, 2], "c": {"x": None, "y": "ü"}})
    assert re.fullmatch(r"[0-9a-f]{12}", base)
    assert base == names.fingerprint({"c": {"y": "ü", "x": None}, "b": [1, 2], "a": 1})
    others = [{"a": 2, "b": [1, 2], "c": {"x": None, "y": "ü"}}, {"a": 1, "b": [2, 1], "c": {"x": None, "y": "ü"}},
              {"a": 1, "b": [1, 2], "c": {"x": 0, "y": "ü"}}, {"a": 1, "b": [1, 2], "c": {"x": None, "y": "u"}},
              {"a": "1", "b": [1, 2], "c": {"x": None, "y": "ü"}}]  # fmt: skip
    assert len({base, *map(names.fingerprint, others)}) == 6


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    code = "from distill_cli.base.names import fingerprint; print(fingerprint({'a': [1, 'x'], 'b': 0.1}))"
    seeds = [subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                            capture_output=True, text=True).stdout.strip() for seed in ("1", "2")]  # fmt: skip
    assert seeds == [names.fingerprint({"b": 0.1, "a": [1, "x"]})] * 2


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, [0, -3], [1.5, True, "3", None]),
        (float, [0, 1.5, -2], [True, "1.5", None, [1.0]]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "x"], [1, None, ["x"]]),
        (int | None, [3, None], [1.5, "3"]),
        (typing.Optional[str], ["x", None], [3]),  # noqa: UP045 - users' classes are written this way too
        (int | str, [3, "auto"], [1.5, True, None]),
        (typing.Literal["A", "B"], ["A"], ["C", "a", None, 1]),
        (list[int], [[], [1, 2]], [[1, "2"], 3, "12", [1.5]]),
        (Sequence[float], [[1, 2.5], (1.0,)], ["12", [True]]),
        (tuple[int, int], [[28, 28], (1, 2)], [28, ["28", 1]]),
        (list, [[1, "a"]], [3, "ab"]),
        (dict, [{"a": 1}], [[1], "a"]),
        (Any, [1, None, "x", [1]], []),
    ],
)
def test_plain_values_fit_the_annotations_they_should(kind: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not values.fits(value, kind)] == []
    assert [value for value in bad if values.fits(value, kind)] == []


def test_annotations_are_said_in_words() -> None:
    assert values.describe(int | None) == "a whole number or null"
    assert values.describe(list[float]) == "a list, each entry a number"
    assert values.describe(typing.Literal["A", "B"]) == "one of A, B"


@pytest.mark.parametrize(("one", "other"), [("ä", "ö"), ("größe", "grüße"), ("数据", "模型")])
def test_slugs_of_names_in_other_scripts_stay_apart(one: str, other: str) -> None:
    assert names.slug(one)
    assert names.slug(one) != names.slug(other)
    assert names.overrides_slug([f"student.name={one}"]) != names.overrides_slug([f"student.name={other}"])


def test_messages_and_tables_are_printed_letter_by_letter(capsys: pytest.CaptureFixture[str]) -> None:
    awkward = "[red]x[/] C:\\[data] :smile: [3,1] \\"
    ui.warn(awkward)
    ui.fail(f"{awkward}\ntry {awkward}")
    ui.show(ui.table("", ["name"], [[awkward]]))
    said = capsys.readouterr()
    assert said.err == f"warning: {awkward}\nerror: {awkward}\n  try {awkward}\n"
    assert awkward in said.out


def test_a_lock_for_which_there_is_no_room_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match=r"no space .*run\.lock needs at least \d B"):
        locks.claim(tmp_path / "run.lock")
    monkeypatch.undo()
    locks.claim(tmp_path / "run.lock").release()  # the one that failed holds nothing
