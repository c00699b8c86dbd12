"""Proves that documents become blocks that hold each token once, ask for no prompt, and are made once and mapped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from torch import Tensor, nn

from distill_cli.base.errors import CheckpointError, ConfigError, DistillError
from distill_cli.config import schema
from distill_cli.config.records import read as record
from distill_cli.data import Data, Split, blocks, corpus, documents, load
from distill_cli.data.blocks import LanguageSpec
from distill_cli.data.documents import Reading, pieces
from distill_cli.data.labels import IGNORED
from distill_cli.data.language import language
from distill_cli.data.packing import best_fit
from distill_cli.data.pydoc import pydoc
from distill_cli.data.tokens import Tokenizer
from distill_cli.data.vocabulary import Bytes, Subwords, Vocabulary, difference

LINES = [f"{'line ' * (number % 7)}number {number}\n" for number in range(200)]


def folder_of_tokenizer(folder: Path, begins: bool = False, **config: Any) -> Path:
    """A byte-level tokenizer of 256 bytes, a word, and two special tokens, in a folder as a model's has it."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = {piece: number for number, piece in enumerate([*letters, "li", "ne", "ĊĊ"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, [("l", "i"), ("n", "e"), ("Ċ", "Ċ")]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>"])
    if begins:
        made.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 259)])
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config or {"eos_token": "</s>"}))
    return folder


