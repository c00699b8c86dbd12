"""What is trained: a network and what objectives add to it, adapters above all, as one module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from distill_cli.data.inputs import Inputs
from distill_cli.models import Classifier
from distill_cli.models.features import Output, Tap
from distill_cli.objectives import Objective


class Student(nn.Module):
    """A model and the objectives that it is trained by, whose parameters are trained along.

    Args:
        model: what is deployed. objectives: by name.
    """

    def __init__(self, model: Classifier, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.model = model
        self.objectives = nn.ModuleDict(objectives)
        self.__dict__["_forward"] = model  # the model is a submodule already
        self._tap: Tap | None = None

    def forward(self, inputs: Inputs) -> Output:
        """The model's answer to a batch's inputs, with the features that are listened to."""
        forward = self.__dict__["_forward"]
        return self._tap(forward, inputs) if self._tap else Output(forward(inputs), head=self.model.head)

    @contextmanager
    def listening(self, layers: Sequence[str], compiled: bool = False, twice: bool = False) -> Iterator[None]:
        """Inside, the modules at these paths give their features too.

        Args:
            compiled: whether the model runs through torch.compile. twice: whether some steps are differentiated more than
            once, for which a compiled model must keep what it would overwrite.
        """
        if compiled and twice:
            import torch._functorch.config as functorch_config

            functorch_config.donated_buffer = False
        self.__dict__["_forward"] = torch.compile(self.model) if compiled else self.model
        with Tap(self.model.net, layers) as tap:
            self._tap = tap
            try:
                yield
            finally:
                self._tap = None
