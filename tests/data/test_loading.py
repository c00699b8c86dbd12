"""Proves that reading by worker processes tells every failure once and soon, and leaves no process; real ones die here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT, Items, make_pictures, picture_split
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from distill_cli.base.errors import DataError, WorkerError
from distill_cli.data import Batch, Part, Split, assemble, batch_sizes, loading
from distill_cli.data.augmentation import Augmentation
from distill_cli.data.folder import image_folder
from distill_cli.data.loading import Loader
from distill_cli.data.picture_files import Pictures

SOON = 10.0  # seconds within which a failure must be told


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def asleep() -> None:
    time.sleep(1000)


def leaves() -> None:
    os._exit(3)


def keyless() -> None:
    raise KeyError("colour")


def two_lines() -> None:
    raise RuntimeError("first\n  second")


def unreadable() -> None:
    raise DataError("cannot read the sky", "look elsewhere")


def gone() -> None:
    Path("/nowhere/picture.png").read_bytes()


def nothing() -> None:
    pass


@dataclass
class Numbered(Dataset[Tensor]):
    """Sample i is full of i; reading sample `at` does `what` first. Knows what was read in its own process."""

    what: Callable[[], None] = nothing
    at: int = 13
    size: int = 40
    pause: float = 0.0
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Tensor:
        self.read.append(index)
        time.sleep(self.pause)
        if index == self.at:
            self.what()
        return torch.full((1, 2, 2), index, dtype=torch.uint8)


def loader(dataset: Dataset[Tensor], workers: int = 2, batch_size: int = 4) -> Loader:
    return Loader(Items(dataset), [part.tolist() for part in torch.arange(40).split(batch_size)], workers)


def split(images: Tensor | Dataset[Tensor], workers: int = 0, size: int = 40) -> Split:
    return picture_split(images, torch.arange(size) % 3, workers, Augmentation(crop=1, seed=3))


@pytest.fixture(autouse=True)
def no_worker_and_no_signal_left_behind() -> Iterator[None]:
    def signals() -> list[Any]:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        return [*handlers, signal.pthread_sigmask(signal.SIG_BLOCK, [])]

    before = signals()
    yield
    assert active_children() == []
    assert signals() == before


# --- failures


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        (killed, WorkerError, "a data-loading worker died: Killed while reading sample 13\n"
                              "often the machine is out of memory: try workers=0"),
        (leaves, WorkerError, "a data-loading worker exited with code 3 while reading sample 13\ntry workers=0"),
        (keyless, WorkerError, "a data-loading worker failed while reading sample 13: KeyError: 'colour'\n"
                               "try workers=0"),
        (two_lines, WorkerError, "a data-loading worker failed while reading sample 13: RuntimeError: first second\n"
                                 "try workers=0"),
        (unreadable, DataError, "cannot read the sky\nlook elsewhere"),
        (gone, DataError, "cannot read sample 13: [Errno 2] No such file or directory: '/nowhere/picture.png'"),
    ],
)  # fmt: skip
def test_a_failing_worker_is_told_in_one_message(what: Any, kind: type[Exception], message: str) -> None:
    started, given = time.monotonic(), []
    with pytest.raises(kind) as caught:
        for batch in loader(Numbered(what)):
            given.append(batch)
    assert time.monotonic() - started < SOON
    assert type(caught.value) is kind and str(caught.value) == message
    assert len(given) <= 3
    assert active_children() == []


def test_a_failure_brings_the_workers_traceback_for_the_log() -> None:
    with pytest.raises(WorkerError) as caught:
        list(loader(Numbered(keyless)))
    assert 'raise KeyError("colour")' in caught.value.__notes__[0]


@pytest.mark.parametrize("hung", [13, 0])
def test_a_hung_worker_is_told_after_the_timeout(hung: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "TIMEOUT", 2.0)
    started = time.monotonic()
    with pytest.raises(WorkerError, match=rf"a data-loading worker hung for 2 s while reading sample {hung}\n"):
        list(loader(Numbered(asleep, at=hung)))
    assert 2 <= time.monotonic() - started < 2 + SOON
    assert active_children() == []


def test_slow_is_not_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "TIMEOUT", 1.0)
    monkeypatch.setattr(loading, "POLL", 0.1)
    assert len(list(loader(Numbered(pause=0.04)))) == 10


def test_here_errors_stay_as_they_are() -> None:
    with pytest.raises(KeyError):
        list(loader(Numbered(keyless), workers=0))
    with pytest.raises(DataError, match=r"cannot read sample 13: .*picture\.png"):
        list(loader(Numbered(gone), workers=0))


def test_a_worker_that_dies_while_we_are_busy_does_not_interrupt_us() -> None:
    given = 0
    with pytest.raises(WorkerError, match="died: Killed"):
        for _ in loader(Numbered(pause=0.01)):
            victims, ended = active_children(), time.monotonic() + 0.5
            os.kill(victims[0].pid or 0, signal.SIGKILL)
            while time.monotonic() < ended:
                time.sleep(0.01)
            given += 1
    assert given >= 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's own, on its half-made iterator
def test_workers_that_cannot_be_started_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, calls = os.fork, []

    def second_fails() -> int:
        calls.append(1)
        if len(calls) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", second_fails)
    with pytest.raises(
        WorkerError, match=r"cannot be started: \[Errno 11\] Resource temporarily unavailable\ntry workers=0"
    ):
        list(loader(Numbered()))
    assert active_children() == []


# --- early ends


def test_an_epoch_that_is_left_early_leaves_no_worker_however_busy() -> None:
    for dataset in (Numbered(), Numbered(asleep, at=5)):
        batches = iter(loader(dataset))
        next(batches)
        assert len(active_children()) == 2
        started = time.monotonic()
        batches.close()  # type: ignore[attr-defined]
        assert time.monotonic() - started < 3
        assert active_children() == []


def test_an_interrupt_leaves_no_worker() -> None:
    with pytest.raises(KeyboardInterrupt):
        for _ in split(Numbered(asleep, at=39), workers=2).batches(4):
            raise KeyboardInterrupt
    assert active_children() == []


def test_one_epoch_inside_another_ends_its_own_workers_only() -> None:
    first, second = iter(loader(Numbered())), iter(loader(Numbered(pause=0.01)))
    next(first), next(second)
    assert len(list(first)) == 9
    assert len(list(second)) == 9
    assert active_children() == []
    outer = 0
    for _ in loader(Numbered(pause=0.002)):
        assert len(list(loader(Numbered(), batch_size=20))) == 2
        outer += 1
    assert outer == 10


def test_a_thread_may_read_too() -> None:
    found: list[Tensor] = []
    reader = threading.Thread(target=lambda: found.extend(loader(Numbered())))
    reader.start()
    reader.join(20)
    assert torch.cat(found)[:, 0, 0, 0].tolist() == list(range(40))


# --- processes of their own, with their signals


SCRIPT = """
import os, signal, sys, time
import torch
sys.path[:0] = {tests!r}
from test_loading import Numbered, asleep, loader
from multiprocessing import active_children
main, noted = os.getpid(), []
def note(number, frame):
    if os.getpid() != main:
        os._exit(number)
    noted.append(number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, note)
