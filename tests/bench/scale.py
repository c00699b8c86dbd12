"""What one machine can show of a run over several processes: how far it is from one process's, how it ends, and what it gains.

    python tests/bench/scale.py                      all rows, on the digits, by gloo, with SGD, which shows a doubled gradient
    python tests/bench/scale.py --only parts kills   some of them; --tries 5: fewer kills

The processes are forks that find each other as those of torchrun do (tests/ranks.py): their seconds do not include importing torch.
Every line tells what was measured and what was asked for; the exit code is 1 where one is not reached. Speed wants an idle machine.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from helpers import read_json, rows, without_times  # noqa: E402
from ranks import Ended, started, together  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from distill_cli.base import shard_files, world  # noqa: E402
from distill_cli.base.names import fingerprint  # noqa: E402
from distill_cli.cli import main  # noqa: E402
from distill_cli.config.load import load  # noqa: E402
from distill_cli.models import inference  # noqa: E402
from distill_cli.models import sharded as models_sharded  # noqa: E402
from distill_cli.tasks import task as tasks  # noqa: E402
from distill_cli.training import job as jobs  # noqa: E402

LINE = ["train", "teacher=smallcnn", "student=tinycnn", "teacher.fit.epochs=1", "schedule=constant", "schedule.train.epochs=2",
        "optimizer=sgd", "optimizer.lr=0.01", "report=false"]  # fmt: skip
BATCH_NORM = ["student=resnet8x4", "dataset.limit=320", "schedule.train.epochs=1"]
Row = tuple[str, str, str, bool]  # what, measured, asked for, whether reached


def run(number: int, name: str, *words: str) -> list[Ended]:
    """Type a line in so many processes, afresh; raises where one fails."""
    shutil.rmtree(name, ignore_errors=True)
    with started(number, lambda: main([*LINE, *words, f"run_dir={name}"])) as ranks:
        ended = ranks.wait()
    assert all(one.code == 0 for one in ended), ended
    return ended


def apart(one: str, other: str) -> float:
    """The relative L2 distance of two students."""
    ours, theirs = (
        torch.cat([v.double().flatten() for _, v in sorted(load_file(Path(name) / "student.safetensors").items())])
        for name in (one, other)
    )
    return float((ours - theirs).norm() / theirs.norm())


def loss_apart(one: str, other: str) -> float:
    pairs = zip(rows(Path(one)), rows(Path(other)), strict=True)
    return max(abs(a["loss"]["total"] - b["loss"]["total"]) / b["loss"]["total"] for a, b in pairs)


def limit(what: str, value: float, most: float) -> Row:
    return what, f"{value:.1e}", f"{most:.0e}", value <= most


def parts() -> Iterator[Row]:
    run(1, "one")
    for number in (2, 3):
        run(number, f"of{number}")
        yield limit(f"{number} processes against one: loss", loss_apart(f"of{number}", "one"), 1e-6)
        yield limit(f"{number} processes against one: weights", apart(f"of{number}", "one"), 1e-5)
    run(1, "accumulated", "optimizer.accumulate=2")
    yield limit("accumulate=2 against one, the same sums in that order: weights", apart("accumulated", "one"), 1e-5)
    bits = apart("of2", "accumulated")
    yield "2 processes against accumulate=2", "the same bits" if not bits else f"{bits:.1e}", "the same bits", not bits
    words = ["objective=[kd,rkd,similarity,dist]", "schedule.train.epochs=1", "dataset.limit=256"]
    run(1, "compared1", *words)
    run(2, "compared2", *words)
    yield limit("objectives that compare samples: loss", loss_apart("compared2", "compared1"), 1e-6)


def synced() -> Iterator[Row]:
    """Every step makes what rounding has moved about ten times as large at the usual learning rate: in one process too, whose sums
    two threads make in another order.
    """
    for rate, most, among in ((0.001, 2e-4, 2e-5), (0.01, 2e-4, None)):
        words = [*BATCH_NORM, f"optimizer.lr={rate}"]
        for number in (1, 2, 3):
            run(number, f"bn{number}", *words)
        os.environ["DISTILL_THREADS"] = "2"
        run(1, "threads", *words)
        os.environ["DISTILL_THREADS"] = "1"
        what, control = f"synced batch norm, 5 steps at lr={rate}", apart("threads", "bn1")
        yield limit(f"{what}, 2 processes against one: weights", apart("bn2", "bn1"), most)
        yield limit(f"{what}, 2 against 3 processes: weights", apart("bn2", "bn3"), among or 2 * control)
        yield f"{what}, one process of 2 threads against 1 thread: weights", f"{control:.1e}", "", True


def judged() -> Iterator[Row]:
    job = jobs.read(load("train", LINE[1:]))
    for samples in (1, 127, 128, 129, 257):
        split = job.data.train.take(torch.arange(samples))
        for size in (64, inference.at_once(job.student, split)):

            def measured(split: Any = split, size: int = size) -> Any:
                meter = job.task.meter()
                tasks.watch(job.task, job.student, split, [meter], batch_size=size)
                return meter.compute()

            same = {repr(measured())} == {one.said.strip() for one in together(3, measured)}
            digits = "the same digits" if same else "others"
            yield f"{samples} samples judged by 3 processes, {size} at a time", digits, "the same digits", same


def sharded() -> Iterator[Row]:
    run(1, "one")
    run(2, "shards", "parallel=fsdp")
    yield limit("2 processes with shards against one: loss", loss_apart("shards", "one"), 1e-6)
    yield limit("2 processes with shards against one: weights", apart("shards", "one"), 1e-5)
    job = jobs.read(load("train", [*LINE[1:], "student=resnet18"]))
    job.student.spread = torch.device("cpu")
    home, whole = Path("folders"), sum(tensor.nbytes for tensor in job.student.parameters())
    home.mkdir()

    def bits(state: Any) -> str:
        return fingerprint([tensor.flatten()[:: 1 + tensor.numel() // 99].tolist() for tensor in state.values()])

    def written() -> tuple[int, float, Any, str]:
        shards: dict[str, Any] = dict(models_sharded.sharded(job.student).net.named_parameters())
        own, started = sum(one.to_local().nbytes for one in shards.values()), time.perf_counter()
        tree, _ = shard_files.write(home / "folder", shards)
        return own, time.perf_counter() - started, tree, bits(models_sharded.whole(shards))

    def read() -> tuple[float, str]:
        started = time.perf_counter()
        state = shard_files.read(home, tree, torch.device("cpu") if world.size() > 1 else None)
        return time.perf_counter() - started, bits(models_sharded.whole(state))

    ended = [ast.literal_eval(one.said) for one in together(2, lambda: repr(written()))]
    share = max(own for own, *_ in ended) / whole
    yield "ResNet-18 in shards of 2: bytes of weights a process, of all", f"{share:.3f}", "0.505", share <= 0.505
    _, seconds, tree, saved = ended[0]
    for number in (1, 2, 3):
        found = [ast.literal_eval(one.said) for one in together(number, lambda: repr(read()))]
        same = {each for _, each in found} == {saved}
        what = f"{whole / 2**20:.0f} MiB written by 2 in {seconds:.2f} s, read by {number}"
        yield what, f"{'the same' if same else 'others'}, {max(one for one, _ in found):.2f} s", "the same", same


Struck = tuple[list[int], float, bool, str]


def struck(tries: int, number: int, how: signal.Signals) -> Iterator[Struck]:
    """Runs of so many processes, of which one is sent a signal at a random moment: exit codes, seconds until all are gone, whether
    going on gives what an undisturbed run gives, and what was said.
    """
    line = [*LINE, "schedule.train.epochs=12", "save_every=1", "run_dir=struck"]
    run(number, "whole", "schedule.train.epochs=12", "save_every=1")
    for place in range(tries):
        dice = random.Random(place)
        shutil.rmtree("struck", ignore_errors=True)
        with started(number, lambda: main(line)) as ranks:
            while not Path("struck/checkpoints/manifest.json").exists():
                time.sleep(0.01)
            time.sleep(dice.uniform(0, 2))
            began = time.monotonic()
            os.kill(ranks.pids[dice.randrange(number)], how)
            ended = ranks.wait()
        seconds = time.monotonic() - began
        with started(number, lambda: main(line)) as ranks:
            again = ranks.wait()
        kept = [[without_times(row) for row in rows(Path(name))] for name in ("struck", "whole")]
        same = all(one.code == 0 for one in again) and not apart("struck", "whole") and kept[0] == kept[1]
        yield [one.code for one in ended], seconds, same, "".join(one.said for one in ended)


def lost(tries: int, how: signal.Signals) -> Iterator[Row]:
    found = list(struck(tries, 2, how))
    good = sum(sorted(codes) == [-9, 9] and seconds < 30 and same for codes, seconds, same, _ in found)
    most = max(seconds for _, seconds, _, _ in found)
    what = f"{how.name} to one, {tries} times: exit 9, the same bits"
    yield what, f"{good}, at most {most:.1f} s", f"{tries}, 30 s", good == tries


def kills(tries: int) -> Iterator[Row]:
    yield from lost(tries, signal.SIGKILL)


def hangs(tries: int) -> Iterator[Row]:
    """Each takes as long as a process may give no sign of life."""
    yield from lost(max(1, tries // 4), signal.SIGSTOP)


def terms(tries: int) -> Iterator[Row]:
    found = list(struck(tries, 2, signal.SIGTERM))
    good = sum(codes == [143, 143] and seconds < 10 and same for codes, seconds, same, _ in found)
    saved, most = sum(said.count("it is saved") for *_, said in found), max(seconds for _, seconds, _, _ in found)
    measured = f"{good}, {saved} saved after the step, at most {most:.1f} s"
    yield f"SIGTERM to one, {tries} times: exit 143, the same bits", measured, f"{tries}, 10 s", good == saved == tries


def speed() -> Iterator[Row]:
    for name, words in {
        "smallcnn": ["student=smallcnn"],
        "resnet20 with sync_bn=false": ["student=resnet20", "dataset.limit=640", "sync_bn=false"],
        "resnet20": ["student=resnet20", "dataset.limit=640"],
    }.items():
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(3):
            for number in rates:
                run(number, "speed", *words)
                rates[number].append(max(row["samples_per_second"] for row in rows(Path("speed"))))
        one, two = (sorted(values)[1] for values in rates.values())
        yield (
            f"{name}, images/s of 2 processes over one, batch 64",
            f"{two / one:.2f} ({two:,.0f}/{one:,.0f})",
            "1.6",
            two / one >= 1.6,
        )


def cache() -> Iterator[Row]:
    words = ["teacher=resnet20", "teacher.fit.epochs=0", "schedule.train.epochs=1", "dataset.size=64"]
    kept, seconds = {}, {}
    for number in (1, 2):
        shutil.rmtree("outputs/cache", ignore_errors=True)
        run(number, "cached", *words)
        kept[number] = {path.parts[-2:]: path.read_bytes() for path in Path("outputs/cache").rglob("*.npy")}
        seconds[number] = read_json(Path("cached/summary.json"))["seconds"]["cache"]
    same, faster = kept[1] == kept[2], seconds[1] / seconds[2]
    yield "a cache made by one and by two: bytes", "the same" if same else "others", "the same", same
    yield "a cache made by two: times as fast", f"{faster:.2f}", "1.4", faster >= 1.4


def parsed(found: dict[str, Callable[..., Iterator[Row]]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(found), default=list(found))
    parser.add_argument("--tries", type=int, default=20, help="of kills and of signals")
    return parser.parse_args()


def all_rows() -> int:
    """Run the rows that are asked for, in a temporary directory; returns the exit code."""
    found = {one.__name__: one for one in (parts, synced, sharded, judged, cache, kills, hangs, terms, speed)}
    args, reached = parsed(found), True
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "DISTILL_THREADS": "1"}
    place, before = tempfile.mkdtemp(prefix="scale"), Path.cwd()
    os.chdir(place)
    print("| what | measured | at least |\n|---|---|---|", flush=True)
    for name in args.only:
        for what, measured, asked, good in found[name](*[args.tries] * (name in ("kills", "hangs", "terms"))):
            reached = reached and good
            print(f"| {what} | {measured} | {asked}{'' if good else ' NOT REACHED'} |", flush=True)
    os.chdir(before)
    shutil.rmtree(place)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(all_rows())
