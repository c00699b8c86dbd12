"""argv -> help at once, or a command; whatever takes time to import comes after."""

from __future__ import annotations

import sys

from distill_cli import __version__
from distill_cli.pages import command_names, front_page, help_page


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code and prints one message for a failure."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(front_page())
        return 0
    if words[0] == "--version":
        print(f"distill {__version__}")
        return 0
    if words[0] in command_names() and {"-h", "--help"} & set(words[1:]):
        print(help_page(words[0]))
        return 0
    from distill_cli.dispatch import guarded

    return guarded(words)
