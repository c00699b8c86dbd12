"""A network between a batch's inputs and the data's classes; how one is built is in __init__.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base import runtime
from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.data import Spec
from distill_cli.data.inputs import Inputs


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
        spread: the device on which each rank keeps its shard of the weights while they are used, and of a model that stays where it
            was built; see `sharded`. None: it is whole.

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
        self.spread: torch.device | None = None
        self._frozen: list[nn.Module] = []

    def forward(self, inputs: Inputs) -> Tensor:
        """A batch's inputs -> logits (N, C) of the data's classes; with a `head`, what that makes logits of, (N, L, D)."""
        answers: Tensor = self.net(self.front(inputs))
        return answers if self.order is None else answers.index_select(-1, self.order)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.spread or next(self.net.parameters()).device

    @property
    def head(self) -> Callable[[Tensor], Tensor] | None:
        """What makes logits (M, C) of the answers to some rows, (M, D), so that few rows at a time can be given it: the network's
        `logits_of`, run as it would be where this is read. None: the answers are logits.
        """
        function = getattr(self.net, "logits_of", None)
        return function and runtime.as_here(function, self.device)

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


def num_parameters(model: nn.Module) -> int:
    """How many numbers training could move."""
    return sum(p.numel() for p in model.parameters())
