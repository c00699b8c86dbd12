"""Show a page of the manual, or list its topics.

usage: distill help [TOPIC]

  distill help                  the topics, one line each
  distill help sweeps           one page; on a terminal through a pager
  distill help sweeps | less    its Markdown as it is written
  distill help train            a command's own page, as distill train --help shows it
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.cli import shown
from distill_cli.cli.pages import command_names, help_page, manual_page, topics

WIDTH = 100  # columns at most: longer lines are hard to read
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)]*)\)")


def run(words: Sequence[str]) -> int:
    """Show the page that the words name, or the list of topics; returns the exit code, 0.

    Raises:
        ConfigError: no page has that name, or several are named.
    """
    if not words:
        lines = [f"  {name:<12} {manual_page(name).splitlines()[0].lstrip('# ')}" for name in topics()]
        return shown(
            "\n".join(["topics of the manual: distill help TOPIC", "", *lines, "", "commands: distill --help"])
        )
    topic, *others = words
    if others:
        raise ConfigError(f"distill help: one topic at a time, got {len(words)}", f"distill help {topic}")
    if topic in topics():
        page = LINK.sub(_plainly, manual_page(topic)).rstrip()
        return _paged(page) if sys.stdout.isatty() else shown(page)
    if topic in command_names():
        return shown(help_page(topic))
    guess = did_you_mean(topic, [*topics(), *command_names()], "distill help ")
    raise ConfigError(f"distill help: there is no page {topic!r}", f"{guess}topics: {', '.join(topics())}")


def _plainly(link: re.Match[str]) -> str:
    """A link's text and the command to type for it; or where it leads, if that is no page of the manual."""
    text, target = link.groups()
    name = target.partition("#")[0].removesuffix(".md")
    if not name:
        return text
    return f"{text} (`distill help {name}`)" if name in topics() else f"{text} ({target.lstrip('./')})"


def _paged(page: str) -> int:
    """Show Markdown on the terminal through $PAGER, or less; returns 0."""
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.theme import Theme

    os.environ.setdefault("LESS", "FRX")  # show colours, and do not wait at the end of a page that fits the screen
    console = Console(theme=Theme({"markdown.code": "bold cyan"}))
    console.width = min(console.width, WIDTH)
    with console.pager(styles=True):
        console.print(Markdown(page, code_theme="ansi_dark"))
    return 0
