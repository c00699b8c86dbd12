"""Pictures as a kind of data: their spec, what stands before a network, and uint8 pixels made into its inputs."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.data.augmentation import Augmentation
from distill_cli.data.inputs import Inputs
from distill_cli.data.spec import Front, Spec

LARGEST_SIDE = 2**13  # of a picture that a file may ask for, in pixels
LARGE = 256 * 256  # pixels, above which fewer pictures are answered together
VECTOR = 16  # floats that the widest of today's CPU vectors hold
THUMBNAIL = 96  # pixels, its longest side
SIDES = (*range(8, 257, 8), 28, 299, 384, 448, 512)  # pixels, tried with a network that does not take the data's


@dataclass(frozen=True)
class PictureSpec(Spec):
    """Pictures as a model gets to see them: channels, (height, width) in pixels, normalisation of values in [0, 1], and of
    greys of more than 8 bits the values that are black and white, if there were any.
    """

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float] | None = None
    kind, unit = "pictures", "images"

    @classmethod
    def read(cls, stored: Mapping[str, Any], folder: Path) -> PictureSpec:
        """The spec as model.json holds it.

        Raises:
            CheckpointError: it is damaged.
        """
        try:
            height, width = (int(side) for side in stored["size"])
            mean, std = (tuple(float(v) for v in stored[key]) for key in ("mean", "std"))
            if not all(1 <= number <= LARGEST_SIDE for number in (height, width, int(stored["channels"]))):
                raise ValueError(f"pictures of {stored['channels']}x{height}x{width}")
            if not all(spread > 0 for spread in std):
                raise ValueError(f"std={std}")
            values = stored.get("range")
            low_high = (float(values[0]), float(values[1])) if values is not None else None
            return cls(int(stored["channels"]), (height, width), mean, std, low_high)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"model.json: its input is damaged: {error!r}") from error

    def as_card(self) -> dict[str, Any]:
        return asdict(self)

    def told(self) -> str:
        colour = "grey" if self.channels == 1 else "RGB"
        return f"{colour}, 0 to 255; resized to cover {self.words()} (bilinear), centre cropped, not normalised"

    @property
    def at_once(self) -> int:
        """By their size alone, so that what is measured or cached does not depend on the batches of training, not even
        in its last digit.
        """
        height, width = self.size
        return max(1, min(super().at_once, super().at_once * LARGE // (height * width)))

    @property
    def measured(self) -> tuple[Any, ...]:
        return self.mean, self.std

    def words(self) -> str:
        return f"{self.channels}x{self.size[0]}x{self.size[1]}"

    def example(self, number: int, device: torch.device | None = None) -> Tensor:
        return torch.rand(number, self.channels, *self.size, generator=torch.Generator().manual_seed(0)).to(device)

    def stored(self, number: int) -> Tensor:
        return (self.example(number) * 255).byte()

    def arguments(self) -> dict[str, Any]:
        return {"in_channels": self.channels, "input_size": self.size}

    def reading(self) -> dict[str, Any]:
        height, width = self.size
        size = {"size": height} if height == width else {}
        return size | ({"range": list(self.range)} if self.range else {})

    def taken(self, own: Mapping[str, Any]) -> PictureSpec:
        changed: dict[str, Any] = {key: tuple(own[key]) for key in ("mean", "std") if own.get(key)}
        if side := own.get("size"):
            if not 1 <= side <= LARGEST_SIDE:
                raise ConfigError(f"size: must be from 1 to {LARGEST_SIDE} pixels, got {side}")
            changed["size"] = (side, side)
        return replace(self, **changed)

    def front(self, net: nn.Module, taken: Spec, role: str) -> PictureFront:
        assert isinstance(taken, PictureSpec)
        return PictureFront(self, net, taken, role)

    def remedy(self, works: Callable[[Spec], bool], role: str) -> str:
        side = next((side for side in SIDES if works(replace(self, size=(side, side)))), None)
        if side is None:
            return f"nor does it work at any of {len(SIDES)} other sizes: try the network by itself"
        return f"it takes {side}x{side}: {'dataset' if role == 'student' else role}.size={side}"

    def inputs(self, raw: Inputs) -> Tensor:
        """(N, C, H, W) uint8, or float of the same range, as float; grey pictures take the mean over the channels."""
        assert isinstance(raw, Tensor)
        scale, shift = _scaling(self.mean, self.std, raw.shape[1], raw.device)
        return raw.float().mul_(scale).sub_(shift)

    def changes(self, settings: Mapping[str, Any], seed: int) -> Augmentation | None:
        return Augmentation(**settings, seed=seed) or None

    def shown(self, raw: Inputs) -> dict[str, str]:
        assert isinstance(raw, Tensor)
        return {"picture": data_url(raw[0])}

    def check(self, other: Spec | Mapping[str, Any]) -> None:
        if isinstance(other, Mapping):
            side = other.get("size")
            if isinstance(side, int) and (side, side) != self.size:
                height, width = self.size
                raise CheckpointError(f"the checkpoint takes pictures of {height}x{width}, dataset.size={side}")
        elif not (isinstance(other, PictureSpec) and other.size == self.size and other.channels in (1, self.channels)):
            raise CheckpointError(
                f"the checkpoint takes pictures of {self.words()}, these are {other.words()}",
                f"try dataset.size={self.size[0]}",
            )


class PictureFront(Front):
    """Expands grey pictures to a network's channels, and applies the size and normalisation that it was trained under.

    Args: as `Spec.front`; spec: what the data's batches look like.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, spec: PictureSpec, net: nn.Module, taken: PictureSpec, role: str) -> None:
        super().__init__()
        first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
        self.channels = first.in_channels if first is not None else spec.channels
        own = (taken.mean, taken.std) != (spec.mean, spec.std)
        for key, values in (("mean", taken.mean), ("std", taken.std)):
            if own and len(values) not in (1, self.channels):
                raise ConfigError(
                    f"{role}.{key}: has {len(values)} values, but the network takes {self.channels} channel(s)",
                    "give one value a channel, or one for all",
                )
        if self.channels != spec.channels and spec.channels != 1:
            raise ConfigError(
                f"{role}: takes {self.channels} channel(s), but the pictures have {spec.channels}",
                f"drop {role}.in_channels",
            )
        scale = shift = None
        if own:
            scale = _shaped(spec.std) / _shaped(taken.std)
            shift = (_shaped(spec.mean) - _shaped(taken.mean)) / _shaped(taken.std)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.size = taken.size
        done = {
            f"grey as {self.channels} channels": self.channels != spec.channels,
            f"resized to {self.size[0]}x{self.size[1]}": self.size != spec.size,
            "under its own normalisation": own,
        }
        self.said = ", ".join(text for text, is_so in done.items() if is_so)
        self.layout = torch.contiguous_format

    def forward(self, inputs: Inputs) -> Tensor:
        """(N, C, H, W) as the data normalise it -> (N, channels, H, W) as the network takes it."""
        assert isinstance(inputs, Tensor)
        if inputs.shape[2:] != self.size:
            inputs = F.interpolate(inputs, self.size, mode="bilinear", antialias=True)
        if inputs.shape[1] != self.channels:
            inputs = inputs.expand(-1, self.channels, -1, -1)
        if self.scale is not None and self.shift is not None:
            inputs = inputs * self.scale + self.shift
        return inputs.contiguous(memory_format=self.layout)

    @property
    def note(self) -> str:
        return f"shown {self.said}" if self.said else ""

    def quicken(self, net: nn.Module, works: Callable[[], bool]) -> None:
        """Channels last, which convolutions are quicker in, unless the network's code cannot work on that (a `view` over
        a feature map is then refused), or oneDNN cannot.
        """
        if any(_overruns(module) for module in net.modules()):
            return
        self.layout = torch.channels_last
        net.to(memory_format=self.layout)
        if not works():
            self.layout = torch.contiguous_format
            net.to(memory_format=self.layout)


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


def data_url(pixels: Tensor) -> str:
    """uint8 pixels (C, H, W) as a data URL that holds a PNG of at most 96 pixels a side: in colour with three channels,
    else the first channel in grey.
    """
    shown = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels[0]
    image = Image.fromarray(shown.cpu().contiguous().numpy())
    image.thumbnail((THUMBNAIL, THUMBNAIL))  # makes smaller only
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


@functools.cache
def _scaling(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """By what pixels of 0 to 255 are multiplied, and what is then taken away."""
    center, spread_of = _shaped(spread(mean, channels)), _shaped(spread(std, channels))
    return (1 / (255 * spread_of)).to(device), (center / spread_of).to(device)


def _shaped(values: Sequence[float]) -> Tensor:
    """One value a channel as (1, C, 1, 1) float32."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
