"""From axes to inline SVG that takes the page's own colours and fonts; no chart is drawn here."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure

# Each colour on a light page and on paper, and on a dark page. Pictures are drawn in the light ones; the style sheet
# finds them by their value and puts the dark ones in their place.
PALETTE = {
    "paper": ("#ffffff", "#15181c"),
    "ink": ("#1a1d21", "#e7e9ec"),
    "muted": ("#59626d", "#9ba4af"),
    "line": ("#d8dce1", "#343a42"),
    "faint": ("#f3f4f6", "#1e2228"),
    "teacher": ("#1762a8", "#74b6f2"),
    "student": ("#b44400", "#f79d62"),
    "labels": ("#16755c", "#5fc9a9"),
}
COLOURS = {name: light for name, (light, _) in PALETTE.items()}
DASHES = {"teacher": "dashed", "student": "solid", "labels": "dotted", "ink": "solid"}  # as style.css has them
PATTERNS = {"solid": "-", "dashed": (0, (5, 3)), "dotted": (0, (1.2, 2.2))}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $1
    "font.family": "DejaVu Sans",  # comes with matplotlib and measures the text; a reader sees the page's font
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
    "xtick.bottom": False,
    "ytick.left": False,
    **{f"{axis}tick.{key}": 0 for axis in "xy" for key in ("major.size", "minor.size")},
    **{f"{axis}tick.labelcolor": COLOURS["muted"] for axis in "xy"},
}


class Line(NamedTuple):
    """A line of a chart, in the colour of a role or of ink and with its `dash` or the role's; without a label it has no key."""

    colour: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    dash: str = ""

    @property
    def style(self) -> dict[str, Any]:
        """Its colour and dashes as matplotlib's arguments."""
        return {"color": COLOURS[self.colour], "linestyle": PATTERNS[self.dash or DASHES[self.colour]]}


class Picture(NamedTuple):
    """A drawn chart: a title unique on its page, the finding in words, the width in points, the lines that have a key."""

    title: str
    finding: str
    svg: Markup
    width: float
    lines: Sequence[Line]


class _Renderer(RendererSVG):
    """Writes no groups: they have ids, which would stand twice on a page with several pictures."""

    open_group = RendererBase.open_group
    close_group = RendererBase.close_group


def drawn(
    draw: Callable[[Axes], None],
    title: str,
    finding: str,
    size: tuple[float, float],
    left: float = 48,
    top: float = 4,
    bottom: float = 36,
    lines: Sequence[Line] = (),
) -> Picture:
    """Return the picture that `draw` draws on empty axes of this size, with so much room for texts at three sides.

    matplotlib could measure that room, but draws everything twice for it.
    """
    width, height = size
    place = (left / width, bottom / height, 1 - (left + 12) / width, 1 - (bottom + top) / height)
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has a font for it
        matplotlib.rcdefaults()  # a user's own matplotlibrc changes no report
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": title})
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, frameon=False)
        axes = figure.add_axes(place)
        axes.patch.set_visible(False)
        draw(axes)
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        renderer = _Renderer(width, height, text, metadata=nothing)
        figure.draw(renderer)
        renderer.finalize()
    _, svg, body = text.getvalue().partition("<svg ")
    return Picture(title, finding, Markup(svg + " ".join(body.split())), width, lines)
