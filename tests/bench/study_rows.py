"""What the study compares: its data sets, its rows, their order, and the settings that every row may try. Edit it here.

A row is a list of words for `distill train`. What it may tune is what has an effect on it: a row on labels tries learning
rates alone, in as many trials as the others have. `{root}` and `{teacher}` stand for folders that the command line gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).parents[2] / "conf"
# T, alpha, and what the objective's weight and the data set's learning rate are multiplied with; the first is the textbook's,
# but for recipes that bring a T or alpha of their own. No two have the same learning rate, so that a row which tunes nothing
# else tries no setting twice.
TRIALS = (
    (3.0, 0.7, 1.0, 1.0),
    (1.0, 0.9, 1.0, 2.0),
    (2.0, 0.4, 0.3, 0.5),
    (4.0, 0.5, 3.0, 1.5),
    (8.0, 0.7, 0.1, 3.0),
)
SOFT, PLAIN = "T alpha weight lr", "alpha weight lr"  # with and without an effect of T


@dataclass(frozen=True)
class Dataset:
    """Words that all rows on it share, how its teacher is prepared, and what is assumed until it is measured."""

    title: str
    words: str
    teacher: str
    prepare: str
    lr: float
    epochs: int  # that a student trains for
    seconds: float  # assumed, of an epoch of kd


@dataclass(frozen=True)
class Row:
    """One line of a table: a technique, or ce or kd under a condition of its own.

    Args:
        stages: epochs of each stage, `imitate=3 refine=2`: the student trains for their sum.
        tune: what has an effect. objective: whose weight is tuned.
        teacher: words that choose the teacher; None: the data set's prepared one.
        against: rows on the same data to compare with, seed by seed: labels alone, and kd.
        cost: assumed seconds of an epoch, kd's being 1; those of teachers and links beside it included.
        label: of a condition, in the picture.
    """

    part: str
    dataset: str
    name: str
    words: str
    stages: str
    tune: str
    objective: str
    teacher: str | None = None
    against: tuple[str, str] = ("ce", "kd")
    cost: float = 1.0
    label: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.dataset, self.name

    @property
    def epochs(self) -> int:
        return sum(int(stage.partition("=")[2]) for stage in self.stages.split())


@dataclass(frozen=True)
class Setting:
    """One choice of what can be tuned; None where it has no effect on the row."""

    T: float | None
    alpha: float | None
    weight: float | None
    lr: float


DATASETS = {
    "fashion": Dataset(
        "Fashion-MNIST",
        words="dataset=fashion_mnist dataset.root={root} batch_size=128 optimizer=adam",
        teacher="teacher=resnet20 teacher.checkpoint={teacher}",
        prepare="teacher=resnet20 dataset.augmentation.flip=true dataset.augmentation.crop=2 teacher.fit.epochs=30 "
        "teacher.fit.batch_size=128 teacher.fit.lr=3e-3 teacher.fit.weight_decay=0.05",
        lr=4e-3, epochs=4, seconds=6,
    ),
    "cifar": Dataset(
        "CIFAR-10",
        words="dataset=image_folder dataset.root={root}/cifar10-jpeg dataset.augmentation.flip=true "
        "dataset.augmentation.crop=4 dataset.views=4 student=resnet20 student.depth=8 batch_size=128 optimizer=adam "
        "precision=fp32 teacher=resnet56 teacher.mean=[0.485,0.456,0.406] teacher.std=[0.229,0.224,0.225]",
        teacher="teacher.checkpoint={teacher}",
        prepare="teacher.checkpoint={root}/cifar10-resnet-weights/resnet56-4bfd9763.th teacher.fit.epochs=6 "
        "teacher.fit.lr=5e-4 teacher.fit.batch_size=128",
        lr=4e-3, epochs=10, seconds=70,
    ),
}  # fmt: skip

TUNED = {
    "ce": "lr", "kd": SOFT, "logit_mse": PLAIN, "logit_sse": "weight lr", "dkd": SOFT, "nkd": PLAIN, "dist": SOFT,
    "lskd": SOFT, "mlld": PLAIN, "hard": PLAIN, "reverse_kl": SOFT, "jsd": SOFT, "hint": PLAIN, "attention": PLAIN,
    "similarity": PLAIN, "rkd": PLAIN, "vid": PLAIN, "crd": PLAIN, "review": PLAIN,
}  # fmt: skip
COSTS = {"hint": 2, "attention": 3, "similarity": 2, "rkd": 2, "vid": 3, "crd": 3, "review": 4}
# Of the 16,384 negatives of the paper a CPU cannot take so many at every step.
MORE = {"crd": "objective.crd.num_negatives=1024"}
# T, alpha, and whether 12 epochs are tried as well
DEFAULTS = ((3, 0.7, True), (2, 0.7, False), (2, 0.9, True), (1, 0.7, False), (1, 0.9, True), (4, 0.9, False))
TINY, SMALL_TEACHER = "student=tinycnn ", "teacher=tinycnn teacher.fit.batch_size=128 "


def objectives(dataset: str, names: str) -> Iterator[Row]:
    """Each objective alone under the constant schedule."""
    student, epochs = TINY if dataset == "fashion" else "", DATASETS[dataset].epochs
    for name in names.split():
        words = f"{student}schedule=constant objective={name} {MORE.get(name, '')}"
        yield Row("objectives", dataset, name, words, f"train={epochs}", TUNED[name], name, cost=COSTS.get(name, 1))


def schedules(dataset: str, imitate: int, refine: int) -> Iterator[Row]:
    """kd under the other schedules: the constant one is the objective's row."""
    words = f"{TINY if dataset == 'fashion' else ''}objective=kd"
    stages = {"two_stage": f"imitate={imitate} refine={refine}", "anneal": f"anneal={imitate + refine}"}
    for name, each in stages.items():
        yield Row("schedules", dataset, name, f"{words} schedule={name}", each, SOFT, "kd")


