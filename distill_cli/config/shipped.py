"""Where the shipped conf/ lies; imports next to nothing, because a help page asks for it."""

from __future__ import annotations

import os

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def conf_folder() -> str:
    """The shipped conf/: inside the package when installed, beside it in a checkout."""
    places = (f"{PACKAGE}/conf", f"{os.path.dirname(PACKAGE)}/conf")
    return next(place for place in places if os.path.isfile(f"{place}/train.yaml"))
