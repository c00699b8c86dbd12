"""The typed and bounded shape of every configuration; knows neither Hydra's search path nor torch.

Scalars and stages are structured configs, so a misspelt key or a word for a number is refused while composing.
Models, datasets, optimizers and objectives stay open mappings (a class brings its own keys, checked against its
signature when it is built); the keys that belong to us in them are described by the dataclasses named in `node`.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_cli import arrangement
from distill_cli.errors import ConfigError, did_you_mean
from distill_cli.kinds import LARGEST, complaint, describe, fits, plain, shown

# What a run can be judged by on validation, and where to: test is for the end.
DIRECTIONS = {"accuracy": "maximize", "f1": "maximize", "agreement": "maximize", "nll": "minimize", "ece": "minimize",
              "kl": "minimize"}  # fmt: skip


def direction(metric: str) -> str:
    """Where to a search moves a metric, as in val.accuracy: maximize or minimize."""
    return DIRECTIONS[metric.rpartition(".")[2]]


def bounded(default: Any = dataclasses.MISSING, **rules: Any) -> Any:
    """A field with bounds gt, ge, lt, le, choices, and rules for what a value may be.

    ramp: a number or [from, to]; names: one or a list; filled: text that is not empty; flag: true or false, where
    omegaconf would take 3 and yes for true; size: auto or pixels; every: steps or a time; node: an open mapping with
    the known keys of that dataclass; nodes: a mapping of such.
    """
    if isinstance(default, dict | list):
        return field(default_factory=lambda: default.copy(), metadata=rules)
    return field(default=default, metadata=rules)


@dataclass
class Stage:
    epochs: int = bounded(1, ge=0)
    T: Any = bounded("${T}", ramp=True, gt=0)
    alpha: Any = bounded("${alpha}", ramp=True, ge=0, le=1)
    shape: str = bounded("linear", choices=("linear", "cosine"))
    objective: Any = bounded(None, names=True)
    lr: Optional[float] = bounded(None, gt=0)  # noqa: UP045 - omegaconf reads the annotation


@dataclass
class Fit:
    epochs: int | None = bounded(None, ge=0)
    optimizer: str = bounded("adamw", filled=True)
    lr: float | None = bounded(None, gt=0)
    weight_decay: float | None = bounded(None, ge=0)
    batch_size: int = bounded(64, ge=1)
    seed: int = bounded(0, ge=0)


@dataclass
class Student:
    _target_: str = bounded(filled=True)


@dataclass
class Member:
    """A further teacher, or a link's model: what it does not say of a teacher's keys it takes from the first one."""

    _target_: str = bounded(filled=True)


@dataclass
class Teacher:
    _target_: str = bounded(filled=True)
    checkpoint: str | None = bounded(None, filled=True)
    weight: float = bounded(1.0, gt=0)
    joint: bool = False
    mutual: bool = False
    choose: str = bounded("mean", choices=("mean", "best"))
    cache: str = bounded("auto", choices=("auto", "off", "on"))
    cache_limit: float = bounded(4.0, ge=0)
    mean: list[float] | None = None
    std: list[float] | None = bounded(None, gt=0)
    fit: Fit = bounded(None, node=Fit)


@dataclass
class Augmentation:
    flip: bool = False
    crop: int = bounded(0, ge=0)
    rotation: float = bounded(0.0, ge=0, le=180)


@dataclass
class Dataset:
    _target_: str = bounded(filled=True)
    root: str | None = bounded(None, filled=True)
    download: bool = True
    size: Any = bounded("auto", size=True)
    mean: list[float] | None = None
    std: list[float] | None = bounded(None, gt=0)
    val_fraction: float = bounded(0.1, gt=0, lt=1)
    split_seed: int = bounded(0, ge=0)
    memory: float = bounded(2.0, ge=0)
    augmentation: Augmentation = bounded(None, node=Augmentation)
    views: int = bounded(0, ge=0)
    view_seed: int = bounded(0, ge=0)
    limit: int | None = bounded(None, ge=1)
    label_noise: float = bounded(0.0, ge=0, lt=1)


@dataclass
class Optimizer:
    _target_: str = bounded(filled=True)
    lr: float = bounded(1e-3, gt=0)
    weight_decay: float = bounded(0.0, ge=0)
    momentum: float = bounded(0.0, ge=0, lt=1)
    curve: str = bounded("constant", choices=("constant", "cosine", "step"))
    warmup: float = bounded(0.0, ge=0, lt=1)
    milestones: list[float] = bounded([], gt=0, lt=1)
    gamma: float = bounded(0.1, gt=0, le=1)
    clip: float | None = bounded(None, gt=0)
    accumulate: int = bounded(1, ge=1)


@dataclass
class Objective:
    _target_: str = bounded(filled=True)
    weight: float = bounded(1.0, ge=0)
    warmup: float = bounded(0.0, ge=0, lt=1)


@dataclass
class Logger:
    _target_: str = bounded(filled=True)


# Structured configs below: omegaconf 2.3 wants Optional[...] spelt out.
@dataclass
class Device:
    device: str = bounded("auto", filled=True)
    batch_size: int = bounded(64, ge=1)
    workers: int = bounded(0, ge=0, le=4096)
    threads: Optional[int] = bounded(None, ge=1, le=4096)  # noqa: UP045
    dataset: Any = bounded(None, node=Dataset)


@dataclass
class Train(Device):
    T: float = bounded(3.0, gt=0)
    alpha: float = bounded(0.7, ge=0, le=1)
    seed: int = bounded(0, ge=0)
    label_smoothing: float = bounded(0.0, ge=0, lt=1)
    precision: str = bounded("auto", choices=("auto", "fp32", "bf16", "fp16"))
    compile: Any = bounded(False, flag=True)
    baseline: Any = bounded(False, flag=True)
    report: Any = bounded(True, flag=True)
    debug: Any = bounded(False, flag=True)
    optimize: str = bounded("val.accuracy", choices=tuple(f"val.{name}" for name in DIRECTIONS))
    save_every: Any = bounded("5m", every=True)
    output_dir: str = bounded("outputs", filled=True)
    run_dir: Optional[str] = bounded(None, filled=True)  # noqa: UP045
    teacher: Any = bounded(None, node=Teacher)
    teachers: dict[str, Any] = bounded({}, nodes=Member)
    chain: dict[str, Any] = bounded({}, nodes=Member)
    link: Optional[str] = bounded(None, filled=True)  # noqa: UP045
    student: Any = bounded(None, node=Student)
    objective: dict[str, Any] = bounded({}, nodes=Objective)
    schedule: dict[str, Stage] = bounded({}, nodes=Stage)
    optimizer: Any = bounded(None, node=Optimizer)
    logger: dict[str, Any] = bounded({}, nodes=Logger)


@dataclass
class Eval(Device):
    batch_size: Optional[int] = bounded(None, ge=1)  # type: ignore[assignment]  # noqa: UP045
    ckpt: Optional[str] = bounded(None, filled=True)  # noqa: UP045
    split: str = bounded("test", choices=("train", "val", "test"))
    per_class: Any = bounded(False, flag=True)
    predictions: Optional[str] = bounded(None, filled=True)  # noqa: UP045
    trust: list[str] = bounded([])


SCHEMAS: dict[str, type] = {"train": Train, "teacher": Train, "inspect": Train, "eval": Eval}


def register() -> None:
    """Make the schemas known to Hydra as `train_schema` and `eval_schema`."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=Train)
    store.store(name="eval_schema", node=Eval)