def corpus_of(folder: Path, *texts: str, prompts: tuple[str, ...] = ()) -> Path:
    file = folder / "train.jsonl"
    rows: list[dict[str, str]] = [{"text": text} for text in texts]
    rows = [{**row, "prompt": prompt} for row, prompt in zip(rows, prompts or [""] * len(rows), strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def of_batch(split: Split, size: int = 4) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Every sample of a split alone: its inputs (L,) and targets (L,)."""
    samples = []
    for batch in split.batches(size):
        assert not isinstance(batch.inputs, Tensor)
        for row in range(len(batch)):
            samples.append(({name: values[row] for name, values in batch.inputs.items()}, batch.targets[row]))
    return samples


def told(split: Split) -> list[list[int]]:
    """The tokens of each segment of each sample, that which follows its last one too."""
    found = []
    for inputs, targets in of_batch(split):
        for segment in range(1, int(inputs["segments"].max()) + 1):
            own = (inputs["segments"] == segment).nonzero()[:, 0]
            assert inputs["position_ids"][own].tolist() == list(range(len(own)))
            ids = [*inputs["input_ids"][own].tolist(), int(targets[own[-1]])]
            asked = targets[own].tolist()
            assert all(target in (IGNORED, ids[place + 1]) for place, target in enumerate(asked))
            found.append(ids)
        assert (targets[: len(inputs["segments"])][inputs["segments"] == 0] == IGNORED).all()
    return found


def whole(data: Data) -> list[list[int]]:
    return [ids for split in (data.train, data.val, data.test) for ids in told(split)]


def ends(ids: list[int], vocabulary: Vocabulary) -> str:
    assert ids[-1] == vocabulary.end
    return vocabulary.decode(ids)


def test_bytes_are_what_they_stand_for_and_every_one_has_a_name() -> None:
    words = Bytes()
    (ids,) = words.encode(["Grüße\n"])
    assert ids.tolist() == list("Grüße\n".encode()) and words.decode([*ids, words.end]) == "Grüße\n"
    assert len(set(words.tokens)) == words.size == 257 and words.bytes_of[ids].sum() == len("Grüße\n".encode())
    assert words.tokens[ord("a")] == "a" and words.tokens[10] == "<0x0A>" and words.bytes_of[words.end] == 0


def test_a_tokenizer_of_a_folder_says_how_many_bytes_each_token_is(tmp_path: Path) -> None:
    words = Subwords.read(folder_of_tokenizer(tmp_path / "t"))
    text = "line Grüße, 見"
    (ids,) = words.encode([text])
    assert words.decode(ids.tolist()) == text and words.bytes_of[ids].sum() == len(text.encode())
    assert words.tokens[words.end] == "</s>" and words.bytes_of[words.end] == 0 and words.start == ()
    assert ids.dtype == np.uint16 and words.size == len(words.tokens) == 261
    assert Subwords.read(folder_of_tokenizer(tmp_path / "b", begins=True)).start == (259,)
    pieced = Subwords(Tokenizer.made_from(["a fine day", "a fine day"]), 0)
    (ids,) = pieced.encode(["fined"])
    assert [pieced.tokens[number] for number in ids] == ["fine", "##d"] and pieced.bytes_of[ids].tolist() == [4, 1]


def test_what_ends_a_text_is_what_the_folder_names(tmp_path: Path) -> None:
    folder = folder_of_tokenizer(tmp_path / "t", pad_token="<s>")
    with pytest.raises(CheckpointError, match="nothing names the token"):
        Subwords.read(folder)
    (folder / "config.json").write_text('{"eos_token_id": [259, 260]}')
    words = Subwords.read(folder)
    assert words.end == 259 and words.pad == 259
    words.write(tmp_path)
    assert Subwords.read(tmp_path) == words and Subwords.read(tmp_path).digest == words.digest
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        Subwords.read(folder)


@pytest.mark.parametrize("piece", range(8, 40))
def test_no_separator_is_cut_in_two(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(documents, "PIECE", piece)
    text = "\n###\n".join(letter * (7 + 3 * number) for number, letter in enumerate("abcdefghij"))
    parts = [text[start : start + piece] for start in range(0, len(text), piece)]
    found = [""]
    for part, last in documents.cut(parts, "\n###\n"):
        found[-1] += part
        found += [""] * last
    assert found[:-1] == text.split("\n###\n")


def test_a_long_text_is_cut_where_a_token_ends_anyway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, words = tmp_path / "a.txt", Subwords.read(folder_of_tokenizer(tmp_path / "t"))
    file.write_text("\n".join("".join(LINES[start : start + 3]) for start in range(90)))  # two breaks are one token
    (whole,) = words.encode([file.read_text()])
    monkeypatch.setattr(documents, "PIECE", 128)
    assert corpus.of_file(file, Reading(), words, None).ids.tolist() == [*whole, words.end]


@pytest.mark.parametrize("piece", [16, 37, 64, 2**20])
def test_documents_do_not_depend_on_how_much_of_a_file_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(documents, "PIECE", piece)
    monkeypatch.setattr(corpus, "TOGETHER", 3 * piece)
    texts = [
        "",
        "a\n##b",
        "c" * 90 + "\n\n" + "d" * 40 + "ü",
        "\n",
        *("".join(LINES[n : n + n % 5]) for n in range(99)),
        "e",
    ]
    file = tmp_path / "a.txt"
    file.write_bytes(("\ufeff" + "\n###\n".join(texts)).encode())
    made = corpus.of_file(file, Reading(separator="\n###\n"), Bytes(), None)
    wanted = [text for text in texts if text.strip()]
    spans = zip(made.documents.start, made.documents.stop, strict=True)
    assert [ends(made.ids[start:stop].tolist(), Bytes()) for start, stop in spans] == wanted
    assert made.name_at(int(made.documents.start[3])) == "a.txt, document 4"
    alone = corpus.of_file(file, Reading(), Bytes(), None)
    assert (
        len(alone.documents.start) == 1
        and alone.ids[:-1].tobytes() == np.array(list("\n###\n".join(texts).encode()), np.uint16).tobytes()
    )


def test_every_document_is_whole_in_one_block_and_sees_no_other(tmp_path: Path) -> None:
    texts = ["".join(LINES[n : n + 1 + n % 3]) for n in range(120)]
    data = language(str(corpus_of(tmp_path, *texts)), length=160)
    assert sorted(ends(ids, Bytes()) for ids in whole(data)) == sorted(texts)
    assert (len(data.val.source), data.classes) == (len(data.val), Bytes().tokens)
    assert {targets.shape for _, targets in of_batch(data.train)} == {(160,)}
    assert sum(int((targets != IGNORED).sum()) for _, targets in of_batch(data.train)) == sum(
        len(ids) - 1 for ids in told(data.train)
    )
    assert "% full" in data.note and "cut off" not in data.note


def test_a_long_document_fills_blocks_and_its_rest_shares_one(tmp_path: Path) -> None:
    text = "".join(LINES)
    (tmp_path / "train.txt").write_text(text)
    (tmp_path / "test.txt").write_text("short")
    data = language(str(tmp_path), length=64)
    train, val = told(data.train), told(data.val)
    assert bytes(ids[0] for ids in train[:1]) == b"n" and all(len(ids) == 65 for ids in train[:-1])
    joined = [*(token for ids in train for token in ids[:-1]), train[-1][-1], *(t for ids in val for t in ids[:-1])]
    assert ends([*joined, Bytes().end], Bytes()) == text and "validation: the last 10% of the text" in data.note
    assert told(data.test) == [[*b"short", Bytes().end]]


def test_a_stream_is_cut_where_a_block_is_full_and_nothing_of_another_split_is_asked_for(tmp_path: Path) -> None:
    texts = [chr(65 + n % 26) * (3 + n % 11) for n in range(60)]
    data = language(str(corpus_of(tmp_path, *texts)), length=16, packing="stream")
    samples = of_batch(data.train)
    ids = torch.cat([inputs["input_ids"][inputs["segments"] > 0] for inputs, _ in samples]).tolist()
    targets = torch.cat([targets[inputs["segments"] > 0] for inputs, targets in samples]).tolist()
    for place, target in enumerate(targets):
        assert target == (IGNORED if ids[place] == Bytes().end else ids[place + 1])
    assert all(torch.equal(inputs["position_ids"], torch.arange(16)) for inputs, _ in samples[:-1])
    assert ids.count(Bytes().end) == 60 - 6 - 5 and len(samples) == -(-len(ids) // 16)


def asked(data: Data) -> list[str]:
    """What is asked for in each segment of each sample, without what ends a text."""
    samples = [sample for split in (data.train, data.val, data.test) for sample in of_batch(split)]
    spans = [(t, inputs["segments"] == n + 1) for inputs, t in samples for n in range(int(inputs["segments"].max()))]
    targets = [(t[: len(own)][own]).tolist() for t, own in spans]
    return [Bytes().decode([token for token in one if token != IGNORED]) for one in targets]


def test_a_prompt_is_read_and_not_learnt(tmp_path: Path) -> None:
    texts, prompts = [f"answer {n}" for n in range(40)], tuple("question" * (n % 3) for n in range(40))
    file = corpus_of(tmp_path, *texts, prompts=prompts)
    learnt = [text if prompt else text[1:] for text, prompt in zip(texts, prompts, strict=True)]
    for packing in ("documents", "none"):
        data = language(str(file), prompt="prompt", length=48, packing=packing)  # type: ignore[arg-type]
        assert sorted(asked(data)) == sorted(learnt)
        short = language(str(file), prompt="prompt", length=20, packing=packing)  # type: ignore[arg-type]
        ends = [text[: 21 - len(prompt)] if prompt else text[1:] for text, prompt in zip(texts, prompts, strict=True)]
        assert sorted(asked(short)) == sorted(ends)  # no part of an answer is asked for where its prompt is not seen
    stream = language(str(file), prompt="prompt", length=48, packing="stream")
    assert sum(map(len, asked(stream))) == sum(map(len, learnt))
    assert any("questionanswer" in data.train.shown(row)["text"] for row in range(len(data.train)))
    begun = folder_of_tokenizer(tmp_path / "t", begins=True, eos_token="</s>")
    data = language(str(file), prompt="prompt", length=48, packing="none", tokenizer=str(begun))
    assert all(inputs["input_ids"][0] == 259 for inputs, _ in of_batch(data.train))


def test_a_prompt_that_is_cut_in_two_is_learnt_on_neither_side(tmp_path: Path) -> None:
    file = corpus_of(tmp_path, "a" * 90, "b" * 10, prompts=("", "q" * 20))
    data = language(str(file), prompt="prompt", length=16, packing="stream", val_fraction=0.2)
    assert sorted("".join(asked(data))) == ["a"] * 88 + ["b"] * 10  # nothing precedes what begins a part


def test_samples_of_their_own_are_as_wide_as_the_longest_of_a_batch(tmp_path: Path) -> None:
    texts = ["x" * (1 + n % 40) for n in range(64)]
    data = language(str(corpus_of(tmp_path, *texts)), length=24, packing="none")
    assert sum("x" in Bytes().decode(ids) for ids in told(data.test)) == len(data.test) == 6
    widths = [b.inputs["input_ids"].shape[1] for b in data.train.batches(4, data.train.order(4, 0, 1))]  # type: ignore[call-overload]
    assert max(widths) == 24 and len(set(widths)) > 4 and data.train.targets.shape == (len(data.train), 24)
    cut = sum(len(text) - 24 for text in texts if len(text) > 24)
    assert f", {cut:,} cut off" in data.note


@pytest.mark.parametrize("length", [7, 100])
def test_blocks_are_nearly_full(length: int) -> None:
    sizes = np.random.default_rng(0).integers(1, length + 1, 3000)
    held = np.bincount(best_fit(sizes, length), weights=sizes)
    assert held.max() <= length and held.sum() == sizes.sum() and held.mean() > 0.97 * length


def test_tokens_and_targets_are_made_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (corpus, blocks):
        monkeypatch.setattr(module, "SMALL", 1)
    monkeypatch.setattr(blocks, "WORKED", 100)
    file, store = tmp_path / "a.txt", tmp_path / "cache"
    file.write_text("".join(LINES))
    how: dict[str, Any] = {"length": 32, "separator": "\\n"}
    plain, first = language(str(file), **how), language(str(file), store=store, **how)
    assert plain.digest == first.digest and torch.equal(plain.train.targets, first.train.targets)
    assert whole(plain) == whole(first)
    entries = {path.name for path in store.iterdir() if path.name[0] != "."}
    monkeypatch.setattr(Bytes, "encode", lambda *_: pytest.fail("tokens are made again"))
    again = language(str(file), store=store, **how)
    assert again.digest == first.digest and whole(again) == whole(first)
    source = again.train.source
    assert isinstance(source, blocks.Blocks) and isinstance(source.corpus.ids, np.memmap)
    assert source.corpus.ids.dtype == np.uint16 and "/targets.npy" in Path("/proc/self/maps").read_text()
    assert {path.name for path in store.iterdir() if path.name[0] != "."} == entries
    monkeypatch.undo()
    other = [language(str(file), **{**how, **more}).digest for more in
             ({}, {"length": 31}, {"separator": None}, {"packing": "stream"}, {"split_seed": 1}, {"val_fraction": 0.2},
              {"tokenizer": str(folder_of_tokenizer(tmp_path / "t"))})]  # fmt: skip
    assert other[0] == first.digest and len(set(other)) == len(other)


def test_auto_is_the_tokenizer_of_the_teachers_folder_or_bytes(tmp_path: Path) -> None:
    file = corpus_of(tmp_path, *LINES)
    folder = folder_of_tokenizer(tmp_path / "t")
    assert "tokens: the model's" in language(str(file), model_folder=lambda: folder).note
    assert "tokens: bytes" in language(str(file)).note
    assert len(language(str(file), model_folder=lambda: folder).classes) == 261
    assert len(language(str(file), model_folder=lambda: tmp_path).classes) == 257
    assert len(language(str(file), tokenizer="bytes", model_folder=lambda: folder).classes) == 257


def test_only_the_split_that_is_wanted_needs_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("".join(LINES))
    data = language(str(tmp_path), length=32, only="test")
    assert len(data.train) == len(data.val) == 0 and len(data.test) > 50
    alone = [language(str(tmp_path / "test.txt"), length=32, only=only) for only in (None, "test")]
    assert len(alone[0].test) == len(alone[1].test) < 20  # a file is cut as the run cut it


def test_a_model_must_read_the_same_tokens_and_have_a_position_for_each(tmp_path: Path) -> None:
    words = Subwords.read(folder_of_tokenizer(tmp_path / "t"))
    spec, net = LanguageSpec(words, 32), nn.Linear(1, 1)
    assert spec.of(net) is spec
    net.tokenizer = Tokenizer.read(tmp_path / "t")  # type: ignore[assignment]
    net.max_length = 32  # type: ignore[assignment]
    assert spec.of(net) is spec
    with pytest.raises(ConfigError) as caught:
        LanguageSpec(Bytes(), 32).of(net)
    assert (
        "the model has 261 tokens, the data have 257; the first that differs is number 0: the model's is '!', the data's "
        in (str(caught.value))
    )
    assert "number 2: the model's is none, the data's 'c'" in difference("ab", "abc") and not difference("ab", "ab")
    with pytest.raises(ConfigError, match=r"dataset\.length=33: the model has 32 positions"):
        LanguageSpec(words, 33).of(net)


def test_a_spec_comes_back_from_its_card(tmp_path: Path) -> None:
    for tokenizer in (Bytes(), Subwords.read(folder_of_tokenizer(tmp_path / "t"))):
        spec = LanguageSpec(tokenizer, 32)
        spec.write(tmp_path)
        assert LanguageSpec.read(json.loads(json.dumps(spec.as_card())), tmp_path) == spec
        assert spec.present(spec.example(2)).all() and spec.example(2)["input_ids"].shape == (2, 8)  # type: ignore[call-overload]
        assert spec.arguments() == {"vocab_size": tokenizer.size, "pad_token_id": tokenizer.pad, "head": "tokens"}
    with pytest.raises(CheckpointError, match="holds another tokenizer"):
        LanguageSpec.read({**spec.as_card(), "tokenizer": "x"}, tmp_path)
    with pytest.raises(CheckpointError, match="261 tokens, the data have 257"):
        spec.check(LanguageSpec(Bytes(), 32))


@pytest.mark.parametrize(("name", "content", "settings", "wrong", "code"), [
    ("a.txt", b"short", {}, "train holds 3 tokens: not one block of dataset.length=512\na longer text, or dataset.length=3", 3),
    ("a.txt", b" \n", {}, "a.txt holds no text", 3),
    ("a.txt", b"x" * 999, {"length": 1}, "a block needs 2 tokens at least", 2),
    ("a.txt", b"x\nfine\n\xff\n", {}, "line 3 is not UTF-8", 3),
    ("a.txt", b"x\nfine\n\xe2", {}, "line 3 is not UTF-8", 3),
    ("a.doc", b"x", {}, "should end in .txt, .jsonl, .parquet", 3),
    ("a.jsonl", b'{"text": "a"}\n{"body": "a"}\n', {}, "a.jsonl line 2 has no column 'text'; columns: body", 3),
    ("a.jsonl", b'{"text": "a"}\n', {"prompt": "promt"}, "has no column 'promt'", 3),
    ("a.jsonl", b'{"text": ["a"]}\n', {}, "line 1 has a list in column 'text': it needs a text", 3),
    ("a.jsonl", b'{"text": "\\ud800"}\n', {}, "line 1 has half a character", 3),
    ("a.jsonl", b'{"text": "fine"}\n\xff\n', {}, "line 2 is not UTF-8", 3),
    ("a.jsonl", b'{"text": "a"\n', {}, "line 1 is not JSON", 3),
    ("a.jsonl", b'{"text": "a", "q": "' + b"q" * 9 + b'"}\n' * 1, {"prompt": "q", "length": 8, "packing": "none"},
     "holds no token to foretell", 3),
    ("a.txt", b"x" * 999, {"tokenizer": "nowhere"}, "there is no folder", 4),
])  # fmt: skip
def test_what_is_wrong_is_told_in_one_message(
    tmp_path: Path, name: str, content: bytes, settings: dict[str, Any], wrong: str, code: int
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistillError) as caught:
        language(str(tmp_path / name), **settings)
    assert wrong in str(caught.value) and caught.value.exit_code == code


def test_a_prompt_that_leaves_no_room_is_told_by_its_row(tmp_path: Path) -> None:
    file = corpus_of(tmp_path, *"abcdefghijklmnopqrstuvwxyz", prompts=("q", "", *["q"] * 20, "q" * 99, *["q"] * 3))
    for packing in ("documents", "none"):
        with pytest.raises(DistillError, match=r"train\.jsonl line 23: its prompt fills all 32 tokens"):
            language(str(file), prompt="prompt", length=32, packing=packing, split_seed=1)  # type: ignore[arg-type]


def test_rows_without_a_text_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "distill"):
        data = language(str(corpus_of(tmp_path, *LINES, "", "  ")), length=64)
    assert "train.jsonl: 2 rows without a text were left out" in caplog.text and len(whole(data)) == 200


def test_parquet_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="needs the package pyarrow"):
        list(pieces(tmp_path / "a.parquet", Reading()))


def test_processes_read_the_same_blocks_and_a_limit_leaves_some_out(tmp_path: Path) -> None:
    node = {"_target_": "distill_cli.data.language.language", "root": str(corpus_of(tmp_path, *LINES)), "length": 64}

    def made(**more: Any) -> Data:
        problems = list[str]()
        return load(record(schema.Dataset, {**node, **more}, "dataset.", problems), 2)

    data, limited = made(), made(limit=7)
    assert len(limited.train) == 7 and "train limited to 7" in limited.note and limited.digest != data.digest
    assert told(limited.train) and all(ids in told(data.train) for ids in told(limited.train))
    with pytest.raises(ConfigError, match="label_noise"):
        made(label_noise=0.1)


def test_no_paragraph_of_pydocs_test_part_is_in_train() -> None:
    data, again = pydoc(), pydoc(split_seed=1)
    texts = {name: Bytes().decode([t for ids in told(split) for t in ids]) for name, split in
             (("train", data.train), ("val", data.val), ("test", data.test))}  # fmt: skip
    assert len(data.train) > 400 and torch.equal(data.test.targets, again.test.targets)
    known = set(texts["train"].split("\n\n")) | set(texts["val"].split("\n\n"))
    long = [text for text in texts["test"].split("\n\n") if len(text.split()) > 8]
    assert len(long) > 50 and not known & set(long)


@pytest.mark.parametrize("packing", ["documents", "stream", "none"])
def test_no_end_is_learnt_behind_a_text_that_was_cut(
    packing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = {"whole": True, "cut": False, "said": "no", "none": None}
    for part in ("train", "test"):
        rows = [{"text": text, "ended": ended} for text, ended in ends.items()] + [{"text": "other"}]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = language(str(tmp_path), length=16, packing=packing, val_fraction=0.2)  # type: ignore[arg-type]
    asked = [token for row in data.test.targets.tolist() for token in row if token != IGNORED]
    assert sorted(asked) == sorted([*b"hole", *b"ut", *b"aid", *b"one", *b"ther", *[Bytes.end] * 4])
    assert "train.jsonl: 1 texts were cut (ended: false): no end is learnt behind them" in caplog.text


def test_documents_of_test_that_are_in_train_too_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "distill")
    for part, letters in (("train", "abcdefab"), ("test", "axbyb")):
        (tmp_path / f"{part}.txt").write_text("\n\n".join(f"a text about {letter}" for letter in letters))
    language(str(tmp_path), separator="\\n\\n", length=8)
    assert "3 of 5 test documents are in train too: test flatters a model that remembers" in caplog.text
    caplog.clear()
    (tmp_path / "test.txt").write_text("a text about x\n\na text")
    language(str(tmp_path), separator="\\n\\n", length=8)
    assert "in train too" not in caplog.text
