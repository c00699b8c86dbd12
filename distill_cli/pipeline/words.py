"""A run in a person's words while it is under way: the header before it, the line of an epoch; what came of it: outcome.py."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from distill_cli import models
from distill_cli.config import schema
from distill_cli.models import Classifier, deployable
from distill_cli.models.origin import fit_epochs
from distill_cli.tasks.task import Task
from distill_cli.training.balance import Balance
from distill_cli.training.job import Job
from distill_cli.training.schedule import Ramp

FAR = 10  # a given weight is doubted where it is so many times another than a balanced one


class Clock:
    """Seconds spent where: `with clock("train"): ...` adds to clock.seconds["train"]."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: tuple[str, float] | None = None

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._running = part, time.perf_counter()
        yield
        self.seconds, self._running = self.so_far(), None

    def so_far(self) -> dict[str, float]:
        """The seconds until now, those of the part under way among them."""
        if self._running is None:
            return dict(self.seconds)
        part, started = self._running
        return {**self.seconds, part: self.seconds.get(part, 0.0) + time.perf_counter() - started}

    def restore(self, earlier: Mapping[str, float]) -> None:
        """Count what an earlier try of the same run spent as well."""
        for part, seconds in earlier.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds


def header(job: Job, teaching: str, spread: str = "") -> Table:
    """The composed recipe: who teaches whom, on what data, by which loss in each stage.

    Args:
        teaching: how the teacher answers. spread: over which processes the run is, if over several.
    """
    data, config = job.data, job.settings
    sizes = job.sizes
    smaller, shown = sizes["teacher"] / sizes["student"], job.student.front.note and f", {job.student.front.note}"
    learn = sum(p.numel() for p in job.student.parameters() if p.requires_grad)
    learning = f", of which {learn:,} learn" if learn < sizes["student"] and not config.student.lora.rank else ""
    rows = [
        ("teacher", f"{_taught_by(job)}; {teaching}"),
        ("student", f"{_named(config.student, job.student)}  {sizes['student']:,} parameters{learning}, "
                    f"{smaller:.3g}x smaller{shown}"),
        ("data", f"{config.dataset.name}  {len(data.train):,} train, {len(data.val):,} val, {len(data.test):,} test, "
                 f"{job.task.words()}  ({data.note})"),
    ]  # fmt: skip
    for stage in job.stages:
        rest = Ramp(1 - stage.alpha.start, 1 - stage.alpha.end)
        loss = job.losses[stage.name].formula(str(stage.T), str(stage.alpha), str(rest))
        extras = (f",  lr {stage.lr:g}" if stage.lr else "") + (",  int8" if stage.quantize else "")
        rows.append((stage.name, f"{stage}  L = {loss}{extras}"))
    kind, curve = job.recipe.node["_target_"].rpartition(".")[2], job.recipe.curve.shape
    precision = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[str(job.dtype).removeprefix("torch.")]
    rows.append(("optimizer", f"{kind}, lr {job.recipe.lr:g} {curve}, batch {config.batch_size}, seed {config.seed}, "
                              f"{job.device} {precision}" + _extras(job)))  # fmt: skip
    rows += [("ranks", spread)] * bool(spread)
    rows += job.remarks.items()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for label, text in rows:
        table.add_row(label, Text(text))
    return table


def _extras(job: Job) -> str:
    """What is set beyond the usual: label smoothing, weight decay, clipping, accumulation."""
    extras = {
        "label smoothing": job.settings.label_smoothing,
        "weight decay": job.recipe.node.get("weight_decay"),
        "clip": job.recipe.clip,
        "accumulate": job.recipe.accumulate if job.recipe.accumulate > 1 else None,
    }
    return "".join(f", {name} {value:g}" for name, value in extras.items() if value)


def _named(chosen: schema.Open, model: Classifier) -> str:
    stem = models.rebuild_node(chosen.plain, model).get("stem")
    return chosen.name + (f" ({stem} stem)" if stem else "")


