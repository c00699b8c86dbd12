"""Proves that what a run's page shows of its answers is what its logits and pictures say, and that what a model costs is
measured in time, without a trace left on the model.
"""

from __future__ import annotations

import base64
import io
import json
import random
import time
from typing import Any

import numpy as np
import pytest
import torch
from helpers import picture_split
from PIL import Image
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor, nn
from torch.utils.data import Dataset

from distill_cli import models
from distill_cli.data import Data, PictureSpec, Split
from distill_cli.data.pictures import data_url
from distill_cli.deploy import cost
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import Classifier
from distill_cli.tasks.classification import ClassificationMeter
from distill_cli.tasks.details import ClassificationDetails
from distill_cli.tasks.rows import Dense, Rows

CPU = torch.device("cpu")


class Streamed(Dataset[Tensor]):
    """Pictures made when they are read; remembers which were."""

    def __init__(self, number: int, shape: tuple[int, int, int]) -> None:
        self.number, self.shape, self.asked = number, shape, set[int]()

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Tensor:
        self.asked.add(index)
        pixels = torch.arange(np.prod(self.shape)).reshape(self.shape) + index
        return (pixels % 251).to(torch.uint8)


def split_of(images: Any, labels: Tensor) -> Split:
    return picture_split(images, labels)


def answers(samples: int, classes: int, sharpness: float = 3.0) -> tuple[dict[str, Tensor], Tensor]:
    """Logits of both, right more often than not, and the labels; the last class never occurs."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, max(classes - 1, 1), (samples,), generator=generator)
    logits = {}
    for who, known in (("teacher", 2.0), ("student", 1.0)):
        logits[who] = sharpness * torch.randn(samples, classes, generator=generator)
        logits[who][torch.arange(samples), labels] += sharpness * known
    return logits, labels


def describe(logits: dict[str, Tensor], split: Split, classes: list[str], at_once: int = 150) -> dict[str, Any]:
    """What is told of these answers, which come in batches."""
    data = Data(split, split, split, tuple(classes), "", "")
    details = ClassificationDetails(data)
    for index in torch.arange(len(split)).split(at_once):
        rows = Rows(logits["student"][index], split.targets[index], index)
        details.update(rows, Dense(logits["teacher"][index]))
    return details.compute(split)


def described(
    samples: int = 400, classes: int = 7
) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray, Streamed]:
    logits, labels = answers(samples, classes)
    images = Streamed(samples, (1, 8, 8))
    found = describe(logits, split_of(images, labels), [f"class {k}" for k in range(classes)])
    return found, {who: value.double().numpy() for who, value in logits.items()}, labels.numpy(), images


# --- answers


def test_the_confusions_are_those_of_the_student() -> None:
    found, logits, labels, _ = described()
    expected = confusion_matrix(labels, logits["student"].argmax(1), labels=range(7))
    again = np.zeros((7, 7), int)
    for true, predicted, count in found["confusion"]:
        again[true, predicted] = count
    assert np.array_equal(again, expected)
    assert len(found["confusion"]) == np.count_nonzero(expected) < 49
    assert (found["split"], found["classes"]) == ("test", [f"class {k}" for k in range(7)])


def test_each_class_has_its_scores() -> None:
    found, logits, labels, _ = described()
    expected = precision_recall_fscore_support(labels, logits["student"].argmax(1), labels=range(7), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert found["per_class"][name] == pytest.approx(values.tolist())
    assert found["per_class"]["support"][6] == 0


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_reliability_is_by_fifteen_bins_and_adds_up_to_the_calibration_error(who: str) -> None:
    found, logits, labels, _ = described()
    bins = found["reliability"][who]
    probabilities = softmax(logits[who], axis=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    for number in range(15):
        inside = (confidence >= number / 15) & (confidence < (number + 1) / 15)
        assert bins["count"][number] == inside.sum()
        if not inside.any():
            assert bins["confidence"][number] is bins["accuracy"][number] is None
            continue
        assert bins["confidence"][number] == pytest.approx(confidence[inside].mean())
        assert bins["accuracy"][number] == pytest.approx(right[inside].mean())
    assert bins["count"][0] == 0 < bins["count"][14]
    gaps = [
        n * abs(c - a) for n, c, a in zip(*(bins[k] for k in ("count", "confidence", "accuracy")), strict=True) if n
    ]
    meter = ClassificationMeter(7)
    meter.update(Rows(torch.from_numpy(logits[who]), torch.from_numpy(labels), torch.arange(len(labels))))
    assert sum(gaps) / len(labels) == pytest.approx(meter.compute()["ece"])


def test_the_samples_are_those_with_the_largest_divergence() -> None:
    found, logits, labels, images = described()
    teacher, student = log_softmax(logits["teacher"], axis=1), log_softmax(logits["student"], axis=1)
    kl = (np.exp(teacher) * (teacher - student)).sum(1)
    worst = np.argsort(-kl)[:12]
    assert [sample["index"] for sample in found["samples"]] == worst.tolist()
    for sample, index in zip(found["samples"], worst, strict=True):
        assert sample["kl"] == pytest.approx(kl[index])
        assert sample["label"] == labels[index]
        for who, known in (("teacher", teacher), ("student", student)):
            top = np.argsort(-known[index])[:3]
            assert [label for label, _ in sample[who]] == top.tolist()
            assert [p for _, p in sample[who]] == pytest.approx(np.exp(known[index, top]).tolist())
    assert images.asked == set(worst.tolist())  # of pictures that are read as they go, no other was


def test_few_samples_and_two_classes_are_enough() -> None:
    found, *_ = described(samples=5, classes=2)
    assert len(found["samples"]) == 5
    assert all(len(sample["teacher"]) == len(sample["student"]) == 2 for sample in found["samples"])


def decoded(url: str) -> np.ndarray:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (1, 96, 96)])
def test_pictures_decode_to_the_pixels_of_their_samples(shape: tuple[int, int, int], streamed: bool) -> None:
    logits, labels = answers(40, 4)
    images: Any = Streamed(40, shape)
    held = images if streamed else torch.stack([images[i] for i in range(40)])
    for sample in describe(logits, split_of(held, labels), list("abcd"))["samples"]:
        pixels = images[sample["index"]].permute(1, 2, 0).numpy()
        assert np.array_equal(decoded(sample["picture"]), pixels[..., 0] if shape[0] == 1 else pixels)


@pytest.mark.parametrize(
    ("shape", "shown"), [((3, 224, 224), (96, 96, 3)), ((1, 300, 150), (96, 48)), ((4, 9, 9), (9, 9))]
)
def test_large_pictures_are_shown_small(shape: tuple[int, int, int], shown: tuple[int, ...]) -> None:
    pixels = torch.zeros(shape, dtype=torch.uint8)
    pixels[:, : shape[1] // 2] = 200
    found = decoded(data_url(pixels))
    assert found.shape == shown
    assert found[0, 0].tolist() == ([200] * 3 if shape[0] == 3 else 200)
    assert found[-1, -1].tolist() == ([0] * 3 if shape[0] == 3 else 0)


def test_a_thousand_classes_of_noise_at_224_pixels_stay_far_below_a_megabyte() -> None:
    logits, labels = answers(2000, 1000)
    noise = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = describe(logits, split_of(noise.expand(2000, -1, -1, -1), labels), [str(k) for k in range(1000)])
    assert len(json.dumps(found, allow_nan=False)) < 600_000
    assert sum(count for *_, count in found["confusion"]) == 2000


# --- costs

SMALL = {"_target_": "distill_cli.models.smallcnn.SmallCNN", "widths": [8, 16], "in_channels": None}
RESNET = {"_target_": "distill_cli.models.zoo.torchvision", "name": "resnet18", "weights": None, "stem": "auto"}
SPEC = PictureSpec(1, (28, 28), (0.5,), (0.5,))


def test_costs_are_positive_and_the_larger_model_costs_more() -> None:
    pair = {name: models.build(node, "student", SPEC, 10) for name, node in (("student", SMALL), ("teacher", RESNET))}
    found = cost.measure({name: Predictor({}, model) for name, model in pair.items()}, CPU)
    assert (found["device"], found["threads"]) == ("cpu", torch.get_num_threads())
    small, large = found["rows"]
    assert (small["name"], large["name"]) == ("student", "teacher")
    for one, model in ((small, pair["student"]), (large, pair["teacher"])):
        assert 0 < one["latency_ms"]["p50"] <= one["latency_ms"]["p95"]
        assert one["samples_per_second"] > 0
        assert one["batch"] in [2**k for k in range(7)]
        assert one["peak_bytes"] > one["bytes"]
        assert one["parameters"] == models.num_parameters(model)
        assert one["bytes"] >= 4 * one["parameters"]
    assert large["bytes"] > 100 * small["bytes"]
    assert large["latency_ms"]["p50"] > small["latency_ms"]["p50"]
    assert json.dumps(found)


def of(net: nn.Module, **how: float) -> dict[str, Any]:
    (row,) = cost.measure({"one": Predictor({}, Classifier(net, SPEC))}, CPU, **how)["rows"]
    return row


class Doubling(nn.Module):
    """Whose forward holds twice its input, and then as much once more; takes its time, and keeps a record."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.seconds, self.batches = seconds, list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not self.training and inputs.dtype == torch.float32
        self.batches.append(len(inputs))
        time.sleep(self.seconds * len(inputs))
        torch.rand(1), np.random.rand(), random.random()
        pair = torch.cat([inputs, inputs])
        third = inputs + 1
        return pair.flatten(1)[: len(inputs), :10] + third.flatten(1)[:, :10]


