"""Optimizer steps that are only taken on finite numbers, without waiting for a GPU at every one of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distill_cli.base import sharding, world
from distill_cli.base.errors import NonFiniteError

LAG = 50  # steps between two looks at what a GPU found; elsewhere every step is looked at
SMALLEST_SCALE = 2.0**-14  # below it, fp16 gradients overflow whatever they are scaled by


@dataclass(frozen=True)
class Moment:
    """One optimizer step (from 0) and what the schedule sets for it; for messages and rows."""

    step: int
    stage: str
    lr: float
    epoch: int = 0
    T: float = 1.0
    alpha: float = 0.0
    progress: float = 1.0  # share of the whole run


class Guard:
    """Drives an optimizer so that no step whose loss or gradient is not finite reaches the weights.

    Both are looked at on the device; a gradient whose norm overflows counts as not finite. From the first on, every
    gradient is made NaN and the scaler leaves the step out, there too, until `check` reads what was found. With fp16 a
    gradient may overflow: the scaler lowers its scale for it; only the loss must be finite.

    Args:
        lag: how many steps may pass until `check` is called by `step`; None: as the device needs.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        lag: int | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.summed = [p for p in self.trained if not sharding.is_shard(p)]  # by us; gradients of others are
        on_device = device.type == "cuda" and getattr(optimizer, "_step_supports_amp_scaling", False)
        self.lag = lag or (LAG if on_device else 1)  # an optimizer that cannot leave a step out waits for it anyway
        self.half = dtype == torch.float16
        scale = 2.0**16 if self.half else 1.0
        self.scaler = torch.amp.GradScaler(device.type, init_scale=scale, enabled=self.half or self.lag > 1)
        self._fine = torch.ones((), dtype=torch.bool, device=device)
        self._one, self._nan = torch.ones((), device=device), torch.full((), float("nan"), device=device)
        self._terms: dict[str, Tensor] = {}
        self._names: tuple[str, ...] = ()
        self._seen = torch.zeros((), device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._moments: deque[Moment] = deque(maxlen=self.lag)

    def backward(self, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Add the gradient of `loss`, a scalar; `terms` are what it is made of, for the message."""
        for name, value in {**terms, "total": loss.detach()}.items():
            self._terms[name] = self._terms[name] + value if name in self._terms else value
        scaled = self.scaler.scale(loss)
        scaled.backward(torch.where(torch.isfinite(loss.detach()) & self._fine, self._one, self._nan).to(scaled.dtype))

    def _reduce(self, found: Tensor) -> Tensor:
        """Sum the gradients and the values `found` (n,) over all ranks; who has no gradient where another has one gets it."""
        if world.size() == 1:
            return found
        has = torch.tensor([parameter.grad is not None for parameter in self.summed], dtype=found.dtype)
        has = has.to(found.device, non_blocking=True)  # a GPU is not waited for
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.summed]
        world.totals([found, has, *gradients])
        used = [True] * len(gradients) if all(p.grad is not None for p in self.summed) else has.bool().tolist()
        for parameter, gradient, one in zip(self.summed, gradients, used, strict=True):
            parameter.grad = gradient if one else None
        return found

    def step(self, moment: Moment, clip: float | None = None) -> None:
        """Take the optimizer's step at `moment` on the gradients so far, of all ranks, their norm cut to `clip`.

        Raises:
            NonFiniteError: this step's loss or gradient is not finite, or that of one of `lag` steps before.
        """
        names, found = tuple(self._terms), torch.stack([value.float() for value in self._terms.values()])
        found = self._reduce(found)
        self.scaler.unscale_(self.optimizer)
        if clip is not None:
            norm = nn.utils.clip_grad_norm_(self.trained, clip)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        norm, self._terms = sharding.whole(norm), {}
        if names != self._names:  # another stage, with other terms
            self.check()
            self._names, self._seen = names, torch.zeros_like(found)
        # Kept until something is not finite: what was found then.
        self._seen = torch.where(self._fine, found, self._seen)
        self._step = torch.where(self._fine, moment.step, self._step)
        self._fine = self._fine & torch.isfinite(found[-1] if self.half else norm)
        self._moments.append(moment)
        if moment.step % self.lag == 0:
            self.check()
        self.scaler.step(self.optimizer)
        self.scaler.update(None if self.half else 1.0)
        self.optimizer.zero_grad(set_to_none=True)

    def check(self) -> None:
        """Wait for the device, and stop when some step until now was not finite.

        Raises:
            NonFiniteError: naming the first such step, the term, and what the schedule had set.
        """
        if bool(self._fine):
            if self.half and self._moments and self.scaler.get_scale() < SMALLEST_SCALE:
                raise self._error("gradient (in fp16, at any scale)", self._moments[-1])
            return
        first = int(self._step)
        values = dict(zip(self._names, self._seen.tolist(), strict=True))
        wrong = [name for name, value in values.items() if not math.isfinite(value) and name != "total"]
        what = f"term {', '.join(wrong)}" if wrong else "gradient" if math.isfinite(values["total"]) else "total loss"
        raise self._error(what, next(moment for moment in self._moments if moment.step == first))

    @staticmethod
    def _error(what: str, at: Moment) -> NonFiniteError:
        epoch = f", epoch {at.epoch}" if at.epoch else ""
        return NonFiniteError(
            f"not finite: the {what} at step {at.step + 1} ({at.stage}{epoch}), where T={at.T:g}, alpha={at.alpha:g}, "
            f"lr={at.lr:g}; the step was not taken",
            "try a smaller optimizer.lr, optimizer.clip=1, or precision=fp32",
        )

    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint must hold: the loss scale of fp16."""
        return self.scaler.state_dict() if self.half else {}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned."""
        if self.half and snapshot:
            self.scaler.load_state_dict(dict(snapshot))
