"""Models of transformers, from a folder or a hub name, or fresh by their sizes. The library is imported when one is built."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.data.tokens import Tokenizer
from distill_cli.models import BROUGHT, OF_TEACHER, READY, REBUILD, Classifier
from distill_cli.models.hub import config_of, folder_of, library, means, quiet, safe
from distill_cli.models.language import CausalLM
from distill_cli.models.stack import keep_layers, narrow, numbers_of
from distill_cli.models.wrapped import HuggingFace, MeanPooled, recipe

# What the width inside a layer is called in the library's configurations; other sizes have one name in all of them.
INNER = {"bert": "intermediate_size", "distilbert": "hidden_dim", "gpt2": "n_inner", "llama": "intermediate_size"}
DROPOUTS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "llama": ("attention_dropout",),
}
CAUSAL = ("gpt2", "llama")  # families in which no token sees those after it
Head = Literal["classes", "tokens"]  # what is answered: once a text which class, or at each token which comes next
AUTO = {"classes": "AutoModelForSequenceClassification", "tokens": "AutoModelForCausalLM"}


def source_of(node: Mapping[str, Any]) -> Path | None:
    """The folder that a node names; None where it needs none; raises as `huggingface`."""
    name, init = node.get("name"), node.get("init", "name")
    if node.get("config") is not None or (name is None and init == "teacher"):
        return None
    if name is None:
        raise ConfigError("name: has no default: a folder of a model, or its name on the hub", "name=DIR")
    source = folder_of(name)
    if init == "name":
        safe(source)  # before the library is imported, which takes seconds
    return source


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
    head: Head = "classes",
) -> nn.Module:
    """A sequence classifier or a causal language model of transformers, as the data's spec asks for by `head`.

    Args:
        name: a folder with config.json and model.safetensors, or a name on the hub. layers: so many of its layers, evenly
            spaced, or those with these numbers. init: whose weights it has: its own, those of `teacher`, which then says the sizes
            too, or fresh ones.
        pooling: of a classifier: mean: the head sees the mean of a text's states; own: what the class of the model gives it;
            auto: mean where the folder is a sentence-transformer's that says so.
        attention: eager gives attention maps, more slowly. config: what rebuilds one from our own card.

    Raises:
        ConfigError: no such model, or a layer it does not have. CheckpointError: pickled weights, remote code, no network.
    """
    source = source_of({"name": name, "init": init, "config": config})
    if head == "tokens" and pooling == "mean":
        raise ConfigError("pooling=mean: a language model answers at every token, and pools nothing", "pooling=own")
    lib = library()
    with quiet(lib):
        if config is not None:
            settings = lib.AutoConfig.for_model(**config)
            return _wrapped(
                _made(lib, settings, attention, head, num_classes), None, head, num_classes, pooling == "mean"
            )
        if init == "teacher":
            return _of_teacher(lib, teacher, name, layers, num_classes, pooling, attention)
        assert name and source
        settings = config_of(lib, source, name)
        settings.pad_token_id = pad_token_id if settings.pad_token_id is None else settings.pad_token_id
        numbers = None if layers is None else numbers_of(layers, settings.num_hidden_layers)
        if init == "fresh":
            if numbers is not None:
                narrow(settings, numbers)
            model = _made(lib, settings, attention, head, num_classes)
        else:
            model = _loaded(lib, source, name, settings, attention, head, num_classes)
            if numbers is not None:
                keep_layers(model, numbers)
        mean = head == "classes" and (pooling == "mean" or (pooling == "auto" and means(source)))
        if mean and pooling == "auto":
            ui.say(
                f"{name}: its head sees the mean of a text's states, as its folder says; pooling=own: as its class has it"
            )
        net = _wrapped(model, Tokenizer.read(source), head, num_classes, mean, name if init == "name" else None)
        if head == "tokens" and init == "name" and numbers is None:
            net.__dict__[READY] = True
        return net


huggingface.beforehand = source_of  # type: ignore[attr-defined]


def fresh(
    num_classes: int,
    vocab_size: int,
    pad_token_id: int,
    family: Literal["bert", "distilbert", "gpt2", "llama"] = "bert",
    layers: int = 2,
    width: int = 128,
    heads: int = 2,
    inner: int | None = None,
    dropout: float = 0.1,
    positions: int = 512,
    attention: Literal["sdpa", "eager"] = "sdpa",
    kv_heads: int | None = None,
    head: Head = "classes",
) -> nn.Module:
    """A sequence classifier or a causal language model of transformers with weights of its own; `head` as in `huggingface`.

    Args:
        vocab_size: tokens of its table, which a language model's head shares. layers, width, heads: of the encoder.
        inner: width inside its feed-forward layers; None: four times `width`. kv_heads: of llama: heads of keys and values, each
            of which serves several of `heads`; None: as many.

    Raises:
        ConfigError: the sizes do not fit each other, or the family is not one of language models.
    """
    if width % heads:
        raise ConfigError(f"width: {width} cannot be shared out among heads={heads}")
    if kv_heads and (family != "llama" or heads % kv_heads):
        raise ConfigError(f"kv_heads={kv_heads}: only llama has them, and heads={heads} is to be a multiple of them")
    if head == "tokens" and family not in CAUSAL:
        raise ConfigError(f"family={family}: its tokens see those after them", f"family={' or family='.join(CAUSAL)}")
    lib = library()
    settings = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        INNER[family]: inner or 4 * width,
        "max_position_embeddings": positions,
        "vocab_size": vocab_size,
        "pad_token_id": pad_token_id,
        "tie_word_embeddings": True,
        **dict.fromkeys(DROPOUTS[family], dropout),
        **({"num_key_value_heads": kv_heads} if kv_heads else {}),
    }
    with quiet(lib):
        config = lib.AutoConfig.for_model(family, **settings)
        model = _made(lib, config, attention, head, num_classes)
    return CausalLM(model, num_classes) if head == "tokens" else HuggingFace(model)


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
    if name is not None and (unlike := _unlike(config_of(lib, folder_of(name), name), model.config)):
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


def _loaded(lib: Any, source: Path, name: str, config: Any, attention: str, head: Head, classes: int) -> nn.Module:
    if head == "classes":
        config.num_labels = classes
    try:
        model: nn.Module
        model, told = getattr(lib, AUTO[head]).from_pretrained(
            source,
            config=config,
            attn_implementation=attention,
            use_safetensors=True,
            ignore_mismatched_sizes=head == "classes",  # a head of other classes is made anew
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"name={name}: cannot be read: {str(error).splitlines()[0]}") from error
    if head == "tokens" and told["missing_keys"]:
        raise CheckpointError(f"name={name}: is no language model: it holds no {min(told['missing_keys'])}")
    return model


def _made(lib: Any, config: Any, attention: str, head: Head, classes: int) -> nn.Module:
    if head == "classes":
        config.num_labels = classes
    try:
        model: nn.Module = getattr(lib, AUTO[head]).from_config(config, attn_implementation=attention)
    except (ValueError, KeyError) as error:
        kind = "sequence classifier" if head == "classes" else "causal language model"
        raise ConfigError(f"{config.model_type}: is no {kind}: {str(error).splitlines()[0]}") from error
    return model


def _wrapped(
    model: nn.Module, tokenizer: Tokenizer | None, head: Head, classes: int, mean: bool, brought: str | None = None
) -> nn.Module:
    net: HuggingFace
    if head == "tokens":
        net = CausalLM(model, classes, tokenizer)
    else:
        net = MeanPooled(model, classes, tokenizer) if mean else HuggingFace(model, tokenizer)
    net.__dict__ |= {REBUILD: recipe(net), **({BROUGHT: brought} if brought else {})}
    return net
