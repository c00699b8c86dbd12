"""Pictures as a kind of data: their spec, what stands before a network, and uint8 pixels made into its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.data.augmentation import Augmentation
from distill_cli.data.inputs import Inputs
from distill_cli.data.spec import Front, Spec
from distill_cli.data.thumbnail import data_url

LARGEST_SIDE = 2**13  # of a picture that a file may ask for, in pixels
AT_ONCE = 128  # pictures of up to LARGE pixels that a model answers together; of larger ones fewer
LARGE = 256 * 256
VECTOR = 16  # floats that the widest of today's CPU vectors hold


@dataclass(frozen=True)
class PictureSpec:
    """Pictures as a model gets to see them: channels, (height, width) in pixels, normalisation of values in [0, 1]."""

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind, unit = "pictures", "images"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> PictureSpec:
        """The spec as model.json holds it.

        Raises:
            CheckpointError: it is damaged.
        """
        try:
            height, width = (int(side) for side in stored["size"])
            mean, std = (tuple(float(v) for v in stored[key]) for key in ("mean", "std"))
            if not all(1 <= number <= LARGEST_SIDE for number in (height, width, int(stored["channels"]))):
                raise ValueError(f"pictures of {stored['channels']}x{height}x{width}")
            return cls(int(stored["channels"]), (height, width), mean, std)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"model.json: its input is damaged: {error!r}") from error

    def as_card(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def at_once(self) -> int:
        """By their size alone, so that what is measured or cached does not depend on the batches of training, not even
        in its last digit.
        """
        height, width = self.size
        return max(1, min(AT_ONCE, AT_ONCE * LARGE // (height * width)))

    def words(self) -> str:
        return f"{self.channels}x{self.size[0]}x{self.size[1]}"

    def blank(self, number: int, device: torch.device | None = None) -> Tensor:
        return torch.zeros(number, self.channels, *self.size, device=device)

    def noise(self, number: int, seed: int) -> Tensor:
        return torch.rand(number, self.channels, *self.size, generator=torch.Generator().manual_seed(seed))

    def arguments(self) -> dict[str, Any]:
        return {"in_channels": self.channels, "input_size": self.size}

    def front(
        self, net: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, role: str
    ) -> PictureFront:
        return PictureFront(self, net, mean, std, role)

    def transform(self, given: Spec) -> Pixels:
        """Grey pictures take the mean over the channels where this spec has three."""
        assert isinstance(given, PictureSpec)
        mean, std = (shaped(spread(values, given.channels)) for values in (self.mean, self.std))
        return Pixels(mean, std)

    def check(self, given: Spec) -> None:
        if isinstance(given, PictureSpec) and given.size == self.size and given.channels in (1, self.channels):
            return
        raise CheckpointError(
            f"the checkpoint takes pictures of {self.words()}, these are {given.words()}",
            f"try dataset.size={self.size[0]}",
        )

    def check_node(self, node: Mapping[str, Any]) -> None:
        side = node.get("size")
        if isinstance(side, int) and (side, side) != self.size:
            height, width = self.size
            raise CheckpointError(f"the checkpoint takes pictures of {height}x{width}, dataset.size={side}")


@dataclass(frozen=True)
class Pixels:
    """uint8 pictures (N, C, H, W) augmented, then scaled to [0, 1] and normalised by `mean` and `std`, (1, C, 1, 1)."""

    mean: Tensor
    std: Tensor
    augmentation: Augmentation | None = None

    @property
    def draws(self) -> Mapping[str, Any]:
        return asdict(self.augmentation) if self.augmentation else {}

    def to(self, device: torch.device) -> Pixels:
        return replace(self, mean=self.mean.to(device), std=self.std.to(device))

    def augmented(self, settings: Mapping[str, Any], seed: int) -> Pixels:
        return replace(self, augmentation=Augmentation(**settings, seed=seed) or None)

    def __call__(self, raw: Inputs, index: Tensor, view: int | None) -> Tensor:
        assert isinstance(raw, Tensor)
        if view is not None and self.augmentation is not None:
            raw = self.augmentation(raw, index, view)
        scale, shift = self._scaling
        return raw.float().mul_(scale).sub_(shift)

    def shown(self, raw: Inputs) -> dict[str, str]:
        assert isinstance(raw, Tensor)
        return {"picture": data_url(raw[0])}

    @cached_property
    def _scaling(self) -> tuple[Tensor, Tensor]:
        return 1 / (255 * self.std), self.mean / self.std


class PictureFront(Front):
    """Expands grey pictures to a network's channels and applies the normalisation that it was trained under.

    Args:
        spec: what the data's batches look like. net: takes (N, channels, H, W).
        mean, std: the normalisation the network was trained under, where it is not the data's.
        role: what the model is called in messages.

    Raises:
        ConfigError: as `Spec.front`.
    """

    def __init__(
        self,
        spec: PictureSpec,
        net: nn.Module,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        role: str,
    ) -> None:
        super().__init__()
        first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
        self.channels = first.in_channels if first is not None else spec.channels
        if mean is not None and len(mean) not in (1, self.channels):
            raise ConfigError(f"{role}.mean: has {len(mean)} values, but the network takes {self.channels} channel(s)")
        if self.channels != spec.channels and spec.channels != 1:
            raise ConfigError(
                f"{role}: takes {self.channels} channel(s), but the pictures have {spec.channels}",
                f"drop {role}.in_channels",
            )
        self.scale: Tensor | None
        self.shift: Tensor | None
        scale = shift = None
        if mean is not None and std is not None and (tuple(mean), tuple(std)) != (spec.mean, spec.std):
            theirs, own = shaped(spec.mean), shaped(mean)
            spread_of_data, spread_of_own = shaped(spec.std), shaped(std)
            scale, shift = spread_of_data / spread_of_own, (theirs - own) / spread_of_own
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.layout = torch.contiguous_format

    def forward(self, inputs: Inputs) -> Tensor:
        """(N, C, H, W) as the data normalise it -> (N, channels, H, W) as the network takes it."""
        assert isinstance(inputs, Tensor)
        if inputs.shape[1] != self.channels:
            inputs = inputs.expand(-1, self.channels, -1, -1)
        if self.scale is not None and self.shift is not None:
            inputs = inputs * self.scale + self.shift
        return inputs.contiguous(memory_format=self.layout)

    def quicken(self, net: nn.Module, works: Callable[[], object]) -> None:
        """Channels last, which convolutions are quicker in, unless the network's code cannot work on that (a `view` over
        a feature map is then refused), or oneDNN cannot.
        """
        if any(_overruns(module) for module in net.modules()):
            return
        self._lay_out(net, torch.channels_last)
        try:
            works()
        except ConfigError:
            self._lay_out(net, torch.contiguous_format)

    def _lay_out(self, net: nn.Module, layout: torch.memory_format) -> None:
        self.layout = layout
        net.to(memory_format=layout)


def _overruns(module: nn.Module) -> bool:
    """Whether training it with channels last corrupts memory on a CPU: oneDNN writes past its workspace where a strided
    1x1 convolution has fewer channels than a vector holds (uxlfoundation/oneDNN#6035).
    """
    if not isinstance(module, nn.Conv2d) or max(module.kernel_size) > 1 or max(module.stride) == 1:
        return False
    return module.in_channels // module.groups < VECTOR


def spread(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value for each channel: as they are, or their mean for each where there are more or fewer."""
    if len(values) == channels:
        return tuple(float(v) for v in values)
    return (sum(float(v) for v in values) / len(values),) * channels


def shaped(values: Sequence[float]) -> Tensor:
    """One value a channel as (1, C, 1, 1) float32."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
