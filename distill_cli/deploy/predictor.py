"""A finished student that answers: raw samples -> probabilities at T = 1. All that uses one goes through here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from distill_cli.base import runtime
from distill_cli.base.errors import CheckpointError
from distill_cli.data import Batch, Data, Spec, Split, read_spec
from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Held
from distill_cli.deploy.onnx_file import SUFFIX, OnnxNet, Raw
from distill_cli.models import Classifier, evaluating, inference, probe
from distill_cli.models.deployable import Deployable, read_card, verified
from distill_cli.models.features import Output
from distill_cli.tasks import task as tasks
from distill_cli.tasks.answers import probabilities
from distill_cli.tasks.task import Task

PROGRAM = ".pt2"  # of torch.export: written, never read


@dataclass(frozen=True)
class Predictor(Deployable):
    """A student that is asked; its network may be an exported file, whose spec takes raw samples as they are."""

    @classmethod
    def read(cls, path: Path, trust: Sequence[str] = (), spec: Spec | None = None) -> Self:
        """The student that `path` names: as `Deployable.read`, or an exported .onnx file, or the folder of one."""
        path = path.absolute()
        if path.suffix == PROGRAM:
            raise CheckpointError(
                f"{path}: such a file may run code as it is read, so it is written and never read",
                "give the run, or distill export ckpt=RUN format=onnx",
            )
        if path.is_dir():
            path = path / Path(read_card(path)["weights"]).name
        if path.suffix != SUFFIX:
            return super().read(path, trust, spec)
        card = read_card(path.parent)
        net = OnnxNet(verified(path, card["sha256"]), torch.get_num_threads())
        raw: Any = Raw(read_spec(card["input"], trust, path.parent))
        return cls(card, Classifier(net, raw), path)

    @property
    def reads(self) -> Spec:
        """What its inputs are like before anything is made of them."""
        return self.spec.spec if isinstance(self.spec, Raw) else self.spec

    def task(self, trust: Sequence[str] = ()) -> Task:
        """What it was trained to answer, of no data.

        Raises:
            CheckpointError: the card names a task that is not trusted. ConfigError: the network cannot answer it.
        """
        none = Split(Held(of_inputs.take(self.reads.stored(1), torch.arange(0))), torch.arange(0), self.reads)
        named = self.card.get("task", Data.task)
        task = tasks.of(Data(none, none, none, tuple(self.card["classes"]), "", "", named), trust)
        task.check(Output(probe(self.network, "student"), head=self.network.head), "student")
        return task

    def __call__(self, raw: Inputs) -> Tensor:
        """Raw samples, as a source stores them -> probabilities (N, C)."""
        with evaluating(self.network), torch.inference_mode(), runtime.exact():
            return self.probabilities(raw)

    def probabilities(self, raw: Inputs) -> Tensor:
        """The same in the mode that is on, for who measures and has set it."""
        return probabilities(self.network(self.spec.inputs(raw)))

    def answers(self, split: Split, batch_size: int | None = None) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch of a split with its probabilities (n, C); see `inference.outputs`, which evaluation goes through too."""
        for batch, output in inference.outputs(self.network, split, batch_size):
            yield batch, probabilities(output.logits)
