"""The flags of each command: what argparse is told of them, and what Tab offers. --help is answered before any is read."""

from __future__ import annotations

from typing import Any

from distill_cli.cli.pages import is_configured, page_of
from distill_cli.config.schema import COMMANDS

FLAGS: dict[str, dict[str, Any]] = {
    "-m --multirun": {"action": "store_true"},
    "-cn --config-name": {},
    "-cd --config-dir": {},
    "--from": {"dest": "source"},
    "--debug": {"action": "store_true"},
    "-c --cfg": {"choices": ("job", "hydra", "all")},
    "-p --package": {},
    "--resolve": {"action": "store_true"},
    "-i --info": {"choices": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
                  "nargs": "?", "const": "all"},
}  # fmt: skip


def flags_of(command: str) -> dict[str, dict[str, Any]]:
    """The flags a command takes, each by all its names; one without a configuration takes those that its page names."""
    if is_configured(command):
        others = {flag for name, one in COMMANDS.items() if name != command for flag in one.flags}
        return {names: rules for names, rules in FLAGS.items() if names not in others - set(COMMANDS[command].flags)}
    return {names: rules for names, rules in FLAGS.items() if names.split()[-1] in page_of(command)}
