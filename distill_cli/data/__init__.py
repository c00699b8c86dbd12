"""What every data set becomes: three splits over the same classes, given as batches that say nothing of their kind."""

from __future__ import annotations

from distill_cli.data.assembling import Part, assemble, within
from distill_cli.data.batch import Batch, batch_sizes
from distill_cli.data.dataset import Data, load, read_spec
from distill_cli.data.pictures import PictureSpec
from distill_cli.data.resizing import Resized, resized
from distill_cli.data.spec import Spec, Transform
from distill_cli.data.split import Split

__all__ = [
    "Batch",
    "Data",
    "Part",
    "PictureSpec",
    "Resized",
    "Spec",
    "Split",
    "Transform",
    "assemble",
    "batch_sizes",
    "load",
    "read_spec",
    "resized",
    "within",
]
