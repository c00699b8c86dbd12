"""scikit-learn's bundled digits: the data set that needs no network."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from distill_cli.data import Data, Part, assemble, resized

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
    images = resized(images, size)
    rest, test = train_test_split(np.arange(len(images)), test_size=DIGITS_TEST, stratify=bunch.target, random_state=0)
    whole = Part(images, bunch.target)
    return assemble(
        whole.take(np.sort(rest)),
        None,
        whole.take(np.sort(test)),
        [str(d) for d in range(10)],
        val_fraction=val_fraction,
        split_seed=split_seed,
        mean=mean,
        std=std,
        note=f"test: a fixed {DIGITS_TEST:.0%}; validation: {val_fraction:.0%} of the rest",
    )
