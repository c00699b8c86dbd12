"""A model's answers on a whole split, batch by batch: the one pass that measuring, the cache and evaluation share; the batches
can be dealt out to the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch

from distill_cli.base import runtime, stopping, world
from distill_cli.base.errors import NonFiniteError
from distill_cli.data import Batch, Split, batch_sizes
from distill_cli.models import Classifier, evaluating
from distill_cli.models.features import Output, Tap


def at_once(model: Classifier, split: Split) -> int:
    """How many samples of a split a model answers at a time where nobody says."""
    return min(split.spec.at_once, model.taken.at_once)


def num_batches(model: Classifier, split: Split, batch_size: int | None = None) -> int:
    """In how many batches `outputs` goes through a split, with all ranks together."""
    return len(batch_sizes(len(split), batch_size or at_once(model, split)))


def without_gradients(model: Classifier) -> AbstractContextManager[object]:
    """As a context: inside, a model answers and keeps nothing to learn by."""
    # Weights that are gathered in inference mode could not be learnt by after.
    return torch.inference_mode() if model.spread is None else torch.no_grad()


def outputs(
    model: Classifier,
    split: Split,
    batch_size: int | None = None,
    view: int | None = None,
    dtype: torch.dtype = torch.float32,
    layers: Sequence[str] = (),
    deal: bool = False,
    skip: int = 0,
) -> Iterator[tuple[Batch, Output]]:
    """Each batch of a split, in an order of its own, with what the model answers in eval mode; answers and features are
    fp32, and the model's mode is put back.

    Args:
        batch_size: None: as many as the data's spec and the model's say. view: see `Split.batches`. dtype: in which the
            model computes.
        layers: paths of the modules whose features are wanted. deal: whether a rank answers its own batches alone, see
            `world.dealt` and `num_batches`. skip: so many batches are left out, without being read.

    Raises:
        NonFiniteError: some logit or feature is not a finite number. KeyboardInterrupt: we were asked to stop.
    """
    # A network that draws random numbers draws the same ones whenever it is measured.
    with evaluating(model), runtime.seeded("answers"), Tap(model.net, layers) as tap:
        size = batch_size or at_once(model, split)
        order = split.source.arranged(torch.arange(len(split)), size)
        every = order.split(batch_sizes(len(order), size))[skip:]
        for batch in split.read(world.dealt(every) if deal else every, view):
            with without_gradients(model), runtime.exact(), runtime.autocast(batch.index.device, dtype):
                output = tap(model, batch.inputs)
            # Tensors made in inference mode take no part in a backward pass; their copies do.
            answers = output.answers.float().clone()
            features = {path: values.float().clone() for path, values in output.features.items()}
            for name, values in {"logits": answers, **features}.items():
                if not torch.isfinite(values).all():
                    raise NonFiniteError(
                        f"{type(model.net).__name__} gives {name} that are not finite",
                        "a damaged checkpoint, or a diverged training: try a smaller learning rate, or optimizer.clip=1",
                    )
            yield batch, Output(answers, features, output.head)
            stopping.check()
