"""The recipes of same.py: lines for `distill train` that between them use every path, and the files that they work on."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
from PIL import Image

QUICK = ["teacher=smallcnn", "teacher.widths=[16,32]", "teacher.fit.epochs=1", "student=tinycnn", "optimizer.lr=0.003",
         "dataset=digits", "report=false", "threads=1", "device=cpu"]  # fmt: skip
TWO = "schedule.imitate.epochs=1 schedule.refine.epochs=1"
ONE = "schedule=constant schedule.train.epochs=1"
SHOWN = "dataset.augmentation.flip=true dataset.augmentation.crop=2 dataset.augmentation.rotation=10"
SEVERAL = f"experiment=several_teachers model@teachers.second=tinycnn teachers.second.weight=2 {TWO}"
PHOTOS = f"dataset=image_folder dataset.root=photos batch_size=8 {TWO}"
TEXTS = ("dataset=text dataset.root=texts dataset.bucket=2 teacher=words_tiny student=words_tiny "
         "optimizer.accumulate=2 batch_size=8 schedule.imitate.epochs=4 schedule.refine.epochs=2")  # fmt: skip
LANGUAGE = ("experiment=lm dataset=pydoc teacher=bytes_small student=bytes_tiny dataset.limit=40 dataset.length=64 "
            f"teacher.fit.epochs=1 teacher.layers=1 {TWO} optimizer.accumulate=2 teacher.words=16 teacher.keep=")  # fmt: skip
ROUND = "schedule.imitate.epochs=4 schedule.refine.epochs=2"  # the fifth epoch shows the first of four views again
LONGER = "schedule.imitate.epochs=8 schedule.refine.epochs=2"
RECIPES = {
    "sweep": f"{TWO} -m T=1,3 seed=0,1",
    "resumed": f"{LONGER} save_every=1",  # killed after its first checkpoint
    "undisturbed": LONGER,
    "assistant": f"experiment=teacher_assistant model@chain.assistant=tinycnn chain.assistant.widths=[12,24] {TWO}",
    "born_again": "experiment=born_again teacher.fit.optimizer=adamw schedule.train.epochs=1 ~chain.second",
    "two_stage": f"baseline=true {TWO}",
    "constant": ONE,
    "anneal": "schedule=anneal schedule.anneal.epochs=2 schedule.anneal.shape=cosine",
    "annealing_kd": "experiment=annealing_kd schedule.anneal.epochs=1 schedule.labels.epochs=1",
    "seed_example": "experiment=seed_example schedule.train.epochs=1",
    "hint_then_kd": f"objective=[hint,kd] schedule=hint_then_kd schedule.hint.epochs=1 {TWO}",
    "crd_rkd": f"objective=[crd,rkd] {TWO}",
    "review": f"objective=review {TWO}",
    "vid": f"objective=vid {TWO}",
    "logits": f"objective=[logit_mse,logit_sse,hard,reverse_kl,jsd] debug=true {TWO}",
    "classes": f"objective=[dkd,nkd,dist,lskd,mlld] objective.nkd.warmup=0.5 {TWO}",
    "features": f"objective=[kd,attention,similarity] schedule.refine.objective=kd {TWO}",
    "virtual": "experiment=virtual_teacher schedule.train.epochs=1",
    "labels": f"objective=ce {ONE}",
    "views": f"dataset.views=4 {SHOWN} {ROUND}",
    "live": f"dataset.views=0 {SHOWN} {ROUND}",
    "mean_of_two": f"{SEVERAL} teacher.choose=mean",
    "best_of_two": f"{SEVERAL} teacher.choose=best",
    "mutual": "experiment=mutual model@teachers.peer=tinycnn teachers.peer.widths=[4,8] schedule.train.epochs=1",
    "joint": f"experiment=joint_teacher {TWO}",
    "bf16": f"precision=bf16 {TWO}",
    "accumulate": f"optimizer.accumulate=3 optimizer.clip=0.5 {TWO}",
    "smoothing": f"label_smoothing=0.1 optimizer=sgd baseline=true {TWO}",
    "few_labels": f"dataset.limit=500 dataset.label_noise=0.2 {TWO}",
    "dropout": f"student=dropping student.width=8 {TWO}",
    "photos": f"{PHOTOS} {SHOWN}",
    "streamed": f"{PHOTOS} {SHOWN} dataset.memory=0 workers=2",
    "texts": f"{TEXTS} baseline=true",
    **{f"language_{keep}": LANGUAGE + keep for keep in ("logits", "hidden", "topk", "sampled")},
    "texts_resumed": f"{TEXTS} baseline=true save_every=1",  # killed after its first checkpoint
}
KILLED = {"resumed", "texts_resumed"}
TWINS = {
    "resumed": "undisturbed",
    "streamed": "photos",
    "texts_resumed": "texts",
}  # the one must give what the other gives

DROPPING = """from torch import nn


class Net(nn.Sequential):
    def __init__(self, width: int, in_channels: int, num_classes: int) -> None:
        super().__init__(nn.Conv2d(in_channels, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.3),
                         nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * width, num_classes))
"""


def prepare(place: Path) -> None:
    """Write what recipes work on beside what is shipped: a network of a user's, pictures of several sizes, and texts."""
    (place / "conf" / "student").mkdir(parents=True)
    (place / "conf" / "student" / "dropping.yaml").write_text("# drops out\n_target_: dropping.Net\nwidth: 4\n")
    (place / "dropping.py").write_text(DROPPING)
    (place / "runs").mkdir()
    (place / "texts").mkdir()
    chance, words = random.Random(0), {"good": "sun warm fine light", "bad": "rain cold wind dark"}
    for part, number in (("train", 96), ("test", 32)):
        with (place / "texts" / f"{part}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["text", "label"])
            for label in [*words] * (number // 2):
                said = (chance.choice(f"{words[label]} the a of and".split()) for _ in range(chance.randint(3, 20)))
                table.writerow([" ".join(said), label])
    draw = np.random.default_rng(0)
    for part, number in (("train", 24), ("test", 8)):
        for level, name in enumerate("abc"):
            folder = place / "photos" / part / name
            folder.mkdir(parents=True)
            for index in range(number):
                height, width = draw.integers(16, 33, 2) if index % 3 else (20, 20)  # the most common size
                pixels = draw.integers(0, 130, (height, width, 3)) + 60 * level
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02}.png")
