"""What every report is made of: markup that escapes what it is given, tables, figures, and the skeleton of a page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_cli import __version__
from distill_cli.base.names import slug

# Nothing may be loaded and nothing may run, whatever a class name or a path contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
VOID = {"meta", "link", "img"}
# How each role is drawn, besides its colour: who cannot tell the colours apart can tell the lines apart.
DASHES = {"teacher": "dashed", "student": "solid", "labels": "dotted", "ink": "solid"}


class Html(str):
    """Markup; every other text is escaped where it enters."""

    __slots__ = ()


Child = str | None | Iterable["Child"]


def markup(*children: Child) -> Html:
    """The children one after the other: markup as it is, text escaped, None left out."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child))
        elif child is not None:
            parts.append(markup(*child))
    return Html("".join(parts))


def tag(name: str, /, *children: Child, **attributes: str | int | None) -> Html:
    """An element. `class_` and `aria_label` become class and aria-label; an attribute that is None is left out."""
    words = [
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    end = "" if name in VOID else f"</{name}>"
    return Html(f"<{name}{''.join(words)}>{markup(*children)}{end}")


@dataclass(frozen=True)
class Section:
    """A part of the page, which the list at its top leads to."""

    title: str
    body: Html

    @property
    def anchor(self) -> str:
        return slug(self.title.lower())


def page(title: str, top: Html, sections: Sequence[Section]) -> str:
    """A whole document that needs nothing but itself."""
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),  # or a browser would ask the server for one
        tag("title", title),
        tag("style", Html(css)),
    )
    links = [tag("li", tag("a", part.title, href=f"#{part.anchor}")) for part in sections]
    body = tag(
        "body",
        tag("header", top),
        tag("nav", tag("ul", links), aria_label="On this page"),
        tag("main", [tag("section", tag("h2", part.title), part.body, id=part.anchor) for part in sections]),
        tag("footer", f"Written by distill {__version__}. All metrics at T = 1."),
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n{body}\n</html>\n'


def table(caption: str, head: Sequence[Child], rows: Iterable[Sequence[Child]], kind: str = "numbers") -> Html:
    """A table that scrolls inside its own box; a row's first cell names the row.

    Args:
        kind: "numbers" sets all but the first column to the right; "words" none.
    """
    body = [tag("tr", tag("th", first, scope="row"), [tag("td", cell) for cell in rest]) for first, *rest in rows]
    heads = tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in head]))
    box: dict[str, str | int] = {"class_": "scroll", "tabindex": 0, "role": "region", "aria_label": caption}
    return markup(
        tag("p", caption, class_="caption"),  # outside of the box, where scrolling leaves it in sight
        tag("div", tag("table", heads, tag("tbody", body), class_=kind), **box),
    )


def folded(summary: str, *children: Child) -> Html:
    return tag("details", tag("summary", summary), children)


def figure(title: str, picture: Html, *more: Child, keys: Iterable[Html] = ()) -> Html:
    """A picture under its title and the keys to its lines, with what is to be said about it below."""
    legend = list(keys)
    caption = tag("figcaption", tag("h3", title), tag("p", legend, class_="keys") if legend else None)
    return tag("figure", caption, tag("div", picture, class_="picture"), more)


def key(colour: str, text: Child, dash: str = "") -> Html:
    """A name with its swatch, in the colour of its role and with the line it has in the pictures."""
    return tag("span", text, class_=f"key {colour} {dash or DASHES[colour]}")


def note(*children: Child) -> Html:
    return tag("p", children, class_="note")
