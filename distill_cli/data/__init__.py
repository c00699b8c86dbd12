"""What every data set becomes: three splits over the same classes, given as batches that say nothing of their kind."""

from __future__ import annotations

from distill_cli.data.assembling import Part, assemble
from distill_cli.data.configured import load
from distill_cli.data.dataset import Data, read_spec
from distill_cli.data.labels import IGNORED, UNKNOWN
from distill_cli.data.pictures import PictureSpec
from distill_cli.data.spec import Spec
from distill_cli.data.split import Batch, Split, batch_sizes

__all__ = [
    "IGNORED",
    "UNKNOWN",
    "Batch",
    "Data",
    "Part",
    "PictureSpec",
    "Spec",
    "Split",
    "assemble",
    "batch_sizes",
    "load",
    "read_spec",
]
