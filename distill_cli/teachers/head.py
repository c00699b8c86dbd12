"""A teacher's head by itself: its last linear layer as a model, and as its data what the rest makes of each sample, kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill_cli.base.errors import ConfigError
from distill_cli.config.schema import Teacher, Train
from distill_cli.data import Data, Split
from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Held, sha256
from distill_cli.data.spec import Spec
from distill_cli.models import Classifier, evaluating
from distill_cli.models.features import shapes
from distill_cli.teachers.store import Asked
from distill_cli.training import alone

KEY = "teacher.fit.freeze=encoder"


@dataclass(frozen=True)
class Features(Spec):
    """Vectors of `size` numbers, made of samples that are called `unit`."""

    size: int
    unit: str
    kind = "features"

    def words(self) -> str:
        return f"{self.size:,} numbers"

    def example(self, number: int, device: torch.device | None = None) -> Inputs:
        return torch.zeros(number, self.size, device=device)

    def arguments(self) -> dict[str, Any]:
        return {}

    def inputs(self, raw: Inputs) -> Inputs:
        return raw

    def shown(self, raw: Inputs) -> dict[str, str]:
        return {}

    def check(self, other: Spec | Mapping[str, Any]) -> None:
        assert other == self

    def as_card(self) -> dict[str, Any]:
        return {"size": self.size}


@dataclass(frozen=True)
class OfView:
    """Of the features of all views of a sample, (N, V, D), those of the view that an epoch shows."""

    settings: Mapping[str, Any]

    def __call__(self, raw: Inputs, index: Tensor, view: int) -> Inputs:
        assert isinstance(raw, Tensor)
        return raw[:, view]


def alone_with(model: Classifier, teacher: Teacher, data: Data, run: Train) -> tuple[Classifier, Data]:
    """The head of a teacher, the very module, and train and validation as what it is given, asked for once and kept.

    Args:
        model: built from `teacher`, with the weights that stay as they are. data: as the model takes them.

    Raises:
        ConfigError: the model has no such head, or every epoch would show new features.
    """
    if data.train.draws and not data.train.views:
        raise ConfigError(
            f"{KEY}: needs the same features in every epoch, but new pixels are shown", "use dataset.views=4"
        )
    path = _path(model)
    head = model.net.get_submodule(path)
    assert isinstance(head, nn.Linear)
    data = alone.learnable(data, "teacher")
    state = {name: values for name, values in model.net.state_dict().items() if not name.startswith(f"{path}.")}
    # The answers of the network without its head are features: of as many "classes" as the head takes numbers.
    encoder = Classifier(model.net, model.spec, model.taken, "teacher")
    named = replace(teacher, name=f"the encoder of {teacher.name}")
    places = replace(data, classes=tuple(map(str, range(head.in_features))))
    asked = Asked(encoder, named, places, run, f"{path} of {sha256(of_inputs.content(state))}")
    spec, views = Features(head.in_features, data.input.unit), max(1, data.train.views) if data.train.draws else 1

    def features(name: str, view: int = 0) -> Tensor:
        return asked.about(name, view).whole().logits().to(data.train.targets.device)

    with _passed_on(head):
        shown = [features("train", view) for view in range(views)]
        train = Split(
            Held(torch.stack(shown, 1) if views > 1 else shown[0]),
            data.train.targets,
            spec,
            balanced=data.train.balanced,
        )
        if views > 1:
            train = replace(train, changes=OfView(data.train.draws), views=views)
        val = Split(Held(features("val")), data.val.targets, spec)
    learns = Classifier(head, spec, role="teacher")
    learns.order = model.order
    return learns, replace(data, train=train, val=val)


def _passed_on(head: nn.Module) -> RemovableHandle:
    """As a context: inside, the head gives what it is given, so that its network answers with features."""
    return head.register_forward_hook(lambda module, given, answer: given[0])


def _path(model: Classifier) -> str:
    """The path of the last linear layer, checked to be the network's last step, with one vector a sample to work on."""
    linear = [path for path in shapes(model) if isinstance(model.net.get_submodule(path), nn.Linear)]
    if not linear:
        raise ConfigError(
            f"{KEY}: {type(model.net).__name__} has no linear layer to fit", "leave it out: all is fitted"
        )
    head = model.net.get_submodule(linear[-1])
    inputs = model.front(model.spec.example(2, next(model.parameters()).device))
    with evaluating(model), torch.no_grad():
        answer = model.net(inputs)
        with _passed_on(head):
            features = model.net(inputs)
        last = features.dim() == 2 and torch.allclose(head(features), answer, atol=1e-4)
    if not last:
        raise ConfigError(
            f"{KEY}: {linear[-1]} is the last linear layer, but its answers are not yet the logits",
            "leave it out: all is fitted",
        )
    return linear[-1]
