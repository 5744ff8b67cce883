"""How figures look: colours, marks, legends, and the drawing as PNG and SVG.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; marks and line styles say the same again.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from encsel.validation.columns import column_label
from encsel.validation.result import Validation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)), (0, (3, 1)))
INK = "#010203"
"""Of text and axes: in SVG it becomes the colour of the page's text, light or dark."""
FAINT = "#8a8a8a"
DPI = 150


def names_of(report: Validation, modality: str) -> list[str]:
    return [e.name for e in report.encoders if e.modality == modality]


def colour_of(names: Sequence[str], name: str) -> str:
    return COLOURS[list(names).index(name) % len(COLOURS)]


def mark_of(names: Sequence[str], name: str) -> str:
    return MARKS[list(names).index(name) % len(MARKS)]


def line_of(names: Sequence[str], name: str) -> Any:
    return LINES[list(names).index(name) % len(LINES)]


def shortened(name: str, limit: int = 24) -> str:
    """Both ends of a long name: encoders often differ in the last part alone."""
    short = name if len(name) <= limit else f"{name[: limit // 2 - 1]}…{name[-limit // 2 :]}"
    # "$" would begin a formula.
    return short.replace("$", "\\$")


def axis_label(column: str) -> str:
    heading, unit = column_label(column)
    return f"{heading} ({unit or 'no unit'})"


def spread_out(quantiles: Sequence[float]) -> Any:
    """1000 values with these quantiles."""
    return np.interp(np.linspace(0, 1, 1000), np.linspace(0, 1, len(quantiles)), quantiles)


_STYLE: Any = {
    "font.family": "sans-serif", "font.size": 10, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "axes.titlecolor": INK, "xtick.color": INK, "ytick.color": INK, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.grid": True, "grid.color": FAINT, "grid.alpha": 0.25, "grid.linewidth": 0.6, "axes.facecolor": "none",
    "figure.facecolor": "none", "legend.frameon": False, "svg.fonttype": "none", "axes.spines.top": False,
    "axes.spines.right": False,
}  # fmt: skip


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    return figure, axes


def new_panels(rows: int, columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout: Any = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.08)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(columns * width, rows * height), layout=layout)
        grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.ravel())


def handle(**style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], **style)


def add_legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    longest = max(map(len, labels), default=1)
    # A letter of 9 points is about 5.4 wide; a handle with its gaps about 50.
    fitting = int(72 * figure.get_figwidth() / (5.4 * longest + 50))
    n_rows = math.ceil(len(labels) / max(1, min(4, fitting, len(labels))))
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, n_rows - 2))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=max(1, min(4, fitting, len(labels))), labelcolor=INK,
        fontsize=9, frameon=False,
    )  # fmt: skip


def add_encoder_legend(figure: Any, faces: Sequence[str], voices: Sequence[str], *, lines: bool = False) -> None:
    """Face encoders by colour, voice encoders by mark, or by line style."""
    handles = [handle(color=colour_of(faces, f), linestyle="-", linewidth=5) for f in faces]
    for v in voices:
        style = (
            {"linestyle": line_of(voices, v)}
            if lines
            else {"linestyle": "none", "marker": mark_of(voices, v), "markerfacecolor": "none"}
        )
        handles.append(handle(color=INK, **style))
    add_legend(figure, handles, [*(shortened(f) for f in faces), *(shortened(v) for v in voices)])


def as_png(figure: Any) -> bytes:
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(out, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def as_svg(figure: Any, name: str) -> str:
    """To stand inside a page: no header, ids of its own, ink in the colour of the page's text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace(INK, "currentColor")
