"""A student as one graph, from raw samples to probabilities at T = 1, and that graph as ONNX; nothing is written or run here."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill_cli.base.errors import ConfigError
from distill_cli.data.inputs import Inputs
from distill_cli.deploy.onnx_file import DOMAINS, IMAGES, PROBABILITIES
from distill_cli.models import Classifier, evaluating

OPSET = 20
EXAMPLE = 2  # samples that a graph is traced with: of one, its size would be taken for a constant


class Whole(nn.Module):
    """A model with all that stands before and behind it.

    Args:
        names: of the inputs, in the order in which they are given.
    """

    def __init__(self, model: Classifier, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *parts: Tensor) -> Tensor:
        """Raw samples -> probabilities (N, C)."""
        raw: Inputs = parts[0] if self.names == (IMAGES,) else dict(zip(self.names, parts, strict=True))
        return torch.softmax(self.model(self.model.spec.inputs(raw)).float(), dim=-1)


def program(model: Classifier) -> tuple[Any, tuple[str, ...]]:
    """The graph as torch.export has it, for batches of any size, and the names of its inputs.

    Raises:
        ConfigError: the network's code cannot be traced.
    """
    raw = model.spec.stored(EXAMPLE)
    parts = {IMAGES: raw} if isinstance(raw, Tensor) else dict(raw)
    whole = Whole(model, tuple(parts))
    with quiet(model), evaluating(model), torch.no_grad():
        whole(*parts.values())  # what is computed once and kept must not be a tensor of the tracing
        made = torch.export.export(whole, tuple(parts.values()), dynamic_shapes={"parts": _free(model, parts)})
    return made, tuple(parts)


def onnx_of(model: Classifier) -> Any:
    """The graph as an ONNX model, with nothing but ONNX's own operators.

    Raises:
        ConfigError: the network's code, or an operator that it uses, cannot be exported.
    """
    made, names = program(model)
    with quiet(model):
        exported = torch.onnx.export(
            made, input_names=list(names), output_names=[PROBABILITIES], opset_version=OPSET, external_data=False,
            dynamo=True, verbose=False,
        )  # fmt: skip
        assert exported is not None
        return cleaned(exported.model_proto)


def cleaned(proto: Any) -> Any:
    """A model without what tells of the machine that made it, and without domains that no node is of."""
    del proto.metadata_props[:]
    for one in [
        *proto.graph.node,
        *proto.graph.input,
        *proto.graph.output,
        *proto.graph.value_info,
        *proto.graph.initializer,
    ]:
        del one.metadata_props[:]
    used = [one for one in proto.opset_import if one.domain in DOMAINS]
    del proto.opset_import[:]
    proto.opset_import.extend(used)
    return proto


def marked(proto: Any, about: Mapping[str, str]) -> bytes:
    """A model's bytes with these metadata."""
    del proto.metadata_props[:]
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value)
    content: bytes = proto.SerializeToString()
    return content


def _free(model: Classifier, parts: Mapping[str, Tensor]) -> tuple[dict[int, Any], ...]:
    """The sides of the inputs that may be of any size: how many samples, and how long texts are."""
    batch, longest = torch.export.Dim("batch"), model.spec.arguments().get("max_length")
    length = torch.export.Dim("length", max=longest) if longest else None
    return tuple({0: batch, **({1: length} if length else {})} for _ in parts)


@contextlib.contextmanager
def quiet(model: Classifier) -> Iterator[None]:
    """Without what the exporters say to themselves; whatever they raise is said of the network."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        with warnings.catch_warnings(action="ignore"), silent[0], silent[1]:
            yield
    except Exception as error:  # of many kinds; the code that is traced may be anybody's
        told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"{type(model.net).__name__} cannot be exported: {told}", "DISTILL_DEBUG=1 shows where"
        ) from error
    finally:
        logging.disable(before)
