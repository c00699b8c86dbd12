"""What a batch asks of a model, and how the answers are judged: the interface of a task. Each task is in a file beside.

The data name their task (`Data.task`), so nothing outside this room and data/ knows what kind of task a run has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from distill_cli.base.errors import ConfigError
from distill_cli.base.metrics import METRICS
from distill_cli.config import building
from distill_cli.config.schema import Predict
from distill_cli.data import Batch, Data, Split
from distill_cli.models import Classifier, inference
from distill_cli.models.features import Output
from distill_cli.tasks.answers import OfRows
from distill_cli.tasks.rows import Rows, Signal, of_all_ranks
from distill_cli.tasks.watchers import Answers, Details, Meter, Replies, Watcher

SHORT = {"accuracy": "acc"}  # what metrics are called in an epoch's line

Ask = Callable[[Batch], Signal]  # what a teacher says of a batch of one split
Continue = Callable[[Classifier, Batch, int], Batch]  # what a model makes of the beginnings of a batch, by a seed


def chosen_by(best: Sequence[str]) -> str:
    """What chooses the best epoch, as `optimize` names it: of `Task.best` the first metric."""
    return f"val.{best[0].lstrip('-')}"


class Task(ABC):
    """What a batch of some data asks, and how answers are judged.

    Class attributes:
        unit: what a row is called in the plural, in which speed is counted.
        metric: what its runs are judged by, and `difference` is of. by_class: whether scores of single classes say something.
        best: the metrics that choose the best epoch, the first one first; one after a minus is better when it is lower.
            Where validation has no labels, the distance from the teacher does.

    Args:
        data: whose task it is.
    """

    unit: ClassVar[str]
    metric: ClassVar[str] = "accuracy"
    by_class: ClassVar[bool] = True
    best: tuple[str, ...]

    def __init__(self, data: Data) -> None:
        self.data = data
        if not len(data.val.labelled):
            self.best = ("-kl",)

    def mask(self, targets: Tensor) -> Tensor | None:
        """Which of the targets (N, ...) of N samples are rows, as bools of that shape; None: each sample has one target,
        and that is a row.
        """
        return None

    def rows(self, output: Output, batch: Batch) -> Rows:
        """The rows of a batch: padding and masks end here. One sample's rows follow each other, in the batch's order."""
        mask = self.mask(batch.targets)
        answers = output.answers
        if mask is not None:  # a batch may be as wide as its longest sample, and targets as the split's longest
            answers = answers[mask[:, : answers.shape[1]]]
        present = self.data.input.present(batch.inputs)
        return Rows(answers, *self.asked(batch.targets, batch.index), output.features, present, output.head)

    def asked(self, targets: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The targets (M,) of the rows of N samples, and of each row its sample's index (M,).

        Args:
            targets: of the samples, (N, ...). index: of the samples, (N,).
        """
        if (mask := self.mask(targets)) is None:
            return targets, index
        return targets[mask], index.repeat_interleave(mask.flatten(1).sum(1))

    def counts(self, targets: Tensor) -> Tensor | None:
        """How many rows each of N samples has, (N,) int64; None: one each."""
        mask = self.mask(targets)
        return None if mask is None else mask.flatten(1).sum(1)

    def num_rows(self, targets: Tensor) -> int:
        """How many rows N samples have together."""
        counts = self.counts(targets)
        return len(targets) if counts is None else int(counts.sum())

    def speed(self, samples: int, rows: int, seconds: float) -> dict[str, float]:
        """Samples a second, and rows a second in the task's unit where they are not the same."""
        speed = {"samples_per_second": samples / seconds}
        return speed if rows == samples else {**speed, f"{self.unit}_per_second": rows / seconds}

    def told_speed(self, row: Mapping[str, Any]) -> str:
        """The speed of an epoch's row for people, in the task's unit."""
        speed = row.get(f"{self.unit}_per_second", row["samples_per_second"])
        return f"{speed:,.0f} {self.unit}/s"

    def judged(self, row: Mapping[str, Any]) -> str:
        """What chooses the best epoch, and how far the student is from its teacher, of an epoch's row for people."""
        metrics, name = row["val"], row["chosen_by"].removeprefix("val.")
        fidelity = "".join(f"  {kl} {metrics[kl]:.3f}" for kl in metrics if kl.startswith("kl") and kl != name)
        return f"val {SHORT.get(name, name)} {metrics[name]:.4f}{fidelity}"

    def words(self) -> str:
        """What is asked of a sample, for people."""
        return f"{len(self.data.classes)} classes, {self.data.input.words()}"

    def require(self, optimize: str | None) -> None:
        """Refuse to be judged by what is not measured of it.

        Args:
            optimize: as in val.accuracy; None: what the task is judged by.

        Raises:
            ConfigError: its meter does not give that.
        """
        names = self.meter().names
        if optimize and optimize.removeprefix("val.") not in names:
            raise ConfigError(
                f"optimize={optimize}: that is not measured of {self.unit}",
                "choices: " + ", ".join(f"val.{name}" for name in names),
            )

    def suspicious(self, rows: Rows, names: Sequence[str]) -> str:
        """What is odd about a teacher's answers on validation, and what to check; else nothing.

        Args:
            names: what the teacher's classes are called, in its own order.
        """
        return ""

    def continuing(self, key: str) -> Continue:
        """How a model goes on with samples by itself.

        Args:
            key: what asks for it, for the message.

        Raises:
            ConfigError: nothing follows samples of this task.
        """
        raise ConfigError(
            f"{key}: a model of {self.unit} answers them and writes none", "it needs a language model: dataset=language"
        )

    def replies(self, how: Predict) -> Replies:
        """What a finished student says of inputs that nobody judges.

        Raises:
            ConfigError: a student of this task is not asked so.
        """
        raise ConfigError(
            f"distill predict: nothing is told of {self.unit} one by one", "distill eval predictions=FILE"
        )

    @abstractmethod
    def check(self, output: Output, role: str) -> None:
        """Refuse a model that cannot answer this task.

        Args:
            output: what it answers to two blank samples. role: what it is called in messages.

        Raises:
            ConfigError: it answers something else.
        """

    @abstractmethod
    def meter(self) -> Meter:
        """An empty meter."""

    @abstractmethod
    def difference(self, ours: Meter, theirs: Meter) -> dict[str, float]:
        """One model minus another on the same rows: the difference in `metric`, under its name, and `half_interval`, half its
        95 % interval.
        """

    def answers(self, both: bool) -> Answers:
        """An empty table of single answers.

        Args:
            both: whether it has a teacher's too.
        """
        return OfRows(self.data.classes, both)

    @abstractmethod
    def details(self) -> Details:
        """An empty collector of what a report shows."""


