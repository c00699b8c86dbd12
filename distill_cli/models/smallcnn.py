"""The small convolutional student of the classic practice loop, at any width."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """For each width a 3x3 convolution, ReLU and 2x2 max-pooling; then one linear layer over all that is left.

    Args:
        widths: output channels of each convolution.
        input_size: (H, W) in pixels; the linear layer's width follows from it.

    Raises:
        ValueError: a width below one, or more poolings than the pixels allow.
    """

    def __init__(self, widths: list[int], in_channels: int, num_classes: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must be positive, got {widths}")
        height, width = (side >> len(widths) for side in input_size)
        if not height or not width:
            raise ValueError(f"{len(widths)} poolings leave nothing of {input_size[0]} x {input_size[1]} pixels")
        layers: list[nn.Module] = []
        for before, after in zip([in_channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(widths[-1] * height * width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        logits: Tensor = self.fc(self.features(inputs).flatten(1))
        return logits
