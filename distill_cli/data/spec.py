"""What a kind of data says of itself, so that nothing outside data/ knows it: its spec, front and random changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distill_cli.base.errors import LOWER
from distill_cli.data import inputs as of_inputs
from distill_cli.data.inputs import Inputs
from distill_cli.data.source import Source


class Front(nn.Module):
    """What stands between a batch's inputs and a network; this one passes them on as they are."""

    def forward(self, inputs: Inputs) -> Inputs:
        return inputs

    @property
    def note(self) -> str:
        """What is done to the inputs that is not seen in them, for people."""
        return ""

    def quicken(self, net: nn.Module, works: Callable[[], bool]) -> None:
        """Lay `net` out in memory as it is quicker; numbers differ by rounding at most.

        Args:
            works: whether the network runs on the layout that it has now.
        """


class Changes(Protocol):
    """Random changes of raw samples. The same (sample, view) gives the same numbers in any batch."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the changes depend on, beside the sample and the view."""

    def __call__(self, raw: Inputs, index: Tensor, view: int) -> Inputs:
        """The samples at `index` (N,) int64 in the split, in a view."""


class Spec(Protocol):
    """What a model gets to see of a sample, and how raw samples become that. A class inherits what it does not say."""

    kind: str  # what samples are called, in the plural
    unit: str  # what speed counts where a sample is one row, in the plural
    lower: str = LOWER  # what takes less memory where it does not suffice

    @property
    def at_once(self) -> int:
        """How many samples a model answers together where nobody says."""
        return 128

    @property
    def measured(self) -> tuple[Any, ...]:
        """What of it was measured on train, and so tells data sets apart."""
        return ()

    def words(self) -> str:
        """The shape of a sample, for people."""

    def example(self, number: int, device: torch.device | None = None) -> Inputs:
        """`number` samples of random values, always the same ones."""

    def stored(self, number: int) -> Inputs:
        """`number` raw samples of random values, as a source stores them; always the same ones."""
        return self.example(number)

    def single(self, device: torch.device) -> dict[str, Inputs]:
        """A raw sample whose cost is measured; of samples of unlike sizes several, by what each is called, the largest last."""
        return {"": of_inputs.to(self.stored(1), device)}

    def units(self, inputs: Inputs) -> int:
        """How many of `unit` some samples are."""
        return of_inputs.count(inputs)

    def of(self, net: nn.Module) -> Spec:
        """This spec with what a network brings of its own, such as its tokenizer.

        Raises:
            ConfigError: the two do not fit.
        """
        return self

    def fed(self, own: Spec) -> Spec:
        """Under which spec a model that was made for `own` answers about data of this one."""
        return self

    def reads(self, source: Source) -> Source:
        """A source of data of this kind, so that it gives raw samples as this spec takes them."""
        return source

    def arguments(self) -> dict[str, Any]:
        """What the class of a model may take from the data, by the argument's name."""

    def reading(self) -> dict[str, Any]:
        """What a data set is read by, where its settings leave it open, for a model of this spec; by the key."""
        return {}

    def taken(self, own: Mapping[str, Any]) -> Spec:
        """The spec that a model was trained under: what its settings `own` say, such as `mean`, `std` and `size`, and
        what they do not say as here.
        """
        return self

    def front(self, net: nn.Module, taken: Spec, role: str) -> Front:
        """The front that makes inputs of this spec into those of `taken`, under which the network was trained.

        Args:
            role: what the model is called in messages: "student", or a teacher's key.

        Raises:
            ConfigError: the network cannot take these inputs, or has another number of means.
        """
        return Front()

    def remedy(self, works: Callable[[Spec], bool], role: str) -> str:
        """What to set where a network does not take such samples.

        Args:
            works: whether it takes samples of another spec. role: as in `front`.
        """
        return ""

    def inputs(self, raw: Inputs) -> Inputs:
        """Raw samples, as a source stores them, as a model takes them."""

    def present(self, inputs: Inputs) -> Tensor | None:
        """Which positions of each sample are its own and no padding, (N, L) bool; None: samples are of one size."""
        return None

    def changes(self, settings: Mapping[str, Any], seed: int) -> Changes | None:
        """The random changes that `dataset.augmentation` asks for, if it asks for any."""
        return None

    def shown(self, raw: Inputs) -> dict[str, str]:
        """One raw sample, (1, ...), as a page shows it: `picture`, a data URL."""

    def check(self, other: Spec | Mapping[str, Any]) -> None:
        """Refuse data that a model of this spec cannot take: their spec or, before they are read, their `dataset` node.

        Raises:
            CheckpointError: their samples have another shape.
        """

    def as_card(self) -> dict[str, Any]:
        """What model.json holds of it; `data.read_spec` reads it again."""

    def told(self) -> str:
        """How a sample is made from what a user has, in words for whoever programs it anew."""
        return ""

    def write(self, folder: Path) -> None:
        """Write the files that the card names into its folder."""
        return
