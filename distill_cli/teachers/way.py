"""How a run's teachers answer: from what is kept of their answers, live, or trained along; and why so, for the header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distill_cli.base.errors import ConfigError
from distill_cli.base.names import size
from distill_cli.config.schema import FIRST
from distill_cli.models.features import uneven
from distill_cli.objectives import Objective
from distill_cli.teachers.keeping import GIVE, keeper, whole
from distill_cli.teachers.store import of_features, of_rows
from distill_cli.training.job import Job


@dataclass(frozen=True)
class Way:
    """How teachers answer.

    Attributes:
        kind: joint, cached, live, or unused. layers: paths of the modules whose features are asked for.
        note: why so, in words. views: of how many views answers are kept. keep: what is kept of each row, as `teacher.keep` has
            it; None: all logits, each teacher's as it takes the fewest bytes.
    """

    kind: str
    layers: tuple[str, ...]
    note: str
    views: int = 0
    keep: str | None = None

    @property
    def joint(self) -> bool:
        return self.kind == "joint"


def way_of(job: Job) -> Way:
    """Choose how the teachers answer: from their cache where the inputs are fixed and what is asked is not too much to keep.

    Raises:
        ConfigError: teacher.cache=on, but the teacher would have to run on the training samples.
    """
    asked = [(name, o) for loss in job.losses.values() for name, o in loss.objectives.items() if o.needs_teacher]
    layers = tuple(sorted({path for _, objective in asked for path in objective.teacher_layers}))
    train, teacher = job.data.train, job.settings.teacher
    readers = ", ".join(sorted({name for name, objective in asked if objective.teacher_layers}))
    if layers and len(job.teachers) > 1:
        raise ConfigError(
            f"objective: {readers} learns from features, and so from one teacher alone",
            "with several teachers choose objectives on logits, as in objective=kd",
        )
    if teacher.joint:
        way = Way("joint", layers, "is trained along with the student")
    elif not asked:
        return Way("unused", (), "not asked: labels only")
    elif train.draws and not train.views:
        way = Way(
            "live", layers, "runs live: with dataset.views=0 every epoch shows new pixels (dataset.views=4: cached)"
        )
    elif teacher.cache == "off":
        way = Way("live", layers, "runs live: teacher.cache=off")
    elif uneven(job.teachers[FIRST], layers):
        way = Way("live", layers, f"runs live: what is read by {readers} is as long as each sample, and not kept")
    else:
        way = _kept(job, [(name, o) for name, o in asked if o.reads], layers)
        if way.kind == "cached":
            return way
    if unlike := [name for name, model in job.teachers.items() if model.spec != job.student.spec]:
        raise ConfigError(
            f"{unlike[0]}: reads {job.data.input.kind} in another way than the student, so it cannot answer the student's batches, "
            f"but it {way.note}",
            "its cached logits can teach: objectives on logits with teacher.cache=auto; or give both one dataset.tokenizer",
        )
    if teacher.cache == "on":
        raise ConfigError(f"teacher.cache=on: not in this run, where the teacher {way.note}", "use teacher.cache=auto")
    return way


def _kept(job: Job, readers: Sequence[tuple[str, Objective]], layers: tuple[str, ...]) -> Way:
    """How answers are kept: as `teacher.keep` says, else all logits where they are few, or hidden states, or the likeliest
    classes, whichever comes first that the objectives can read and that is not too large; else the teacher runs live.

    Args:
        readers: the objectives that read answers, by name.
    """
    teacher, model = job.settings.teacher, job.teachers[FIRST]
    views, several = min(max(1, job.data.train.views), sum(stage.epochs for stage in job.stages)), len(job.teachers) > 1
    limit, features = teacher.cache_limit * 2**30, views * of_features(model, job.data, layers)
    choices = (
        (teacher.keep,) if teacher.keep != "auto" else ("logits",) if whole(model) == "logits" else ("hidden", "topk")
    )
    for name in choices:
        if wrong := _refused(name, job, readers, several):
            if teacher.keep == "auto":
                continue
            raise ConfigError(*wrong)
        held = keeper(name, model, len(job.data.classes), teacher.words, torch.float32)
        rows = views * len(job.teachers) * of_rows(held, job.data)
        if features + (0 if name == "logits" else rows) > limit:
            continue
        words = min(teacher.words, len(job.data.classes))
        told = {"hidden": "its hidden states", "topk": f"its {words} likeliest words of each {job.task.unit[:-1]}",
                "sampled": f"{words} samples of each of its answers"}.get(name, "its logits")  # fmt: skip
        of = f" of {views} view{'s' if views > 1 else ''}" if job.data.train.draws else ""
        note = f"{told}{' and features' if layers else ''}{of} are cached, {size(rows + features)}"
        return Way("cached", layers, note, views, name)
    what = "features take" if layers else "answers take"
    return Way("live", layers, f"runs live: its {what} {size(features or rows)}, more than teacher.cache_limit")


def _refused(keep: str, job: Job, readers: Sequence[tuple[str, Objective]], several: bool) -> tuple[str, str] | None:
    """Why answers cannot be kept so in this run, and what to do; None: they can."""
    said, all_of_them = f"teacher.keep={keep}", "teacher.keep=hidden, or a live teacher: teacher.cache=off"
    if keep == "hidden" and any(model.head is None for model in job.teachers.values()):
        return f"{said}: the teacher's network has no head that could be run apart", "teacher.keep=logits"
    if keep not in GIVE["logits"] and several:
        return f"{said}: what several teachers say together needs the logits of all classes", "teacher.keep=logits"
    for name, objective in readers:
        if keep not in GIVE[objective.reads]:
            return f"objective.{name}: needs the whole vocabulary, and {said} leaves most of it out", all_of_them
    temperatures = [T for stage in job.stages for T in (stage.T.start, stage.T.end)]
    if keep == "topk" and min(temperatures) < 1:
        return (
            f"{said}: the rest's mass is known from T = 1 on, and the schedule goes to T = {min(temperatures):g}",
            all_of_them,
        )
    if keep == "sampled" and set(temperatures) != {1.0}:
        return (
            f"{said}: the samples are drawn at T = 1, and the schedule has T = {max(temperatures):g}",
            "T=1, or teacher.keep=topk",
        )
    if keep not in GIVE["logits"] and job.settings.optimize == "val.kl":
        return f"{said}: optimize=val.kl needs all words in every epoch", "optimize=val.nll, or teacher.keep=hidden"
    return None
