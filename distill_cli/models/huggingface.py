"""Classifiers of transformers, from a folder or a hub name, or fresh by their sizes. The library is imported when one is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.base.files import place
from distill_cli.data.tokens import Tokenizer
from distill_cli.models import REBUILD
from distill_cli.models.hub import config_of, library, means, quiet, safe
from distill_cli.models.stack import evenly

# What the sizes of a fresh network are called in the library's configurations, by our names.
SIZES = {
    "bert": {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads", "inner": "intermediate_size"},
    "distilbert": {"layers": "n_layers", "width": "dim", "heads": "n_heads", "inner": "hidden_dim"},
    "gpt2": {"layers": "n_layer", "width": "n_embd", "heads": "n_head", "inner": "n_inner"},
}  # fmt: skip
LABELS = ("id2label", "label2id")  # which classes there are, a card says
DROPOUTS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
}
POSITIONS = {"bert": "max_position_embeddings", "distilbert": "max_position_embeddings", "gpt2": "n_positions"}


class HuggingFace(nn.Module):
    """A model of transformers that takes token ids and masks (N, L) by their names and gives logits (N, K).

    Args:
        tokenizer: the one it was trained with; None: it takes the data's.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        config: Any = model.config
        self.max_length = getattr(config, "max_position_embeddings", None)
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


def huggingface(
    num_classes: int,
    pad_token_id: int,
    name: str | None = None,
    layers: int | list[int] | None = None,
    init: Literal["name", "fresh"] = "name",
    pooling: Literal["auto", "own", "mean"] = "auto",
    attention: Literal["sdpa", "eager"] = "sdpa",
    config: dict[str, Any] | None = None,
) -> nn.Module:
    """A sequence classifier of transformers.

    Args:
        name: a folder with config.json and model.safetensors, or a name on the hub. layers: so many of its layers, evenly
            spaced, or those with these numbers. init: fresh: its sizes, but weights of its own.
        pooling: mean: the head sees the mean of a text's states; own: what the class of the model gives it; auto: mean where
            the folder is a sentence-transformer's that says so.
        attention: eager gives attention maps, more slowly. config: what rebuilds one from our own card.

    Raises:
        ConfigError: no such model, or a layer it does not have. CheckpointError: pickled weights, remote code, no network.
    """
    lib = library()
    with quiet(lib):
        if config is not None:
            settings = lib.AutoConfig.for_model(**config, num_labels=num_classes)
            return _wrapped(_made(lib, settings, attention), None, {}, num_classes, pooling == "mean")
        if name is None:
            raise ConfigError("name: a folder of a model, or its name on the hub", "name=DIR")
        source = str(place(name, "name"))
        settings = config_of(lib, source, name)
        settings.num_labels = num_classes
        settings.pad_token_id = pad_token_id if settings.pad_token_id is None else settings.pad_token_id
        fresh = init == "fresh"
        if fresh and layers is not None:
            settings.num_hidden_layers = len(_numbers(layers, settings.num_hidden_layers))
        model = _made(lib, settings, attention) if fresh else _loaded(lib, source, name, settings, attention)
        if not fresh and layers is not None:
            _keep_layers(model, _numbers(layers, settings.num_hidden_layers))
        home = Path(source) if Path(source).is_dir() else Path(lib.utils.cached_file(source, "config.json")).parent
        mean = pooling == "mean" or (pooling == "auto" and means(home))
        if mean and pooling == "auto":
            ui.say(
                f"{name}: its head sees the mean of a text's states, as its folder says; pooling=own: as its class has it"
            )
        changed = {"name": None, "layers": None, "init": "name", "pooling": "mean" if mean else "own"}
        return _wrapped(model, Tokenizer.read(home), changed, num_classes, mean)


def fresh(
    num_classes: int,
    vocab_size: int,
    pad_token_id: int,
    max_length: int,
    family: Literal["bert", "distilbert", "gpt2"] = "bert",
    layers: int = 2,
    width: int = 128,
    heads: int = 2,
    inner: int | None = None,
    dropout: float = 0.1,
    positions: int = 512,
    attention: Literal["sdpa", "eager"] = "sdpa",
) -> nn.Module:
    """A sequence classifier of transformers with weights of its own.

    Args:
        vocab_size: tokens of its table. max_length: of the data, for which there must be positions.
        layers, width, heads: of the encoder. inner: width inside its feed-forward layers; None: four times `width`.

    Raises:
        ConfigError: the sizes do not fit each other.
    """
    if width % heads:
        raise ConfigError(f"width: {width} cannot be shared out among heads={heads}")
    if max_length > positions:
        raise ConfigError(f"positions: {positions} are fewer than dataset.max_length={max_length}")
    lib = library()
    sizes = {"layers": layers, "width": width, "heads": heads, "inner": inner or 4 * width}
    settings: dict[str, Any] = {theirs: sizes[ours] for ours, theirs in SIZES[family].items()}
    settings |= dict.fromkeys(DROPOUTS[family], dropout)
    settings |= {"vocab_size": vocab_size, "num_labels": num_classes, "pad_token_id": pad_token_id}
    with quiet(lib):
        config = lib.AutoConfig.for_model(family, **settings, **{POSITIONS[family]: positions})
        return HuggingFace(_made(lib, config, attention))


def _loaded(lib: Any, source: str, name: str, config: Any, attention: str) -> nn.Module:
    safe(source)
    try:
        model: nn.Module = lib.AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            attn_implementation=attention,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head of other classes is made anew
            dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"name={name}: cannot be read: {str(error).splitlines()[0]}") from error
    return model


def _made(lib: Any, config: Any, attention: str) -> nn.Module:
    try:
        model: nn.Module = lib.AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{config.model_type}: is no sequence classifier: {str(error).splitlines()[0]}") from error
    return model


def _wrapped(
    model: nn.Module, tokenizer: Tokenizer | None, changed: Mapping[str, Any], classes: int, mean: bool
) -> HuggingFace:
    net = MeanPooled(model, classes, tokenizer) if mean else HuggingFace(model, tokenizer)
    config: Any = model.config
    sizes = {key: value for key, value in config.to_diff_dict().items() if key not in LABELS}
    net.__dict__[REBUILD] = {**changed, "config": {**sizes, "model_type": config.model_type}}
    return net


def _numbers(layers: int | list[int], there: int) -> list[int]:
    """The numbers of the layers that are kept of `there`: so many, evenly spaced with the last among them, or as listed."""
    if isinstance(layers, int):
        if not 1 <= layers <= there:
            raise ConfigError(f"layers={layers}: the model has {there}")
        return evenly(layers, there)
    odd = [number for number in layers if not 0 <= number < there]
    if odd or not layers:
        raise ConfigError(f"layers={layers}: the model has layers 0 to {there - 1}")
    return layers


def _keep_layers(model: nn.Module, numbers: list[int]) -> None:
    """Leave only some of an encoder's layers."""
    config: Any = model.config
    path, stack = next(
        (path, part)
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == config.num_hidden_layers
    )
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList(stack[number] for number in numbers))
    config.num_hidden_layers = len(numbers)
