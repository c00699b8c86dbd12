"""argv -> help at once, or a command; whatever takes time to import comes after."""

from __future__ import annotations

import os
import sys

from distill_cli import __version__
from distill_cli.cli.pages import command_names, front_page, help_page


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code and prints one message for a failure."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        return shown(front_page())
    if words[0] == "--version":
        return shown(f"distill {__version__}")
    if words[0] == "--complete":  # typed by nobody: the script of `distill completion` asks so at every Tab
        from distill_cli.cli.completion import answer

        return answer(words[1:])
    if words[0] in command_names() and {"-h", "--help"} & set(words[1:]):
        return shown(help_page(words[0]))
    from distill_cli.base import stopping
    from distill_cli.cli.dispatch import dispatch

    return stopping.guarded(lambda: dispatch(words))


def shown(page: str) -> int:
    """Print a page; where its reader stops early (`| head`), the rest is dropped. Returns 0."""
    try:
        print(page, flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    return 0
