"""Common pictures decoded by torchvision: JPEG and PNG of 8 bits, grey or RGB, to nearly PIL's pixels in less time."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from distill_cli.base.errors import ConfigError
from distill_cli.data.encoded import Encoded

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
AS_STORED = 0  # the number of torchvision's ImageReadMode.UNCHANGED
DEPTH = 24  # the byte of a PNG that holds its bits a channel


def decoded(encoded: Encoded, row: int, channels: int, size: tuple[int, int]) -> Tensor | None:
    """A picture, uint8 (channels, height, width), put upright; None where another decoder must read it, or refuse it.

    Of pictures that need not be resized the bits are PIL's. Others are cut at whole pixels, of the larger of the two pictures,
    where PIL cuts between pixels.
    """
    content = encoded.content(row)
    pixels = size[0]
    if size[1] != pixels or not _is_common(content):
        return None
    try:
        picture = _decoder()(torch.from_numpy(content.copy()), AS_STORED, True)  # put upright
    except RuntimeError:  # damaged, or of a kind that libjpeg and libpng do not know
        return None
    found = picture.shape[0]  # which len() takes longer to say
    if found not in (1, channels):  # with transparency, for print, or in colour among greys
        return None
    if picture.shape[1:] != (pixels, pixels):
        side = min(picture.shape[1:])
        if side > pixels:
            picture = F.resize(F.center_crop(picture, [side, side]), [pixels, pixels], antialias=True)
        else:
            picture = F.center_crop(F.resize(picture, [pixels], antialias=True), [pixels, pixels])
    return picture if found == channels else picture.expand(channels, -1, -1)


@functools.cache
def _decoder() -> Callable[[Tensor, int, bool], Tensor]:
    """torchvision's decoder of a tensor of bytes, without what stands around it, which takes a fifth of the time of 32 pixels."""
    import torchvision.io  # noqa: F401 - registers it

    try:
        return torch.ops.image.decode_image
    except AttributeError as error:  # torchvision says that it will be removed one day
        raise ConfigError("dataset.reader=fast: this torchvision has no decoders", "dataset.reader=pil") from error


def _is_common(content: np.ndarray) -> bool:
    """Whether the bytes are a JPEG's, or those of a PNG of 8 bits a channel without a transparent colour."""
    head = content[: DEPTH + 1].tobytes()
    if head.startswith(JPEG):
        return True
    if not head.startswith(PNG) or head[DEPTH:] != b"\x08":
        return False
    return b"tRNS" not in content.tobytes().partition(b"IDAT")[0]
