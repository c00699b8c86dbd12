"""The machine under a run: device, precision, threads and seeds."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from distill_cli.base import world
from distill_cli.base.errors import ConfigError


def device(name: str) -> torch.device:
    """Return the device called `name`; auto takes a GPU where there is one.

    Raises:
        ConfigError: no such device on this machine.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if name == "auto":
        name = next((kind for kind in ("cuda", "mps") if kind in present), "cpu")
    if name == "cuda" in present and world.called().size > 1:  # each process of a run its own
        name = f"cuda:{world.local() % torch.cuda.device_count()}"
    if name not in present:
        raise ConfigError(f"device: this machine has no {name!r}", f"choices: auto, {', '.join(present)}")
    return torch.device(name)


SHARE = "DISTILL_THREADS"  # environment: CPU threads of a run that shares its machine with others of its sweep
DEFAULT_THREADS = torch.get_num_threads()


def prepare(threads: int | None) -> None:
    """Set what holds for a whole job: CPU threads, and TF32 for fp32 training on GPUs."""
    torch.set_num_threads(threads or int(os.environ.get(SHARE, 0)) or DEFAULT_THREADS)
    _allow_tf32(True)


@contextmanager
def exact() -> Iterator[None]:
    """Compute in full fp32 inside: what is measured must not depend on the batch or the device."""
    _allow_tf32(False)
    try:
        yield
    finally:
        _allow_tf32(True)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def dtype(precision: str, where: torch.device) -> torch.dtype:
    """Return the type of activations under `precision`; auto is bf16 on GPUs that have it, else fp32."""
    if precision == "auto":
        fast = where.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def unused_bf16(precision: str, where: torch.device) -> str:
    """Return a note for the header where `auto` leaves the CPU's bf16 instructions unused, else an empty text."""
    if precision != "auto" or where.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return ""
    has = torch.cpu.get_capabilities()
    if not any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16")):  # the last one on ARM
        return ""
    return "this CPU has bf16 instructions: precision=bf16 is faster, with slightly other numbers"


def autocast(where: torch.device, kind: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which the models compute in `kind`; weights stay fp32."""
    return nullcontext() if kind == torch.float32 else torch.autocast(where.type, kind)


def as_here(function: Callable[[Tensor], Tensor], where: torch.device) -> Callable[[Tensor], Tensor]:
    """Return `function`, which later computes as it would here: in this precision, and with gradients or without."""
    learns, rounded = torch.is_grad_enabled(), torch.backends.cuda.matmul.allow_tf32
    kind = torch.get_autocast_dtype(where.type) if torch.is_autocast_enabled(where.type) else torch.float32

    def later(values: Tensor) -> Tensor:
        with torch.set_grad_enabled(learns), autocast(where, kind), nullcontext() if rounded else exact():
            return function(values)

    return later


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed from its parts: streams that share a part do not overlap."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed the streams of torch, numpy and Python inside, and restore their state afterwards."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            reseed(*parts)
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def reseed(*parts: int | str) -> None:
    """Start the streams of torch, numpy and Python anew: what is drawn from now on depends on the parts alone."""
    number = seed_of(*parts)
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


def sample_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of samples in an epoch: a permutation that depends on (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(seed_of("order", seed, epoch))
    return torch.randperm(size, generator=generator)
