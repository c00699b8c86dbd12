"""Rival ways to distil the same student on the same samples, each a whole process; `throughput.py` times them.

  student      the ceiling: the student alone on labels, its pictures normalised and in memory before the clock starts
  textbook     a DataLoader over torchvision's data set; the frozen teacher answers every batch of every epoch
  torchdistill the same loss through torchdistill's DistillationBox and KDLoss
  seed         the naive joint loop: the teacher takes an SGD step on every batch, the student fits its logits by squares

--root holds FashionMNIST/raw/*-ubyte; validation is cut from train as `distill` cuts it, and left out. All run on the CPU.
The last line on stdout is JSON: way, loop_seconds, images_per_second, accuracy (test, last epoch), images (per epoch).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, Subset
from torchvision import datasets, models, transforms

T, ALPHA, LR = 3.0, 0.7, 1e-3
MEAN = STD = 0.5

# The batches of an epoch, and what to do with one.
Loop = tuple[Callable[[], Iterable[Any]], Callable[..., None]]


@dataclass
class Job:
    """What every way starts from."""

    options: argparse.Namespace
    train: Subset
    student: nn.Sequential

    def teacher(self) -> nn.Module:
        net = models.resnet18(num_classes=10)
        if self.options.stem == "small":
            net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            net.maxpool = nn.Identity()
        net.load_state_dict(load_file(self.options.teacher))
        return net

    def loader(self) -> DataLoader:
        return DataLoader(self.train, self.options.batch, shuffle=True, num_workers=self.options.workers)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.options.precision == "bf16")


def student_alone(job: Job) -> Loop:
    rows = torch.as_tensor(job.train.indices)
    images = job.train.dataset.data[rows, None].float().div_(255).sub_(MEAN).div_(STD)
    labels = job.train.dataset.targets[rows]
    adam = torch.optim.Adam(job.student.parameters(), lr=LR)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(len(images)).split(job.options.batch):
            yield three_channels(images[index]), labels[index]

    def step(inputs: Tensor, labels: Tensor) -> None:
        with job.autocast():
            logits = job.student(inputs)
        adam.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        adam.step()

    return batches, step


def textbook(job: Job) -> Loop:
    teacher, student = job.teacher().eval().requires_grad_(False), job.student
    adam = torch.optim.Adam(student.parameters(), lr=LR)

    def step(inputs: Tensor, labels: Tensor) -> None:
        with job.autocast():
            with torch.no_grad():
                targets = teacher(inputs)
            logits = student(inputs)
        soft, target = (F.log_softmax(answer.float() / T, dim=1) for answer in (logits, targets))
        kd = T**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)
        adam.zero_grad()
        (ALPHA * kd + (1 - ALPHA) * F.cross_entropy(logits.float(), labels)).backward()
        adam.step()

    return job.loader, step


def torchdistill(job: Job) -> Loop:
    from torchdistill.core.distillation import DistillationBox

    def side(logits: str, trained: bool) -> dict[str, Any]:
        hook = {"input": [], "output": [logits]}
        return {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": trained, "forward_hook": hook}

    last = str(len(job.student) - 1)
    kd = {
        "student_module_path": last, "student_module_io": "output",
        "teacher_module_path": "fc", "teacher_module_io": "output",
        "temperature": T, "alpha": 1 - ALPHA, "reduction": "batchmean",  # its alpha is the labels' weight
    }  # fmt: skip
    term = {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": 1.0}
    config = {
        "num_epochs": job.options.epochs,
        "train_data_loader": {
            "dataset_id": "train", "requires_supp": True, "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": job.options.batch, "num_workers": job.options.workers},
        },
        "teacher": side("fc", trained=False),
        "student": side(last, trained=True),
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
        "optimizer": {"key": "Adam", "kwargs": {"lr": LR}},
    }  # fmt: skip
    teacher = job.teacher().eval()  # the box freezes its weights, but leaves batch normalisation as it finds it
    alone = {"device": torch.device("cpu"), "device_ids": None, "distributed": False, "lr_factor": 1}
    box = DistillationBox(teacher, job.student, {"train": job.train}, config, **alone)

    def batches() -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
        box.pre_epoch_process()
        yield from box.train_data_loader
        box.post_epoch_process()

    def step(inputs: Tensor, labels: Tensor, supplement: dict[str, Any]) -> None:
        box.pre_forward_process()
        with job.autocast():
            loss = box.forward_process(inputs, labels, supplement)
        box.post_forward_process(loss)

    return batches, step


def joint(job: Job) -> Loop:
    teacher, student = job.teacher().train(), job.student
    sgd = torch.optim.SGD(teacher.parameters(), lr=0.01, momentum=0.9)
    adam = torch.optim.Adam(student.parameters(), lr=LR)

    def step(inputs: Tensor, labels: Tensor) -> None:
        with job.autocast():
            targets, logits = teacher(inputs), student(inputs)
        sgd.zero_grad()
        F.cross_entropy(targets.float(), labels).backward()
        sgd.step()
        apart = (targets.detach().float() - logits.float()).square().sum()
        adam.zero_grad()
        (F.cross_entropy(logits.float(), labels) + 0.1 * apart).backward()
        adam.step()

    return job.loader, step


WAYS = {"student": student_alone, "textbook": textbook, "torchdistill": torchdistill, "seed": joint}


def three_channels(grey: Tensor) -> Tensor:
    """(..., 1, H, W) -> (..., 3, H, W)."""
    return grey.expand(*grey.shape[:-3], 3, -1, -1)


def pictures(root: str) -> tuple[Subset, datasets.FashionMNIST]:
    """The training samples that validation leaves, and the test set."""
    steps = [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,)), transforms.Lambda(three_channels)]
    train, test = (datasets.FashionMNIST(root, part, transforms.Compose(steps)) for part in (True, False))
    held = max(round(0.1 * len(train)), len(train.classes))
    rows, _ = train_test_split(np.arange(len(train)), test_size=held, stratify=train.targets, random_state=0)
    return Subset(train, np.sort(rows).tolist()), test


def new_student() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128 * 7 * 7, 10),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--root", required=True)
    parser.add_argument("--teacher")
    parser.add_argument("--stem", choices=["imagenet", "small"], default="imagenet")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    for name, default in (("epochs", 5), ("batch", 64), ("seed", 0), ("workers", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.way != "student" and not options.teacher:
        parser.error(f"{options.way} needs --teacher")

    torch.manual_seed(options.seed)
    train, test = pictures(options.root)
    student = new_student()
    batches, step = WAYS[options.way](Job(options, train, student))
    started = time.perf_counter()
    for _ in range(options.epochs):
        for batch in batches():
            step(*batch)
    seconds = time.perf_counter() - started

    student.eval()
    with torch.inference_mode():
        loader = DataLoader(test, batch_size=128, num_workers=options.workers)
        hits = sum(int((student(inputs).argmax(1) == labels).sum()) for inputs, labels in loader)
    rate = options.epochs * len(train) / seconds
    print(json.dumps({"way": options.way, "loop_seconds": seconds, "images_per_second": rate,
                      "accuracy": hits / len(test), "images": len(train)}))  # fmt: skip


if __name__ == "__main__":
    main()
