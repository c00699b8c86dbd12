"""What a finished student says of pictures or texts: probabilities at T = 1, or how likely a text is and what follows it.

usage: distill predict ckpt=PATH input=INPUT [key=value ...] [options]

  distill predict ckpt=RUN input=photo.jpg
  distill predict ckpt=RUN input=photos output=p.csv              all pictures below a folder, a row each
  distill predict ckpt=RUN input=files.csv output=p.jsonl         those that the column `path` names
  distill predict ckpt=RUN input=photos sort_into=sorted threshold=0.9
  distill predict ckpt=RUN input="a text"                         a student of texts
  distill predict ckpt=RUN input=texts.jsonl output=p.csv         .csv, .tsv, .parquet or .txt as well
  ls photos/*.jpg | distill predict ckpt=RUN input=- output=p.csv
  distill predict ckpt=RUN input="Once upon a time" max_tokens=100 temperature=0.8      a language model

A checkpoint is a run, a student.safetensors with its model.json beside it, or an exported model.onnx likewise. A row has
the input, the predicted class, its probability as `confidence`, and every class's probability with all its digits; of a
language model how many tokens were judged, their mean negative log-likelihood in nats (`nll`), and what it writes behind the
text. An input that cannot be read is a row with its reason under `error`; the rest is written, and the exit code is 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distill_cli.base import files, runtime, ui
from distill_cli.base.errors import ConfigError, DataError
from distill_cli.config.schema import Predict
from distill_cli.deploy import inputs
from distill_cli.deploy.predicting import Answered, Asked, Table, copied
from distill_cli.deploy.predictor import Predictor
from distill_cli.tasks.watchers import Replies

SHOWN = 20  # inputs, up to which each is shown
OURS = ("top", "threshold", "max_tokens", "temperature", "seed")  # keys that not every task goes by


def run(settings: Predict) -> None:
    """Answer the inputs, write a row for each, and show a table.

    Raises:
        CheckpointError: the student cannot be used. ConfigError: `output` can be none, or the student takes other inputs.
        DataError: there are no inputs, or some could not be read; the others are written.
    """
    assert settings.ckpt is not None
    if settings.input is None:
        raise ConfigError(
            "input: what is to be answered?", "input=photo.jpg, a folder, a table, a text, or - for stdin"
        )
    output = _output(settings.output) if settings.output else None
    runtime.prepare(settings.threads)
    device = runtime.device(settings.device)
    predictor = Predictor.read(files.place(settings.ckpt, "ckpt"), settings.trust)
    replies, dataset = predictor.task(settings.trust).replies(settings), predictor.card["dataset"]
    for key in (override.partition("=")[0] for override in settings.typed):
        if key in OURS and key not in replies.keys:
            ui.warn(f"{key} has no effect on what is told of {predictor.reads.unit}")
    if settings.sort_into and "sort_into" not in replies.keys:
        raise ConfigError("sort_into: copies each file into the folder of its class, and this student names no classes")
    given = inputs.named(settings.input, predictor.reads, dataset)
    size = settings.batch_size or min(predictor.spec.at_once, predictor.network.taken.at_once)
    predictor.network.to(device)
    window = dataset.get("bucket") or inputs.BUCKET
    asked = Asked(predictor.network, replies, device, settings.workers, size, window)
    home = files.place(settings.sort_into, "sort_into") if settings.sort_into else None
    seen = Seen(home, given.number)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        lines = output.suffix.lower() == ".jsonl"

        def write(sink: files.Sink) -> None:
            table = Table(sink, replies, lines)
            for answered in seen.by(asked.answers(given)):
                table.add(answered)

        files.write(output, write)
    else:
        for _ in seen.by(asked.answers(given)):
            pass
    _show(seen, replies)
    if output:
        ui.show(f"predictions: {output}")
    if not seen.number:
        raise DataError("input: it holds no inputs")
    if seen.faults:
        first = seen.first_fault
        raise DataError(f"{seen.faults:,} of {seen.number:,} inputs could not be read; the first: {first}")


class Seen:
    """What came of the inputs so far, while they go by: the first answers, how many there are, and what could not be read.

    Args:
        home: a folder in which each file is copied into the folder of its class, if any. total: how many there are.
    """

    def __init__(self, home: Path | None, total: int | None) -> None:
        self.home, self.total = home, total
        self.first = list[Answered]()
        self.number, self.faults, self.copies, self.first_fault = 0, 0, 0, ""

    def by(self, answers: Iterator[Answered]) -> Iterator[Answered]:
        """The same answers, each looked at, under a progress bar."""
        with ui.bar(self.total, "predicting") as bar:
            for answered in answers:
                self._look(answered)
                yield answered
                bar.update(1)

    def _look(self, answered: Answered) -> None:
        self.number += 1
        if len(self.first) <= SHOWN:
            self.first.append(answered)
        if answered.facts is None:
            self.faults += 1
            self.first_fault = self.first_fault or answered.entry.fault
        elif self.home is not None and (name := answered.facts.get("predicted")):
            if not isinstance(answered.entry.content, Path):
                raise ConfigError("sort_into: copies files, and these inputs are none")
            copied(answered.entry.content, self.home, name)
            self.copies += 1


def _output(named: str) -> Path:
    """The file that `output` names, or a device or a pipe."""
    path = files.place(named, "output")
    if path.is_dir() or not (path.suffix.lower() in (".csv", ".jsonl") or path.exists()):
        raise ConfigError(f"output: {path} should be a file that ends in .csv or .jsonl")
    return path


def _show(seen: Seen, replies: Replies) -> None:
    """Each input where they are few, else all of them together."""
    if seen.number <= SHOWN:
        rows = []
        for entry, facts in seen.first:
            cells = ["-"] * (len(replies.head) - 1) + [entry.fault] if facts is None else replies.shown(facts)
            rows.append([", ".join(filter(None, entry.told.values())), *cells])
        ui.show(ui.table("at T = 1", ["input", *replies.head], rows, numbers=False))
    else:
        head, rows = replies.total()
        ui.show(ui.table(f"{seen.number:,} inputs, at T = 1", head, rows))
    if seen.home is not None:
        ui.show(f"copied: {seen.copies:,} of {seen.number:,} files into {seen.home}")
