"""From a YAML node to a classifier that takes a batch's inputs; the networks themselves are in the files beside."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base.errors import ConfigError, DistillError
from distill_cli.config import building, schema
from distill_cli.data import Spec
from distill_cli.data import inputs as of_inputs
from distill_cli.data.source import sha256
from distill_cli.models import edits
from distill_cli.models.classifier import Classifier, evaluating
from distill_cli.models.classifier import num_parameters as num_parameters
from distill_cli.models.edits import EDITS, REBUILD
from distill_cli.models.suiting import require_kind

OURS = (DistillError, MemoryError, torch.OutOfMemoryError)  # what is not the fault of a network's code
OF_TEACHER = "of_teacher"  # a network's attribute: what of its teacher a student is made of, in words; see `build`
BEFOREHAND = "beforehand"  # a builder's attribute: what it needs of its node before any data are read, or an error
BROUGHT = "brought"  # likewise: what its builder took its weights from, in words
READY = "ready"  # likewise: these are whole, and answer what is asked: a teacher need not be fitted


def check(model: schema.Teacher | schema.Student, where: str) -> None:
    """Raise a ConfigError where a model's class or arguments, under the key `where`, do not exist, or what its builder looks for
    beforehand; nothing is built.
    """
    target = building.check(model.node, nn.Module, where)
    if beforehand := getattr(target, BEFOREHAND, None):
        beforehand(model.node)


def network(
    node: Mapping[str, Any],
    role: str,
    spec: Spec,
    num_classes: int,
    trust: Sequence[str] | None = None,
    teacher: Classifier | None = None,
) -> nn.Module:
    """The bare network a node describes, with what was done to it since, where a card says so; see `build`."""
    if made_of := {key: value for key, value in (node.get("from_teacher") or {}).items() if value is not None}:
        from distill_cli.models import derived

        if teacher and _taken(teacher.node, "teacher", spec) != spec:
            raise ConfigError(
                f"{role}.from_teacher: its teacher sees its samples otherwise than the data give them (teacher.mean, std or size)",
                "give the data the same: dataset.mean, dataset.std and dataset.size",
            )
        return derived.of_teacher(teacher, num_classes, **made_of)
    kind = schema.Student if role == "student" else schema.Teacher  # which tells our keys of a node from its class's
    own = {"size": node["size"]} if kind is schema.Teacher and node.get("size") else {}
    arguments = {"num_classes": num_classes, **_taken(node, role, spec).arguments(), **own, "teacher": teacher}
    plain = {key: value for key, value in schema.of_class(kind, node).items() if key != EDITS}
    require_kind(building.check(plain, nn.Module, role, trust=trust), plain, arguments, role, spec)
    net = building.build(plain, nn.Module, role, trust=trust, **arguments)
    edits.apply(net, node.get(EDITS, ()))
    return net


def build(
    node: Mapping[str, Any],
    role: str,
    spec: Spec,
    num_classes: int,
    trust: Sequence[str] | None = None,
    order: Sequence[int] | None = None,
    teacher: Classifier | None = None,
) -> Classifier:
    """The model that a `teacher` or `student` node describes, in the memory format in which it answers soonest.

    Args:
        role: "student", or a teacher's key. num_classes: how many the network answers.
        order: which of them are the data's; see `Classifier`.
        teacher: a student's, for a builder that takes `teacher` and may make the student of it. What it returns then says so
            by the attribute OF_TEACHER, and by REBUILD how it is built without the teacher. It is called again once the teacher
            is prepared, for the weights; the names and shapes of its tensors must not depend on what the teacher's hold.

    Raises:
        ConfigError: unknown class or arguments, it cannot be built with them, cannot take such inputs, or answers fewer.
    """
    try:
        net = network(node, role, spec, num_classes, trust, teacher)
        model = Classifier(net, spec, _taken(node, role, spec), role)
    except OURS:
        raise
    except Exception as error:
        raise ConfigError(f"{role}: {node['_target_']} cannot be built: {_told(error)}") from error
    answer = probe(model, role)
    if order is not None:
        if answer.shape[-1] != num_classes:
            raise ConfigError(
                f"{role}.classes: has {num_classes} names, but the network gives {answer.shape[-1]} logits"
            )
        model.order = torch.tensor(order)
    model.node = node
    model.front.quicken(net, lambda: _works(model))
    return model


def probe(model: Classifier, role: str) -> Tensor:
    """The model's answer to two random samples; its weights, buffers and mode stay as they were.

    Raises:
        ConfigError: it cannot take them, or answers no tensor.
    """
    try:
        answer = _answer(model)
    except OURS:
        raise
    except Exception as error:  # its code may be anybody's
        taken = model.taken
        raise ConfigError(
            f"{role}: cannot take {taken.kind} of {taken.words()}: {_told(error)}",
            taken.remedy(lambda other: _works(Classifier(model.net, other)), role),
        ) from error
    if not isinstance(answer, Tensor):
        raise ConfigError(f"{role}: should give a tensor of logits, gave {type(answer).__name__}")
    return answer


def _answer(model: Classifier) -> Any:
    with evaluating(model), torch.no_grad():
        return model(model.spec.example(2, next((p.device for p in model.parameters()), None)))


def _works(model: Classifier) -> bool:
    try:
        _answer(model)
    except OURS:
        raise
    except Exception:
        return False
    return True


def _told(error: Exception) -> str:
    """An exception in a network's code, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if "/torch/" not in frame.filename), frames[-1])
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"


def _taken(node: Mapping[str, Any], role: str, spec: Spec) -> Spec:
    """The spec that a model is or was trained under: only a teacher may have one of its own."""
    return spec if role == "student" else spec.taken(node)


def rebuild_node(node: Mapping[str, Any], model: Classifier) -> dict[str, Any]:
    """The node that builds the same network again when its weights come from a file: no download, the same stem."""
    changed: dict[str, Any] = getattr(model.net, REBUILD, {})
    return changed if "_target_" in changed else {**node, **changed}


def brought(net: nn.Module) -> str | None:
    """SHA-256 of the weights of a network whose builder took them from elsewhere; None: they are new, and follow from a seed."""
    return sha256(of_inputs.content(net.state_dict())) if hasattr(net, BROUGHT) else None
