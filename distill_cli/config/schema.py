"""The typed and bounded shape of every configuration; knows neither Hydra's search path nor torch. validation.py checks it.

Scalars and stages are structured configs, so a misspelt key or a word for a number is refused while composing.
Models, datasets, optimizers and objectives stay open mappings (a class brings its own keys, checked against its
signature when it is built); the keys that belong to us in them are described by the dataclasses named in `node`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from hydra.core.config_store import ConfigStore

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
    rows_at_once: Optional[int] = bounded(None, ge=1)  # noqa: UP045
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


INTERVAL = re.compile(r"(\d+(?:\.\d+)?)([smh])")
UNITS = {"s": 1, "m": 60, "h": 3600}


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
