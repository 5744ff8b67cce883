"""The plots that a page draws itself: a heat map and detection error trade-offs, in places of 0 to 100."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encsel.matching.error_rates import Matching
from encsel.prediction.predict import CHANCE
from encsel.reports.drawing import COLOURS, names_of
from encsel.reports.overview import Overview
from encsel.storage.sections import number
from encsel.validation.result import Validation

DASHES = ("none", "8 4", "8 3 2 3", "2 4", "12 4", "8 3 2 3 2 3", "5 5", "2 8")
"""Of voice encoders, as the colour is of face encoders."""
DET_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
DET_ENDS = (0.0008, 0.93)
MOST_CURVES = 5
"""Curves that are shown at first; a reader chooses others."""


@dataclass(frozen=True)
class HeatMap:
    """A number about every pair.

    Attributes:
        section: title of the section of the page that it belongs to.
        cells: a row per face, a cell per voice: the number as text, and the strength of its shade, 0 to 1.
    """

    title: str
    section: str
    voices: tuple[str, ...]
    faces: tuple[str, ...]
    cells: tuple[tuple[tuple[str, float], ...], ...]
    caption: str


def heat_map_of_eers(shown: Overview) -> HeatMap:
    """The EER of the overview, shaded from chance to the lowest."""
    values = {(line.face, line.voice): line.eer for line in shown.pairs}
    lowest = min((eer for eer in values.values() if eer is not None), default=0.0)
    return _heat_map(
        f"{shown.what} by face and voice", "", values, lambda eer: (CHANCE - eer) / max(CHANCE - lowest, 1e-9),
        "The stronger the shade, the lower the error.",
    )  # fmt: skip


def heat_maps(validation: Validation) -> list[HeatMap]:
    """Geometry of every pair, with the stronger shade where the two encoders are more alike."""
    form = "biased" if validation.protocol == "reference" else "debiased"
    cka = {(p.face, p.voice): getattr(p["cka"], form) for p in validation.pairs}
    gw = {(p.face, p.voice): of.value for p in validation.pairs if (of := p["gromov_wasserstein"])}
    highest, nearest = max(*cka.values(), 1e-9), min(gw.values(), default=0.0)
    section, caption = (
        "Geometry of the pairs",
        "The stronger the shade, the more alike the two encoders arrange people.",
    )
    maps = [_heat_map(f"CKA, {form}", section, cka, lambda value: value / highest, caption)]
    if gw:
        maps.append(
            _heat_map("Gromov-Wasserstein distance", section, gw, lambda value: nearest / max(value, 1e-9), caption)
        )
    return maps


def _heat_map(
    title: str,
    section: str,
    values: Mapping[tuple[str, str], float | None],
    shade: Callable[[float], float],
    caption: str,
) -> HeatMap:
    faces, voices = (tuple(sorted({pair[side] for pair in values})) for side in (0, 1))

    def cell(value: float | None) -> tuple[str, float]:
        return number(value), 0.0 if value is None else min(max(shade(value), 0.0), 1.0)

    cells = tuple(tuple(cell(values.get((face, voice))) for voice in voices) for face in faces)
    return HeatMap(title, section, voices, faces, cells, caption)


@dataclass(frozen=True)
class DetCurve:
    """Detection error trade-off of one pair, as the data of an SVG path, with places and texts of some points."""

    face: str
    voice: str
    eer: float
    colour: int
    dash: str
    path: str
    points: tuple[tuple[float, float, str], ...]
    shown: bool


@dataclass(frozen=True)
class DetPlot:
    """Detection error trade-offs of pairs, lowest EER first; `ticks` are places with their texts in percent."""

    curves: tuple[DetCurve, ...]
    ticks: tuple[tuple[float, str], ...]


def det_plot(validation: Validation) -> DetPlot | None:
    """The curves of every measured pair; None without any."""
    measured = [(p, m) for p in validation.pairs if (m := p.matching(validation.scorer)) is not None]
    measured.sort(key=lambda one: one[1].eer)
    faces, voices = names_of(validation, "face"), names_of(validation, "voice")
    curves = []
    for i, (p, matching) in enumerate(measured):
        places, points = _places(matching)
        curves.append(
            DetCurve(
                p.face, p.voice, matching.eer, faces.index(p.face) % len(COLOURS),
                DASHES[voices.index(p.voice) % len(DASHES)],
                "M" + "L".join(f"{x:.2f} {100 - y:.2f}" for x, y in places), points, i < MOST_CURVES,
            )
        )  # fmt: skip
    ticks = zip(_scaled(DET_TICKS).tolist(), (f"{100 * tick:g}" for tick in DET_TICKS), strict=True)
    return DetPlot(tuple(curves), tuple(ticks)) if curves else None


def _scaled(rates: Sequence[float] | np.ndarray) -> np.ndarray:
    """Places of error rates on an axis of normal deviates."""
    from scipy.special import ndtri

    low, high = ndtri(DET_ENDS)
    return np.asarray(100 * (ndtri(rates) - low) / (high - low))


def _places(matching: Matching) -> tuple[np.ndarray, tuple[tuple[float, float, str], ...]]:
    """(points, 2) places of a curve, and every third of them with its rates as text."""
    det = np.array(matching.det)
    det = det[((det > DET_ENDS[0]) & (det < DET_ENDS[1])).all(axis=1)]
    places = _scaled(det)
    texts = [f"false match {100 * fmr:.2g} %, false non-match {100 * fnmr:.2g} %" for fmr, fnmr in det]
    return places, tuple((float(x), 100 - float(y), text) for (x, y), text in zip(places[::3], texts[::3], strict=True))
