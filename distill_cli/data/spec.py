"""What a kind of data must say of itself so that nothing outside data/ knows it: its spec, front and transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from distill_cli.data.inputs import Inputs


class Front(nn.Module):
    """What stands between a batch's inputs and a network; this one passes them on as they are."""

    def forward(self, inputs: Inputs) -> Inputs:
        return inputs

    def quicken(self, net: nn.Module, works: Callable[[], object]) -> None:
        """Lay `net` out in memory as it is quicker; numbers differ by rounding at most.

        Args:
            works: runs the network; raises ConfigError where it cannot work on that layout.
        """


@runtime_checkable
class Transform(Protocol):
    """Makes raw samples, as a source stores them, into inputs as a model takes them."""

    @property
    def draws(self) -> Mapping[str, Any]:
        """The settings of what is drawn at random for every view; empty where all views are alike."""

    def to(self, device: torch.device) -> Self:
        """The same for raw samples on `device`."""

    def augmented(self, settings: Mapping[str, Any], seed: int) -> Self:
        """The same with the random changes that `dataset.augmentation` asks for, if it asks for any."""

    def __call__(self, raw: Inputs, index: Tensor, view: int | None) -> Inputs:
        """Inputs of the samples at `index` (N,) int64 in the split, in a view; None: without random changes.

        The same (sample, view) gives the same numbers in any batch.
        """

    def shown(self, raw: Inputs) -> dict[str, str]:
        """One raw sample, (1, ...), as a page shows it: `picture`, a data URL."""


@runtime_checkable
class Spec(Protocol):
    """What a model gets to see: the shape of one sample and how its values are scaled."""

    @property
    def kind(self) -> str:
        """What samples are called, in the plural."""

    @property
    def unit(self) -> str:
        """What speed counts where a sample is one row, in the plural."""

    @property
    def at_once(self) -> int:
        """How many samples a model answers together where nobody says."""

    def words(self) -> str:
        """The shape of a sample, for people."""

    def blank(self, number: int, device: torch.device | None = None) -> Inputs:
        """`number` samples with nothing in them."""

    def noise(self, number: int, seed: int) -> Inputs:
        """`number` samples with random values that look like data."""

    def arguments(self) -> dict[str, Any]:
        """What the class of a model may take from the data, by the argument's name."""

    def front(self, net: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, role: str) -> Front:
        """The front of a network that was trained under the normalisation `mean`, `std`; None: under this one.

        Args:
            role: what the model is called in messages, "teacher" or "student".

        Raises:
            ConfigError: the network cannot take these inputs, or has another number of means.
        """

    def transform(self, given: Spec) -> Transform:
        """What makes raw samples of data whose own spec is `given` into inputs of this one."""

    def check(self, given: Spec) -> None:
        """Refuse data that a model of this spec cannot take.

        Raises:
            CheckpointError: samples of `given` have another shape.
        """

    def check_node(self, node: Mapping[str, Any]) -> None:
        """Refuse, before data are read, a `dataset` node that asks for samples of another shape.

        Raises:
            CheckpointError: it does.
        """

    def as_card(self) -> dict[str, Any]:
        """What model.json holds of it; `data.read_spec` reads it again."""