def arrangement(name: str, stages: str, more: str = "", tune: str = SOFT, objective: str = "kd", **other: Any) -> Row:
    """A recipe of conf/experiment/."""
    return Row("arrangements", "fashion", name, f"experiment={name} {TINY}{more}", stages, tune, objective, **other)


def defaults() -> Iterator[Row]:
    """Two stages from a fixed T and alpha, the learning rate alone tuned, as for labels: is the tool's default right?"""
    for T, alpha, long in DEFAULTS:
        words, label = f"{TINY}objective=kd schedule=two_stage T={T} alpha={alpha}", f"T={T} alpha={alpha}"
        name = f"from-{T}-{alpha}"
        yield Row("defaults", "fashion", name, words, "imitate=3 refine=1", "lr", "kd", label=label)
        if long:
            yield Row("defaults", "fashion", f"{name}-long", words, "imitate=9 refine=3", "lr", "kd",
                      against=("ce-long", "kd-long"), label=f"{label}, 12 epochs")  # fmt: skip


def condition(name: str, label: str, more: str, epochs: int, cost: float = 1.0) -> Iterator[Row]:
    """ce and kd under one condition, compared with each other."""
    for objective in ("ce", "kd"):
        words, against = f"schedule=constant objective={objective} {more}", (f"ce-{name}", f"kd-{name}")
        yield Row("conditions", "fashion", f"{objective}-{name}", words, f"train={epochs}", TUNED[objective], objective,
                  against=against, cost=cost, label=label)  # fmt: skip


