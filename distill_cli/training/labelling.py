"""What a run needs of its data's labels, where some are missing, and what is said of them; what they count: data/labels.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill_cli.base.errors import ConfigError
from distill_cli.base.metrics import METRICS
from distill_cli.config.schema import Train
from distill_cli.data import Data
from distill_cli.data.dataset import SPLITS
from distill_cli.objectives import Objective
from distill_cli.training.schedule import Stage

READY = "name a teacher that is ready: teacher.checkpoint=RUN_OR_FILE"


def check(settings: Train, data: Data, stages: Sequence[Stage], objectives: Mapping[str, Objective]) -> None:
    """Refuse what the labels that there are do not allow.

    Raises:
        ConfigError: naming the key that asks for more.
    """
    train, used = data.train, {name for stage in stages for name in stage.objectives}
    metric = (settings.optimize or "").rpartition(".")[2]
    if metric and not METRICS[metric].fidelity and not len(data.val.labelled):
        raise ConfigError(f"optimize={settings.optimize}: validation has no labels", "use optimize=val.kl")
    if metric == "mcc" and len(data.classes) != 2:
        raise ConfigError(
            f"optimize={settings.optimize}: is of two classes, and the data have {len(data.classes)}",
            "use optimize=val.f1",
        )
    if settings.baseline:
        require(data, "baseline=true", "use baseline=false")
    if settings.on_policy == 1 and any(objectives[name].fitted for name in used):
        raise ConfigError("weight=auto: is found against the labels' gradient, and with on_policy=1 no label counts")
    if train.complete and not settings.on_policy:
        return
    missing = f"{len(train) - len(train.labelled):,} of {len(train):,} training samples have none"
    if settings.on_policy:
        missing = f"with on_policy={settings.on_policy:g} what the student writes has none"
    for name in sorted(used):
        if objectives[name].needs_labels and not objectives[name].labels_only:
            hint = "choose one that reads none, as in objective=kd"
            raise ConfigError(f"objective.{name}: reads the label of every sample, and {missing}", hint)
    if settings.teacher.joint:
        raise ConfigError(f"teacher.joint: learns from the label of every sample, and {missing}", READY)
    if settings.teachers and settings.teacher.choose == "best":
        raise ConfigError(f"teacher.choose=best: reads the label of every sample, and {missing}", "use mean")
    if not len(train.labelled):
        _check_without(stages, objectives, f"train has none ({data.note})")


def _check_without(stages: Sequence[Stage], objectives: Mapping[str, Objective], none: str) -> None:
    """Refuse what cannot be without any labels; `none` says that there are none."""
    for stage in stages:
        terms = [objectives[name] for name in stage.objectives]
        if any(term.labels_only for term in terms):
            raise ConfigError(
                f"schedule.{stage.name}: objective={stage.objectives[0]} learns from labels, and {none}",
                "objective=kd alpha=1 learns from a teacher alone",
            )
        if any(term.alpha_weighted for term in terms) and (low := min(stage.alpha.start, stage.alpha.end)) < 1:
            raise ConfigError(
                f"schedule.{stage.name}.alpha: goes to {low:g}, which leaves {1 - low:g} to labels, and {none}",
                "alpha=1 schedule=constant learns from the teacher alone",
            )
        if any(term.fitted for term in terms):
            raise ConfigError(f"weight=auto: is found against the labels' gradient, and {none}", "give a number")


def require(data: Data, who: str, hint: str) -> None:
    """Refuse to train on labels alone where train, or validation for the best epoch, has none.

    Raises:
        ConfigError: it is so.
    """
    for name in ("train", "val"):
        if not len(getattr(data, name).labelled):
            raise ConfigError(f"{who} needs labels, and {'validation' if name == 'val' else name} has none", hint)


def said(data: Data) -> str:
    """What is to be known of the labels and of how classes are weighed, for the header; of labels as usual nothing."""
    counts = {name: (len(split.labelled), len(split)) for name in SPLITS if not (split := getattr(data, name)).complete}
    parts = [f"{some:,} of {all_:,} in {name}" if some else f"none in {name}" for name, (some, all_) in counts.items()]
    if "train" in counts:
        parts.append("samples without one learn from the teacher alone")
    if "val" in counts and not counts["val"][0]:
        parts.append("the best epoch has the lowest val.kl")
    if data.class_weights is not None and (weights := data.labelled().row_weights) is not None:
        parts.append(f"classes weigh {float(weights.min()):.3g} to {float(weights.max()):.3g}")
    if data.train.balanced:
        parts.append("an epoch shows each class equally often")
    return "; ".join(parts)
