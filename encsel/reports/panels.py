"""Panels that several reports draw: a heat map of pairs, and a column against the EER."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from encsel.errors import printable
from encsel.reports.drawing import FAINT, INK, shortened


def heat_map_size(faces: Sequence[str], voices: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches of a heat map with room for the names along its axes."""
    return 3.4 + 0.9 * len(voices), 2.6 + 0.55 * len(faces)


def heat_map(
    axes: Any, faces: Sequence[str], voices: Sequence[str], values: Mapping[tuple[str, str], float], label: str
) -> None:
    """Draw a number about each (face, voice) pair that has one, with a colour bar."""
    grid = np.array([[values.get((f, v), np.nan) for v in voices] for f in faces])
    low, high = min(0.0, float(np.nanmin(grid))), float(np.nanmax(grid))
    axes.grid(False)
    image = axes.imshow(grid, cmap="cividis", aspect="auto", vmin=low, vmax=high)
    upright = max(len(shortened(v)) for v in voices) > 9
    axes.set_xticks(range(len(voices)), [shortened(v) for v in voices], rotation=90 if upright else 0)
    axes.set_yticks(range(len(faces)), [shortened(f) for f in faces])
    axes.set_xlabel("voice encoder")
    axes.set_ylabel("face encoder")
    for (i, j), value in np.ndenumerate(grid):
        if np.isnan(value):
            continue
        colour = "#000000" if value > (low + high) / 2 else "#ffffff"
        axes.text(j, i, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=9)
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(label, color=INK)
    bar.ax.tick_params(colors=INK)


def against_eer(
    axes: Any,
    x: Sequence[float],
    eer: Sequence[float],
    looks: Sequence[Mapping[str, Any]],
    label: str,
    spearman: float | None,
) -> None:
    """Draw a column against the EER: a mark per pair and, if there is a correlation, the least-squares line."""
    for one, error, look in zip(x, eer, looks, strict=True):
        axes.plot(one, error, linestyle="none", markersize=7, markeredgecolor=INK, markeredgewidth=0.5, **look)
    if spearman is not None:
        ends = np.array([min(x), max(x)])
        slope, intercept = np.polyfit(x, eer, 1)
        axes.plot(ends, intercept + slope * ends, color=FAINT, linewidth=1.2, zorder=1)
        axes.set_title(f"Spearman {spearman:+.2f}", fontsize=9)
    axes.set_xlabel(textwrap.fill(printable(label), 34), fontsize=9)
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(axis="x", nbins=4)
    axes.set_ylabel("EER (fraction)", fontsize=9)
