"""Proves every objective on features against its formula in plain loops, its limits, and that adapters and memories are kept.

Each class is connected to real pairs of models, so which layers `auto` takes is shown too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Guide, fit, recipe_of, rows_from, signal_from, stored
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli import models
from distill_cli.base.errors import ConfigError
from distill_cli.config import building, places, schema
from distill_cli.data import Batch, Data, Part, assemble
from distill_cli.models import Classifier
from distill_cli.models.features import Output, Tap, pairs, penultimate, shapes, stages
from distill_cli.objectives import Loss, Objective
from distill_cli.objectives.contrastive import CRD, crd
from distill_cli.objectives.features import VID, Attention, Hint, attention, hint, vid
from distill_cli.objectives.layers import OnFeatures
from distill_cli.objectives.relations import RKD, Similarity, rkd, similarity
from distill_cli.objectives.review import Fusion, Review, review
from distill_cli.tasks.rows import Dense
from distill_cli.training.loop import Pace
from distill_cli.training.schedule import Ramp, Stage
from distill_cli.training.state import State, begin

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (hint, attention, similarity, rkd, vid, crd, review)
}
EVERY = pytest.mark.parametrize("name", FUNCTIONS)
ON_EMBEDDINGS = ("similarity", "rkd", "vid", "crd")


def draw(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Student's and teacher's features in float64."""
    source = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=source, dtype=torch.float64) for _ in range(2))
    return student, teacher


def value(name: str, student: Tensor, teacher: Tensor, **constants: Any) -> Tensor:
    return FUNCTIONS[name](student_features=[student], teacher_features=[teacher], **constants)


# The formulas once more, in loops.


def unit(row: np.ndarray) -> np.ndarray:
    return row / (np.linalg.norm(row) or 1.0)


