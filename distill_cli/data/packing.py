"""Documents laid out in blocks of tokens: which part of which document stands where; tokens themselves are in blocks.py."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from distill_cli.data.corpus import Documents

Packing = Literal["documents", "stream", "none"]


class Layout(NamedTuple):
    """What N blocks hold: W windows, each some tokens in a row of one document.

    Attributes:
        start, size: of each window among all tokens, (W,) int64.
        low, high: from which position in it to which, that one not, the token that follows is asked for, (W,).
        first: with which window each block begins, (N + 1,).
        cut: how many tokens to be learnt are in no window.
    """

    start: np.ndarray
    size: np.ndarray
    low: np.ndarray
    high: np.ndarray
    first: np.ndarray
    cut: int

    def take(self, rows: np.ndarray) -> Layout:
        """The blocks at `rows` alone, in that order."""
        counts = np.diff(self.first)[rows]
        windows = ranges(self.first[rows], counts)
        start, size, low, high = (values[windows] for values in self[:4])
        return Layout(start, size, low, high, np.append(0, np.cumsum(counts)), self.cut)


class Places(NamedTuple):
    """Where K tokens of some blocks go, all (K,): number `source` of the corpus into block `row` at `place`; it is number
    `offset` of `window` of the layout, which is number `segment` of its block, counted from 1.
    """

    row: np.ndarray
    place: np.ndarray
    source: np.ndarray
    offset: np.ndarray
    window: np.ndarray
    segment: np.ndarray


def ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers first, first + 1, ..., as many as `counts` says, for each of some ranges after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - counts), counts)


def lay_out(documents: Documents, length: int, packing: Packing) -> Layout:
    """Documents in blocks of `length` tokens.

    A document gives one input fewer than it has tokens: its last one is asked for and never shown, but for `stream`.

    Args:
        packing: documents: whole ones share blocks; of a longer one whole blocks are cut off first, but none is cut from what
            follows a prompt, whose end is left out instead. stream: one after the other, cut wherever a block is full. none:
            each has a block of its own, and its end is left out.
    """
    if packing == "stream":
        return _stream(documents, length)
    inputs = documents.stop - documents.start - 1
    whole = inputs // length
    if packing == "none":
        whole = np.zeros_like(whole)
    whole[documents.prompt > 0] = 0
    rest = np.minimum(inputs - whole * length, length)  # in one window at the end of each document
    document = np.concatenate([np.repeat(np.arange(len(whole)), whole), np.arange(len(rest))])
    skipped = np.concatenate([length * ranges(np.zeros_like(whole), whole), length * whole])
    size = np.concatenate([np.full(whole.sum(), length), rest])
    shared = np.arange(len(rest)) if packing == "none" else best_fit(rest, length)
    block = np.concatenate([np.arange(whole.sum()), whole.sum() + shared])
    filled = size > 0
    document, skipped, size, block = (values[filled] for values in (document, skipped, size, block))
    start = documents.start[document] + skipped
    low = np.clip(documents.prompt[document] - 1 - skipped, 0, size)
    cut = int((inputs - whole * length - rest).sum())
    return _in_order(block, start, size, low, size, cut)


def _stream(documents: Documents, length: int) -> Layout:
    sizes = documents.stop - documents.start
    ends = np.cumsum(sizes)
    breaks = np.union1d(np.append(0, ends), np.arange(0, ends[-1], length))
    place, size = breaks[:-1], np.diff(breaks)
    document = np.searchsorted(ends, place, side="right")
    skipped = place - (ends - sizes)[document]
    last = place + size == ends[document]
    low = np.clip(documents.prompt[document] - 1 - skipped, 0, size)
    high = np.maximum(low, size - last)  # what begins the next document is not asked for
    start = documents.start[document] + skipped
    return _in_order(place // length, start, size, low, high, 0)


def _in_order(
    block: np.ndarray, start: np.ndarray, size: np.ndarray, low: np.ndarray, high: np.ndarray, cut: int
) -> Layout:
    """Windows as a layout, in which blocks stand in the order of what they begin with.

    Args:
        block: of each window, (W,), any numbers from 0.
    """
    begins = np.full(block.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(begins, block, start)
    order = np.lexsort((start, block, begins[block]))
    blocks = block[order]
    first = np.append(np.flatnonzero(np.diff(blocks, prepend=-1)), len(blocks))
    return Layout(start[order], size[order], low[order], high[order], first, cut)


def best_fit(sizes: np.ndarray, length: int) -> np.ndarray:
    """The block of each of some pieces, (P,), the largest placed first, each where least room is left.

    Ding et al., 2024, arXiv 2404.10830.

    Args:
        sizes: (P,), none above `length`.
    """
    blocks, room = np.empty(len(sizes), np.int64), [list[int]() for _ in range(length + 1)]
    number, lefts = 0, 0  # a bit of `lefts` for each room that some block has left
    order = np.argsort(-sizes, kind="stable")
    for piece, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        if fitting := lefts >> size:
            left = size + (fitting & -fitting).bit_length() - 1
            block = room[left].pop()
            if not room[left]:
                lefts ^= 1 << left
        else:
            left, block, number = length, number, number + 1
        blocks[piece] = block
        if left > size:
            room[left - size].append(block)
            lefts |= 1 << (left - size)
    return blocks
