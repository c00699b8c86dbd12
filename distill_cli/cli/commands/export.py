"""Write a finished student as a file that needs none of us: ONNX, int8, a folder of transformers, or .pt2.

usage: distill export ckpt=PATH [key=value ...] [options]

  distill export ckpt=outputs/train/<date>/<run>                      RUN/export/fp32/model.onnx
  distill export ckpt=RUN precision=int8                              a quarter of the bytes; refused where it answers otherwise
  distill export ckpt=RUN format=huggingface output=folder            a student of transformers, for from_pretrained
  distill export ckpt=RUN format=torch                                a .pt2 file for torch.export; never read by us
  distill export ckpt=RUN dataset.root=elsewhere                      where the data lie now that it is verified on

An ONNX file takes raw pictures, uint8 (batch, channels, height, width), or token ids and mask; normalisation, network and
softmax at T = 1 are inside. It is verified on test before it gets its name, and export.json beside it says what was found.
`distill eval` and `distill predict` take it as a checkpoint. Needs the extra [export].
"""

from __future__ import annotations

from pathlib import Path

from distill_cli.base import files
from distill_cli.base.errors import ConfigError
from distill_cli.config.schema import Export
from distill_cli.deploy.extra import needed


def run(settings: Export) -> Path:
    """Export a student; returns the file or the folder.

    Raises:
        ConfigError: it cannot be exported so, or the extra is missing. CheckpointError: the student cannot be used, or what was
            made answers differently. DataError: int8 without data.
    """
    assert settings.ckpt is not None
    if settings.format == "onnx":
        needed("distill export")
    if settings.precision != "fp32" and settings.format != "onnx":
        raise ConfigError(f"precision={settings.precision}: goes with format=onnx alone")
    from distill_cli.base import runtime  # torch takes its time to import
    from distill_cli.deploy.exporting import export
    from distill_cli.deploy.predictor import Predictor

    runtime.prepare(settings.threads)
    return export(Predictor.read(files.place(settings.ckpt, "ckpt"), settings.trust), settings)
