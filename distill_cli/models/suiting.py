"""Whether a builder of networks is for the kind of data at hand, told by what it asks of them; nothing is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from distill_cli.base.errors import ConfigError
from distill_cli.data import Spec

# What a builder asks of the data it is for, and what those are.
ASKED = {"in_channels": "pictures", "input_size": "pictures", "vocab_size": "texts", "pad_token_id": "texts"}


def require_kind(
    builder: Callable[..., Any], node: Mapping[str, Any], given: Mapping[str, Any], role: str, spec: Spec
) -> None:
    """Refuse a builder that asks for what neither its node says nor the data give.

    Raises:
        ConfigError: it is for another kind of data.
    """
    for name, parameter in inspect.signature(builder).parameters.items():
        lacks = name not in given and node.get(name, parameter.default) in (None, parameter.empty)
        if name in ASKED and lacks:
            raise ConfigError(
                f"{role}: {node['_target_']} takes {ASKED[name]}, and the data are {spec.kind}",
                f"choose another, as in {role}=NAME: distill list models",
            )