def validate(cfg: DictConfig, schema: type) -> None:
    """Check types and bounds of a composed configuration.

    Raises:
        ConfigError: naming every key that is wrong, its value and what is allowed there.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        values = plain(cfg)
    except (OmegaConfBaseException, OverflowError) as error:
        key = getattr(error, "full_key", None) or "the configuration"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    if missing:
        raise ConfigError("\n".join(f"{key}: has no default, give it as {key}=VALUE" for key in missing))
    problems = list(_problems(values, schema, ""))
    # A stage that follows T or alpha would only repeat the complaint about it.
    told = {problem for problem in problems if not problem.startswith("schedule.")}
    problems = [p for p in problems if p in told or re.sub(r"^schedule\.[^.]+\.", "", p) not in told]
    if schema is Train:
        sound = not problems
        problems += _train_problems(values)
        problems += _arrangement_problems(values) if sound else []
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(values: Mapping[str, Any], shape: type, where: str) -> Iterator[str]:
    hints = typing.get_type_hints(shape)
    for known in dataclasses.fields(shape):
        key, rules = f"{where}{known.name}", known.metadata
        if known.name not in values:
            if known.name == "_target_":
                yield f"{where.rstrip('.')}: has no _target_, the class or function to build"
            elif shape in (Teacher, Fit):
                yield f"{key}: is needed and was taken out"
            continue
        value = values[known.name]
        if "node" in rules:
            if isinstance(value, Mapping) and value:
                yield from _problems(value, rules["node"], f"{key}.")
            elif shape is Teacher or (shape is Dataset and value is not None):
                yield f"{key}: should be a mapping of keys, got {shown(value)}"
            elif shape not in (Eval, Dataset):
                yield f"{key}: nothing is chosen; pick one, as in {key}=NAME (`distill list` shows them)"
        elif "nodes" in rules:
            for name, node in (value or {}).items():
                if isinstance(node, Mapping):
                    yield from _problems(node, rules["nodes"], f"{key}.{name}.")
                else:
                    yield f"{key}.{name}: should be a mapping of keys, got {shown(node)}"
        elif rules.get("ramp"):
            pair = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            if len(pair) > 2 or not pair:
                yield f"{key}: should be a number or [from, to], got {shown(value)}"
            for number in pair[:2]:
                yield from _wrong(key, number, float, rules)
        elif rules.get("names"):
            listed = [value] if isinstance(value, str) else value
            if value is not None and not fits(listed, list[str]):
                yield f"{key}: should be an objective's name or a list of them, got {shown(value)}"
        elif rules.get("every"):
            if not _is_interval(value):
                yield f"{key}: should be a number of steps, or a time as in 60s, 5m or 1h, got {shown(value)}"
        elif rules.get("size"):
            if value != "auto" and not _is_count(value):
                yield f"{key}: should be auto or a number of pixels, got {shown(value)}"
        else:
            yield from _wrong(key, value, bool if rules.get("flag") else hints[known.name], rules)
    for name, value in values.items():
        if name not in hints:  # a key of the class's own
            yield from _numbers(f"{where}{name}", value, {})


def _wrong(key: str, value: Any, kind: Any, rules: Mapping[str, Any]) -> Iterator[str]:
    if not fits(value, kind):
        yield f"{key}: should be {describe(kind)}, got {shown(value)}"
        return
    yield from _numbers(key, value, rules)
    if rules.get("filled") and value is not None and not value.strip():
        yield f"{key}: is empty; leave it out, or give a value"
    if "choices" in rules and value not in rules["choices"]:
        guess = did_you_mean(str(value), rules["choices"])
        yield f"{key}: no choice called {shown(value)}; {guess}choices: {', '.join(rules['choices'])}"


def _numbers(key: str, value: Any, rules: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the numbers in a value, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(f"{key}.{name}", inner, rules)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(key, inner, rules)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        wrong = complaint(value, rules)
        if wrong:
            yield f"{key}: {wrong}"


def _train_problems(plain: Mapping[str, Any]) -> list[str]:
    """What only shows when several keys are read together."""
    problems = []
    stages: Mapping[str, Any] = plain["schedule"] or {}
    objectives: Mapping[str, Any] = plain["objective"] or {}
    if not objectives:
        problems.append("objective: nothing is chosen; pick one or a list, as in objective=kd")
    if not stages:
        problems.append("schedule: has no stages; pick one, as in schedule=two_stage")
    elif all(stage.get("epochs") == 0 for stage in stages.values()):
        problems.append("schedule: every stage has 0 epochs, so nothing would be trained")
    for name, stage in stages.items():
        for used in stage_objectives(stage, objectives):
            if used not in objectives:
                problems.append(
                    f"schedule.{name}.objective: {used!r} is not among the chosen objectives "
                    f"({', '.join(objectives)}); try objective=[{','.join([*objectives, str(used)])}]"
                )
    dataset = plain["dataset"] or {}
    if (dataset.get("mean") is None) != (dataset.get("std") is None):
        problems.append("dataset.mean and dataset.std belong together: give both, or neither")
    teacher, optimizer = plain["teacher"] or {}, plain["optimizer"] or {}
    if teacher.get("joint") and optimizer.get("accumulate", 1) != 1:
        problems.append("optimizer.accumulate: a jointly trained teacher takes its step on the whole batch; use 1")
    return problems + _teacher_problems(teacher, "teacher")


def _teacher_problems(node: Mapping[str, Any], key: str) -> list[str]:
    """What is wrong with a teacher's keys when they are read together."""
    problems = []
    if (node.get("mean") is None) != (node.get("std") is None):
        problems.append(f"{key}.mean and {key}.std belong together: give both, or neither")
    if node.get("joint") and node.get("checkpoint"):
        problems.append(f"{key}.joint: trains the teacher along with the student, so it takes no {key}.checkpoint")
    if node.get("mutual") and not node.get("joint"):
        problems.append(f"{key}.mutual: only a teacher that is trained along learns from the student: {key}.joint=true")
    return problems


