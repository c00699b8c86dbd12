"""The rival on texts: torchdistill's live teacher and batches padded to their longest, in a process of its own; `text.py` times it.

The teacher is a sequence classifier of transformers (--model, a folder) with the weights of ours (--weights), the student a BERT of
2 layers x 128 with the same tokenizer. --train and --test are .csv of text and label. The last line on stdout is JSON: loop seconds
by the clock and accuracy on test.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, RandomSampler
from torchdistill.core.distillation import DistillationBox
from torchdistill.datasets.registry import register_collate_func
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DataCollatorWithPadding,
)

Sample = dict[str, Any]
DEVICE = torch.device("cpu")


def read(path: Path, classes: list[str], tokenizer: Any) -> list[Sample]:
    """The texts of a file as tokens with their classes, which are added to those there are."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes += sorted({row["label"] for row in rows} - set(classes))
    tokens = tokenizer([row["text"] for row in rows], truncation=True, max_length=128)
    names = list(tokens)
    return [
        {name: tokens[name][place] for name in names} | {"labels": classes.index(row["label"])}
        for place, row in enumerate(rows)
    ]


def teacher_of(args: argparse.Namespace, classes: int) -> Any:
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(args.model, num_labels=classes))
    model.load_state_dict({name.removeprefix("model."): values for name, values in load_file(args.weights).items()})
    return model.eval()


def student_of(vocabulary: int, classes: int) -> Any:
    sizes = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
    config = BertConfig(vocab_size=vocabulary, num_labels=classes, **sizes)
    return AutoModelForSequenceClassification.from_config(config)


def box_of(args: argparse.Namespace, teacher: Any, student: Any, train: list[Sample], collate: Any) -> Any:
    def side(trained: bool) -> dict[str, Any]:
        hook = {"input": [], "output": ["classifier"]}
        forward = "forward_batch_only_as_kwargs"
        return {"forward_proc": forward, "sequential": [], "requires_grad": trained, "forward_hook": hook}

    kd = {
        "student_module_path": "classifier", "student_module_io": "output",
        "teacher_module_path": "classifier", "teacher_module_io": "output",
        "temperature": args.T, "alpha": 1 - args.alpha, "reduction": "batchmean",  # its alpha is the labels' weight
    }  # fmt: skip
    term = {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": 1.0}
    config = {
        "num_epochs": args.epochs,
        "train_data_loader": {
            "dataset_id": "train", "requires_supp": False, "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": args.batch}, "collate_fn": "padded",
        },
        "teacher": side(trained=False),
        "student": side(trained=True),
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": 1e-3}},
    }  # fmt: skip
    alone = {"device": DEVICE, "device_ids": None, "distributed": False, "lr_factor": 1}
    register_collate_func(collate, key="padded")
    return DistillationBox(teacher, student, {"train": train}, config, **alone)


def batches(loader: Iterable[Any]) -> Iterable[tuple[Any, torch.Tensor]]:
    for batch in loader:
        labels = batch.pop("labels")
        yield batch, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test", "model", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name, default in (("epochs", 3), ("batch", 32), ("T", 2.0), ("alpha", 0.9)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args()
    torch.manual_seed(0)
    tokenizer, classes = AutoTokenizer.from_pretrained(args.model), list[str]()
    train, test = (read(path, classes, tokenizer) for path in (args.train, args.test))
    collate = DataCollatorWithPadding(tokenizer)
    student = student_of(len(tokenizer), len(classes))
    box = box_of(args, teacher_of(args, len(classes)), student, train, collate)
    started = time.perf_counter()
    for _ in range(args.epochs):
        box.pre_epoch_process()
        for inputs, labels in batches(box.train_data_loader):
            box.pre_forward_process()
            box.post_forward_process(box.forward_process(inputs, labels))
        box.post_epoch_process()
    seconds = time.perf_counter() - started
    student.eval()
    with torch.inference_mode():
        loader = DataLoader(test, 128, collate_fn=collate)
        hits = sum(int((student(**inputs).logits.argmax(1) == labels).sum()) for inputs, labels in batches(loader))
    print(json.dumps({"loop_seconds": seconds, "accuracy": hits / len(test)}))


if __name__ == "__main__":
    main()
