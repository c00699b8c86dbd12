"""Pixels as a small picture that a page can hold."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

SIDE = 96  # pixels, the longest side


def data_url(pixels: Tensor) -> str:
    """uint8 pixels (C, H, W) as a data URL that holds a PNG of at most 96 pixels a side: in colour with three channels,
    else the first channel in grey.
    """
    shown = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels[0]
    image = Image.fromarray(shown.cpu().contiguous().numpy())
    image.thumbnail((SIDE, SIDE))  # makes smaller only
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
