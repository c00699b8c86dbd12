"""From a matplotlib figure to inline SVG that scales and takes the page's own colours and fonts; no chart is drawn here."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill_cli.report.page import Html

# Drawn in colours that nothing else has; in the SVG each becomes the page's variable, so that dark pages have dark pictures.
NAMES = ("ink", "muted", "line", "faint", "paper", "teacher", "student", "labels")
COLOURS = {name: f"#a1b2c{number}" for number, name in enumerate(NAMES)}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $1
    "font.family": "DejaVu Sans",  # comes with matplotlib and measures the text; what is seen is the page's font
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.color": COLOURS["ink"],
    **{f"{axis}tick.{key}": 0 for axis in "xy" for key in ("major.size", "minor.size")},
    **{f"{axis}tick.labelcolor": COLOURS["muted"] for axis in "xy"},
}
EMPTY = Html()
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass
class Canvas:
    """Axes to draw on; `svg` is the picture once the drawing is done."""

    axes: Axes
    svg: Html = EMPTY


@contextmanager
def drawing(name: str, finding: str, width: float, height: float) -> Iterator[Canvas]:
    """Draw one picture.

    Args:
        name: unique on its page, the beginning of every id in the SVG. finding: what the picture shows, in words.
        width: and height in the units of font sizes; on its page the picture is as wide as its place.
    """
    with style.context({**STYLE, "svg.hashsalt": name}, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has a font for it
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        canvas = Canvas(figure.add_subplot())
        figure.patch.set_visible(False)
        canvas.axes.patch.set_visible(False)
        yield canvas
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    canvas.svg = _inline(buffer.getvalue(), name, finding, width)


def _inline(text: str, name: str, finding: str, width: float) -> Html:
    """The SVG document as an element: as wide as its place but legible, no style sheet, ids that only this picture has."""
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    body = re.sub(r"<!--.*?-->|<style.*?</style>", "", text[text.index(">", view.end()) + 1 :], flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([\w-]+)', body))

    def tidied(element: re.Match[str]) -> str:  # elements alone: what stands between them is somebody's text
        words = re.sub(r"#a1b2c(\d)", lambda found: f"var(--{NAMES[int(found[1])]})", element[0])
        words = re.sub(r'font: ([\d.]+px) [^;"]*', r"font-size: \1", words)
        words = re.sub(r'font-family: [^;"]*;? ?| transform="rotate\(-0 [^"]*"', "", words)
        words = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", words)
        words = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", words)
        return re.sub(r'(href="|url\()#', rf"\1#{name}-", words)

    body = re.sub(r"<[^>]*>", tidied, body)
    body = re.sub(r"<g/>|<defs>\s*</defs>", "", re.sub(r"\s*\n\s*", "\n", body))
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    named = f'role="img" aria-label="{html.escape(finding)}"'
    return Html(
        f'<svg {spaces} {view[0]} style="min-width:{0.65 * width:.0f}px;max-width:{1.3 * width:.0f}px" {named}>{body}'
    )
