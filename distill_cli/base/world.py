"""The processes of one run: which of them this is, and what they tell each other; how they find each other: joining.py.

A world of one, the usual, costs nothing and changes no bit; torch.distributed is imported where there are several. A rank is a part
of the batch. What is below `alone` is called by all ranks, in the same order.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from distill_cli.base import last_words
from distill_cli.base.errors import DistillError

if TYPE_CHECKING:
    from torch import Tensor

BUCKET = 2**24  # numbers that are summed at once, of which a copy is made
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class World:
    """The processes of a run: this one's number from 0, how many there are, and where they leave notes."""

    rank: int = 0
    size: int = 1
    store: Any = None


ONE = World()
_here = [ONE]


def called() -> World:
    """The world that a launcher such as torchrun has started this process for."""
    return World(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def local() -> int:
    """This process's number among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", called().rank))


def size() -> int:
    """How many processes compute a step together."""
    return _here[0].size


def rank() -> int:
    """This process's number, from 0."""
    return _here[0].rank


def part() -> tuple[int, ...]:
    """What tells this process's random numbers from the first one's, as a part of a seed: nothing for the first one itself."""
    return (_here[0].rank,) if _here[0].rank else ()


def enter(world: World) -> None:
    """Be a part of another world from now on."""
    _here[0] = world


def together(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What all ranks call; raises what the first that failed has written down."""
    try:
        return call(*arguments, **named)
    except RuntimeError as error:
        raise last_words.found(_here[0].store) from error


def connect(backend: str, wait: timedelta) -> None:
    """Meet the other processes of the world that was entered, which may wait for each other so long."""
    import torch.distributed as dist

    here = _here[0]
    together(dist.init_process_group, backend, store=here.store, rank=here.rank, world_size=here.size, timeout=wait)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process is a world of one: what it does there, it does by itself."""
    before, _here[0] = _here[0], ONE
    try:
        yield
    finally:
        _here[0] = before


def decided(work: Callable[[], R]) -> R:
    """What `work` gives on the first rank, which alone does it; an error of ours, or of the disk, is raised on all."""
    here = _here[0]
    if here.size == 1:
        return work()
    import torch.distributed as dist

    told: list[Any] = [None]
    if here.rank == 0:
        with alone():
            try:
                told = [(work(), None)]
            except (DistillError, OSError) as error:
                told = [(None, error)]
    together(dist.broadcast_object_list, told, 0)
    value, failure = told[0]
    if failure is not None:
        raise failure
    return value


def in_turn(work: Callable[[], R]) -> R:
    """What `work` gives, done by every rank for itself: by the first one before all others, who find what it has made."""
    if size() == 1:
        return work()
    done: list[R] = []
    decided(lambda: done.append(work()))
    if done:
        return done[0]
    with alone():
        return work()


@contextmanager
def held(context: AbstractContextManager[Any]) -> Iterator[None]:
    """Inside, the first rank is in `context`, such as a lock; the others wait until it is."""
    with ExitStack() as stack:
        decided(lambda: (stack.enter_context(context), None)[1])
        yield


def led(work: Callable[[Iterable[T]], R], items: Iterable[T]) -> R:
    """What `work` makes of the items on the first rank; all ranks go through them, as they are made by all."""
    here = _here[0]
    if here.size == 1:
        return work(items)
    made: Any = None
    if here.rank == 0:
        made = work(items)
    else:
        for _ in items:
            pass
    return decided(lambda: made)


def gathered(value: T) -> list[T]:
    """Every rank's value, by rank."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    every: list[Any] = [None] * size()
    together(dist.all_gather_object, every, value)
    return every


def dealt(items: Sequence[T]) -> list[T]:
    """This rank's of some items: one of each `size` that follow each other. Who would get none of the last ones gets the last."""
    here = _here[0]
    return [items[min(first + here.rank, len(items) - 1)] for first in range(0, len(items), here.size)]


def in_order(answers: Iterable[T], number: int) -> Iterator[T]:
    """What the ranks made of `number` items that were dealt, all of it, on every rank, in the order of the items."""
    if size() == 1:
        yield from answers
        return
    for first, answer in zip(range(0, number, size()), answers, strict=True):
        yield from gathered(answer)[: number - first]


def mine(rows: Tensor, least: int = 1) -> Tensor:
    """This rank's of the rows (N, ...) of a batch: nearly equal parts, in order; all of them on every rank where a part would
    have fewer than `least`.
    """
    here = _here[0]
    return rows if here.size == 1 or len(rows) < least * here.size else rows.tensor_split(here.size)[here.rank]


def most(*flags: float) -> list[float]:
    """The largest value of each number over all ranks."""
    if size() == 1:
        return list(flags)
    import torch
    import torch.distributed as dist

    values = torch.tensor(flags, dtype=torch.float64)
    together(dist.all_reduce, values, dist.ReduceOp.MAX)
    return values.tolist()


def total(values: Tensor) -> Tensor:
    """The sum over all ranks, written over the values; every rank gets the same bits."""
    if size() > 1:
        import torch.distributed as dist

        together(dist.all_reduce, values)
    return values


def totals(values: Iterable[Tensor]) -> None:
    """Each tensor's sum over all ranks, written over it; they travel together, about `BUCKET` numbers at a time."""
    if size() == 1:
        return
    import torch

    waiting = list(values)
    while waiting:
        ends = list(itertools.accumulate(one.numel() for one in waiting))
        number = 1 + sum(end < BUCKET for end in ends[:-1])
        some, waiting = waiting[:number], waiting[number:]
        flat = total(torch.cat([one.flatten() for one in some]))
        for one, part in zip(some, flat.split([one.numel() for one in some]), strict=True):
            one.copy_(part.view_as(one))


def alike(values: Iterable[Tensor]) -> None:
    """Write the first rank's values over everybody's."""
    if size() > 1:
        import torch.distributed as dist

        for value in values:
            together(dist.broadcast, value, 0)
