"""The steps of gpu.py about the machine and how pictures arrive on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gpu_made import DEVICE, GPU, SGD, Found, Sizes, Taken, in_turn, of_pixels, timed, wait
from PIL import Image

from distill_cli.base import runtime
from distill_cli.cli import main
from distill_cli.config.load import load
from distill_cli.data import Data
from distill_cli.training import job as jobs

BATCH = 32  # of pictures that are read: few, so that every worker has many


def photographs(folder: Path, number: int, distinct: int = 128) -> Path:
    """A folder of JPEGs as large as photographs and as hard to decode; so many different ones, under more names."""
    dice = np.random.default_rng(0)
    if folder.exists():
        return folder
    for place in range(number):
        path = folder / ("test" if place < number // 8 else "train") / str(place % 2) / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        first = folder / f"{place % distinct}.jpg"
        if place < distinct:
            coarse = Image.fromarray(dice.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) + dice.normal(0, 8, (375, 500, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(first, quality=90)
        path.hardlink_to(first)
    return folder


def ceilings(sizes: Sizes) -> Iterator[Found]:
    side, rounded = sizes.side, torch.backends.cuda.matmul
    for name, dtype in {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}.items():
        rounded.allow_tf32 = name == "tf32"
        one, other = torch.randn(2, side, side, device=DEVICE, dtype=dtype)
        seconds = once(partial(torch.mm, one, other, out=torch.empty_like(one)), sizes)
        yield Found(f"{name} {2 * side**3 / seconds / 1e12:,.2f} TFLOP/s")
    there = torch.zeros(sizes.mib * 2**20, dtype=torch.uint8, device=DEVICE)
    yield Found(
        f"memory {2 * there.nbytes / once(partial(torch.empty_like(there).copy_, there), sizes) / 1e9:,.0f} GB/s"
    )
    if GPU:
        here = torch.zeros(2**30, dtype=torch.uint8)
        for name, host in {"pinned": here.pin_memory(), "pageable": here}.items():
            seconds = once(partial(there[: len(host)].copy_, host, True), sizes, 3)
            yield Found(f"host to device {len(host) / seconds / 1e9:.1f} GB/s {name}")
    else:
        yield Found("host to device: a CPU has none")
    root = photographs(Path("photographs"), sizes.files)
    one_core, every = rate(read(root, sizes, "workers=0"), max(3 * BATCH, sizes.files // 16)), rate(read(root, sizes))
    yield Found(f"decoder {one_core:,.0f} images/s of a core, {every:,.0f} by {sizes.workers} workers")


def once(work: Callable[[], object], sizes: Sizes, times: int = 10) -> float:
    """Seconds of a call."""
    return in_turn({"": timed(work, times)}, sizes.rounds)[""]


def read(root: Path, sizes: Sizes, *words: str) -> Data:
    """A folder's pictures, or a pack's, none of which is held in memory unless the words say so."""
    given = [f"dataset.root={root.absolute()}", f"dataset.size={sizes.photo}", "dataset.memory=0"]
    given += ["dataset=image_folder", "dataset.mean=[0.5]", "dataset.std=[0.25]", f"workers={sizes.workers}", *words]
    settings = load("train", given)
    runtime.prepare(settings.threads)
    return jobs.data_of(settings, DEVICE)


def rate(data: Data, at_most: int | None = None) -> float:
    """Pictures of train a second that arrive on the device as a network takes them, once each worker has given a batch."""
    batches = data.train.batches(BATCH, torch.arange(len(data.train))[:at_most])
    for _ in range(max(1, data.train.workers)):
        next(batches)
    wait()
    started, arrived = time.perf_counter(), 0
    for batch in batches:
        arrived += len(batch)
    wait()
    return arrived / (time.perf_counter() - started)


def reading(sizes: Sizes) -> Iterator[Found]:
    eaten = {}
    for student in (sizes.middle, sizes.large):
        words = [*of_pixels(sizes.batch * sizes.steps, sizes.photo, sizes.classes), "teacher=resnet8x4"]
        words += [f"student={student}", f"batch_size={sizes.batch}", "objective=ce", "teacher.fit.epochs=0", *SGD]
        run = Taken(*words, "output_dir=reading")
        eaten[student] = sizes.batch * sizes.steps / in_turn({student: run.epoch}, sizes.rounds)[student]
        yield Found(f"{student} takes {eaten[student]:,.0f} images/s")
        del run
    root, pack = photographs(Path("photographs"), sizes.files), Path("photographs.pack")
    assert main(["data", "pack", f"dataset.root={root}", f"out={pack}", f"workers={sizes.workers}"]) == 0
    ways = {
        f"{reader}, {sizes.workers} workers": read(root, sizes, f"dataset.reader={reader}")
        for reader in ("pil", "fast")
    }
    ways[f"pack (mapped), fast, {sizes.workers} workers"] = read(pack, sizes, "dataset.reader=fast")
    ways["decoded once, held on the device"] = read(root, sizes, "dataset.memory=16")
    found = {name: statistics.median(rate(data) for _ in range(3)) for name, data in ways.items()}
    yield Found("read, images/s: " + "; ".join(f"{name} {each:,.0f}" for name, each in found.items()))
    yield on_gpu(root)
    most = max(each for name, each in found.items() if "workers" in name)
    for student, takes in eaten.items():
        yield Found(f"the fastest workers feed {most / takes:.2f} of {student}")


def on_gpu(root: Path, at_once: int = 128) -> Found:
    """torchvision's decoder on a GPU, which no run uses: whether it would be worth it."""
    if not GPU:
        return Found("decoded on a GPU: a CPU has none")
    from torchvision.io import ImageReadMode, decode_jpeg

    files = sorted(root.rglob("train/*/*.jpg"))[:at_once]
    content = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in files]
    try:
        way = timed(lambda: decode_jpeg(content, ImageReadMode.RGB, device="cuda"), 3)
        seconds = in_turn({"": way}, 3)[""]
    except (
        RuntimeError,
        ValueError,
        AttributeError,
    ) as error:  # built without nvJPEG, or of a version that has no such
        return Found(f"decoded on a GPU: {str(error).splitlines()[0]}")
    return Found(f"decoded on a GPU, not resized: {len(files) / seconds:,.0f} images/s")