ROWS = (
    *objectives("fashion", " ".join(TUNED)),
    *objectives("cifar", " ".join(TUNED)),
    *schedules("fashion", 3, 1),
    *schedules("cifar", 7, 3),
    *defaults(),
    arrangement("annealing_kd", "anneal=3 labels=1", tune="T weight lr", objective="annealed"),
    arrangement("virtual_teacher", "train=4", objective="virtual"),
    arrangement("fitnets", "hint=1 imitate=2 refine=1", objective="hint", cost=2),
    arrangement("several_teachers", "imitate=3 refine=1",
                "model@teachers.second=smallcnn +teachers.second.widths=[32,64]"),
    # the assistant trains as long as the student, before it
    arrangement("teacher_assistant", "imitate=3 refine=1",
                "model@chain.assistant=smallcnn chain.assistant.widths=[16,32]", cost=3),
    # two generations before the student, of as many epochs each, after a teacher of its own size
    arrangement("born_again", "train=4", cost=4, teacher=f"{SMALL_TEACHER}teacher.fit.epochs=4"),
    arrangement("mutual", "train=4", "model@teachers.peer=tinycnn", cost=4, teacher="teacher=tinycnn"),
    # a teacher that a CPU can train along: 20,490 parameters
    arrangement("joint_teacher", "imitate=3 refine=1", cost=3, teacher="teacher=smallcnn teacher.widths=[16,32]"),
    *condition("long", "3 times the epochs", TINY, 12),
    *condition("larger", "a larger student (15,410)", "student=smallcnn student.widths=[16,24]", 4, cost=2),
    # few samples, or wrong labels, for the student alone: the teacher has seen all of them, and right ones
    *condition("few", "1,000 samples", f"{TINY}dataset.limit=1000", 60, cost=0.05),
    *condition("noisy", "40 % wrong labels", f"{TINY}dataset.label_noise=0.4", 4),
    # labels alone are the same under any teacher: nothing to run again
    Row("conditions", "fashion", "kd-weak", f"{TINY}schedule=constant objective=kd", "train=4", SOFT, "kd",
        teacher=f"{SMALL_TEACHER}teacher.fit.epochs=2", label="a weak teacher"),
)  # fmt: skip

# What is run first, and the order of all outputs.
ORDER = (
    ("fashion", "ce kd two_stage anneal"),
    ("fashion", "from-3-0.7 from-2-0.7 from-2-0.9 from-1-0.7 from-1-0.9 from-4-0.9"),
    ("fashion", "ce-noisy kd-noisy ce-few kd-few"),
    ("fashion", "logit_mse logit_sse dkd nkd dist lskd mlld hard reverse_kl jsd"),
    ("fashion", "hint rkd attention similarity vid crd review"),
    ("fashion", "annealing_kd virtual_teacher several_teachers teacher_assistant mutual born_again joint_teacher fitnets"),
    ("fashion", "kd-weak ce-larger kd-larger ce-long kd-long from-3-0.7-long from-2-0.9-long from-1-0.9-long"),
    ("cifar", "ce kd two_stage anneal dkd dist hint rkd"),
    ("cifar", "logit_mse logit_sse nkd lskd mlld hard reverse_kl jsd attention similarity vid crd review"),
)  # fmt: skip


def ordered() -> list[Row]:
    """All rows, as they are run."""
    known = {row.key: row for row in ROWS}
    return [known[dataset, name] for dataset, names in ORDER for name in names.split()]


@cache
def _conf(file: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / file).read_text(encoding="utf-8"))


def settings(row: Row, trials: int) -> list[Setting]:
    """What the row's trials are run with, the textbook's setting or the recipe's own first.

    Raises:
        FileNotFoundError: there is no such objective or recipe.
    """
    recipes = [word.partition("=")[2] for word in row.words.split() if word.startswith("experiment=")]
    own = _conf(f"experiment/{recipes[0]}.yaml") if recipes else {}
    weight = float(_conf(f"objective/{row.objective}.yaml")[row.objective].get("weight", 1))
    lr = DATASETS[row.dataset].lr
    first_T, first_alpha, *first = TRIALS[0]
    every = [(float(own.get("T", first_T)), float(own.get("alpha", first_alpha)), *first), *TRIALS[1:trials]]
    found = [{"T": t, "alpha": a, "weight": heavier * weight, "lr": faster * lr} for t, a, heavier, faster in every]
    return [
        Setting(**{k: float(f"{v:.4g}") if k in row.tune.split() else None for k, v in each.items()}) for each in found
    ]


def setting_words(row: Row, setting: Setting) -> list[str]:
    """The overrides that a setting is."""
    keys = {"T": "T", "alpha": "alpha", "weight": f"objective.{row.objective}.weight", "lr": "optimizer.lr"}
    values = {key: getattr(setting, name) for name, key in keys.items()}
    return [f"{key}={value:g}" for key, value in values.items() if value is not None]


def row_words(row: Row) -> list[str]:
    """The overrides of all of the row's runs; folders are still to be filled in."""
    shared, stages = (
        DATASETS[row.dataset],
        [f"schedule.{stage.replace('=', '.epochs=')}" for stage in row.stages.split()],
    )
    teacher = shared.teacher if row.teacher is None else row.teacher
    return [*shared.words.split(), *row.words.split(), *stages, *teacher.split()]
