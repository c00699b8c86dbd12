"""How a run's teachers answer: from what is kept of their answers, live, or trained along; and why so, for the header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from distill_cli.base.errors import ConfigError
from distill_cli.base.names import size
from distill_cli.config.schema import FIRST
from distill_cli.models.features import uneven
from distill_cli.objectives import Objective
from distill_cli.teachers.keeping import GIVE, halved, keeper, whole
from distill_cli.teachers.store import of_features, of_rows
from distill_cli.training.job import Job

LIVE = "runs live: "


@dataclass(frozen=True)
class Way:
    """How teachers answer.

    Attributes:
        kind: joint, cached, live, or unused. layers: paths of the modules whose features are asked for.
        note: why so, in words. views: of how many views answers are kept. keep: what is kept of each row, as `teacher.keep` has
            it; None: all logits, each teacher's as it takes the fewest bytes. kept: of `layers` those whose features are kept too:
            where answers are kept, a live teacher runs only for who reads others.
    """

    kind: str
    layers: tuple[str, ...]
    note: str
    views: int = 0
    keep: str | None = None
    kept: tuple[str, ...] = ()

    @property
    def joint(self) -> bool:
        return self.kind == "joint"


def way_of(job: Job) -> Way:
    """Choose how the teachers answer: from their cache where the inputs are fixed and what is asked is not too much to keep. A
    stage that reads no features does so also where those that others read cannot be kept.

    Raises:
        ConfigError: teacher.cache=on, but the teacher would have to run on the training samples.
    """
    asking = [stage.name for stage in job.stages if job.losses[stage.name].asks_teacher]
    layers, train, teacher = _layers(job, asking), job.data.train, job.settings.teacher
    if layers and len(job.teachers) > 1:
        raise ConfigError(
            f"objective: {_readers(job)} learns from features, and so from one teacher alone",
            "with several teachers choose objectives on logits, as in objective=kd",
        )
    if teacher.joint:
        way = Way("joint", layers, "is trained along with the student")
    elif not asking:
        return Way("unused", (), "not asked: labels only")
    elif train.draws and not train.views:
        way = _live(layers, "with dataset.views=0 every epoch shows new pixels (dataset.views=4: cached)")
    elif teacher.cache == "off":
        way = _live(layers, "teacher.cache=off")
    elif teacher.cache == "auto" and job.steps < job.per_epoch:
        way = _live(
            layers, f"the run's {job.steps:,} steps ask it of a part of train, once (teacher.cache=on: kept of all)"
        )
    else:
        way = _kept(job, asking, layers)
        if way.kind == "cached" and not job.settings.on_policy:
            return way
        deep = [name for name in asking if job.losses[name].teacher_layers]
        if way.kind == "live" and deep and (rest := [name for name in asking if name not in deep]):
            kept = _kept(job, rest, ())
            if kept.kind == "cached":
                why = way.note.removeprefix(LIVE)
                note = f"runs live in {', '.join(deep)}: {why}; in {', '.join(rest)} {kept.note}"
                way = replace(kept, kind="live", layers=layers, note=note)
    if unlike := [name for name, model in job.teachers.items() if model.spec != job.student.spec]:
        raise ConfigError(
            f"{unlike[0]}: reads {job.data.input.kind} in another way than the student, so it cannot answer the student's batches, "
            f"but it {'runs live on what that writes' if way.kind == 'cached' else way.note}",
            "its cached logits can teach: objectives on logits with teacher.cache=auto; or give both one dataset.tokenizer",
        )
    if teacher.cache == "on" and way.kind != "cached":
        raise ConfigError(f"teacher.cache=on: not in this run, where the teacher {way.note}", "use teacher.cache=auto")
    return way


def _layers(job: Job, stages: Sequence[str]) -> tuple[str, ...]:
    """Paths of the teacher's modules whose features some stages read."""
    return tuple(sorted({path for name in stages for path in job.losses[name].teacher_layers}))


def _readers(job: Job) -> str:
    """The objectives that read features, by name."""
    named = {name for loss in job.losses.values() for name, one in loss.objectives.items() if one.teacher_layers}
    return ", ".join(sorted(named))


def _live(layers: tuple[str, ...], why: str) -> Way:
    return Way("live", layers, f"{LIVE}{why}")


def _kept(job: Job, stages: Sequence[str], layers: tuple[str, ...]) -> Way:
    """How answers are kept: as `teacher.keep` says, else all logits where they are few, or hidden states, or the likeliest
    classes, whichever comes first that the objectives can read and that is not too large; else the teacher runs live.

    Args:
        stages: those that are answered so. layers: paths of the modules whose features they read.
    """
    teacher, model = job.settings.teacher, job.teachers[FIRST]
    if uneven(model, layers):
        return _live(layers, f"what is read by {_readers(job)} is as long as each sample, and not kept")
    objectives = [item for name in stages for item in job.losses[name].objectives.items()]
    readers = [(name, one) for name, one in objectives if one.reads]
    views, several = min(max(1, job.data.train.views), job.epochs), len(job.teachers) > 1
    limit, features = teacher.cache_limit * 2**30, views * of_features(model, job.data, layers)
    choices = (
        (teacher.keep,) if teacher.keep != "auto" else ("logits",) if whole(model) == "logits" else ("hidden", "topk")
    )
    for name in choices:
        if wrong := _refused(name, job, readers, several):
            if teacher.keep == "auto":
                continue
            raise ConfigError(*wrong)
        shape = name, model, len(job.data.classes), teacher.words, torch.float32
        held = keeper(*shape)
        if half := halved(teacher.cache_dtype, of_rows(held, job.data)) and name in GIVE["logits"]:
            held = keeper(*shape, half=True)
        rows = views * len(job.teachers) * of_rows(held, job.data)
        if features + (0 if name == "logits" else rows) > limit:
            continue
        told = {"hidden": "its hidden states", "topk": f"its {teacher.words} likeliest words of each {job.task.unit[:-1]}",
                "sampled": f"{teacher.words} samples of each of its answers"}.get(name, "its logits")  # fmt: skip
        of = f" of {views} view{'s' if views > 1 else ''}" if job.data.train.draws else ""
        in_half = " in fp16" * half
        note = f"{told}{in_half}{' and features' if layers else ''}{of} are cached, {size(rows + features)}"
        return Way("cached", layers, note, views, name, layers)
    what = "features take" if layers else "answers take"
    return _live(layers, f"its {what} {size(features or rows)}, more than teacher.cache_limit")


def _refused(keep: str, job: Job, readers: Sequence[tuple[str, Objective]], several: bool) -> tuple[str, str] | None:
    """Why answers cannot be kept so in this run, and what to do; None: they can."""
    said, all_of_them = f"teacher.keep={keep}", "teacher.keep=hidden, or a live teacher: teacher.cache=off"
    if keep == "hidden" and any(model.head is None for model in job.teachers.values()):
        return f"{said}: the teacher's network has no head that could be run apart", "teacher.keep=logits"
    if keep not in GIVE["logits"] and several:
        return f"{said}: what several teachers say together needs the logits of all classes", "teacher.keep=logits"
    words, classes = job.settings.teacher.words, len(job.data.classes)
    if keep in ("topk", "sampled") and words > classes:
        return f"teacher.words={words}: the data have {classes:,} to choose from", f"teacher.words={classes // 4}"
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
