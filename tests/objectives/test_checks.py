"""Proves that every public function of the objectives refuses tensors it would compute nonsense of, and says what is wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_cli import objectives

ON_FEATURES = ("attention", "crd", "hint", "review", "rkd", "similarity", "vid")
NOT_LOSSES = ("Loss", "LogitObjective", "Objective", "Terms", "build", "gradient_norms", "influence")
OF_TRANSFORMERS = ("attention_map", "embedding", "hidden", "relation")  # their tests are in a file of their own
ON_LOGITS = tuple(sorted(set(objectives.__all__) - {*NOT_LOSSES, *ON_FEATURES, *OF_TRANSFORMERS}))
WITHOUT_A_TEACHER = ("ce", "virtual")
LOGITS = pytest.mark.parametrize("name", ON_LOGITS)
FEATURES = pytest.mark.parametrize("name", ON_FEATURES)


def on_logits(name: str, **changes: Any) -> Tensor:
    right = {"student_logits": torch.ones(2, 5), "teacher_logits": torch.zeros(2, 5), "labels": torch.tensor([0, 4])}
    result: Tensor = getattr(objectives, name)(**{**right, **changes})
    return result


@LOGITS
@pytest.mark.parametrize("shape", [(2, 5, 11), (5,), (), (0, 5), (2, 0)])
def test_logits_are_a_table(name: str, shape: tuple[int, ...]) -> None:
    both = {"student_logits": torch.ones(shape), "teacher_logits": torch.zeros(shape)}
    with pytest.raises(ValueError, match=r"student_logits should have the shape \(N, K\)") as caught:
        on_logits(name, **both)
    assert f"got {shape}" in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(ON_LOGITS) - set(WITHOUT_A_TEACHER)))
@pytest.mark.parametrize("shape", [(2, 1), (1, 5), (2, 6), (2, 5, 1), (5,)])
def test_a_teacher_has_the_students_shape(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="teacher_logits should have"):
        on_logits(name, teacher_logits=torch.zeros(shape))


@LOGITS
@pytest.mark.parametrize("labels", [[0], [0, 1, 2], [[0], [1]], [0.0, 1.0], [True, False]])
def test_labels_are_one_class_number_a_row(name: str, labels: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"labels should be int64 class numbers of the shape \(2,\)"):
        on_logits(name, labels=torch.tensor(labels))


@LOGITS
@pytest.mark.parametrize(("label", "got"), [(5, "5"), (-1, "-1"), (-100, "-100")])
def test_labels_are_in_range(name: str, label: int, got: str) -> None:
    with pytest.raises(ValueError, match=f"labels should lie in 0 to 4, got {got}$"):
        on_logits(name, labels=torch.tensor([2, label]))


@LOGITS
@pytest.mark.parametrize("T", [0, 0.0, -1.0, math.nan, math.inf])
def test_temperatures_are_above_0(name: str, T: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a finite number greater than 0, got"):
        on_logits(name, temperature=T)


@LOGITS
def test_what_is_right_passes(name: str) -> None:
    assert on_logits(name).isfinite()
    if name not in ("ce", "dkd", "nkd", "virtual"):
        assert on_logits(name, labels=None).isfinite()


def test_positions_of_a_text_are_rows_once_they_are_flattened() -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 5, 11, generator=draw, dtype=torch.float64) for _ in range(2))
    found = objectives.kd(student.flatten(0, -2), teacher.flatten(0, -2)).item()
    p, q = teacher.softmax(-1), student.softmax(-1)
    assert found == pytest.approx((p * (p / q).log()).sum().item() / 10)
    with pytest.raises(ValueError, match=r"flatten all but the last: logits.flatten\(0, -2\)"):
        objectives.kd(student, teacher)


def on_features(name: str, student: Any, teacher: Any, **more: Any) -> Tensor:
    result: Tensor = getattr(objectives, name)(student_features=student, teacher_features=teacher, **more)
    return result


def maps(*shape: int) -> Tensor:
    return torch.ones(shape or (3, 2, 4, 4))


@FEATURES
def test_features_come_in_lists_of_one_length(name: str) -> None:
    for student, teacher in ((maps(), [maps()]), ([maps()], maps()), (maps(), maps())):
        with pytest.raises(ValueError, match="should be lists of tensors"):
            on_features(name, student, teacher)
    for student, teacher in (([maps()], []), ([], []), ([maps()], [maps(), maps()])):
        lengths = f"one length, got {len(student)} and {len(teacher)} tensors"
        with pytest.raises(ValueError, match=lengths):
            on_features(name, student, teacher)


@FEATURES
def test_features_are_of_the_same_samples(name: str) -> None:
    with pytest.raises(ValueError, match=r"layer 1 should be of the same samples; got \(3, 2, 4, 4\) of the student"):
        on_features(name, [maps(), maps()], [maps(), maps(1, 2, 4, 4)])


@FEATURES
@pytest.mark.parametrize("shape", [(), (3,), (0, 2, 4, 4), (3, 0, 4, 4)])
def test_features_have_samples_and_numbers(name: str, shape: tuple[int, ...]) -> None:
    wrong = torch.ones(shape)
    for student, teacher in ((wrong, maps()), (maps(), wrong), (wrong, wrong)):
        with pytest.raises(ValueError, match=r"features of layer 0 should be .*, none of them empty"):
            on_features(name, [student], [teacher])


@pytest.mark.parametrize("name", ["attention", "review"])
@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4), (3, 2, 4, 4, 4)])
def test_maps_have_height_and_width(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"should be maps \(N, C, H, W\)"):
        on_features(name, [maps(*shape)], [maps(*shape)])


@pytest.mark.parametrize("name", ["hint", "review", "vid", "crd"])
def test_features_that_are_subtracted_have_one_shape(name: str) -> None:
    with pytest.raises(ValueError, match="features of layer 0 should have one shape"):
        on_features(name, [maps(3, 1, 4, 4)], [maps(3, 2, 4, 4)])


@pytest.mark.parametrize("variances", [[], [torch.ones(1)], [torch.ones(3)], [torch.ones(2), torch.ones(2)]])
def test_vid_has_a_variance_a_channel(variances: list[Tensor]) -> None:
    with pytest.raises(ValueError, match=r"variances should be one \(C,\) for each layer"):
        on_features("vid", [maps()], [maps()], variances=variances)


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ([], "negatives should be one pair for each of 1 layers, got 0"),
        ([(torch.ones(4, 2), torch.ones(5, 2))], r"should be two \(N', 2\), got \(4, 2\) and \(5, 2\)"),
        ([(torch.ones(4, 3), torch.ones(4, 3))], r"should be two \(N', 2\)"),
    ],
)
def test_crd_has_negatives_for_each_layer(negatives: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_features("crd", [maps()], [maps()], negatives=negatives)
