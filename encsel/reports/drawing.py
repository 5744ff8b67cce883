"""How figures look: colours, marks, legends, and the drawing as PNG and SVG.

A colour is a face encoder, a mark or a line style a voice encoder, everywhere. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart, two of them darker, so that all stand out from white paper.
"""

import contextlib
import io
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from encsel.errors import printable
from encsel.validation.result import EncoderValidation, Validation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6B4E00", "#003F5C", "#8C6BB1", "#7F7F7F")
ON_DARK = {"#6B4E00": "#E69F00", "#003F5C": "#56B4E9"}
"""Colours that are replaced on dark paper."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)), (0, (3, 1)))
INK = "#010203"
"""Colour of text and axes; in SVG it becomes the colour of the page's text, light or dark."""
FAINT = "#8a8a8a"
DPI = 150


def names_of(report: Validation, modality: str) -> list[str]:
    return [e.name for e in report.encoders if e.modality == modality]


def style_of(styles: Sequence[Any], names: Sequence[str], name: str) -> Any:
    """The one of COLOURS, MARKS or LINES that stands for an encoder among those of its modality."""
    return styles[list(names).index(name) % len(styles)]


def colour_of(report: Validation, encoder: EncoderValidation) -> str:
    """The colour of a face encoder; voice encoders have none."""
    return str(style_of(COLOURS, names_of(report, "face"), encoder.name)) if encoder.modality == "face" else FAINT


def pair_style(report: Validation, face: str, voice: str, *, lines: bool = False) -> dict[str, Any]:
    """The colour of the face encoder, and the mark, or line style, of the voice encoder."""
    key, styles = ("linestyle", LINES) if lines else ("marker", MARKS)
    faces, voices = names_of(report, "face"), names_of(report, "voice")
    return {"color": style_of(COLOURS, faces, face), key: style_of(styles, voices, voice)}


def shortened(name: str, limit: int = 24) -> str:
    """Both ends of a long name: encoders often differ only in the last part."""
    name = printable(name)
    return name if len(name) <= limit else f"{name[: limit // 2 - 1]}…{name[-limit // 2 :]}"


_STYLE: Any = {
    "font.family": "sans-serif", "font.size": 10, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "axes.titlecolor": INK, "xtick.color": INK, "ytick.color": INK, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.grid": True, "grid.color": FAINT, "grid.alpha": 0.25, "grid.linewidth": 0.6, "axes.facecolor": "none",
    "figure.facecolor": "none", "legend.frameon": False, "svg.fonttype": "none", "axes.spines.top": False,
    "axes.spines.right": False,
    # Names are text: "$" begins no formula.
    "text.parse_math": False,
}  # fmt: skip


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw with matplotlib's own defaults and the style of encsel, whatever a matplotlibrc says."""
    # The first import reads a matplotlibrc of the current folder, which is not a file of the user's.
    elsewhere = "matplotlib" not in sys.modules and os.path.lexists("matplotlibrc")
    with contextlib.chdir(Path(__file__).parent) if elsewhere else contextlib.nullcontext():
        import matplotlib
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float, n: int = 1, max_columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure and its `n` panels, each of this size in inches. Call it and what follows within `styled`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(max_columns, n)
    rows = math.ceil(n / columns)
    pads: dict[str, Any] = {"h_pad": 0.1, "w_pad": 0.08} if max_columns > 1 else {}
    figure = Figure(figsize=(columns * width, rows * height), layout=ConstrainedLayoutEngine(**pads))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[n:]:
        axes.set_visible(False)
    return figure, list(panels[:n])


def log_axis(axes: Any) -> None:
    """Make the x axis logarithmic, with ticks at powers of ten in plain text, since nothing is read as a formula."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def handle(**style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], **style)


def add_legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend below the panels, in at most 4 columns that fit."""
    longest = max(map(len, labels), default=1)
    # A letter of 9 points is about 5.4 wide; a handle with its gaps about 50.
    fitting = int(72 * figure.get_figwidth() / (5.4 * longest + 50))
    n_columns = max(1, min(4, fitting, len(labels)))
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, math.ceil(len(labels) / n_columns) - 2))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=n_columns, labelcolor=INK, fontsize=9, frameon=False
    )


def add_encoder_legend(figure: Any, report: Validation, *, lines: bool = False) -> None:
    """A legend of face encoders by colour, and voice encoders by mark, or by line style."""
    add_names_legend(figure, names_of(report, "face"), names_of(report, "voice"), lines=lines)


def add_names_legend(figure: Any, faces: Sequence[str], voices: Sequence[str], *, lines: bool = False) -> None:
    """The same for encoders by name."""
    handles = [handle(color=style_of(COLOURS, faces, f), linestyle="-", linewidth=5) for f in faces]
    if lines:
        handles += [handle(color=INK, linestyle=style_of(LINES, voices, v)) for v in voices]
    else:
        marks = (style_of(MARKS, voices, v) for v in voices)
        handles += [handle(color=INK, linestyle="none", marker=mark, markerfacecolor="none") for mark in marks]
    add_legend(figure, handles, list(map(shortened, [*faces, *voices])))


def as_png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def as_svg(figure: Any, name: str) -> str:
    """SVG to embed in a page: no header, unique ids, ink in the colour of the page's text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    _, start, rest = out.getvalue().partition("<svg")
    text = re.sub(r"<metadata>.*?</metadata>", "", start + rest, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for i, colour in enumerate(COLOURS):
        text = text.replace(f": {colour.lower()}", f": var(--face-{i})")
    return text.replace(INK, "currentColor")
