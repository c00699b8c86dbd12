"""How a run came about: its configuration with what was typed marked in it, its machine, its time, and the line to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Set
from typing import Any

import yaml

from distill_cli.report.page import Html, Section, folded, markup, note, table, tag
from distill_cli.report.records import typed

PARTS = {
    "teacher": "preparing the teacher",
    "cache": "caching its answers",
    "train": "distilling",
    "baseline": "training on labels only",
    "eval": "measuring",
}


def stages(config: Mapping[str, Any]) -> str:
    """The schedule in a line: imitate 10 epochs at T 3, α 0.7; refine 5 epochs at T 3 → 1, α 0.7 → 0."""

    def span(value: Any) -> str:
        return " → ".join(f"{number:g}" for number in value) if isinstance(value, list) else f"{value:g}"

    return "; ".join(
        f"{name} {stage['epochs']} epoch{'s' if stage['epochs'] != 1 else ''} at T {span(stage['T'])}, α {span(stage['alpha'])}"
        for name, stage in config["schedule"].items()
    )


def time(seconds: Mapping[str, float]) -> Section:
    """Seconds spent where, as bars."""
    total = sum(seconds.values())
    rows = [
        (
            PARTS.get(part, part),
            tag("span", tag("i", style=f"width:{100 * spent / total:.1f}%"), class_="bar", aria_hidden="true"),
            f"{spent:,.1f} s",
        )
        for part, spent in seconds.items()
    ]
    about = note(f"{total:,.0f} seconds in all. What other runs had prepared costs nothing here.")
    return Section("Time", markup(table("Seconds spent", ["", "", "seconds"], rows, "times"), about))


def configuration(about: Mapping[str, Any]) -> Section:
    """The line to type, the settings, and where they ran.

    Args:
        about: what run.json holds.
    """
    named = [] if about["name"] == "train" else ["-cn", about["name"]]
    line = shlex.join(["distill", "train", *named, *about["overrides"]])
    lines = _lines(about["config"], "", set(typed(about["overrides"])))
    return Section(
        "Configuration",
        markup(
            note("To run it again, from ", tag("code", about["directory"]), ":"),
            tag("pre", tag("code", line), class_="line"),
            folded("All settings, those that were typed marked", tag("pre", tag("code", lines), tabindex=0)),
            folded(
                "Versions and machine",
                table("Where it ran", ["", ""], [(k, str(v)) for k, v in about["machine"].items()], "words"),
            ),
        ),
    )


def _lines(node: Mapping[str, Any], path: str, marked: Set[str]) -> Iterator[Html]:
    """A mapping as YAML, a line a key."""
    for name, value in node.items():
        deeper = isinstance(value, Mapping) and value
        text = "  " * path.count(".") + f"{name}:" + ("" if deeper else f" {_flow(value)}")
        yield markup(tag("mark", text) if path + name in marked else text, "\n")
        if deeper:
            yield from _lines(value, f"{path}{name}.", marked)


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
