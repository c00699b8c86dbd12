"""Classifiers of transformers, from a folder or a hub name, or fresh by their sizes. The library is imported when one is built."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.base.files import place
from distill_cli.data.tokens import Tokenizer
from distill_cli.models import OF_TEACHER, REBUILD, Classifier
from distill_cli.models.hub import config_of, library, means, quiet, safe
from distill_cli.models.stack import keep_layers, numbers_of
from distill_cli.models.wrapped import HuggingFace, MeanPooled, recipe, wrapped

# What the sizes of a fresh network are called in the library's configurations, by our names.
SIZES = {
    "bert": {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads", "inner": "intermediate_size"},
    "distilbert": {"layers": "n_layers", "width": "dim", "heads": "n_heads", "inner": "hidden_dim"},
    "gpt2": {"layers": "n_layer", "width": "n_embd", "heads": "n_head", "inner": "n_inner"},
}  # fmt: skip
DROPOUTS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
}
POSITIONS = {"bert": "max_position_embeddings", "distilbert": "max_position_embeddings", "gpt2": "n_positions"}


def huggingface(
    num_classes: int,
    pad_token_id: int,
    name: str | None = None,
    layers: int | list[int] | None = None,
    init: Literal["name", "teacher", "fresh"] = "name",
    pooling: Literal["auto", "own", "mean"] = "auto",
    attention: Literal["sdpa", "eager"] = "sdpa",
    config: dict[str, Any] | None = None,
    teacher: Classifier | None = None,
) -> nn.Module:
    """A sequence classifier of transformers.

    Args:
        name: a folder with config.json and model.safetensors, or a name on the hub. layers: so many of its layers, evenly
            spaced, or those with these numbers. init: whose weights it has: its own, those of `teacher`, which then says the sizes
            too, or fresh ones.
        pooling: mean: the head sees the mean of a text's states; own: what the class of the model gives it; auto: mean where
            the folder is a sentence-transformer's that says so.
        attention: eager gives attention maps, more slowly. config: what rebuilds one from our own card.

    Raises:
        ConfigError: no such model, or a layer it does not have. CheckpointError: pickled weights, remote code, no network.
    """
    if name is None and config is None and init != "teacher":
        raise ConfigError("name: has no default: a folder of a model, or its name on the hub", "name=DIR")
    lib = library()
    with quiet(lib):
        if config is not None:
            settings = lib.AutoConfig.for_model(**config, num_labels=num_classes)
            return wrapped(_made(lib, settings, attention), None, num_classes, pooling == "mean")
        if init == "teacher":
            return _of_teacher(lib, teacher, name, layers, num_classes, pooling, attention)
        assert name is not None
        source = str(place(name, "name"))
        settings = config_of(lib, source, name)
        settings.num_labels = num_classes
        settings.pad_token_id = pad_token_id if settings.pad_token_id is None else settings.pad_token_id
        fresh = init == "fresh"
        if fresh and layers is not None:
            settings.num_hidden_layers = len(numbers_of(layers, settings.num_hidden_layers))
        model = _made(lib, settings, attention) if fresh else _loaded(lib, source, name, settings, attention)
        if not fresh and layers is not None:
            keep_layers(model, numbers_of(layers, settings.num_hidden_layers))
        home = Path(source) if Path(source).is_dir() else Path(lib.utils.cached_file(source, "config.json")).parent
        mean = pooling == "mean" or (pooling == "auto" and means(home))
        if mean and pooling == "auto":
            ui.say(
                f"{name}: its head sees the mean of a text's states, as its folder says; pooling=own: as its class has it"
            )
        return wrapped(model, Tokenizer.read(home), num_classes, mean)


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


def _of_teacher(
    lib: Any,
    teacher: Classifier | None,
    name: str | None,
    layers: int | list[int] | None,
    classes: int,
    pooling: str,
    attention: str,
) -> nn.Module:
    """A copy of a teacher with some of its layers, and of its head what answers the data's classes; see `huggingface`."""
    theirs = None if teacher is None else teacher.net
    if teacher is None or not isinstance(theirs, HuggingFace):
        what = "there is no teacher" if teacher is None else f"the teacher is a {type(theirs).__name__}"
        raise ConfigError(f"init=teacher: {what}: it needs one that is a model of transformers")
    if pooling not in ("auto", "mean" if isinstance(theirs, MeanPooled) else "own"):
        raise ConfigError(f"pooling={pooling}: the teacher, which the student is made of, has another", "pooling=auto")
    net = copy.deepcopy(theirs)
    model: Any = net.model
    if name is not None and (unlike := _unlike(config_of(lib, str(place(name, "name")), name), model.config)):
        raise ConfigError(f"name={name}: is another network than the teacher: {unlike}", "init=teacher needs no name")
    model.set_attn_implementation(attention)
    there = model.config.num_hidden_layers
    numbers = numbers_of(there if layers is None else layers, there)
    keep_layers(model, numbers)
    if teacher.order is not None:
        head = [part for part in net.modules() if isinstance(part, nn.Linear)][-1]
        head.out_features = model.config.num_labels = classes
        for tensors in head.parameters():
            tensors.data = tensors.data[teacher.order]
    net.__dict__[REBUILD] = recipe(net)
    net.__dict__[OF_TEACHER] = f"layers {', '.join(map(str, numbers))} of the teacher, its embeddings and its head"
    return net


def _unlike(one: Any, other: Any) -> str:
    """In what two configurations are of different networks, the number of layers aside; empty: in nothing."""
    keys = ("model_type", "hidden_size", "vocab_size")
    here, there = ([getattr(config, key) for key in keys] for config in (one, other))
    return ", ".join(f"{key} {a} there is {b}" for key, a, b in zip(keys, here, there, strict=True) if a != b)


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
