"""Checks of the constants that an objective is built with."""

from __future__ import annotations

from distill_cli.base.errors import ConfigError
from distill_cli.config.values import complaint


def require(name: str, number: float, **bounds: float) -> float:
    """The number itself, if it is finite and within bounds gt, ge, lt and le.

    Raises:
        ConfigError: it is not.
    """
    wrong = complaint(number, bounds)
    if wrong:
        raise ConfigError(f"{name} {wrong}")
    return number
