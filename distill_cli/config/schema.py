"""Every key of the configuration, stated once: type, bounds, default, help. Imports neither Hydra, omegaconf nor torch.

The records are what commands are given, frozen; checking.py reads them from a composed configuration. Models, datasets, objectives,
optimizers and loggers are open: beside our keys their nodes have those of the class that is built from them.
Longer than other modules: every key stands here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distill_cli.base.metrics import METRICS
from distill_cli.config.fields import key, keys, of_class

FIRST = "teacher"  # what the teacher of the `teacher` group is called among several


@dataclass(frozen=True, kw_only=True)
class Stage:
    epochs: int = key(1, "passes over train; 0 leaves the stage out", ge=0)
    steps: int | None = key(None, "so many instead of epochs; the last pass ends where they do", ge=1)
    T: tuple[float, float] = key("${T}", "temperature; [from, to]: moved at every step", form="ramp", gt=0)
    alpha: tuple[float, float] = key("${alpha}", "the teacher's weight, likewise", form="ramp", ge=0, le=1)
    shape: str = key("linear", "of the way from one to the other", choices=("linear", "cosine"))
    objective: tuple[str, ...] | None = key(None, "a name or a list; null: all that are chosen", form="names")
    lr: float | None = key(None, "in place of the optimizer's while the stage lasts", gt=0)
    quantize: str | None = key(None, "int8: the student computes as in 8 bits from this stage on; it starts from the best of the "
                               "stages before", choices=("int8",))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Open:
    """A node that names a class: what is composed for it, and what it is called."""

    plain: Mapping[str, Any]
    name: str = ""
    _target_: str = key(help="the class or function to build", filled=True, passed=True)

    @property
    def node(self) -> dict[str, Any]:
        """`_target_` and the keys of its class, as `building.build` takes them."""
        return of_class(type(self), self.plain)


@dataclass(frozen=True, kw_only=True)
class FromTeacher:
    layers: int | None = key(
        None, "so many are kept in each list of alike layers, evenly spaced with the last among them", ge=1
    )
    prune: float | None = key(
        None, "share of each layer's channels that is cut, the smallest; needs the extra [prune]", gt=0, lt=1
    )
    low_rank: float | None = key(None, "share of its parameters that a layer keeps, as two of small rank", gt=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class Lora:
    rank: int | None = key(None, "of adapters that learn in place of the weights of a model of transformers; null: all learn; "
                           "needs the extra [lora]", ge=1)  # fmt: skip
    alpha: float | None = key(None, "what they add counts alpha / rank times; null: twice the rank", gt=0)
    targets: list[str] = key(
        [], "layers beside which they stand, by the last part of their path; none: as peft knows the model"
    )
    dropout: float = key(0.0, "of what they take in", ge=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class Student(Open):
    """A model that learns, and what each link of a chain is built from."""

    checkpoint: str | None = key(None, "weights to start from: a run, or a file of weights", path=True, free=True)
    from_teacher: FromTeacher = key({}, "what it is made of its teacher by, in place of a network of its own; in this order",
                                    node=FromTeacher)  # fmt: skip
    freeze: list[str] = key([], "modules that do not learn, by their path or its last part, as in [embeddings]")
    lora: Lora = key({}, "adapters that learn in its place, and are merged into its weights at the end", node=Lora)

    @property
    def made_of(self) -> dict[str, Any]:
        """What it is made of its teacher by; empty: it is not."""
        return {key: value for key, value in vars(self.from_teacher).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Fit:
    epochs: int | None = key(None, "null: 6; of a checkpoint or a whole language model none; of a head alone 30", ge=0)
    freeze: str | None = key(None, "encoder: the head alone is fitted, the last linear layer, on features that are kept",
                             choices=("encoder",))  # fmt: skip
    lora: Lora = key({}, "adapters that are fitted in its place, and are merged into its weights at the end", node=Lora)
    optimizer: str = key("adamw", "a name from conf/optimizer/", filled=True)
    lr: float | None = key(None, "null: the optimizer file's", gt=0)
    weight_decay: float | None = key(None, "null: the optimizer file's", ge=0)
    batch_size: int = key(64, ge=1)
    seed: int = key(0, "of its start and its order of samples", ge=0)


@dataclass(frozen=True, kw_only=True)
class Teacher(Open):
    checkpoint: str | None = key(None, "weights to start from: ours, or a plain state dict", path=True, free=True)
    joint: bool = key(False, "train the teacher along with the student", shared=True)
    mutual: bool = key(False, "and let it learn from the student too, not from the labels alone", shared=True)
    weight: float = key(1.0, "its share where there are several", gt=0)
    choose: str = key("mean", "of several: all of them, or for each sample the one that is surest of its label",
                      choices=("mean", "best"), shared=True)  # fmt: skip
    cache: str = key("auto", "its answers on disk, for every run that needs the same; auto: where they can be",
                     choices=("auto", "off", "on"), shared=True)  # fmt: skip
    cache_limit: float = key(4.0, "GiB that its features or hidden states may take there; beyond them it runs live",
                             ge=0, free=True, shared=True)  # fmt: skip
    cache_dtype: str = key("auto", "of the logits or hidden states there; auto: fp16 where a view of them takes more than 4 GiB",
                           choices=("auto", "fp32", "fp16"), shared=True)  # fmt: skip
    keep: str = key("auto", "of its answers: all logits, the hidden states before its head, the topk likeliest words with the "
                    "mass of the rest, or words sampled; auto: what takes little and is exact",
                    choices=("auto", "logits", "hidden", "topk", "sampled"), shared=True)  # fmt: skip
    words: int = key(64, "of each answer that are kept by topk and sampled", ge=1, shared=True)
    mean: list[float] | None = key(None, "its own normalisation; null: as its model.json says, else the data's", ge=0)
    std: list[float] | None = key(None, gt=0)
    size: int | None = key(None, "pixels a side that it is shown; null: likewise", ge=1, le=2**13)
    classes: tuple[str, ...] | None = key(None, "what it answers, in its order; null: likewise", form="classes")
    fit: Fit = key({}, node=Fit)

    @property
    def network(self) -> dict[str, Any]:
        """What decides how it answers, whatever its weights: its node, its normalisation, its size and its classes."""
        return {**self.node, "mean": self.mean, "std": self.std, "size": self.size, "classes": self.classes}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    flip: bool = key(False, "mirror one picture in two")
    crop: int = key(0, "pixels of padding around, of which a window is cut", ge=0)
    rotation: float = key(0, "largest angle in degrees, either way", ge=0, le=180)


@dataclass(frozen=True, kw_only=True)
class Dataset(Open):
    root: str | None = key(None, "the folder the data lie in", path=True, free=True, passed=True)
    download: bool = key(True, "fetch what is not there", free=True, passed=True)
    size: int | str = key("auto", "of a picture's side; auto: the data's own, of a folder the median, at most 224",
                          form="size", passed=True)  # fmt: skip
    range: list[float] | None = key(None, "of a folder's greys of more than 8 bits: the values that are black and white, as in "
                                    "[0,4095]; null: measured on train", passed=True)  # fmt: skip
    mean: list[float] | None = key(None, "by channel, of values 0 to 1; null: measured on train", ge=0, passed=True)
    std: list[float] | None = key(None, "by channel; null: measured on train", gt=0, passed=True)
    val_fraction: float = key(0.1, "of train, where the data have no validation set", gt=0, lt=1, passed=True)
    split_seed: int = key(0, "of what is cut off, and of limit and label_noise", ge=0, passed=True)
    memory: float = key(2.0, "GiB of pixels held in memory; beyond them pictures are read as they are needed",
                        ge=0, passed=True)  # fmt: skip
    reader: str = key("pil", "what decodes pictures of a folder; fast: torchvision where it can, to nearly the same pixels",
                      choices=("pil", "fast"), passed=True)  # fmt: skip
    augmentation: Augmentation = key(None, "of the training pictures, by the batch", node=Augmentation)
    views: int = key(0, "augmented views of each sample, shown in turn by epoch; 0: a new one every epoch", ge=0)
    view_seed: int = key(0, "of the views", ge=0)
    limit: int | None = key(None, "train on so many samples only, by class as in all of them; a teacher that is fitted too",
                            ge=1)  # fmt: skip
    labels: bool = key(True, "false: training samples have none, nor has validation that is cut from them")
    unlabeled: str | None = key(None, "a folder, or a file of texts, of more training samples, which have no labels",
                                path=True, free=True, passed=True)  # fmt: skip
    classes: list[str] | None = key(None, "names of a folder's classes in their order; null: those of its class folders, sorted, "
                                    "or of the teacher", passed=True)  # fmt: skip
    label_noise: float = key(0.0, "share of training labels made wrong on purpose, to see what that does", ge=0, lt=1)
    class_weights: str | list[float] | None = key(None, "in the label term: balanced, or a list in class order; their "
                                                  "mean over train is made 1", form="weights", ge=0)  # fmt: skip
    sampler: str | None = key(None, "balanced: an epoch shows each class equally often", choices=("balanced",))


@dataclass(frozen=True, kw_only=True)
class Optimizer(Open):
    lr: float = key(1e-3, "learning rate", gt=0, passed=True)
    weight_decay: float = key(0.0, ge=0, passed=True)
    momentum: float = key(0.0, ge=0, lt=1, passed=True)
    curve: str = key("constant", "of the learning rate over the run", choices=("constant", "cosine", "linear", "step"))
    warmup: float = key(0.0, "share of all steps over which lr rises from 0", ge=0, lt=1)
    milestones: list[float] = key([], "step: shares of all steps at which lr is multiplied by gamma", gt=0, lt=1)
    gamma: float = key(0.1, "step: see milestones", gt=0, le=1)
    no_decay: list[str] = key([], "parameters without weight decay: those with one of these words in their name, as in "
                              "[bias,norm]")  # fmt: skip
    clip: float | None = key(None, "largest gradient norm", gt=0)
    accumulate: int = key(1, "parts into which a batch is cut to save memory", ge=1)


@dataclass(frozen=True, kw_only=True)
class Objective(Open):
    weight: float | str = key(1.0, "of its term, beside alpha; auto: found in the run's first steps", form="weight", ge=0,
                              passed=True)  # fmt: skip
    balance: float = key(1.0, "auto: how large its gradient is to be, against cross-entropy's", gt=0)
    balance_steps: int = key(50, "auto: over how many steps the weight is found", ge=1)
    warmup: float = key(0.0, "share of the run, from its start, over which the weight rises from 0", ge=0, lt=1,
                        passed=True)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Logger(Open):
    """A tracker that the run is also sent to."""


class Source(Protocol):
    """A configuration as it was composed, before its interpolations were resolved."""

    def files(self, typed: Sequence[str]) -> dict[str, str]:
        """What Hydra would leave in the .hydra/ of a run with these overrides: texts by file."""

    def having(self, values: Mapping[str, Any]) -> Source:
        """The same with other values at its top."""

    def written(self, key: str) -> str:
        """What stands at a key at the top, before it is resolved."""

    def objective(self, name: str) -> dict[str, Objective]:
        """What the file of an objective would choose, whether it is chosen or not; a ConfigError where it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A composed and checked configuration: its resolved `plain` values, the name chosen in each group, the overrides as
    typed, the root file's name, the folder a run of it would have, and what was composed.
    """

    plain: Mapping[str, Any]
    choices: Mapping[str, str]
    typed: tuple[str, ...]
    config: str
    folder: Path
    source: Source
    device: str = key("auto", "auto | cpu | cuda | cuda:0 | mps", filled=True, free=True)
    workers: int = key(0, "processes that read images from disk", ge=0, le=4096, free=True)
    threads: int | None = key(None, "CPU threads; null: torch's own choice", ge=1, le=4096, free=True)


@dataclass(frozen=True, kw_only=True)
class Train(Settings):
    T: float = key(3.0, "temperature of the soft labels", gt=0)
    alpha: float = key(0.7, "weight of the teacher's signal; the labels get 1 - alpha", ge=0, le=1)
    on_policy: float = key(0.0, "of a language model: share of the steps that learn from what the student writes itself, scored "
                           "by the teacher, which runs live there; no label counts in them", ge=0, le=1)  # fmt: skip
    seed: int = key(0, "student initialisation, dropout and sample order; nothing else", ge=0)
    batch_size: int = key(64, "samples one optimizer step sees", ge=1)
    label_smoothing: float = key(0.0, "of the label term", ge=0, lt=1)
    rows_at_once: int | None = key(None, "rows in one pass of the loss, forward and backward; null: all", ge=1)
    sync_bn: bool = key(True, "of a run over several devices: batch norm is over the samples of all of them")
    precision: str = key("auto", "auto: bf16 on GPUs that have it, else fp32", choices=("auto", "fp32", "bf16", "fp16"))
    compile: bool = key(False, "torch.compile for the student, and for a teacher that runs live")
    save_every: tuple[int | None, float | None] = key(
        "5m", "also inside epochs: after so many steps (100) or so long (60s, 5m, 1h); null: at their ends only", form="every",
        free=True)  # fmt: skip
    baseline: bool = key(False, "also train the same student on labels only, with the same budget")
    devices: int | str = key(1, "processes that compute a step together, each with its part of the batch; auto: one for each GPU",
                             form="devices", ge=1, le=4096, free=True)  # fmt: skip
    parallel: str = key("ddp", "of a run over several devices: each has the models whole (ddp), or shards of their weights (fsdp)",
                        choices=("ddp", "fsdp"), free=True)  # fmt: skip
    report: bool = key(True, "write report.html at the end, and measure the cost of running each model", free=True)
    debug: bool = key(False, "log on each epoch's last batch what each weighted term is, and its gradient against "
                      "cross-entropy's", free=True)  # fmt: skip
    optimize: str | None = key(None, "what chooses the best epoch, and what a search looks for; null: what the task is judged by",
                               choices=tuple(f"val.{name}" for name in METRICS))  # fmt: skip
    output_dir: str = key("outputs", "relative to the current directory", path=True, free=True)
    run_dir: str | None = key(None, "a folder of your own for this run", path=True, free=True)
    dataset: Dataset = key(None, "what every dataset has; more by its own class", node=Dataset, every_has=True)
    teacher: Teacher = key(None, "what every teacher has; more by its model's class", node=Teacher, every_has=True)
    teachers: Mapping[str, Teacher] = key({}, "more teachers beside `teacher`, by a name each; "
                                          "conf/experiment/several_teachers.yaml shows how", nodes=Student)  # fmt: skip
    chain: Mapping[str, Student] = key({}, "models between teacher and student, each learning from the one before: "
                                       "+model@chain.NAME=MODEL adds one", nodes=Student)  # fmt: skip
    link: str | None = key(None, "which link of its chain a run is; `distill resume RUN/chain/NAME` goes on with one alone",
                           filled=True)  # fmt: skip
    student: Student = key(None, "what every student has; more by its model's class", node=Student, every_has=True)
    objective: Mapping[str, Objective] = key({}, "what every objective has; more by its class", nodes=Objective)
    schedule: Mapping[str, Stage] = key({}, "what every stage has", nodes=Stage)
    optimizer: Optimizer = key(None, "what every optimizer has; more by its class", node=Optimizer)
    logger: Mapping[str, Logger] = key({}, nodes=Logger, free=True)


@dataclass(frozen=True, kw_only=True)
class Eval(Settings):
    ckpt: str | None = key(
        None, "a run folder, a student.safetensors with its model.json, or a checkpoint of a run", path=True
    )
    split: str = key("test", choices=("train", "val", "test"))
    per_class: bool = key(False, "also print precision, recall and F1 of each class")
    predictions: str | None = key(None, "a CSV file for one row per sample", path=True)
    batch_size: int | None = key(None, "pictures answered at once; null: 128, fewer of large ones", ge=1)
    trust: list[str] = key([], "packages whose classes a checkpoint may name")
    dataset: Dataset | None = key(None, node=Dataset)


@dataclass(frozen=True, kw_only=True)
class Predict(Settings):
    ckpt: str | None = key(None, "a run folder, a student.safetensors or a model.onnx with its model.json", path=True)
    input: str | None = key(None, "a picture, a folder, a table with a column `path`; a text, or a table or .txt file of such; "
                            "-: stdin, a line each")  # fmt: skip
    output: str | None = key(None, "a .csv or .jsonl file for one row per input", path=True)
    top: int | None = key(None, "so many of the likeliest classes in a row; null: every class's probability", ge=1)
    threshold: float = key(0.0, "confidence below which no class is named", ge=0, le=1)
    max_tokens: int = key(64, "that a language model writes behind each text at most; 0: none", ge=0)
    temperature: float = key(0.0, "of drawing each of them; 0: the likeliest one", ge=0)
    seed: int = key(0, "of what is drawn", ge=0)
    sort_into: str | None = key(None, "a folder: each picture is copied into that of its class", path=True)
    batch_size: int | None = key(None, "inputs answered at once; null: 128, fewer of large pictures", ge=1)
    trust: list[str] = key([], "packages whose classes a checkpoint may name")


@dataclass(frozen=True, kw_only=True)
class Export(Settings):
    ckpt: str | None = key(
        None, "a run folder, a student.safetensors with its model.json, or a checkpoint of a run", path=True
    )
    format: str = key("onnx", "onnx: one file, all inside; huggingface: a folder of transformers; torch: a .pt2 file",
                      choices=("onnx", "huggingface", "torch"))  # fmt: skip
    precision: str = key("fp32", "int8: of onnx, a quarter of the bytes", choices=("fp32", "int8"))
    output: str | None = key(None, "a folder; null: export/<precision or format>/ in the run's", path=True)
    calibration: int = key(256, "training samples that the ranges of int8 are measured on", ge=1)
    tolerance: float = key(0.01, "accuracy on validation that int8 may lose", ge=0, le=1)
    trust: list[str] = key([], "packages whose classes a checkpoint may name")
    dataset: Dataset | None = key(None, node=Dataset)


@dataclass(frozen=True, kw_only=True)
class Generate(Train):
    """What `distill train` takes, so that its line can be pasted, and what is written."""

    output: str | None = key(None, "a .jsonl file for one row per text", path=True)
    samples: int = key(1, "texts behind each beginning", ge=1)
    max_tokens: int = key(256, "tokens that are written behind a beginning at most", ge=1)
    prompt_tokens: int = key(
        32, "first tokens of a document that are its beginning, where the data have no prompts", ge=1
    )
    temperature: float = key(1.0, "of drawing a token; 0: the likeliest one", ge=0)
    top_k: int | None = key(None, "draw among so many likeliest tokens; null: among all", ge=1)
    top_p: float = key(1.0, "draw among the likeliest tokens that have so much probability together", gt=0, le=1)
    seed: int = key(0, "of what is drawn", ge=0)
    batch_size: int = key(64, "texts written together", ge=1)


@dataclass(frozen=True, kw_only=True)
class Pack(Settings):
    out: str | None = key(None, "the file that is made; ending in .pack", path=True)
    size: int | None = key(None, "pixels to which longer shorter sides are resized, once; null: all pictures keep their bytes",
                           ge=1, le=2**13)  # fmt: skip
    dataset: Dataset = key(None, "what is packed", node=Dataset, every_has=True)


@dataclass(frozen=True)
class Command:
    """A command that takes a configuration.

    Args:
        shape: the record of its keys. actions: where it has several to do, the words of which one stands first. flags: those
            it has for itself. sweeps: whether -m runs a sweep of it; others take one setting after another. checkpoint: the
            key that names what it works on, whose data set is then the default.
    """

    shape: type[Settings]
    actions: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    sweeps: bool = False
    checkpoint: str | None = None


COMMANDS = {
    "train": Command(Train, flags=("--from", "--debug", "--dry-run"), sweeps=True),
    "teacher": Command(Train),
    "inspect": Command(Train),
    "eval": Command(Eval, checkpoint="ckpt"),
    "predict": Command(Predict, checkpoint="ckpt"),
    "generate": Command(Generate),
    "data": Command(Pack, actions=("pack",)),
    "export": Command(Export, checkpoint="ckpt"),
}


def free(shape: type = Train, where: str = "") -> list[str]:
    """The dotted keys that a resumed run may change; those below them too."""
    dotted = [f"{where}{one.name}" for one in keys(shape) if one.rules.get("free")]
    for one in keys(shape):
        dotted += free(one.rules["node"], f"{where}{one.name}.") if "node" in one.rules else []
    return dotted


def stage_objectives(stage: Stage, objectives: Sequence[str]) -> tuple[str, ...]:
    """Names of the objectives a stage uses: its own, else all that were chosen."""
    return tuple(objectives) if stage.objective is None else stage.objective
