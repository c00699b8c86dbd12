"""Python's own reference, topic by topic: the data set of a language model that needs no network."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from distill_cli.base.names import fingerprint
from distill_cli.data import corpus as corpora
from distill_cli.data.dataset import Data
from distill_cli.data.documents import Piece
from distill_cli.data.language import Arrangement, assembled
from distill_cli.data.packing import Packing
from distill_cli.data.vocabulary import Bytes

TEST = 6  # of so many topics by the alphabet the second is for test, whatever the split seed


def pydoc(
    length: int = 512,
    packing: Packing = "documents",
    val_fraction: float = 0.1,
    split_seed: int = 0,
    store: Path | None = None,
) -> Data:
    """The topics that `help()` of the running Python knows, a document each; tokens are bytes.

    Args: as `language.language`.
    """
    topics = _topics()
    pieces = [Piece(text, "", True, f"topic {name}") for name, text in topics.items()]
    content = {"topics": fingerprint(topics)}
    corpus = corpora.of_pieces(lambda: iter(pieces), "Python's topics", content, Bytes(), None, 0)
    numbers = np.arange(len(topics))
    test = numbers % TEST == 1
    parts = {name: (corpus, corpus.documents.take(numbers[rows])) for name, rows in (("train", ~test), ("test", test))}
    note = f"tokens: bytes; {len(topics)} topics of Python {sys.version_info.major}.{sys.version_info.minor}; test: a fixed sixth"
    return assembled(parts, Bytes(), Arrangement(length, packing, val_fraction, split_seed, store), [note])


def _topics() -> dict[str, str]:
    """Topics by name. Some are chapters that hold others: what several hold is told in the longest alone, so that test is
    not in train.
    """
    from pydoc_data.topics import topics

    told, kept = set[str](), dict[str, str]()
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        paragraphs = topics[name].strip().split("\n\n")
        new = [text for text in paragraphs if text not in told]
        told.update(text for text in new if len(text.split()) > 8)
        if len(new) > len(paragraphs) / 2:
            kept[name] = "\n\n".join(new) + "\n"
    return dict(sorted(kept.items()))
