"""The data that a finished student is judged on, and the run it belongs to."""

from __future__ import annotations

from pathlib import Path

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError
from distill_cli.config.records import read
from distill_cli.config.schema import Dataset, Eval, Export
from distill_cli.data import Data, load
from distill_cli.deploy.onnx_file import SUFFIX
from distill_cli.models.deployable import Deployable
from distill_cli.models.naming import listed, order_of

Judging = Eval | Export  # settings that name a checkpoint and perhaps data


def run_of(student: Deployable) -> Path | None:
    """The folder of the run that a student belongs to: the one it lies in or, for a checkpoint, the one above; else None."""
    assert student.path is not None
    weights = student.path.suffix in (".safetensors", SUFFIX)
    folder = student.path.parent if weights else student.path.parent.parent
    return folder if (folder / "status.json").is_file() else None


def data_of(student: Deployable, settings: Judging, only: str | None) -> Data:
    """The data that settings name for a student, or its own, normalised as its were.

    Args:
        only: the one split that is wanted; None: all.

    Raises:
        CheckpointError: other classes or another size than the checkpoint was trained on.
    """
    card, spec, problems, path = student.card, student.spec, list[str](), student.path
    stored = settings.choices["dataset"] == "stored"
    dataset = settings.dataset or read(Dataset, card["dataset"], "dataset.", problems)
    if problems:
        raise CheckpointError("the checkpoint's card is damaged:\n" + "\n".join(problems))
    if stored:
        spec.check(dataset.plain)
    ours = card["classes"]
    data = load(
        dataset,
        settings.workers,
        settings.trust if stored else None,
        spec=spec,
        classes=lambda: ours,
        folder=lambda: path and path.parent,
        only=only,
    )
    ui.say(f"data: {data.note}")
    order, missing = order_of(ours, data.classes)
    if missing:
        known = f"{len(ours)} classes ({listed(ours)})"
        raise CheckpointError(f"the checkpoint answers {known}: it does not know the data's {listed(missing)}")
    if order:
        ui.say(f"the data's {len(order)} classes are matched by name with the {len(ours)} that the checkpoint answers")
        data = data.answered(ours, order)
    spec.check(data.input)
    return data.under(spec)