def of(data: Data, trust: Sequence[str] | None = None) -> Task:
    """The task that the data name.

    Args:
        trust: as in `building.build`.

    Raises:
        ConfigError: it does not exist, or is no task. CheckpointError: it is not trusted.
    """
    return building.build({"_target_": data.task}, Task, "the data's task", trust=trust, data=data)  # type: ignore[type-abstract]


def watch(
    task: Task,
    model: Classifier,
    split: Split,
    watchers: Sequence[Watcher],
    ask: Ask | None = None,
    batch_size: int | None = None,
) -> None:
    """Show a model's answers on a split to the watchers, in one pass.

    Args:
        ask: gives the teacher's signal on a batch. batch_size: as for `inference.outputs`.

    Raises:
        NonFiniteError, KeyboardInterrupt: as `inference.outputs`.
    """

    def answered() -> Iterator[tuple[Rows, Signal | None]]:
        for batch, output in inference.outputs(model, split, batch_size, deal=True):
            yield task.rows(output, batch), ask(batch) if ask else None

    for rows, signal in of_all_ranks(answered(), inference.num_batches(model, split, batch_size)):
        for watcher in watchers:
            watcher.update(rows, signal)


def measure(task: Task, model: Classifier, split: Split, ask: Ask | None = None) -> dict[str, float]:
    """The metrics of a model on a split; raises as `watch`."""
    meter = task.meter()
    watch(task, model, split, [meter], ask)
    return meter.compute()


def judged_by(optimize: str | None, task: Task, fidelity: bool = True) -> tuple[str, ...]:
    """The metrics that choose the best epoch: what `optimize` names, and the task's own for what that leaves equal.

    Args:
        fidelity: whether there is a teacher to be held against.
    """
    metric = (optimize or "").rpartition(".")[2]
    if not metric or (METRICS[metric].fidelity and not fidelity):
        return task.best
    sign = "-" if METRICS[metric].lower else ""
    return tuple(dict.fromkeys([f"{sign}{metric}", *task.best]))
