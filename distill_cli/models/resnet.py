"""Residual networks for small images: the CIFAR ResNets and wide ResNets of the distillation literature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


class SmallResNet(nn.Module):
    """ResNet for small images, depth 6n + 2 (He et al., 2016, arXiv 1512.03385, section 4.2).

    Args:
        depth: 8, 20, 32, 56, 110, ...
        widths: channels of the stem and of the three groups.
        shortcut: where the shape changes: "A" subsamples and pads with zeros (no parameters), "B" is a 1x1 convolution.

    Raises:
        ValueError: a depth that is not 6n + 2, or not four widths.
    """

    def __init__(
        self, depth: int, widths: list[int], in_channels: int, num_classes: int, shortcut: Literal["A", "B"] = "A"
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110), got {depth}")
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(f"widths must be four positive numbers (stem and three groups), got {widths}")
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1, self.layer2, self.layer3 = _groups(partial(BasicBlock, shortcut=shortcut), widths, blocks)
        self.fc = nn.Linear(widths[3], num_classes)
        _he_initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        hidden = F.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: Tensor = self.fc(hidden.mean((2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut; (N, C, H, W) -> (N, C', H / stride, W / stride)."""

    def __init__(self, before: int, after: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            if shortcut == "A":
                self.shortcut = Subsample(after - before, stride)
            else:
                self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(inputs)))
        return F.relu(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))


class Subsample(nn.Module):
    """Shortcut A: every stride-th pixel, new channels zero on both sides."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before, self.after = new_channels // 2, new_channels - new_channels // 2

    def forward(self, inputs: Tensor) -> Tensor:
        return F.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class WideResNet(nn.Module):
    """Wide ResNet with pre-activation blocks, depth 6n + 4 (Zagoruyko & Komodakis, 2016, arXiv 1605.07146).

    Raises:
        ValueError: a depth that is not 6n + 4, or a widening factor below one.
    """

    def __init__(self, depth: int, widen: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 4 (10, 16, 22, 28, 40), got {depth}")
        if widen < 1:
            raise ValueError(f"widen must be at least 1, got {widen}")
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.layer1, self.layer2, self.layer3 = _groups(PreActivationBlock, widths, blocks)
        self.bn = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        _he_initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        hidden = self.layer3(self.layer2(self.layer1(self.conv1(inputs))))
        logits: Tensor = self.fc(F.relu(self.bn(hidden)).mean((2, 3)))
        return logits


class PreActivationBlock(nn.Module):
    """Normalise, activate, convolve, twice; where the shape changes the shortcut is a 1x1 convolution."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, inputs: Tensor) -> Tensor:
        active = F.relu(self.bn1(inputs))
        hidden = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return hidden + (inputs if self.shortcut is None else self.shortcut(active))


def _groups(block: Callable[[int, int, int], nn.Module], widths: list[int], blocks: int) -> list[nn.Sequential]:
    """Groups of so many blocks; the first block of each brings the new width and, after the first group, halves the size."""
    return [
        nn.Sequential(block(before, after, stride), *(block(after, after, 1) for _ in range(blocks - 1)))
        for before, after, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
    ]


def _he_initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