def _taught_by(job: Job) -> str:
    """Who teaches: a name, its size, where its weights come from; of several each one's share too."""
    parts = [
        f"{_named(job.chosen[name], model)}  {models.num_parameters(model):,} parameters  {_origin(job.chosen[name], model)}"
        for name, model in job.teachers.items()
    ]
    if len(parts) == 1:
        return parts[0]
    if job.settings.teacher.choose == "best":
        return "  or  ".join(parts) + ", for each sample the one that is surest of its label"
    shares = (teacher.weight for teacher in job.chosen.values())
    return "  +  ".join(f"{share:g} x {part}" for share, part in zip(shares, parts, strict=True))


def _origin(teacher: schema.Teacher, model: Classifier) -> str:
    """Where a teacher's weights come from, and what it is shown and asked that is not as the data have it."""
    weights = teacher.node.get("weights") or getattr(model.net, models.BROUGHT, "scratch")
    if teacher.checkpoint:
        path = Path(teacher.checkpoint).expanduser()
        weights = f"{path.name}/{deployable.read_card(path)['weights']}" if path.is_dir() else path.name
    matched = (
        f"its {len(teacher.classes)} classes matched by name" if model.order is not None and teacher.classes else ""
    )
    rank = teacher.fit.lora.rank
    part = "its head alone is fitted" if teacher.fit.freeze else f"adapters of rank {rank} are fitted" if rank else ""
    frozen = part if fit_epochs(teacher, model) else ""
    return ", ".join(filter(None, (f"from {weights}", frozen, model.front.note, matched)))


def epoch_line(row: Mapping[str, Any], epochs: int, task: Task) -> str:
    """One epoch in one line; a star marks the best on validation so far."""
    loss = row["loss"]
    terms = " ".join(f"{name} {value:.3f}" for name, value in loss.items() if name != "total")
    return (
        f"{row['stage']:<8} {row['epoch']:>3}/{epochs}  T {row['T']:.2f}  α {row['alpha']:.2f}  lr {row['lr']:.1e}  "
        f"loss {loss['total']:.3f} ({terms})  {task.judged(row)}  "
        f"{task.told_speed(row)}{'  *' if row['best'] else ''}"
    )


def debug_line(row: Mapping[str, Any]) -> str:
    """What each term weighs at the epoch's end: its weighted value, and its gradient against cross-entropy's."""
    parts = (f"{name} {term['weighted']:.3g} ({term['gradient_ratio']:.2f})" for name, term in row["debug"].items())
    return "  weighted terms, and |their gradient| / |grad CE|:  " + "   ".join(parts)


def weights_found(balance: Balance) -> dict[str, str]:
    """By objective, a line for a weight that was found."""
    lines = {}
    for name, one in balance.objectives.items():
        if one.fitted and balance.settled(name):
            times = f"{one.fitted.balance:g} x " if one.fitted.balance != 1 else ""
            how = f"{times}the median of |grad CE| / |grad {name}| over {len(balance.ratios[name])} steps"
            if balance.ratio(name) is None:
                how = f"in {len(balance.ratios[name])} steps its gradient on the student was 0"
            lines[name] = f"weight of {name}: {one.weight:.4g} ({how}; measuring took {balance.seconds:.1f} s)"
    return lines


def weights_off(balance: Balance) -> dict[str, str]:
    """By objective, a warning where the weight that was given is far from one that would balance the gradients."""
    lines = {}
    for name, one in balance.objectives.items():
        ratio = balance.ratio(name)
        if not one.fitted and ratio and one.weight and not 1 / FAR <= one.weight / ratio <= FAR:
            off = one.weight / ratio
            size = f"{off:.3g} times as large as" if off > 1 else f"{1 / off:.3g} times smaller than"
            lines[name] = (
                f"objective.{name}.weight={one.weight:g} makes its gradient {size} that of the labels, measured in one step: "
                f"it may suit another network. objective.{name}.weight=auto finds one for this; about {ratio:.2g}"
            )
    return lines
