"""The overview of a page as pictures, drawn with matplotlib: all pairs with intervals, and a heat map of the EER."""

from typing import Any

from encsel.reports.drawing import FAINT, INK, as_png, new_figure, shortened, styled
from encsel.reports.figures import Drawing
from encsel.reports.overview import Overview
from encsel.reports.panels import heat_map, heat_map_size


def pictures(shown: Overview) -> list[Drawing]:
    """The pictures that have something to show."""
    eers = {(line.face, line.voice): line.eer for line in shown.pairs if line.eer is not None}
    if len(eers) < len(shown.pairs):
        return []
    faces, voices = (sorted({pair[side] for pair in eers}) for side in (0, 1))
    with styled():
        figure, (axes,) = new_figure(*heat_map_size(faces, voices))
        heat_map(axes, faces, voices, eers, f"{shown.what} (fraction)")
        drawn = {"pairs": (f"{shown.what} with intervals", _dots(shown)), "eer": (f"{shown.what}, heat map", figure)}
        return [Drawing(name, "", title, "", title, as_png(one), "") for name, (title, one) in drawn.items()]


def _dots(shown: Overview) -> Any:
    figure, (axes,) = new_figure(6.6, 1.2 + 0.24 * len(shown.pairs))
    for level, _ in shown.levels:
        axes.axvline(level, color=FAINT, linewidth=0.8, linestyle="--")
    for i, line in enumerate(shown.pairs):
        eer = line.eer or 0.0
        low, high = line.interval or (eer, eer)
        axes.plot([low, high], [i, i], color=INK, linewidth=1.2)
        axes.plot(eer, i, color=INK, marker="o", markersize=5, markerfacecolor=INK if line.chosen else "white")
    axes.set_yticks(range(len(shown.pairs)), [f"{shortened(p.face)} x {shortened(p.voice)}" for p in shown.pairs])
    axes.invert_yaxis()
    levels = ", ".join(f"{level:.2f} {name}" for level, name in shown.levels)
    axes.set(xlim=(0, shown.top), xlabel=f"{shown.what} (fraction); dashed: {levels}; filled: on the shortlist")
    return figure
