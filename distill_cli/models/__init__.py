"""From a YAML node to a classifier that takes a batch's inputs; the networks themselves are in the files beside."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError, DistillError, did_you_mean
from distill_cli.config import building, schema
from distill_cli.data import Spec
from distill_cli.data.inputs import Inputs
from distill_cli.models import edits
from distill_cli.models.edits import EDITS, REBUILD

OURS = (DistillError, MemoryError, torch.OutOfMemoryError)  # what is not the fault of a network's code
OF_TEACHER = (
    "of_teacher"  # a network's attribute: what a student is made of, in words, where that is its teacher; see `build`
)
# What a builder asks of the data it is for, and what those are.
ASKED = {"in_channels": "pictures", "input_size": "pictures", "vocab_size": "texts", "pad_token_id": "texts"}


class Classifier(nn.Module):
    """A network between the data's own inputs, which the data's spec fits to it (see `data.spec.Front`), and the data's
    own classes.

    Args:
        net: takes what the front makes of a batch's inputs, gives logits (N, K), or what its `logits_of` makes them of.
        spec: what the data's batches look like; `spec` of the model is that with what the network brings of its own.
        taken: the spec that the network was trained under; None: that one.
        role: what the model is called in messages.

    Attributes:
        node: what it was built from, see `build`.
        order: which of the K logits is each of the data's C classes, (C,) int64; None: they are the same.

    Raises:
        ConfigError: the network cannot take such inputs.
    """

    order: Tensor | None
    node: Mapping[str, Any]

    def __init__(self, net: nn.Module, spec: Spec, taken: Spec | None = None, role: str = "model") -> None:
        super().__init__()
        self.net = net
        self.spec = spec.of(net)
        self.taken = taken or self.spec
        self.front = self.spec.front(net, self.taken, role)
        self.register_buffer("order", None, persistent=False)
        self._frozen: list[nn.Module] = []

    def forward(self, inputs: Inputs) -> Tensor:
        """A batch's inputs -> logits (N, C) of the data's classes; with a `head`, what that makes logits of, (N, L, D)."""
        answers: Tensor = self.net(self.front(inputs))
        return answers if self.order is None else answers.index_select(-1, self.order)

    @property
    def head(self) -> Callable[[Tensor], Tensor] | None:
        """What makes logits (M, C) of the answers to some rows, (M, D), so that few rows at a time can be given it: the network's
        `logits_of`, run as it would be where this is read. None: the answers are logits.
        """
        function = getattr(self.net, "logits_of", None)
        return function and runtime.as_here(function, next(self.net.parameters()).device)

    def freeze(self, names: Sequence[str], key: str) -> None:
        """Let some modules learn nothing from now on: their weights and running statistics stay, their dropout is off.

        Args:
            names: paths in the network, or the last parts of such. key: what asks for it, for messages.

        Raises:
            ConfigError: a module does not exist, or nothing is left that learns.
        """
        modules = dict(self.net.named_modules())
        for name in names:
            found = [module for path, module in modules.items() if f".{path}".endswith(f".{name}") and path]
            if not found:
                known = dict.fromkeys(
                    path.rpartition(".")[2] for path, module in modules.items() if num_parameters(module)
                )
                named = [last for last in known if last and not last.isdigit()]
                guess = did_you_mean(name, [*named, *modules])
                raise ConfigError(f"{key}: there is no module {name!r}; {guess}modules: {', '.join(named)}")
            self._frozen += found
        for module in self._frozen:
            module.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ConfigError(
                f"{key}: {', '.join(names)} is all there is, so nothing would learn", "leave something out"
            )
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        for module in self._frozen:
            nn.Module.train(module, False)
        return self


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside, and in the mode it was in after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def check(model: schema.Teacher | schema.Student, where: str) -> None:
    """Raise a ConfigError where a model's class or arguments, under the key `where`, do not exist; nothing is built."""
    building.check(model.node, nn.Module, where)


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
    takes = inspect.signature(building.check(plain, nn.Module, role, trust=trust)).parameters
    for name, kind_of_data in ASKED.items():
        if (
            name in takes
            and name not in arguments
            and plain.get(name, takes[name].default) in (None, inspect.Parameter.empty)
        ):
            raise ConfigError(
                f"{role}: {plain['_target_']} takes {kind_of_data}, and the data are {spec.kind}",
                f"choose another, as in {role}=NAME: distill list models",
            )
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


def num_parameters(model: nn.Module) -> int:
    """How many numbers training could move."""
    return sum(p.numel() for p in model.parameters())
