"""The templates and the one function that fills them; every text is escaped where it enters."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from distill_cli import __version__
from distill_cli.base.names import size, slug
from distill_cli.report import words
from distill_cli.report.drawing import PALETTE
from distill_cli.report.records import speed

SMALL = 64  # pixels up to which a picture is enlarged as it is, not smoothed


def page(template: str, **content: Any) -> str:
    """Return a whole document that needs nothing but itself: a template of this room, filled."""
    return _environment().get_template(template).render(content, titles=[])  # which the sections of a page fill


@cache
def _environment() -> Environment:
    places = FileSystemLoader(Path(__file__).with_name("templates"))
    made = Environment(loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {function.__name__: function for function in (*words.FILTERS, size, slug, speed, pixelated)}
    made.globals |= {"palette": PALETTE, "version": __version__, "times": words.times}
    return made


def pixelated(picture: str) -> bool:
    """Return whether a PNG, given as a data URL, is so small that it is best enlarged as it is."""
    header = base64.b64decode(picture.partition(",")[2][:32])
    return int.from_bytes(header[16:20], "big") <= SMALL
