"""The packages of the extra [export], which are imported only by what needs them: whether they are there."""

from __future__ import annotations

import importlib.util

from distill_cli.base.errors import ConfigError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def needed(what: str) -> None:
    """Raise a ConfigError where a package is missing; `what`: what needs them, for its message."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"{what} needs {' and '.join(missing)}", 'pip install "distill-cli[export]"')