torch.set_num_threads(1)
"""


def script(text: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT.format(tests=[str(Path(__file__).parent), str(ROOT / "tests")]) + text]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_signals_to_all_processes_leave_the_workers_to_the_main_one() -> None:
    process = script("""
given = 0
for batch in loader(Numbered(pause=0.02)):
    if not given:
        print(*[child.pid for child in active_children()], flush=True)
    given += 1
print(given, sorted(set(noted)))
""")
    workers = [int(pid) for pid in line(process).split()]
    assert len(workers) == 2
    for number in (signal.SIGTERM, signal.SIGINT):
        os.killpg(process.pid, number)
    out, errors = process.communicate(timeout=60)
    assert (out.strip(), errors, process.returncode) == ("10 [2, 15]", "", 0)
    assert not any(map(alive, workers))


def test_a_signal_while_workers_are_being_started_hits_none_of_them() -> None:
    process = script("""
print("ready", flush=True)
found = [len(list(loader(Numbered()))) for epoch in range(15)]
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # at exit Python drops its own handlers
print(found, bool(noted))
""")
    assert line(process) == "ready"
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.002)
    out, errors = process.communicate()
    assert (out.strip(), errors, process.returncode) == (f"{[10] * 15} True", "", 0)


def test_an_iterator_left_open_does_not_keep_the_process_from_ending() -> None:
    process = script("""
