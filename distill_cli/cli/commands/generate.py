"""Texts that a teacher writes behind the beginnings of the data's documents, for a student to train on.

usage: distill generate teacher=NAME dataset=NAME output=FILE.jsonl [key=value ...] [options]

  distill generate teacher=bytes_small dataset=pydoc output=texts.jsonl
  distill generate teacher=huggingface teacher.name=DIR dataset=language dataset.root=DATA output=texts.jsonl
  distill generate ... max_tokens=128 temperature=0.8 top_p=0.95 samples=4
  distill train dataset=language dataset.root=texts.jsonl dataset.prompt=prompt     and a student trains on them

It takes what `distill train` takes, so that a train line can be pasted; the teacher is prepared as for that, and no student is
built. A beginning is a document's prompt, else its first tokens. Each text is drawn by the seed and its own number, so the same
line gives the same texts. Stopped or killed, the same line goes on where it was; what it is made with is kept in FILE.jsonl.json.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from distill_cli.base import files, runtime, ui
from distill_cli.base.errors import ConfigError
from distill_cli.config.schema import FIRST, Generate
from distill_cli.data import Data
from distill_cli.data.blocks import LanguageSpec
from distill_cli.models import Classifier
from distill_cli.models.writing import Drawing, write
from distill_cli.pipeline.rows_file import Row, RowsFile
from distill_cli.tasks import task as tasks
from distill_cli.tasks.continuing import beginnings, behind
from distill_cli.teachers.prepare import prepare
from distill_cli.training import job as jobs

KEYS = ("samples", "max_tokens", "prompt_tokens", "temperature", "top_k", "top_p", "seed")  # that a text depends on


def run(settings: Generate) -> None:
    """Prepare the teacher and write the file, or go on with it.

    Raises:
        ConfigError: the data are not a language model's, the file was begun otherwise, or a text has no room.
    """
    output = _output(settings)
    runtime.prepare(settings.threads)
    device, *_ = jobs.check(settings)
    data = jobs.data_of(settings, device)
    task = tasks.of(data)
    task.continuing("distill generate")
    chosen, teachers = jobs.teachers_of(settings, data, task)
    model = teachers[FIRST].to(device)
    prepared = prepare(model, chosen[FIRST], data, settings, FIRST)
    batches = data.train.batches(settings.batch_size)
    starts = list(
        itertools.chain(*itertools.chain.from_iterable(beginnings(b, settings.prompt_tokens) for b in batches))
    )
    _check_room(model, max(map(len, starts)), settings.max_tokens)
    dtype = runtime.dtype(settings.precision, device)
    made_with = {"teacher": prepared.weights, "data": data.digest, "precision": str(dtype).removeprefix("torch.")}
    made_with |= {key: getattr(settings, key) for key in KEYS}

    def rows(first: int, last: int) -> list[Row]:
        with runtime.autocast(device, dtype):
            return _rows(settings, model, data, starts, range(first, last))

    file = RowsFile(output, made_with, len(starts) * settings.samples)
    file.fill(rows, settings.batch_size)
    ui.show(f"texts: {output}")
    ui.show(f"a student trains on them: distill train dataset=language dataset.root={output} dataset.prompt=prompt ...")


def _output(settings: Generate) -> Path:
    """The file that `output` names; what only a run of its own can do is refused."""
    if settings.output is None:
        raise ConfigError("output: where are the texts to go?", "output=texts.jsonl")
    path = files.place(settings.output, "output")
    if path.suffix.lower() != ".jsonl" or path.is_dir():
        raise ConfigError(f"output: {path} should be a file that ends in .jsonl")
    if settings.teacher.joint or settings.teachers:
        raise ConfigError("distill generate: one teacher writes, prepared before: no teacher.joint, and no teachers")
    return path


def _check_room(model: Classifier, longest: int, tokens: int) -> None:
    positions = getattr(model.net, "max_length", None)
    if positions is not None and longest + tokens - 1 > positions:  # the last token is never read
        room = positions + 1 - longest
        hint = f"max_tokens={room}" if room > 0 else "a shorter prompt: dataset.length, prompt_tokens"
        raise ConfigError(
            f"max_tokens={tokens}: the teacher has {positions} positions, and a beginning has {longest} tokens", hint
        )


def _rows(settings: Generate, model: Classifier, data: Data, starts: Sequence[Tensor], numbers: range) -> list[Row]:
    """The rows of the file with these numbers: the samples of a beginning follow each other."""
    spec = data.input
    assert isinstance(spec, LanguageSpec)
    places = [divmod(number, settings.samples) for number in numbers]
    texts = [starts[index] for index, _ in places]
    seeds = [runtime.seed_of("generate", settings.seed, *place) for place in places]
    how = Drawing(settings.temperature, settings.top_k, settings.top_p)
    words = spec.tokenizer
    rows = []
    for place, start, made in zip(
        places, texts, write(model, texts, [settings.max_tokens] * len(texts), seeds, words.end, how), strict=True
    ):
        prompt, text, ended = behind(words, start, made)
        rows.append(
            {"index": place[0], "sample": place[1], "prompt": prompt, "text": text, "tokens": len(made), "ended": ended}
        )
    return rows