def smooth(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def hint_by_loops(s: np.ndarray, t: np.ndarray) -> float:
    return float(np.mean([(a - b) ** 2 for a, b in zip(s.ravel(), t.ravel(), strict=True)]))


def attention_by_loops(s: np.ndarray, t: np.ndarray) -> float:
    def q(maps: np.ndarray) -> np.ndarray:
        height, width = maps.shape[1:]
        return unit(np.array([np.mean(maps[:, y, x] ** 2) for y in range(height) for x in range(width)]))

    return float(np.mean([(q(a) - q(b)) ** 2 for a, b in zip(s, t, strict=True)]))


def similarity_by_loops(s: np.ndarray, t: np.ndarray) -> float:
    def gram(maps: np.ndarray) -> list[np.ndarray]:
        return [unit(np.array([np.sum(a * b) for b in maps])) for a in maps]

    return sum(float(np.sum((a - b) ** 2)) for a, b in zip(gram(s), gram(t), strict=True)) / len(s) ** 2


def rkd_by_loops(s: np.ndarray, t: np.ndarray, distance_weight: float = 25, angle_weight: float = 50) -> float:
    n = len(s)
    s, t = (np.array([[channel.mean() for channel in maps] for maps in each]) for each in (s, t))

    def distances(rows: np.ndarray) -> np.ndarray:
        found = np.array([[math.dist(a, b) for b in rows] for a in rows])
        return found / found[found > 0].mean()

    def cosine(rows: np.ndarray, i: int, j: int, k: int) -> float:
        if j in (i, k):
            return 0.0
        return float(unit(rows[i] - rows[j]) @ unit(rows[k] - rows[j]))

    d_s, d_t = distances(s), distances(t)
    far = np.mean([smooth(d_s[i, j] - d_t[i, j]) for i in range(n) for j in range(n)])
    triplets = [(i, j, k) for i in range(n) for j in range(n) for k in range(n)]
    bent = np.mean([smooth(cosine(s, *each) - cosine(t, *each)) for each in triplets])
    return float(distance_weight * far + angle_weight * bent)


def vid_by_loops(s: np.ndarray, t: np.ndarray, v: Sequence[float] | None = None) -> float:
    found = []
    for place in np.ndindex(s.shape):
        variance = 5.0 if v is None else v[place[1]]
        found.append(((s[place] - t[place]) ** 2 / variance + math.log(variance)) / 2)
    return float(np.mean(found))


def crd_by_loops(s: np.ndarray, t: np.ndarray, tau: float = 0.07) -> float:
    n = len(s)
    s, t = (np.array([unit(maps.reshape(len(maps), -1).mean(1)) for maps in each]) for each in (s, t))

    def h(a: np.ndarray, b: np.ndarray) -> float:
        power = math.exp(a @ b / tau)
        return power / (power + (n - 1) / n)

    total = 0.0
    for anchors, others in ((s, t), (t, s)):
        for i in range(n):
            total -= math.log(h(anchors[i], others[i]))
            total -= sum(math.log(1 - h(anchors[i], others[j])) for j in range(n) if j != i)
    return total / n


def review_by_loops(s: np.ndarray, t: np.ndarray) -> float:
    def pooled(maps: np.ndarray, side: int) -> np.ndarray:
        step = maps.shape[2] // side
        rows = [[maps[:, :, y * step : (y + 1) * step, x * step : (x + 1) * step].mean((2, 3)) for x in range(side)]
                for y in range(side)]  # fmt: skip
        return np.array(rows)

    total, weights = np.mean((s - t) ** 2), [1.0]
    for side in (4, 2, 1):
        if side < s.shape[2]:
            weights.append(weights[-1] / 2)
            total += weights[-1] * np.mean((pooled(s, side) - pooled(t, side)) ** 2)
    return float(total / sum(weights))


BY_LOOPS: dict[str, Callable[..., float]] = {name: globals()[f"{name}_by_loops"] for name in FUNCTIONS}


@EVERY
@pytest.mark.parametrize("side", [2, 4, 8])
def test_a_function_is_its_formula(name: str, side: int) -> None:
    student, teacher = draw(4, 3, side, side)
    found = value(name, student, teacher)
    assert found.shape == () and found.dtype == torch.float64
    assert found.item() == pytest.approx(BY_LOOPS[name](student.numpy(), teacher.numpy()), rel=1e-9)


def test_constants_count() -> None:
    student, teacher = draw(5, 3, 2, 2)
    s, t = student.numpy(), teacher.numpy()
    found = value("rkd", student, teacher, distance_weight=3.0, angle_weight=0.5)
    assert found.item() == pytest.approx(rkd_by_loops(s, t, 3.0, 0.5), rel=1e-9)
    assert value("crd", student, teacher, tau=0.5).item() == pytest.approx(crd_by_loops(s, t, 0.5), rel=1e-9)
    v = torch.tensor([0.3, 1.0, 7.0], dtype=torch.float64)
    assert value("vid", student, teacher, variances=[v]).item() == pytest.approx(vid_by_loops(s, t, v.tolist()))


def test_contrast_with_given_negatives_worked_by_hand() -> None:
    # tau 1, one pair (1, 0), (0, 1): s't = 0. Two negatives: c = 2/3, so h = 1 / (1 + 2/3) = 3/5 for scores of 0.
    # Teacher's negatives (1, 0) and (0, 1) score 1 and 0 with s: 1 - h = (2/3) / (e + 2/3) and 2/5; the student's are the
    # same two, which score 0 and 1 with t. Twice -log(3/5) - log(2/5) - log((2/3) / (e + 2/3)).
    s, t = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    others = torch.eye(2)
    expected = -2 * (math.log(3 / 5) + math.log(2 / 5) + math.log((2 / 3) / (math.e + 2 / 3)))
    assert value("crd", s, t, negatives=[(others, others)], tau=1.0).item() == pytest.approx(expected, rel=1e-6)


@EVERY
def test_layers_add_up(name: str) -> None:
    (a, b), (c, d) = draw(4, 3, 4, 4), draw(4, 5, 2, 2, seed=1)
    both = FUNCTIONS[name](student_features=[a, c], teacher_features=[b, d])
    assert both.item() == pytest.approx((value(name, a, b) + value(name, c, d)).item(), rel=1e-12)
    with pytest.raises(ValueError, match="lists of one length, got 2 and 1"):
        FUNCTIONS[name](student_features=[a, c], teacher_features=[b])


@EVERY
def test_gradients_are_those_of_the_value(name: str) -> None:
    student, teacher = draw(4, 3, 4, 4)
    assert torch.autograd.gradcheck(lambda s: value(name, s, teacher), student.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("name", ["hint", "attention", "similarity", "rkd", "review"])
def test_nothing_to_learn_from_an_equal_teacher(name: str) -> None:
    student, _ = draw(5, 3, 4, 4)
    teacher = student.clone()
    found = value(name, student.requires_grad_(), teacher)
    assert abs(found.item()) < 1e-12
    assert torch.autograd.grad(found, student)[0].abs().max().item() < 1e-12


@EVERY
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_and_huge_features_stay_finite(name: str, kind: torch.dtype) -> None:
    student, teacher = (features.to(kind) for features in draw(4, 3, 4, 4))
    expected = value(name, student.double(), teacher.double()).item()
    assert value(name, student, teacher).dtype == torch.float32
    assert value(name, student, teacher).item() == pytest.approx(expected, rel=1e-4)
    huge = (1e4 * student).detach().requires_grad_()
    found = value(name, huge, 1e4 * teacher)
    assert found.isfinite()
    assert torch.autograd.grad(found, huge)[0].isfinite().all()


@EVERY
def test_order_within_the_batch_does_not_matter(name: str) -> None:
    student, teacher = draw(6, 3, 4, 4)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    whole = value(name, student, teacher).item()
    assert value(name, student[order], teacher[order]).item() == pytest.approx(whole, rel=1e-12)
    assert value(name, student[order], teacher).item() != pytest.approx(whole, rel=1e-3)


@EVERY
@pytest.mark.parametrize("how", ["one", "two", "coinciding", "zero"])
def test_degenerate_batches_have_finite_values_and_gradients(name: str, how: str) -> None:
    student, teacher = draw({"one": 1, "two": 2}.get(how, 4), 3, 4, 4)
    if how == "coinciding":
        student = student[:1].repeat(4, 1, 1, 1)
    if how == "zero":
        student, teacher = torch.zeros_like(student), torch.zeros_like(teacher)
    found = value(name, student.requires_grad_(), teacher)
    assert found.isfinite()
    assert torch.autograd.grad(found, student)[0].isfinite().all()


def test_only_pairs_that_coincide_are_left_out_of_the_mean_distance() -> None:
    rows = torch.tensor([[0.0], [0.0], [3.0], [4.0]], dtype=torch.float64)
    other = torch.tensor([[0.0], [1.0], [5.0], [2.0]], dtype=torch.float64)
    expected = rkd_by_loops(rows.numpy()[:, :, None], other.numpy()[:, :, None], 1.0, 0.0)
    assert value("rkd", rows, other, distance_weight=1.0, angle_weight=0.0).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ON_EMBEDDINGS)
def test_embeddings_do_as_well_as_maps(name: str) -> None:
    student, teacher = draw(5, 8)
    maps = value(name, student[:, :, None, None], teacher[:, :, None, None])
    assert value(name, student, teacher).item() == pytest.approx(maps.item(), rel=1e-12)
    tokens = value(name, student[:, None].repeat(1, 3, 1), teacher[:, None].repeat(1, 3, 1))
    assert tokens.isfinite()


@pytest.mark.parametrize("name", ["similarity", "rkd"])
def test_relations_need_no_like_width(name: str) -> None:
    (student, _), (_, teacher) = draw(5, 8), draw(5, 3, 4, 4)
    assert value(name, student, teacher).item() > 0


def test_attention_needs_no_like_channels_or_sizes() -> None:
    (student, _), (_, teacher) = draw(5, 2, 8, 8), draw(5, 3, 4, 4)
    expected = attention_by_loops(F.avg_pool2d(student, 2).numpy(), teacher.numpy())
    assert value("attention", student, teacher).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_channels_last_changes_nothing(name: str) -> None:
    student, teacher = draw(4, 3, 4, 4)
    laid = (each.contiguous(memory_format=torch.channels_last) for each in (student, teacher))
    assert value(name, *laid).item() == pytest.approx(value(name, student, teacher).item(), rel=1e-12)


# --- classes, on real models

SIDE, CLASSES, BATCH = 16, 4, 8
SMALL = {"_target_": "distill_cli.models.smallcnn.SmallCNN", "widths": [4, 6]}
RESNET = {"_target_": "distill_cli.models.resnet.SmallResNet", "depth": 8, "widths": [4, 4, 8, 16]}
WIDE = {"_target_": "distill_cli.models.resnet.WideResNet", "depth": 10, "widen": 1}
RESNET18 = {"_target_": "distill_cli.models.zoo.torchvision", "name": "resnet18", "stem": "small"}
PAIRS = {"cnn-resnet": (SMALL, RESNET), "resnet-resnet": (RESNET, RESNET), "cnn-resnet18": (SMALL, RESNET18)}
CLASSES_OF: list[type[OnFeatures]] = [Hint, Attention, Similarity, RKD, VID, CRD, Review]
EVERY_CLASS = pytest.mark.parametrize("kind", CLASSES_OF)


def part(count: int, seed: int) -> Part:
    labels = np.arange(count) % CLASSES
    pictures = np.random.default_rng(seed).integers(0, 128, (count, 1, SIDE, SIDE)) + 30 * labels[:, None, None, None]
    return Part(torch.from_numpy(pictures.astype(np.uint8)), labels)


@pytest.fixture(scope="module")
def data() -> Data:
    return assemble(part(20, 0), part(9, 1), part(8, 2), "abcd", val_fraction=0.1, split_seed=0, mean=None, std=None,
                    note="")  # fmt: skip


def built(data: Data, node: dict[str, Any], seed: int = 0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.build(node, "student", data.input, CLASSES)


def connected(objective: Objective, student: Classifier, teacher: Classifier, data: Data, seed: int = 0) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return objective.connect(student, teacher, data)[1]


def term_of(objective: Objective, student: Classifier, teacher: Classifier, batch: Batch) -> Tensor:
    with Tap(student.net, objective.student_layers) as ours, Tap(teacher.net, objective.teacher_layers) as theirs:
        with torch.no_grad():
            answer = theirs(teacher.eval(), batch.inputs)
        return objective(rows_from(ours(student.train(), batch.inputs), batch), signal_from(answer), 3.0)


@EVERY_CLASS
@pytest.mark.parametrize("who", PAIRS)
def test_a_class_connects_and_its_gradient_reaches_student_and_adapters(
    kind: type[OnFeatures], who: str, data: Data
) -> None:
    ours, theirs = PAIRS[who]
    student, teacher, objective = built(data, ours), built(data, theirs, seed=1), kind()  # type: ignore[call-arg]
    assert objective.student_layers == objective.teacher_layers == ("auto",)
    assert not list(objective.parameters())
    text = connected(objective, student, teacher, data)
    assert text.startswith("student ") and " → teacher " in text
    batch = next(data.train.batches(BATCH))
    loss = term_of(objective, student, teacher, batch)
    assert loss.shape == () and loss.isfinite() and loss.item() != 0
    loss.backward()
    assert bool(list(objective.parameters())) == (kind in (Hint, VID, CRD, Review))
    first = next(student.parameters())
    for name, parameter in (*objective.named_parameters(), ("student", first)):
        assert parameter.grad is not None and parameter.grad.abs().max().item() > 0, name
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_stages_are_compared_from_the_deepest_up(data: Data) -> None:
    student, teacher = built(data, SMALL), built(data, RESNET)
    found = Attention()
    text = connected(found, student, teacher, data)
    assert text == (
        "student features.1 4x16x16 → teacher layer1 4x16x16, features.4 6x8x8 → layer2 8x8x8, features 6x4x4 → layer3 16x4x4"
    )
    deeper = built(data, RESNET18)
    assert pairs(shapes(student), shapes(deeper)) == [
        ("features.1", "layer1"), ("features.4", "layer2"), ("features", "layer3")]  # fmt: skip
    # Three poolings: 16, 8, 4 and 2 pixels against the teacher's 16, 8 and 4: the closest has layer3.
    narrow = built(data, {**SMALL, "widths": [4, 4, 4]})
    assert pairs(shapes(narrow), shapes(teacher)) == [
        ("features.1", "layer1"), ("features.4", "layer2"), ("features.7", "layer3")]  # fmt: skip
    assert stages(shapes(built(data, WIDE)), "student") == ["layer1", "layer2", "layer3"]


def test_hint_picks_the_deepest_map_and_the_teachers_nearest_in_size(data: Data) -> None:
    found = Hint()
    text = connected(found, built(data, SMALL), built(data, RESNET), data)
    assert (found.student_layers, found.teacher_layers) == (("features",), ("layer3",))
    assert text == "student features 6x4x4 → teacher layer3 16x4x4"


@pytest.mark.parametrize(("teacher_layer", "channels"), [("layer1", 4), ("layer2", 8), ("layer3", 16)])
def test_hint_compares_maps_of_any_size(teacher_layer: str, channels: int, data: Data) -> None:
    student, teacher = built(data, SMALL), built(data, RESNET)
    found = Hint(student_layer="features.3", teacher_layer=teacher_layer)
    connected(found, student, teacher, data)
    assert dict(found.named_parameters())["regressor.0.weight"].shape[:2] == (channels, 6)
    assert term_of(found, student, teacher, next(data.train.batches(5))).item() > 0


def test_hint_is_the_mean_squared_difference_after_the_regressor(data: Data) -> None:
    model, found = built(data, {**SMALL, "widths": [4]}), Hint()
    connected(found, model, model, data)
    maps = draw(3, 4, 8, 8)[0].float()
    output = Output(torch.zeros(3, CLASSES), {found.student_layers[0]: maps})
    found.eval()
    with torch.no_grad():
        expected = ((found.regressor(maps) - maps).double().numpy() ** 2).mean()
        rows = rows_from(output, next(data.train.batches(3)))
        assert found(rows, signal_from(output), 1.0).item() == pytest.approx(expected, rel=1e-5)


def test_what_the_classifier_is_given(data: Data) -> None:
    for node, path in ((SMALL, "features"), (RESNET, "layer3"), (RESNET18, "avgpool"), (WIDE, "bn")):
        model = built(data, node)
        assert penultimate(model, shapes(model), "key") == path


def test_vids_variance_starts_where_it_is_told(data: Data) -> None:
    for start in (5.0, 0.01, 300.0):
        found = VID(variance=start)
        connected(found, built(data, SMALL), built(data, RESNET), data)
        assert F.softplus(found.c[0]).add(1e-5).tolist() == pytest.approx([start] * 4, rel=1e-4)


def test_a_fusion_weighs_its_own_map_and_the_deeper_ones_pixel_by_pixel() -> None:
    fusion = Fusion(before=3, mid=2, after=5, deeper=True).eval()
    features, residual = draw(2, 3, 4, 4)[0].float(), draw(2, 2, 2, 2, seed=1)[0].float()
    with torch.no_grad():
        passed, told = fusion(features, residual)
        own, deep = fusion.enter(features), residual.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        assert fusion.attend is not None
        share = fusion.attend(torch.cat([own, deep], dim=1))
        expected = torch.stack([own[:, c] * share[:, 0] + deep[:, c] * share[:, 1] for c in range(2)], dim=1)
        assert torch.allclose(passed, expected, atol=1e-6)
        assert torch.equal(told, fusion.leave(passed)) and told.shape == (2, 5, 4, 4)


def test_review_lets_deep_maps_tell_about_shallow_ones(data: Data) -> None:
    found = Review(student_layers=["features.1", "features"], teacher_layers=["layer1", "layer3"])
    connected(found, built(data, SMALL), built(data, RESNET), data)
    deep = draw(2, 6, 4, 4)[0].float().requires_grad_()
    maps = {"features.1": torch.ones(2, 4, 16, 16), "features": deep}
    teacher = Dense(torch.zeros(2, 4), {"layer1": torch.ones(2, 4, 16, 16), "layer3": torch.zeros(2, 16, 4, 4)})
    nn.init.zeros_(found.fusions[1].leave[1].weight)  # the deepest pair itself says nothing
    found(rows_from(Output(torch.zeros(2, 4), maps), next(data.train.batches(2))), teacher, 1.0).backward()
    assert deep.grad is not None and deep.grad.abs().max().item() > 0


class Tokens(nn.Module):
    """A transformer in outline: a map of patches, then tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix, self.head = nn.Conv2d(1, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.mix(self.patches(inputs).flatten(2).mT).mean(1))


@EVERY_CLASS
def test_tokens_are_taken_where_any_features_are_and_refused_elsewhere(kind: type[OnFeatures], data: Data) -> None:
    student, teacher = built(data, SMALL), built(data, {"_target_": f"{__name__}.Tokens"})
    objective = kind()  # type: ignore[call-arg]
    if kind in (Similarity, RKD, CRD):
        assert "→ teacher mix 16x6" in connected(objective, student, teacher, data)
        assert term_of(objective, student, teacher, next(data.train.batches(BATCH))).isfinite()
    else:
        with pytest.raises(ConfigError, match=r"teacher.*no feature map .* mix gives \(1, 16, 6\)"):
            connected(objective, student, teacher, data)


def refused(objective: Objective, data: Data, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        connected(objective, built(data, SMALL), built(data, RESNET), data)


def test_a_wrong_layer_is_refused_with_the_nearest_name(data: Data) -> None:
    refused(Hint(teacher_layer="layer33"), data, r"objective\.hint\.teacher_layer.*'layer33'\ndid you mean layer3\?")
    refused(Hint(student_layer="fc"), data, r"objective\.hint\.student_layer: fc gives .* not a feature map")
    refused(VID(student_layers=["feature"]), data, r"objective\.vid\.student_layers.*\ndid you mean features\?")
    refused(RKD(student_layer="feature"), data, r"objective\.rkd\.student_layer.*\ndid you mean features\?")
    refused(
        Review(student_layers=["features", "fc"], teacher_layers=["layer1", "layer2"]),
        data,
        "fc gives .* not a feature",
    )
    refused(Attention(student_layers=["features"], teacher_layers=["layer1", "layer2"]), data,
            r"objective\.attention\.student_layers: has 1 layer\(s\), but teacher_layers has 2")  # fmt: skip
    with pytest.raises(ConfigError, match="name at least one module"):
        Attention(student_layers=[])


def test_layers_named_on_one_side_find_their_pairs_on_the_other(data: Data) -> None:
    found = Attention(teacher_layers=["layer1", "layer2"])
    connected(found, built(data, SMALL), built(data, RESNET), data)
    assert found.student_layers == ("features.1", "features.4")
    found = Attention(student_layers="features.3")
    connected(found, built(data, SMALL), built(data, RESNET), data)
    assert found.teacher_layers == ("layer2",)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_yaml_is_what_the_class_does_anyway(name: str) -> None:
    whole = OmegaConf.to_container(OmegaConf.load(places.group_files("objective")[name]))[name]  # type: ignore[index,call-overload]
    node = schema.of_class(schema.Objective, whole)
    objective = building.build(node, Objective, f"objective.{name}")
    assert isinstance(objective, OnFeatures) and objective.name == name
    assert objective.formula and "arXiv" in objective.source and not objective.uses_T
    plain = type(objective)()  # type: ignore[call-arg]
    own = {key: kept for key, kept in vars(objective).items() if not key.startswith("_")}
    assert own == {key: kept for key, kept in vars(plain).items() if not key.startswith("_")}
    assert set(node) - {"_target_"} == set(type(objective).__init__.__code__.co_varnames[1 : len(node)])


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(CRD, {"tau": 0.0}), (CRD, {"momentum": 1.0}), (CRD, {"dim": 0}), (CRD, {"num_negatives": 0}), (VID, {"variance": 0.0}),
     (RKD, {"angle_weight": -1.0}), (Review, {"mid_channels": 0})],
)  # fmt: skip
def test_wrong_constants_are_refused(kind: type[OnFeatures], wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        kind(**wrong)


# --- trained and kept with the student


HOW = recipe_of({"_target_": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9, "accumulate": 2})


def begun(data: Data, objective: OnFeatures, seed: int = 0) -> State:
    student = built(data, SMALL, seed)
    connected(objective, student, built(data, RESNET, seed=99), data, seed)
    return begin(student, {"own": objective}, HOW)


def train(state: State, data: Data, objective: OnFeatures, stop: int | None = None) -> None:
    """Two epochs of three steps, or up to step `stop`."""
    plan = [Stage("all", 2, Ramp(1.0, 1.0), Ramp(0.5, 0.5), ("own",))]
    guide = Guide(built(data, RESNET, seed=99), objective.teacher_layers)
    for row in fit(state, plan, {"all": Loss({"own": objective})}, data, Pace(3, BATCH), guide):
        if row is None and state.step == stop:
            break


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


KEPT: dict[str, Callable[[], OnFeatures]] = {
    "hint": lambda: Hint(weight=1.0), "vid": VID, "review": lambda: Review(weight=1.0),
    "crd": CRD, "crd drawing": lambda: CRD(num_negatives=7, dim=5)}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_a_run_cut_in_the_middle_goes_on_to_the_same_bits(name: str, data: Data) -> None:
    whole, first, second = (KEPT[name]() for _ in range(3))
    state = begun(data, whole)
    trained = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in whole.parameters()} <= trained and list(whole.parameters())
    before = {key: kept.clone() for key, kept in whole.state_dict().items()}
    train(state, data, whole)
    assert state.step == 6
    assert all(not torch.equal(kept, before[key]) for key, kept in whole.state_dict().items()), "something never moved"
    cut = begun(data, first)
    train(cut, data, first, stop=4)
    other = begun(data, second, seed=5)
    other.restore(stored(cut))
    assert same(first.state_dict(), second.state_dict()) and first.state_dict()
    train(other, data, second)
    assert other.step == 6
    assert same(whole.state_dict(), second.state_dict())
    assert same(state.model.net.state_dict(), other.model.net.state_dict())


@pytest.mark.parametrize("kind", [Attention, Similarity, RKD])
def test_nothing_is_kept_where_there_is_nothing_to_train(kind: type[OnFeatures], data: Data) -> None:
    objective = kind()  # type: ignore[call-arg]
    state = begun(data, objective)
    train(state, data, objective, stop=2)
    assert not objective.state_dict() and not list(objective.parameters())
    assert state.step == 2


# --- the memory of crd


def test_the_memory_moves_where_samples_were_seen_and_keeps_its_length(data: Data) -> None:
    student, teacher, objective = built(data, SMALL), built(data, RESNET), CRD(dim=6, momentum=0.25)
    text = connected(objective, student, teacher, data)
    assert text.endswith("memory of 20 x 6")
    assert {"student_bank", "teacher_bank", "log_z"} <= set(objective.state_dict())
    assert "labels" not in objective.state_dict()
    banks = objective.student_bank, objective.teacher_bank
    before = [bank.clone() for bank in banks]
    batch = next(data.train.batches(5, order=torch.tensor([3, 17, 8, 0, 11])))
    objective.eval()
    term_of(objective, student, teacher, batch)
    assert all(torch.equal(bank, kept) for bank, kept in zip(banks, before, strict=True))
    assert objective.log_z.isinf().all()
    objective.train()
    term_of(objective, student, teacher, batch)
    for bank, kept in zip(banks, before, strict=True):
        moved = (bank != kept).any(1).nonzero().flatten().tolist()
        assert moved == [0, 3, 8, 11, 17]
        assert bank.norm(dim=1).tolist() == pytest.approx([1.0] * 20, abs=1e-6)
    known = objective.log_z.clone()
    assert known.isfinite().all()
    term_of(objective, student, teacher, batch)
    assert torch.equal(objective.log_z, known)


def test_the_memorys_row_is_mixed_with_what_the_sample_gives_now(data: Data) -> None:
    student, teacher, objective = built(data, SMALL), built(data, RESNET), CRD(dim=6, momentum=0.25)
    connected(objective, student, teacher, data)
    before = objective.student_bank[2].clone()
    features = draw(1, 6, 4, 4)[0].float()
    batch = next(data.train.batches(1, order=torch.tensor([2])))
    rows = rows_from(Output(torch.zeros(1, 4), {"features": features}), batch)
    objective(rows, Dense(torch.zeros(1, 4), {"layer3": torch.ones(1, 16, 4, 4)}), 1.0)
    embedding = F.normalize(objective.student_embed(features.mean((2, 3))), dim=1)[0]
    expected = F.normalize(0.25 * before + 0.75 * embedding, dim=0)
    assert torch.allclose(objective.student_bank[2], expected, atol=1e-6)


def test_contrast_with_the_memory_by_loops(data: Data) -> None:
    """Negatives are all samples of other classes; h's odds are their number times Z / M."""
    student, teacher, objective = built(data, SMALL), built(data, RESNET), CRD(dim=6, tau=0.5)
    connected(objective, student, teacher, data)
    banks = objective.student_bank.double().numpy().copy(), objective.teacher_bank.double().numpy().copy()
    batch = next(data.train.batches(3, order=torch.tensor([4, 9, 14])))
    ours, theirs = draw(3, 6)[0].float(), draw(3, 16)[1].float()
    rows = rows_from(Output(torch.zeros(3, 4), {"features": ours}), batch)
    found = objective(rows, Dense(torch.zeros(3, 4), {"layer3": theirs}), 1.0)
    with torch.no_grad():
        s = [unit(row) for row in objective.student_embed(ours).double().numpy()]
        t = [unit(row) for row in objective.teacher_embed(theirs).double().numpy()]
    labels, expected = data.train.targets.tolist(), 0.0
    for anchors, others, bank in ((s, t, banks[1]), (t, s, banks[0])):
        z = np.mean([math.exp(a @ row / 0.5) for a in anchors for row in bank])
        for a, b, label in zip(anchors, others, batch.targets.tolist(), strict=True):
            apart = [row for row, other in zip(bank, labels, strict=True) if other != label]
            odds = len(apart) * z
            power = math.exp(a @ b / 0.5)
            expected -= math.log(power / (power + odds)) / 3
            expected -= sum(math.log(odds / (math.exp(a @ row / 0.5) + odds)) for row in apart) / 3
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_negatives_are_drawn_by_the_step_alone(data: Data) -> None:
    student, teacher = built(data, SMALL), built(data, RESNET)
    batch = next(data.train.batches(BATCH))

    def term(seed: int) -> float:
        objective = CRD(num_negatives=5)
        connected(objective, student, teacher, data)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return term_of(objective, student, teacher, batch).item()

    assert term(1) == term(1) != term(2)