def test_bytes_are_those_of_the_weights_and_the_peak_adds_the_forward() -> None:
    found = of(Doubling())
    assert found["parameters"] == 1000
    assert found["bytes"] == 1000 * 4 + 8
    assert found["batch"] == 64
    held = 4 * 64 * 28 * 28 * 4  # its input is one of them; and the logits, which are small
    assert held <= found["peak_bytes"] - found["bytes"] <= 1.05 * held


@pytest.mark.parametrize(("seconds", "largest"), [(0.004, 64), (0.1, 2), (0.5, 1)])
def test_a_slow_model_gets_a_smaller_batch_and_three_latencies_all_the_same(seconds: float, largest: int) -> None:
    net = Doubling(seconds)
    started = time.perf_counter()
    found = of(net, budget=1.0)
    spent = time.perf_counter() - started
    assert found["batch"] == max(net.batches) <= largest
    assert net.batches.count(1) >= 4  # a first one that does not count among them
    assert found["latency_ms"]["p50"] >= 1000 * seconds
    assert found["samples_per_second"] <= 1 / seconds
    assert spent < max(1.0, 7 * seconds) + 2  # with much to spare for a machine that is busy


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_model_and_random_streams_as_they_were(training: bool) -> None:
    model = Classifier(Doubling(), SPEC).train(training)
    model.net.weight.grad = torch.ones(1000)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    cost.measure({"one": Predictor({}, model)}, CPU, budget=0.1)
    assert model.training is model.net.training is training
    assert torch.is_grad_enabled()
    assert torch.equal(model.net.weight.grad, torch.ones(1000)) and model.net.weight.requires_grad
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]


def test_running_out_of_memory_ends_the_growth_and_not_the_run() -> None:
    class Tight(Doubling):
        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) > 4:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(inputs)

    assert of(Tight())["batch"] == 4


def test_the_profiler_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    of(Doubling(), budget=0.1)
    assert capfd.readouterr() == ("", "")
