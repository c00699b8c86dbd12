"""Texts to go on with as a data set: which files and columns are read, how documents become splits of blocks of tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_cli.base.errors import ConfigError, DataError
from distill_cli.base.files import place
from distill_cli.base.names import fingerprint
from distill_cli.data import corpus as corpora
from distill_cli.data import vocabulary
from distill_cli.data.assembling import warn_of_same
from distill_cli.data.blocks import Blocks, LanguageSpec
from distill_cli.data.corpus import Corpus, Documents, apart, shared
from distill_cli.data.dataset import SPLITS, Data
from distill_cli.data.documents import ENDINGS, Reading
from distill_cli.data.packing import Layout, Packing, lay_out, ranges
from distill_cli.data.split import Split
from distill_cli.data.split_files import split_files
from distill_cli.data.vocabulary import Vocabulary, dtype_of

TASK = "distill_cli.tasks.language.Language"


@dataclass(frozen=True)
class Arrangement:
    """How documents become splits of blocks; see the arguments of `language`."""

    length: int = 512
    packing: Packing = "documents"
    val_fraction: float = 0.1
    split_seed: int = 0
    store: Path | None = None


def language(
    root: str,
    text: str = "text",
    prompt: str | None = None,
    separator: str | None = None,
    tokenizer: str = "auto",
    length: int = 512,
    packing: Packing = "documents",
    val_fraction: float = 0.1,
    split_seed: int = 0,
    store: Path | None = None,
    only: str | None = None,
    model_folder: Callable[[], Path | None] = lambda: None,
) -> Data:
    """Texts of which every token is to be foretold, from a folder with train, and perhaps val and test, or from one file.

    Args:
        text, prompt: columns of .jsonl and .parquet: what is learnt, and what is read before it and not learnt.
        separator: what stands between two documents of a .txt, which is one document without it.
        tokenizer: auto: that of `model_folder` or, where it has none, bytes; bytes; a folder with a tokenizer.json.
        length: tokens of a block. packing: see `packing.lay_out`.
        only: the one split that is wanted: a folder need not have the others. model_folder: gives that of the first teacher.

    Raises:
        DataError: a file or column is missing, a file cannot be read or is too short, a prompt fills a block.
        ConfigError: no network works on so few tokens. CheckpointError: a tokenizer is missing or damaged.
    """
    if length < 2:
        raise ConfigError(f"length: a block needs 2 tokens at least, got {length}")
    home = place(root, "dataset.root")
    files = split_files(home, ENDINGS, None if home.is_file() else only)
    words = vocabulary.chosen(tokenizer, model_folder)
    between = separator.replace("\\n", "\n").replace("\\t", "\t") if separator else None
    read = {
        name: corpora.of_file(path, Reading(text, prompt, between), words, store)
        for name, path in files.items()
        if only in (None, name) or only not in files
    }
    of = "bytes" if words == vocabulary.Bytes() else "the model's" if tokenizer == "auto" else f"of {tokenizer}"
    notes = [f"tokens: {of}", *(f"{name}: {files[name].name}" for name in read if name != "train")]
    parts = {name: (corpus, corpus.documents) for name, corpus in read.items()}
    return assembled(parts, words, Arrangement(length, packing, val_fraction, split_seed, store), notes)


def assembled(
    parts: Mapping[str, tuple[Corpus, Documents]], words: Vocabulary, how: Arrangement, notes: Sequence[str]
) -> Data:
    """Documents as a data set; test and validation are cut from train where there are none. It raises as `language`.

    Args:
        parts: by split, which documents of which corpus; without train the one split that is wanted.
        notes: where validation and test come from, for people.
    """
    parts, notes, cut = dict(parts), list(notes), "train" in parts and "val" not in parts
    if "train" in parts:
        for name in ("test", "val"):
            if name not in parts:
                corpus, documents = parts["train"]
                rest, chosen, told = apart(documents, how.val_fraction, how.split_seed)
                parts |= {"train": (corpus, rest), name: (corpus, chosen)}
                notes.append(f"{'validation' if name == 'val' else name}: {told}")
    if "train" in parts:
        warn_of_same(shared(*parts["test"], *parts["train"]), len(parts["test"][1].start), "documents")
    spec, made = LanguageSpec(words, how.length), dict[str, Blocks]()
    for name, (corpus, documents) in parts.items():
        made[name] = _blocks(name, corpus, documents, spec, how)
    first = next(iter(made.values()))
    made = {name: made.get(name) or first.take(np.arange(0)) for name in SPLITS}
    splits: dict[str, Any] = {n: Split(blocks, blocks.targets(how.store), spec) for n, blocks in made.items()}
    notes.append(_filled(made.values(), how))
    digest = fingerprint([[blocks.digest() for blocks in made.values()], how.length, words.digest])
    return Data(**splits, classes=words.tokens, digest=digest, note="; ".join(notes), task=TASK, cut=cut)


def _blocks(name: str, corpus: Corpus, documents: Documents, spec: LanguageSpec, how: Arrangement) -> Blocks:
    """Documents of a corpus as blocks, each with something to learn."""
    layout = lay_out(documents, how.length, how.packing)
    held, asked = int(layout.size.sum()), layout.high - layout.low
    if not asked.sum():
        raise DataError(f"{name} holds no token to foretell: {held:,} in all", "it needs a longer text")
    if name == "train" and how.packing != "none" and held < how.length:
        raise DataError(
            f"train holds {held:,} tokens: not one block of dataset.length={how.length}",
            f"a longer text, or dataset.length={held}",
        )
    made = Blocks(corpus, layout, spec, None if how.packing == "none" else how.length, how.packing == "stream")
    if len(mute := np.flatnonzero(asked == 0)) and not made.joined:
        where = corpus.name_at(int(layout.start[mute[0]]))
        raise DataError(
            f"{where}: its prompt fills all {how.length} tokens of a block, so nothing is left to learn",
            "a larger dataset.length, or a shorter prompt",
        )
    return made.take(np.flatnonzero(np.add.reduceat(asked, layout.first[:-1])))


def _filled(made: Collection[Blocks], how: Arrangement) -> str:
    """How many tokens all parts hold, how full their blocks are, and how much was cut off, for people."""
    held, blocks = sum(int(one.lengths.sum()) for one in made), sum(map(len, made))
    full = "" if how.packing == "none" else f", blocks {held / (blocks * how.length):.1%} full"
    cut = sum(one.layout.cut for one in made if len(one))
    return f"{held:,} tokens{full}" + (f", {cut:,} cut off" if cut else "")


def typed(spec: LanguageSpec, texts: Sequence[Sequence[str]]) -> Split:
    """Single texts, each in blocks of its own; none has an end.

    Every token of a text is asked for but its first, and those of a prompt. One that is longer than a block fills several, each
    of which is read anew.

    Args:
        texts: each a text, or a prompt and a text; one of the two may be empty.
    """
    words, kind, length = spec.tokenizer, dtype_of(spec.tokenizer), spec.length
    cut = words.encode([part for text in texts for part in ("", *text)[-2:]])
    pairs, first = list(zip(cut[::2], cut[1::2], strict=True)), np.array(words.start, kind)
    ids = np.concatenate([part.astype(kind) for pair in pairs for part in (first, *pair)])
    sizes = np.array([len(first) + len(before) + len(after) for before, after in pairs])
    prompts = np.array([len(before) and len(first) + len(before) for before, _ in pairs])
    ends, counts = np.cumsum(sizes), -(-sizes // length)
    text, skipped = np.repeat(np.arange(len(sizes)), counts), length * ranges(np.zeros_like(counts), counts)
    size = np.minimum(sizes[text] - skipped, length)
    low = np.clip(prompts[text] - 1 - skipped, 0, size)
    high = np.maximum(low, size - (skipped + size == sizes[text]))  # nothing follows the last one
    layout = Layout((ends - sizes)[text] + skipped, size, low, high, np.arange(len(size) + 1), 0)
    corpus = Corpus(ids, Documents(ends - sizes, ends, prompts), "typed", lambda number: f"text {number + 1}")
    blocks = Blocks(corpus, layout, spec, None, joined=False)
    return Split(blocks, blocks.targets(None), spec)
