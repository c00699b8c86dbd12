"""How a run's teachers answer: from what is kept of their answers, live, or trained along; and why so, for the header."""

from __future__ import annotations

from dataclasses import dataclass

from distill_cli.base.errors import ConfigError
from distill_cli.base.names import size
from distill_cli.config.schema import FIRST
from distill_cli.models.features import uneven
from distill_cli.teachers.store import needed
from distill_cli.training.job import Job


@dataclass(frozen=True)
class Way:
    """How teachers answer.

    Attributes:
        kind: joint, cached, live, or unused. layers: paths of the modules whose features are asked for.
        note: why so, in words. views: of how many views answers are kept.
    """

    kind: str
    layers: tuple[str, ...]
    note: str
    views: int = 0

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
        views = min(max(1, train.views), sum(stage.epochs for stage in job.stages))
        total, features = needed(job.teachers[FIRST], job.data, layers, views, len(job.teachers))
        if features <= teacher.cache_limit * 2**30:
            what = "logits and features" if layers else "logits"
            of = f" of {views} view{'s' if views > 1 else ''}" if train.draws else ""
            return Way("cached", layers, f"its {what}{of} are cached, {size(total)}", views)
        way = Way("live", layers, f"runs live: its features take {size(total)}, more than teacher.cache_limit")
    if unlike := [name for name, model in job.teachers.items() if model.spec != job.student.spec]:
        raise ConfigError(
            f"{unlike[0]}: reads {job.data.input.kind} in another way than the student, so it cannot answer the student's batches, "
            f"but it {way.note}",
            "its cached logits can teach: objectives on logits with teacher.cache=auto; or give both one dataset.tokenizer",
        )
    if teacher.cache == "on":
        raise ConfigError(f"teacher.cache=on: not in this run, where the teacher {way.note}", "use teacher.cache=auto")
    return way
