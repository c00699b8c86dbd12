"""A model of transformers as a network of ours: what it takes, what it answers, and how it is built again; it loads none."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from distill_cli.data.tokens import Tokenizer

LABELS = ("id2label", "label2id")  # which classes there are, a card says


class HuggingFace(nn.Module):
    """A model of transformers that takes token ids and masks (N, L) by their names and gives logits (N, K).

    Args:
        tokenizer: the one it was trained with; None: it takes the data's.
    """

    head_is_new: ClassVar[bool] = True  # it is made for the data's classes, and learns even where the rest does not

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        config: Any = model.config
        config.use_cache = False  # of keys and values, by the layers' numbers: a class is told of a text once
        self.max_length = getattr(config, "max_position_embeddings", None)
        self.table = int(config.vocab_size)  # how many tokens it knows
        takes = inspect.signature(model.forward).parameters
        kinds = getattr(config, "type_vocab_size", 0) > 1  # where 0, these ids would be taken for words
        self.takes = [name for name in takes if name != "token_type_ids" or kinds]

    def answer(self, inputs: Mapping[str, Tensor]) -> Any:
        """What the library's model gives for those of the inputs that it takes."""
        return self.model(**{name: values for name, values in inputs.items() if name in self.takes})

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self.answer(inputs).logits
        return logits


class MeanPooled(HuggingFace):
    """An encoder of transformers under a linear layer on the mean of a text's states, as models of sentences are trained.

    Args:
        model: a sequence classifier, whose own pooler and head are left out. classes: how many logits it gives.
    """

    def __init__(self, model: nn.Module, classes: int, tokenizer: Tokenizer | None = None) -> None:
        encoder: Any = model.base_model
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        super().__init__(encoder, tokenizer)
        self.classifier = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        states = self.answer(inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None].to(states.dtype)
        logits: Tensor = self.classifier((states * mask).sum(1) / mask.sum(1))
        return logits


def recipe(net: HuggingFace) -> dict[str, Any]:
    """What to change in a node so that it builds the same network again, with no other file than the weights."""
    config: Any = net.model.config
    sizes = {key: value for key, value in config.to_diff_dict().items() if key not in LABELS}
    changed = {
        "name": None,
        "layers": None,
        "init": "name",
        "pooling": "mean" if isinstance(net, MeanPooled) else "own",
    }
    return {**changed, "config": {**sizes, "model_type": config.model_type}}