def _arrangement_problems(plain: Mapping[str, Any]) -> list[str]:
    """What is wrong with who teaches whom."""
    problems = []
    chain, link, members = plain["chain"] or {}, plain["link"], plain["teachers"] or {}
    if link is not None and link not in chain:
        known = f"links: {', '.join(chain)}" if chain else "there is no chain"
        problems.append(f"link: there is no link {link!r} in the chain; {known}")
    for key, nodes in (("chain", chain), ("teachers", members)):
        odd = [name for name in nodes if not NAME.fullmatch(name)]
        problems += [f"{key}.{name}: should be called by letters, digits, - and _ only" for name in odd]
    if arrangement.FIRST in members:
        problems.append("teachers.teacher: that is what the one of `teacher=` is called; choose another name")
    problems += [problem for name, node in members.items() for problem in _member_problems(node, f"teachers.{name}")]
    if problems:
        return problems
    everyone = arrangement.teachers(plain)
    for name in members:
        problems += _problems(everyone[name], Teacher, f"teachers.{name}.")
        problems += _teacher_problems(everyone[name], f"teachers.{name}")
    if len({node["joint"] for node in everyone.values()}) > 1:
        problems.append("teachers: some are trained along and some are not (joint); let all be one or the other")
    return problems


def _member_problems(node: Mapping[str, Any], key: str) -> Iterator[str]:
    """What a further teacher says that it cannot, or that would have no effect."""
    fit, known = node.get("fit", {}), [f.name for f in dataclasses.fields(Fit)]
    if not isinstance(fit, Mapping):
        yield f"{key}.fit: should be a mapping of keys, got {shown(fit)}"
        return
    for name in fit:
        if name not in known:
            guess = did_you_mean(name, known, f"{key}.fit.")
            yield f"{key}.fit.{name}: there is no such key. {guess}keys: {', '.join(known)}"
    if "choose" in node:
        yield f"{key}.choose: belongs to the first teacher: teacher.choose={node['choose']}"


NAME = re.compile(r"[A-Za-z0-9_-]+")
INTERVAL = re.compile(r"(\d+(?:\.\d+)?)([smh])")
UNITS = {"s": 1, "m": 60, "h": 3600}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


def _is_interval(value: Any) -> bool:
    if isinstance(value, str):
        found = INTERVAL.fullmatch(value)
        return found is not None and 0 < float(found[1]) * UNITS[found[2]] <= LARGEST
    return value is None or _is_count(value)


def every(value: int | str | None) -> tuple[int | None, float | None]:
    """`save_every` as (steps, seconds), of which one at most is set."""
    if isinstance(value, str):
        found = INTERVAL.fullmatch(value)
        assert found is not None
        return None, float(found[1]) * UNITS[found[2]]
    return value, None


def stage_objectives(stage: Mapping[str, Any], objectives: Mapping[str, Any]) -> list[str]:
    """Names of the objectives a stage uses: its own `objective` (a name or a list), else all that were chosen."""
    own = stage.get("objective")
    if own is None:
        return list(objectives)
    return [own] if isinstance(own, str) else list(own) if isinstance(own, list) else []