batches = iter(loader(Numbered(asleep, at=5)))
next(batches)
print(*[child.pid for child in active_children()], flush=True)
""")
    workers = [int(pid) for pid in line(process).split()]
    _, errors = process.communicate(timeout=SOON)
    assert (errors, process.returncode) == ("", 0)
    assert len(workers) == 2 and not any(map(alive, workers))


# --- going on in the middle of an epoch


def the_same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in ("inputs", "targets", "index")
    )


@pytest.mark.parametrize(("kind", "workers"), [("held", 0), ("streamed", 0), ("streamed", 2)])
def test_skip_gives_exactly_the_rest_of_the_epoch(kind: str, workers: int) -> None:
    size = 33  # in fours: seven batches of 4 and one of 5
    held = torch.randint(0, 256, (size, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = held if kind == "held" else Rows(held)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(1))
    whole = list(split(held, size=size).batches(4, order, view=2))
    assert [len(batch) for batch in whole] == batch_sizes(size, 4) == [4] * 7 + [5]
    mine = split(images, workers, size)
    for skip in (0, 1, 6, 7, 8) if workers else range(10):
        assert the_same(list(mine.batches(4, order, view=2, skip=skip)), whole[skip:]), skip
    assert active_children() == []


@dataclass(frozen=True)
class Rows(Dataset[Tensor]):
    images: Tensor

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_what_is_skipped_is_not_read() -> None:
    dataset = Numbered()
    assert [len(batch) for batch in split(dataset).batches(16, skip=2)] == [8]
    assert dataset.read == list(range(32, 40))


# --- pictures and labels that cannot be used


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["deleted", "truncated", "replaced"])
def test_a_picture_that_spoils_after_the_start_is_named(tmp_path: Path, workers: int, how: str) -> None:
    data = image_folder(str(make_pictures(tmp_path)), memory=0, workers=workers)
    spoilt = tmp_path / "test" / "b" / "3.png"
    if how == "deleted":
        spoilt.unlink()
    else:
        spoilt.write_bytes(spoilt.read_bytes()[:150] if how == "truncated" else b"no picture")
    with pytest.raises(DataError) as caught:
        list(data.test.batches(4))
    assert type(caught.value) is DataError
    assert caught.value.message.startswith(f"cannot read {spoilt}: ") and "\n" not in str(caught.value)


def test_a_worker_that_dies_names_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_folder(str(make_pictures(tmp_path)), memory=0, workers=2)
    bomb, read = tmp_path / "test" / "b" / "3.png", Pictures.__getitem__

    def deadly(pictures: Pictures, index: int) -> Tensor:
        if pictures.encoded.opened(index) == bomb:
            killed()
        return read(pictures, index)

    monkeypatch.setattr(Pictures, "__getitem__", deadly)
    with pytest.raises(WorkerError, match=rf"died: Killed while reading {bomb}\n"):
        list(data.test.batches(4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    make_pictures(tmp_path)
    pixels = np.zeros((16, 16), dtype=np.float32)
    pixels[3, 4] = value
    wrong = tmp_path / "train" / "a" / "9.tif"
    Image.fromarray(pixels).save(wrong)
    with pytest.raises(DataError, match=f"cannot read {wrong}: a pixel is not a finite number"):
        image_folder(str(tmp_path))


def assembled(labels: Any, classes: str = "ab", number: int = 8) -> Any:
    images = torch.zeros(number, 1, 4, 4, dtype=torch.uint8)
    good = Part(images, np.arange(number) % len(classes))
    return assemble(Part(images, np.asarray(labels)), good, good, classes, val_fraction=0.1, split_seed=0, mean=None,
                    std=None, note="")  # fmt: skip


@pytest.mark.parametrize("label", [2, -2, -100])
def test_a_label_out_of_range_is_named(label: int) -> None:
    with pytest.raises(DataError, match=f"train sample 5 has label {label}; labels go from 0 to 1"):
        assembled([0, 1, 0, 1, 0, label, 0, 1])


@pytest.mark.parametrize("labels", [[0, 1, np.nan, 1] * 2, [[0], [1]] * 4])
def test_labels_that_are_no_whole_numbers_are_refused(labels: Any) -> None:
    with pytest.raises(DataError, match="train has labels of shape"):
        assembled(labels)


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one class only, 'a'"):
        image_folder(str(make_pictures(tmp_path, classes="a")))
