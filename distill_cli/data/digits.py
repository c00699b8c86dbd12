"""scikit-learn's bundled digits: the data set that needs no network."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from distill_cli.data import Data, Part, assemble
from distill_cli.data.assembling import stratified
from distill_cli.data.resizing import resized

DIGITS_TEST = 0.2  # a fixed fifth of the digits is the test set, whatever the split seed


def digits(
    size: int | str = 28,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
) -> Data:
    """scikit-learn's bundled digits: 1,797 grey pictures of 8x8 with values 0 to 16, shown at `size` pixels."""
    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    test, rest = stratified(bunch.target, DIGITS_TEST, seed=0)
    whole = Part(resized(images, size), bunch.target)
    return assemble(
        whole.take(rest),
        None,
        whole.take(test),
        [str(d) for d in range(10)],
        val_fraction=val_fraction,
        split_seed=split_seed,
        mean=mean,
        std=std,
        note=f"test: a fixed {DIGITS_TEST:.0%}; validation: {val_fraction:.0%} of the rest",
    )
