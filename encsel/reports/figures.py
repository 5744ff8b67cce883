"""The figures of a validation, drawn with matplotlib: PNG for documents, SVG for the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encsel.prediction.shipped import CALIBRATED
from encsel.ranking.result import CardPrediction
from encsel.regression.analysis import MIN_PAIRS
from encsel.regression.study import FEATURES
from encsel.reports.drawing import (
    COLOURS,
    FAINT,
    INK,
    LINES,
    MARKS,
    add_encoder_legend,
    add_legend,
    as_png,
    as_svg,
    colour_of,
    handle,
    log_axis,
    names_of,
    new_figure,
    pair_style,
    shortened,
    style_of,
    styled,
)
from encsel.reports.panels import against_eer, heat_map, heat_map_size
from encsel.reports.plots import DET_ENDS, DET_TICKS
from encsel.validation.columns import column_label, pair_table
from encsel.validation.result import EncoderValidation, PairValidation, Validation

MAX_PANELS, MAX_CURVES = 9, 8
ON_PAGE_OTHERWISE = ("pairs", "eer", "cka", "gw", "det")
"""Names of figures that the page draws itself; they are PNG only."""


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: name of its file, without suffix.
        section: title of its section of the page; without that section, it comes last.
        alt: description for readers who cannot see it.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: str


def drawings(report: Validation) -> list[Drawing]:
    """Every figure that has something to show."""
    made = []
    with styled():
        for name, section, title, caption, draw in FIGURES:
            if (drawn := draw(report)) is not None:
                figure, alt = drawn
                caption = caption.format(scorer=report.scorer)
                svg = "" if name in ON_PAGE_OTHERWISE else as_svg(figure, name)
                made.append(Drawing(name, section, title, caption, alt, as_png(figure), svg))
    return made


Drawn = tuple[Any, str] | None
"""A matplotlib figure and its alternative text."""


def _cka(report: Validation) -> Drawn:
    form = "biased" if report.protocol == "reference" else "debiased"
    values = {(p.face, p.voice): float(getattr(p["cka"], form)) for p in report.pairs}
    faces, voices = names_of(report, "face"), names_of(report, "voice")
    figure, (axes,) = new_figure(*heat_map_size(faces, voices))
    heat_map(axes, faces, voices, values, f"CKA, {form} (0 to 1)")
    face, voice = max(values, key=lambda pair: values[pair])
    return figure, (
        f"Heatmap of {form} CKA, {len(faces)} face encoders by {len(voices)} voice encoders; highest "
        f"{values[face, voice]:.3f} for {face} with {voice}."
    )


def _gw(report: Validation) -> Drawn:
    values = {(p.face, p.voice): float(p["gromov_wasserstein"].value) for p in report.pairs if p["gromov_wasserstein"]}
    if not values:
        return None
    faces, voices = names_of(report, "face"), names_of(report, "voice")
    figure, (axes,) = new_figure(*heat_map_size(faces, voices))
    heat_map(axes, faces, voices, values, "Gromov-Wasserstein distance (no unit)")
    face, voice = min(values, key=lambda pair: values[pair])
    return figure, (
        f"Heatmap of the Gromov-Wasserstein distances of {len(values)} pairs; smallest {values[face, voice]:.3f} for "
        f"{face} with {voice}."
    )


def _against_eer(report: Validation) -> Drawn:
    table = pair_table(report.pairs, report.scorer)
    if len(table) < MIN_PAIRS:
        return None
    rho = {name: column.rank.spearman for name, column in report.analysis.columns.items()}
    strongest = sorted(table.columns, key=lambda c: -abs(rho.get(c) or 0))
    # The study's four stay comparable from set to set, however weak they are.
    ordered = dict.fromkeys((*(c for c in FEATURES if c in table.columns), *strongest))
    shown = [c for c in ordered if not c.startswith("predicted_")][:MAX_PANELS]
    figure, panels = new_figure(3.4, 2.9, len(shown), max_columns=3)
    looks = [pair_style(report, f, v) for f, v in zip(table.face_encoder, table.voice_encoder, strict=True)]
    for axes, column in zip(panels, shown, strict=True):
        heading, unit = column_label(column)
        label = f"{heading} ({unit or 'no unit'})"
        against_eer(axes, table.columns[column].tolist(), table.eer.tolist(), looks, label, rho.get(column))
    add_encoder_legend(figure, report)
    alt = f"{len(shown)} panels, each one number about the {len(table)} pairs against their EER. " + " ".join(
        f"{column_label(c)[0]}: Spearman {rho[c]:+.2f}." for c in shown if rho.get(c) is not None
    )
    return figure, alt.strip()


def _det(report: Validation) -> Drawn:
    from scipy.special import ndtri

    measured = [(p, m) for p in report.pairs if (m := p.matching(report.scorer)) is not None]
    if not measured:
        return None
    measured = sorted(measured, key=lambda one: one[1].eer)[:MAX_CURVES]
    figure, (axes,) = new_figure(6.6, 5.0)
    low, high = DET_ENDS
    for p, matching in measured:
        det = np.array(matching.det)
        det = det[((det > low) & (det < high)).all(axis=1)]
        axes.plot(*ndtri(det).T, **pair_style(report, p.face, p.voice, lines=True), linewidth=1.8)
    ends = ndtri([low, high])
    axes.set(xlim=ends, ylim=ends, xlabel="false match rate (%)", ylabel="false non-match rate (%)")
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(ndtri(DET_TICKS), [f"{100 * t:g}" for t in DET_TICKS])
    axes.plot(ends, ends, color=FAINT, linewidth=0.8)
    add_encoder_legend(figure, report, lines=True)
    best, matching = measured[0]
    if len(measured) < len(report.pairs):
        axes.set_title(f"The {len(measured)} pairs with the lowest EER", fontsize=10)
    return figure, (
        f"Detection error trade-off curves of {len(measured)} pairs, scorer {report.scorer}; lowest equal error rate "
        f"{matching.eer:.3f} for {best.face} with {best.voice}."
    )


def _curvature(report: Validation) -> Drawn:
    encoders = [e for e in report.encoders if e["curvature"] is not None]
    if not encoders:
        return None
    # 1000 values with the quantiles of each encoder and of its flat control, if any.
    grid = np.linspace(0, 1, 1000)
    clouds = [
        [np.interp(grid, np.linspace(0, 1, len(c.absolute_quantiles)), c.absolute_quantiles) for c in both if c]
        for both in ((e["curvature"].encoder, e["curvature"].flat) for e in encoders)
    ]
    # One axis, so that encoders can be compared; they can lie decades apart.
    low, high = (
        rank([float(np.quantile(x, q)) for xs in clouds for x in xs]) for rank, q in ((min, 0.02), (max, 0.98))
    )
    high = high or 1.0
    bins = np.geomspace(max(low, 1e-6 * high), high, 41)
    figure, panels = new_figure(2.7, 2.4, len(encoders), max_columns=4)
    for axes, e, xs in zip(panels, encoders, clouds, strict=True):
        colour = colour_of(report, e)
        looks: tuple[dict[str, Any], ...] = (
            {"color": colour, "alpha": 0.75}, {"histtype": "step", "color": INK, "linewidth": 1.2},
        )  # fmt: skip
        for x, look in zip(xs, looks, strict=False):
            axes.hist(x, bins=bins, weights=np.full(len(x), 100 / len(x)), **look)
        log_axis(axes)
        axes.set_xlim(bins[0], bins[-1])
        axes.set_title(shortened(e.name), fontsize=9)
        axes.set_xlabel("|mean curvature| (1 / unit)", fontsize=8)
        axes.set_ylabel("points (%)", fontsize=8)
        axes.tick_params(labelsize=8)
    alt = "Histograms of absolute mean curvature over points. " + " ".join(
        f"{e.name}: median {e['curvature'].encoder.mean_absolute_median:.3g}"
        + (f", flat control {e['curvature'].flat.mean_absolute_median:.3g}." if e["curvature"].flat else ".")
        for e in encoders
    )
    return figure, alt


def _encoder_lines(
    report: Validation,
    encoders: Sequence[EncoderValidation],
    points: Callable[[EncoderValidation], Sequence[Any]],
    **style: Any,
) -> tuple[Any, Any]:
    """A line per encoder, without colour and with open marks for voices, and the legend."""
    figure, (axes,) = new_figure(6.6, 3.6)
    for e in encoders:
        names, colour = names_of(report, e.modality), colour_of(report, e)
        axes.plot(
            *points(e), color=colour, marker=style_of(MARKS, names, e.name),
            linestyle="-" if e.modality == "face" else style_of(LINES, names, e.name),
            markerfacecolor=colour if e.modality == "face" else "none", label=f"{shortened(e.name)} ({e.modality})",
            **style,
        )  # fmt: skip
    add_legend(figure, *axes.get_legend_handles_labels())
    return figure, axes


def _dimensions(report: Validation) -> Drawn:
    encoders = [e for e in report.encoders if e["dimensions"] is not None]
    if not encoders:
        return None

    def points(e: EncoderValidation) -> list[Any]:
        return list(zip(*sorted((int(k), value) for k, value in e["dimensions"].mle_median.items()), strict=True))

    figure, axes = _encoder_lines(report, encoders, points, linewidth=1.6, markersize=6)
    axes.set_xscale("log")
    ticks = sorted({int(k) for e in encoders for k in e["dimensions"].mle_median})
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel="neighbours k (count)", ylabel="intrinsic dimension (dimensions)")
    alt = "Intrinsic dimension by number of neighbours. " + " ".join(
        f"{e.name}: {value:.1f} at 20." for e in encoders if (value := e["dimensions"].mle_median.get("20")) is not None
    )
    return figure, alt


def _spectra(report: Validation) -> Drawn:
    encoders = [e for e in report.encoders if e["spectrum"] is not None]
    if not encoders:
        return None
    figure, axes = _encoder_lines(
        report, encoders, lambda e: (range(1, len(e["spectrum"].values) + 1), e["spectrum"].values),
        linewidth=1.4, markersize=5, markevery=8,
    )  # fmt: skip
    axes.set(xlabel="eigenvalue (rank)", ylabel="value over the largest (fraction)")
    return figure, (
        f"Spectra of the graphs of neighbours of {len(encoders)} encoders, eigenvalues ascending from 0 to 1."
    )


def _complete_prediction(report: Validation, p: PairValidation, card: str | None) -> CardPrediction | None:
    """The prediction of a card for people of all their samples, if it has both an EER and an interval."""
    if report.prediction is not None and report.prediction.n_probe_samples == 1:
        return None
    prediction = p.ranked and p.ranked.predictions.get(card or "")
    return prediction if prediction and None not in (prediction.eer, prediction.interval) else None


def _error_bar(axes: Any, x: float, prediction: CardPrediction, **style: Any) -> None:
    eer, (low, high) = prediction.eer or 0.0, prediction.interval or (0.0, 0.0)
    axes.errorbar(x, eer, yerr=[[eer - low], [high - eer]], capsize=3, linewidth=1.2, **style)


def _curves(report: Validation) -> Drawn:
    pairs = [p for p in report.pairs if p["curve"] is not None]
    if not pairs:
        return None
    faces, voices, scorer = names_of(report, "face"), names_of(report, "voice"), report.scorer
    card = CALIBRATED.get(scorer)
    figure, panels = new_figure(4.6, 3.3, len(voices), max_columns=2)
    panel_of, top = dict(zip(voices, panels, strict=True)), 0.56
    for p in pairs:
        axes, points, end = panel_of[p.voice], p["curve"].points, p["curve"].extrapolated[scorer]
        look = pair_style(report, p.face, p.voice)
        axes.plot([x.n_train for x in points], [x.eer[scorer] for x in points], linewidth=1.6, **look)
        last = points[-1]
        if end.eer is not None and end.n_train > last.n_train:
            axes.plot([last.n_train, end.n_train], [last.eer[scorer], end.eer], color=look["color"], linestyle=":")
        if (prediction := _complete_prediction(report, p, card)) is not None:
            # Side by side, so that intervals of several pairs do not hide one another.
            assert report.prediction is not None
            trained = report.prediction.n_train_identities or end.n_train
            x = trained * (1.06 + 0.09 * faces.index(p.face))
            _error_bar(axes, x, prediction, markerfacecolor="none", **look)
            top = max(top, *(prediction.interval or ()))
    for voice, axes in panel_of.items():
        axes.axhline(0.5, color=FAINT, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_title(shortened(voice), fontsize=10)
        axes.set(xlabel="people to train on (count)", ylabel="EER (fraction)", ylim=(0, top + 0.02))
        axes.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1000"])
        axes.minorticks_off()
    handles = [handle(color=style_of(COLOURS, faces, f), linestyle="-", linewidth=5) for f in faces]
    labels = [shortened(f) for f in faces]
    if card is not None and report.prediction is not None:
        handles.append(handle(color=INK, marker="o", markerfacecolor="none", linestyle="none"))
        labels.append("predicted, 90 %" if report.prediction.coverage == 0.9 else "predicted")
    add_legend(figure, handles, labels)
    alt = f"EER of the scorer {scorer} by number of training people, a panel per voice encoder. " + " ".join(
        f"{p.face} with {p.voice}: {last.eer[scorer]:.3f} at {last.n_train}."
        for p in pairs
        for last in p["curve"].points[-1:]
    )
    return figure, alt


def _predicted(report: Validation) -> Drawn:
    compared = [
        (p, prediction, matching.eer)
        for p in report.pairs
        if (prediction := _complete_prediction(report, p, CALIBRATED.get(report.scorer)))
        and (matching := p.matching(report.scorer))
    ]
    if not compared:
        return None
    figure, (axes,) = new_figure(5.6, 4.4)
    for p, prediction, measured in compared:
        _error_bar(axes, measured, prediction, markersize=7, **pair_style(report, p.face, p.voice))
    measured_eers = [measured for *_, measured in compared]
    ends = (max(0, min(measured_eers) - 0.08), min(0.6, max(measured_eers) + 0.08))
    axes.plot(ends, ends, color=FAINT, linewidth=0.8)
    n_train = compared[0][0]["measured"].n_train
    held = [end for _, prediction, _ in compared for end in prediction.interval or ()]
    axes.set(xlim=ends, ylim=(min(*held, ends[0]) - 0.01, max(*held, ends[1]) + 0.01))
    axes.set(ylabel="predicted EER (fraction)", xlabel=f"measured EER after training on {n_train} people (fraction)")
    add_encoder_legend(figure, report)
    alt = "Predicted against measured EER. " + " ".join(
        f"{p.face} with {p.voice}: predicted {prediction.eer:.3f}, measured {measured:.3f}."
        for p, prediction, measured in compared
    )
    return figure, alt


FIGURES: tuple[tuple[str, str, str, str, Callable[[Validation], Drawn]], ...] = (
    ("cka", "Geometry of the pairs", "CKA of every pair", "How alike the two encoders of a pair order people.", _cka),
    ("gw", "Geometry of the pairs", "Gromov-Wasserstein distance of every pair",
     "How differently the two encoders of a pair space people; 0 is the same.", _gw),
    ("det", "Measured error", "Detection error trade-off",
     "Centroids of test people, scorer {scorer}; axes on normal deviates. Grey line: both rates are equal.", _det),
    ("against-eer", "Correlations with the EER", "Each number against the EER",
     "Scorer {scorer}. Colour: face encoder; mark: voice encoder.", _against_eer),
    ("learning-curves", "Learning curve", "Learning curves",
     "Measured, scorer {scorer}; dotted: extrapolated; open marks with intervals: what the calibrated card "
     "predicts, drawn side by side.", _curves),
    ("predicted", "How predictions fared", "Predicted and measured EER",
     "Scorer {scorer}. Grey line: both agree; trained on fewer people the measured EER is larger.",
     _predicted),
    ("intrinsic-dimension", "Encoders", "Intrinsic dimensions", "Maximum likelihood, median over points.", _dimensions),
    ("curvature", "Encoders", "Curvature",
     "Absolute mean curvature over points, on one axis; outline: a flat cloud of the same covariance.", _curvature),
    ("spectra", "Encoders", "Spectra", "Normalised Laplacian of the graph of the 20 nearest people.", _spectra),
)  # fmt: skip
"""Name, section of the page, title, caption and how to draw it."""
