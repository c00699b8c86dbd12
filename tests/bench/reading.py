"""Pictures read in every way, one after the other in one process: pictures a second, how far the fast reader is from PIL, starts.

  python tests/bench/reading.py --pictures FOLDER [--number 4000] [--repeats 5]

FOLDER is an image folder of small pictures (JPEGs of CIFAR-10, 32 pixels). Those of 224 pixels are made of the first of them by
upscaling to 288 x 256 (bicubic, JPEG of quality 90), so what is in them is smooth and they have fewer bytes than photographs.
Rates are of CPU time, medians; the ways are timed in turn, so that what else the machine does falls on all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distill_cli.cli import main
from distill_cli.data.folder import image_folder, listing
from distill_cli.data.listing import everything
from distill_cli.data.picture_files import Pictures

BATCH = 64


def enlarged(pictures: list[Path], folder: Path) -> Path:
    """Pictures made larger, in the place of photographs."""
    for part in ("train", "test"):
        for number, path in enumerate(pictures):
            home = folder / part / str(number % 2)
            home.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as small:
                large = small.convert("RGB").resize((288, 256), Image.Resampling.BICUBIC)
            large.save(home / f"{number}.jpg", quality=90)
    return folder


def rates(ways: dict[str, Pictures], number: int, repeats: int) -> dict[str, float]:
    """Pictures a second, each way's median; every picture was read before, so nothing waits for the disk."""
    order = np.random.default_rng(0).permutation(len(next(iter(ways.values()))))[:number]
    batches = [order[start : start + BATCH].tolist() for start in range(0, len(order), BATCH)]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, pictures in ways.items():
            started = time.process_time()
            for batch in batches:
                pictures.read(batch)
            if repeat:
                seconds[name].append(time.process_time() - started)
    return {name: len(order) / statistics.median(times) for name, times in seconds.items()}


def compared(root: Path, pack: Path, pixels: int, number: int, repeats: int) -> None:
    sources = {"folder": root, "pack": pack}
    encoded = {name: listing(str(place)).files["train"][0] for name, place in sources.items()}
    ways = {
        f"{name}, {reader}": Pictures(encoded[name], 3, (pixels, pixels), None, reader)
        for name in sources
        for reader in ("pil", "fast")
    }
    found = rates(ways, number, repeats)
    today = found["folder, pil"]
    for name, rate in found.items():
        print(f"{pixels:4d} px  {name:14s} {rate:8,.0f} pictures/s of CPU   {rate / today:5.2f} times")
    rows = range(min(number, 500))
    apart = (ways["folder, pil"].read(rows).float() - ways["pack, fast"].read(rows).float()).abs()
    print(f"{pixels:4d} px  fast against pil: mean difference {apart.mean():.4f} of 255, largest {apart.max():.0f}")


def start(root: Path, what: str, repeats: int) -> None:
    def once(act: Callable[[], object]) -> float:
        started = time.process_time()
        act()
        return time.process_time() - started

    whole = {"memory": 0.0, "mean": [0.5], "std": [0.5]}
    samples = len(everything(listing(str(root)).files)[0])
    found = statistics.median(once(lambda: listing(str(root))) for _ in range(repeats))
    data = statistics.median(once(lambda: image_folder(str(root), **whole)) for _ in range(repeats))  # type: ignore[arg-type]
    each = ", ".join(
        f"{name} in {1e6 * seconds / samples:.2f} us" for name, seconds in (("found", found), ("data", data))
    )
    print(f"start from a {what}: {samples:,} pictures, each {each}")


def bench(pictures: Path, number: int, repeats: int, folder: Path) -> None:
    torch.set_num_threads(1)
    small, large = folder / "small.pack", folder / "large.pack"
    few = enlarged(sorted(pictures.rglob("*.jpg"))[: max(200, number // 8)], folder / "large")
    with contextlib.redirect_stdout(io.StringIO()):
        for root, pack in ((pictures, small), (few, large)):
            assert main(["data", "pack", f"dataset.root={root}", f"out={pack}"]) == 0
    compared(pictures, small, 32, number, repeats)
    compared(few, large, 224, number // 8, repeats)
    start(small, "pack", repeats)
    start(pictures, "folder", 1)
    started = time.perf_counter()
    image_folder(str(small), memory=2.0, mean=[0.5], std=[0.5])
    print(f"all of the pack into memory: {time.perf_counter() - started:.1f} s; cores: {os.cpu_count()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--number", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        bench(given.pictures.absolute(), given.number, given.repeats, Path(place))
