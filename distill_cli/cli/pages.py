"""Help pages, the manual, and the commands that exist; imports next to nothing, because a help page should come at once."""

from __future__ import annotations

import os

from distill_cli.config.shipped import conf_folder

HERE = os.path.dirname(os.path.abspath(__file__))
MANUAL = f"{os.path.dirname(HERE)}/manual"

FRONT = """distill: a large teacher, a small student, honest numbers

usage: distill COMMAND [key=value ...] [options]

{commands}

try:   distill train                    a first run, no network needed
       distill train teacher=resnet18 student=smallcnn T=3 baseline=true
       distill train -m T=1,3 seed=0,1,2    a sweep, its leaderboard and report
       distill list                     what can be chosen
       distill COMMAND --help           a command's options and keys
       distill help                     the manual's topics"""

OPTIONS = """
options:
  -m, --multirun         sweep over every combination of the values given
  -cn, --config-name X   another root YAML than the command's own
  -cd, --config-dir DIR  a folder of your own to search first for YAML (./conf is searched anyway)
  --cfg job|hydra|all    print the composed configuration and stop;  -p PACKAGE: one part;  --resolve
  -i, --info [WHAT]      searchpath, defaults, config, plugins
  -h, --help             this page
"""


def command_names() -> list[str]:
    """The commands: one file each."""
    return sorted({name[:-3] for name in os.listdir(f"{HERE}/commands") if name.endswith(".py")} - {"__init__"})


def is_configured(command: str) -> bool:
    """Whether a command has a configuration, and so a root YAML."""
    return os.path.isfile(f"{conf_folder()}/{command}.yaml")


def page_of(command: str) -> str:
    """A command's help: the docstring of its file, read without importing it."""
    return _read(f"{HERE}/commands/{command}.py").split('"""')[1].strip()


def topics() -> list[str]:
    """The manual's topics: one Markdown file each."""
    return sorted(name.removesuffix(".md") for name in os.listdir(MANUAL) if name.endswith(".md"))


def manual_page(topic: str) -> str:
    """The Markdown of a topic of the manual."""
    return _read(f"{MANUAL}/{topic}.md")


def front_page() -> str:
    """The commands, and what to type first."""
    return FRONT.format(commands="\n".join(f"  {name:<10} {page_of(name).splitlines()[0]}" for name in command_names()))


def help_page(command: str) -> str:
    """A command's help page; options and keys are part of it where the command takes a configuration."""
    if not is_configured(command):
        return page_of(command)
    from distill_cli.cli import keys  # the schema takes longer to import than any other page to show

    return f"{page_of(command)}\n{OPTIONS}\nkeys and their defaults:\n{keys.of_command(command)}"


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
