"""What the objectives ask of their tensors and constants, checked once where they enter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from distill_cli.base.errors import ConfigError
from distill_cli.config.values import complaint
from distill_cli.tasks.rows import wide

Number = TypeVar("Number", int, float)


def require(name: str, number: Number, **bounds: float) -> Number:
    """The number itself; a ConfigError where it is not finite, or breaks a bound gt, ge, lt or le."""
    wrong = complaint(number, bounds)
    if wrong:
        raise ConfigError(f"{name} {wrong}")
    return number


def on_student(student_logits: Tensor, labels: Tensor | None, temperature: float) -> Tensor:
    """The student's logits (N, K), fp32 at least.

    The range of labels is checked on a CPU only. Elsewhere, reading it would make the processor wait for the device at
    every step, and the kernels that use a label stop by themselves at one that is out of range.

    Raises:
        ValueError: a shape, a type, a label or the temperature is wrong.
    """
    if student_logits.dim() != 2 or not student_logits.numel():
        raise ValueError(
            f"student_logits should have the shape (N, K), N and K at least 1, got {tuple(student_logits.shape)}; "
            "of more dimensions, flatten all but the last: logits.flatten(0, -2)"
        )
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be a finite number greater than 0, got {temperature}")
    if labels is not None:
        num_samples, num_classes = student_logits.shape
        if labels.dtype != torch.int64 or labels.shape != (num_samples,):
            got = f"{labels.dtype} {tuple(labels.shape)}"
            raise ValueError(f"labels should be int64 class numbers of the shape ({num_samples},), got {got}")
        if labels.device.type == "cpu":
            low, high = (int(end) for end in labels.aminmax())
            if low < 0 or high >= num_classes:
                raise ValueError(f"labels should lie in 0 to {num_classes - 1}, got {low if low < 0 else high}")
    return wide(student_logits)


def on_both(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's logits (N, K), fp32 at least.

    Raises:
        ValueError: as `on_student`, or the teacher's shape is not the student's.
    """
    student = on_student(student_logits, labels, temperature)
    if teacher_logits.shape != student_logits.shape:
        ours, theirs = tuple(student_logits.shape), tuple(teacher_logits.shape)
        raise ValueError(f"student_logits and teacher_logits should have one shape, got {ours} and {theirs}")
    return student, wide(teacher_logits)


def on_features(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], maps: bool = False, alike: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """The features (N, ...) of each layer, fp32 at least, the student's and the teacher's in pairs.

    Args:
        maps: whether they must be maps (N, C, H, W). alike: whether the two of a pair must have one shape.

    Raises:
        ValueError: a shape is wrong, they are not lists, or the lists differ in length.
    """
    if isinstance(student_features, Tensor) or isinstance(teacher_features, Tensor):
        raise ValueError("student_features and teacher_features should be lists of tensors, one for each layer")
    if len(student_features) != len(teacher_features) or not student_features:
        lengths = f"{len(student_features)} and {len(teacher_features)}"
        raise ValueError(f"student_features and teacher_features should be lists of one length, got {lengths} tensors")
    layers = list(zip(student_features, teacher_features, strict=True))
    for place, (ours, theirs) in enumerate(layers):
        both = f"got {tuple(ours.shape)} of the student and {tuple(theirs.shape)} of the teacher"
        for each in (ours, theirs):
            if (each.dim() != 4 if maps else each.dim() < 2) or not each.numel():
                what = "maps (N, C, H, W)" if maps else "(N, ...) of two dimensions or more"
                raise ValueError(f"features of layer {place} should be {what}, none of them empty; {both}")
        if len(ours) != len(theirs):
            raise ValueError(f"features of layer {place} should be of the same samples; {both}")
        if alike and ours.shape != theirs.shape:
            raise ValueError(f"features of layer {place} should have one shape; {both}")
    return [(wide(ours), wide(theirs)) for ours, theirs in layers]


def on_positions(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], present: Tensor | None, alike: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Features of positions (N, L, D), fp32 at least, in pairs of one N and L.

    Args:
        present: which positions count, (N, L) bool; None: all. alike: whether D must be the same too.

    Raises:
        ValueError: as `on_features`, or they are of other positions.
    """
    layers = on_features(student_features, teacher_features, alike=alike)
    for place, (ours, theirs) in enumerate(layers):
        shapes = f"got {tuple(ours.shape)} of the student and {tuple(theirs.shape)} of the teacher"
        if ours.dim() != 3 or theirs.dim() != 3 or ours.shape[:2] != theirs.shape[:2]:
            raise ValueError(f"features of layer {place} should be (N, L, D) of one N and L; {shapes}")
        if present is not None and (present.dtype != torch.bool or present.shape != ours.shape[:2]):
            raise ValueError(
                f"present should be bools {tuple(ours.shape[:2])}, got {present.dtype} {tuple(present.shape)}"
            )
    return layers
