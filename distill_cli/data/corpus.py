"""Documents as tokens, one after the other in a file that is made once and mapped; how they fill blocks is in packing.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_cli.base import files, ui
from distill_cli.base.errors import DataError
from distill_cli.base.names import fingerprint
from distill_cli.data import documents
from distill_cli.data.documents import PIECE, Piece, Reading
from distill_cli.data.vocabulary import Subwords, Vocabulary, dtype_of
from distill_cli.runs import store

TOGETHER = PIECE  # characters that are cut into tokens at a time
SMALL = 2**22  # bytes; what is made of fewer is made as quickly as what is kept of it is checked


class Documents(NamedTuple):
    """Documents, or parts of them, among the tokens of a corpus; the token that ends one is its last, but for
    those that were cut before their end.

    Attributes:
        start, stop: where each begins and ends, (D,) int64. prompt: how many of its tokens are read and not learnt, (D,).
    """

    start: np.ndarray
    stop: np.ndarray
    prompt: np.ndarray

    def take(self, rows: np.ndarray) -> Documents:
        """The documents at `rows` alone, in that order."""
        return Documents(*(values[rows] for values in self))


@dataclass(frozen=True, eq=False)
class Corpus:
    """The tokens of some documents.

    Args:
        ids: of all documents, (T,), mapped from a file where they are many. documents: all of them.
        digest: tells these tokens from all others. named: what to call a document in a message, by its number.
    """

    ids: np.ndarray
    documents: Documents
    digest: str
    named: Callable[[int], str]

    def name_at(self, token: int) -> str:
        """What to call the document that a token is in."""
        return self.named(int(np.searchsorted(self.documents.start, token, side="right")) - 1)


def of_file(path: Path, how: Reading, vocabulary: Vocabulary, home: Path | None) -> Corpus:
    """The tokens of a file's documents.

    Args:
        home: a folder in which they are kept for other runs, where they are many.

    Raises:
        DataError: it cannot be read, or holds no text.
    """
    content = {"file": files.sha256(path), "kind": path.suffix.lower(), **how._asdict()}
    read, size = partial(documents.pieces, path, how), path.stat().st_size
    return of_pieces(read, path.name, content, vocabulary, home if size >= SMALL else None, size)


def of_pieces(
    pieces: Callable[[], Iterable[Piece]],
    name: str,
    content: object,
    vocabulary: Vocabulary,
    home: Path | None,
    size: int,
) -> Corpus:
    """The tokens of documents that come piece by piece.

    Args:
        pieces: gives them, each time from the first. name: what to call all of them. content: tells them from all others.
        home: as for `of_file`. size: about how many characters they have, for the progress bar.
    """
    code = [files.sha256(Path(module)) for module in (documents.__file__, __file__)]
    if isinstance(vocabulary, Subwords):
        code.append(f"tokenizers {version('tokenizers')}")
    ingredients = {"documents": content, "tokenizer": vocabulary.digest, "code": code}
    about = {"teacher": "", "dataset": name, "split": "tokens", "precision": dtype_of(vocabulary).name}
    words = store.Words(f"cutting {name} into tokens", "the tokens", "free some")

    def compute() -> Iterator[dict[str, np.ndarray]]:
        with ui.bar(size, words.doing, unit="B") as bar:
            yield from _blocks(_moving(pieces(), bar.update), vocabulary, name)

    made = store.arrays(home, ingredients, about, None, compute, words)
    ends = np.cumsum(made["lengths"])
    return Corpus(
        made["ids"],
        Documents(ends - made["lengths"], ends, made["prompts"]),
        fingerprint(ingredients),
        lambda number: _name(pieces(), number),
    )


def _moving(pieces: Iterable[Piece], update: Callable[[int], object]) -> Iterator[Piece]:
    """The same pieces; each moves a bar by its characters."""
    for piece in pieces:
        yield piece
        update(len(piece.text) + len(piece.prompt))


def _blocks(pieces: Iterable[Piece], vocabulary: Vocabulary, name: str) -> Iterator[dict[str, np.ndarray]]:
    """Tokens block by block, with the length and the prompt's length of each document that ends in the block."""
    kind, start, end = dtype_of(vocabulary), list(vocabulary.start), [vocabulary.end]
    length = prompt = number = 0  # of the document that is not at its end
    for group in _together(pieces):
        ids, lengths, prompts = list[np.ndarray](), list[int](), list[int]()
        cut = vocabulary.encode([text for piece in group for text in (piece.prompt, piece.text)])
        for piece, before, tokens in zip(group, cut[::2], cut[1::2], strict=True):
            if not length:
                prompt = len(start) + len(before) if len(before) else 0
            parts: list[Any] = [[] if length else start, before, tokens, end if piece.last and piece.whole else []]
            ids += [np.asarray(part, kind) for part in parts]
            length += sum(len(part) for part in parts)
            if piece.last:
                lengths.append(length)
                prompts.append(prompt)
                length = 0
        number += len(lengths)
        yield {
            "ids": np.concatenate([np.empty(0, kind), *ids]),
            "lengths": np.array(lengths, np.int64),
            "prompts": np.array(prompts, np.int64),
        }
    if not number:
        raise DataError(f"{name} holds no text")


def _together(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces in groups of about TOGETHER characters."""
    group, size = list[Piece](), 0
    for piece in pieces:
        group.append(piece)
        size += len(piece.text) + len(piece.prompt)
        if size >= TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group


def _name(pieces: Iterable[Piece], number: int) -> str:
    """What the document of a number is called: those before it are read again."""
    return next(itertools.islice((piece.where for piece in pieces if piece.last), number, None))


def shared(corpus: Corpus, documents: Documents, other: Corpus, theirs: Documents) -> int:
    """How many of some documents are among others too, token for token."""
    sizes, wanted = theirs.stop - theirs.start, documents.stop - documents.start
    alike = np.flatnonzero(np.isin(sizes, wanted))
    seen = {other.ids[theirs.start[row] : theirs.stop[row]].tobytes() for row in alike}
    return sum(corpus.ids[a:b].tobytes() in seen for a, b in zip(documents.start, documents.stop, strict=True))


def apart(whole: Documents, share: float, seed: int) -> tuple[Documents, Documents, str]:
    """Documents without a share of them, drawn at random, and that share, and how it was chosen, in words.

    Where that would be less than half of a document, the share is of tokens, and is the end of the last documents: one that
    goes across is cut.
    """
    documents = len(whole.start)
    if number := min(round(share * documents), documents - 1):
        drawn = np.random.default_rng(seed).permutation(documents)
        return whole.take(np.sort(drawn[number:])), whole.take(np.sort(drawn[:number])), f"{share:.0%} of the documents"
    sizes = whole.stop - whole.start
    ends = np.cumsum(sizes)
    border = int(ends[-1]) - max(1, round(share * int(ends[-1])))
    at = int(np.searchsorted(ends, border, side="right"))
    inside = border - int(ends[at] - sizes[at])  # tokens of the document across the border that stay
    first, last = whole.take(np.arange(at + 1)), whole.take(np.arange(at, documents))
    middle = int(whole.start[at]) + inside
    first.stop[-1], last.start[0] = middle, middle
    last.prompt[0] = max(0, int(last.prompt[0]) - inside)
    return first, last, f"the last {share:.0%} of the text"
