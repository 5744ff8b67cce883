"""The figures of a validation, drawn with matplotlib: PNG for documents, SVG for the page.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; marks and line styles say the same again.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from encsel.reports.drawing import (
    FAINT,
    INK,
    add_encoder_legend,
    add_legend,
    as_png,
    as_svg,
    axis_label,
    colour_of,
    handle,
    line_of,
    mark_of,
    names_of,
    new_figure,
    new_panels,
    shortened,
    spread_out,
)
from encsel.validation.columns import column_label, pair_table
from encsel.validation.result import Validation

MAX_PANELS, MIN_POINTS = 9, 3
DET_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: of its file, without suffix.
        alt: what it shows, for those who cannot see it.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: str


def drawings(report: Validation) -> list[Drawing]:
    """Every figure that there is something to draw in."""
    found = []
    for name, title, caption, draw in FIGURES:
        made = draw(report)
        if made is not None:
            figure, alt = made
            found.append(
                Drawing(name, title, caption.format(scorer=report.scorer), alt, as_png(figure), as_svg(figure, name))
            )
    return found


Drawn = tuple[Any, str] | None
"""A matplotlib figure and its alternative text."""


def _cka(report: Validation) -> Drawn:
    faces, voices = names_of(report, "face"), names_of(report, "voice")
    value = {(p.face, p.voice): p["cka"] for p in report.pairs}
    form = "biased" if report.protocol == "reference" else "debiased"
    grid = np.array([[getattr(value[f, v], form) for v in voices] for f in faces])
    # Names along the axes take room of their own.
    figure, axes = new_figure(3.4 + 0.9 * len(voices), 2.6 + 0.55 * len(faces))
    axes.grid(False)
    image = axes.imshow(grid, cmap="cividis", aspect="auto", vmin=min(0.0, float(grid.min())), vmax=float(grid.max()))
    upright = max(len(shortened(v)) for v in voices) > 9
    axes.set_xticks(range(len(voices)), [shortened(v) for v in voices], rotation=90 if upright else 0)
    axes.set_yticks(range(len(faces)), [shortened(f) for f in faces])
    axes.set_xlabel("voice encoder")
    axes.set_ylabel("face encoder")
    middle = (image.norm.vmin + image.norm.vmax) / 2
    for i in range(len(faces)):
        for j in range(len(voices)):
            colour = "#000000" if grid[i, j] > middle else "#ffffff"
            axes.text(j, i, f"{grid[i, j]:.3f}", ha="center", va="center", color=colour, fontsize=9)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(f"CKA, {form} (0 to 1)", color=INK)
    bar.ax.tick_params(colors=INK)
    best = max(report.pairs, key=lambda p: getattr(p["cka"], form))
    alt = (
        f"Heatmap of {form} CKA, {len(faces)} face encoders by {len(voices)} voice encoders; "
        f"highest {getattr(best['cka'], form):.3f} for {best.face} with {best.voice}."
    )
    return figure, alt


def _against_eer(report: Validation) -> Drawn:
    table = pair_table(report.pairs, report.scorer)
    if len(table) < MIN_POINTS:
        return None
    found = report.analysis.columns
    ordered = sorted(table.columns, key=lambda c: -abs(found[c].rank.spearman or 0) if c in found else 0)
    shown = [c for c in ordered if not c.startswith("predicted_")][:MAX_PANELS]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, grid = new_panels(rows, columns, 3.4, 2.9)
    faces, voices = names_of(report, "face"), names_of(report, "voice")
    for axes, column in zip(grid, shown, strict=False):
        for x, y, f, v in zip(table.columns[column], table.eer, table.face_encoder, table.voice_encoder, strict=True):
            axes.plot(
                x, y, linestyle="none", marker=mark_of(voices, v), color=colour_of(faces, f), markersize=7,
                markeredgecolor=INK, markeredgewidth=0.5,
            )  # fmt: skip
        rho = found[column].rank.spearman if column in found else None
        axes.set_xlabel(textwrap.fill(axis_label(column), 34), fontsize=9)
        axes.ticklabel_format(useOffset=False)
        axes.locator_params(axis="x", nbins=4)
        axes.set_ylabel("EER (share)", fontsize=9)
        if rho is not None:
            axes.set_title(f"Spearman {rho:+.2f}", fontsize=9)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    add_encoder_legend(figure, faces, voices)
    alt = f"{len(shown)} panels, each one number about the {len(table)} pairs against their EER. " + " ".join(
        f"{column_label(c)[0]}: Spearman {found[c].rank.spearman:+.2f}."
        for c in shown
        if c in found and found[c].rank.spearman is not None
    )
    return figure, alt.strip()


def _det(report: Validation) -> Drawn:
    from scipy.special import ndtri

    kept = [p for p in report.pairs if p["measured"] is not None]
    if not kept:
        return None
    figure, axes = new_figure(6.6, 5.0)
    faces, voices = names_of(report, "face"), names_of(report, "voice")
    low, high = 0.0008, 0.93
    for p in kept:
        det = np.array(p["measured"].levels["identity"][report.scorer].det)
        det = det[((det > low) & (det < high)).all(axis=1)]
        axes.plot(
            ndtri(det[:, 0]), ndtri(det[:, 1]), color=colour_of(faces, p.face), linestyle=line_of(voices, p.voice),
            linewidth=1.8, drawstyle="default",
        )  # fmt: skip
    ticks = [float(ndtri(t)) for t in DET_TICKS]
    labels = [f"{100 * t:g}" for t in DET_TICKS]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.set_xlim(float(ndtri(low)), float(ndtri(high)))
    axes.set_ylim(float(ndtri(low)), float(ndtri(high)))
    axes.plot(axes.get_xlim(), axes.get_xlim(), color=FAINT, linewidth=0.8)
    axes.set_xlabel("false match rate (%)")
    axes.set_ylabel("false non-match rate (%)")
    add_encoder_legend(figure, faces, voices, lines=True)
    best = min(kept, key=lambda p: p["measured"].levels["identity"][report.scorer].eer if p["measured"] else 1)
    alt = (
        f"Detection error trade-off curves of {len(kept)} pairs, scorer {report.scorer}; lowest equal error rate "
        f"{best['measured'].levels['identity'][report.scorer].eer:.3f} for {best.face} with {best.voice}."
    )
    return figure, alt


def _curvature(report: Validation) -> Drawn:
    kept = [e for e in report.encoders if e["curvature"] is not None]
    if not kept:
        return None
    columns = min(4, len(kept))
    rows = math.ceil(len(kept) / columns)
    figure, grid = new_panels(rows, columns, 2.7, 2.4)
    for axes, e in zip(grid, kept, strict=False):
        own = spread_out(e["curvature"].encoder.absolute_quantiles)
        flat = None if e["curvature"].flat is None else spread_out(e["curvature"].flat.absolute_quantiles)
        top = max(float(np.quantile(x, 0.98)) for x in (own, flat) if x is not None)
        bins = np.linspace(0, max(top, 1e-12), 31)
        share = np.full(len(own), 100 / len(own))
        axes.hist(own, bins=bins, weights=share, color=colour_of(names_of(report, e.modality), e.name), alpha=0.75)
        if flat is not None:
            axes.hist(
                flat, bins=bins, weights=np.full(len(flat), 100 / len(flat)), histtype="step", color=INK, linewidth=1.2
            )
        axes.set_title(shortened(e.name), fontsize=9)
        axes.set_xlabel("|mean curvature| (1 / unit)", fontsize=8)
        axes.set_ylabel("points (%)", fontsize=8)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(labelsize=8)
    for axes in grid[len(kept) :]:
        axes.set_visible(False)
    alt = "Histograms of absolute mean curvature over points. " + " ".join(
        f"{e.name}: median {e['curvature'].encoder.mean_absolute_median:.3g}"
        + (f", flat control {e['curvature'].flat.mean_absolute_median:.3g}." if e["curvature"].flat else ".")
        for e in kept
        if e["curvature"]
    )
    return figure, alt


def _dimensions(report: Validation) -> Drawn:
    kept = [e for e in report.encoders if e["dimensions"] is not None]
    if not kept:
        return None
    figure, axes = new_figure(6.6, 3.6)
    for e in kept:
        ks = sorted(int(k) for k in e["dimensions"].mle_median)
        names = names_of(report, e.modality)
        axes.plot(
            ks, [e["dimensions"].mle_median[str(k)] for k in ks], color=colour_of(names, e.name),
            marker=mark_of(names, e.name), linestyle="-" if e.modality == "face" else "--", linewidth=1.6, markersize=6,
            markerfacecolor=colour_of(names, e.name) if e.modality == "face" else "none",
            label=f"{shortened(e.name)} ({e.modality})",
        )  # fmt: skip
    axes.set_xscale("log")
    ticks = sorted({int(k) for e in kept if e["dimensions"] for k in e["dimensions"].mle_median})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("neighbours k (count)")
    axes.set_ylabel("intrinsic dimension (dimensions)")
    add_legend(figure, *axes.get_legend_handles_labels())
    alt = "Intrinsic dimension by number of neighbours. " + " ".join(
        f"{e.name}: {e['dimensions'].mle_median['20']:.1f} at 20."
        for e in kept
        if e["dimensions"] and "20" in e["dimensions"].mle_median
    )
    return figure, alt


def _spectra(report: Validation) -> Drawn:
    kept = [e for e in report.encoders if e["spectrum"] is not None]
    if not kept:
        return None
    figure, axes = new_figure(6.6, 3.6)
    for e in kept:
        names = names_of(report, e.modality)
        axes.plot(
            range(1, len(e["spectrum"].values) + 1), e["spectrum"].values, color=colour_of(names, e.name),
            linestyle="-" if e.modality == "face" else "--", marker=mark_of(names, e.name), markevery=8, markersize=5,
            markerfacecolor=colour_of(names, e.name) if e.modality == "face" else "none",
            linewidth=1.4, label=f"{shortened(e.name)} ({e.modality})",
        )  # fmt: skip
    axes.set_xlabel("eigenvalue (rank)")
    axes.set_ylabel("value over the largest (share)")
    add_legend(figure, *axes.get_legend_handles_labels())
    return figure, f"Spectra of the graphs of neighbours of {len(kept)} encoders, eigenvalues ascending from 0 to 1."


def _curves(report: Validation) -> Drawn:
    kept = [p for p in report.pairs if p["curve"] is not None]
    if not kept:
        return None
    faces, voices = names_of(report, "face"), names_of(report, "voice")
    columns = min(2, len(faces))
    rows = math.ceil(len(faces) / columns)
    figure, grid = new_panels(rows, columns, 4.6, 3.3)
    scorer = report.scorer
    card = {"reference": "encsel-calibrated", "weighted": "encsel-calibrated-weighted"}.get(scorer)
    for axes, face in zip(grid, faces, strict=False):
        for p in (p for p in kept if p.face == face):
            colour, mark = colour_of(voices, p.voice), mark_of(voices, p.voice)
            sizes = [point.n_train for point in p["curve"].points]
            axes.plot(
                sizes, [point.eer[scorer] for point in p["curve"].points], color=colour, marker=mark, linewidth=1.6
            )
            on = p["curve"].extrapolated[scorer]
            if on.eer is not None and on.n_train > sizes[-1]:
                axes.plot(
                    [sizes[-1], on.n_train], [p["curve"].points[-1].eer[scorer], on.eer], color=colour, linestyle=":"
                )
            said = None if p.ranked is None or card is None else p.ranked.predictions.get(card)
            if said is not None and said.eer is not None and said.interval is not None:
                # Side by side, so that intervals of several pairs do not hide one another.
                at = on.n_train * (1.06 + 0.09 * voices.index(p.voice))
                axes.errorbar(
                    at, said.eer, yerr=[[said.eer - said.interval[0]], [said.interval[1] - said.eer]], color=colour,
                    marker=mark, markerfacecolor="none", capsize=3, linewidth=1.2,
                )  # fmt: skip
        axes.axhline(0.5, color=FAINT, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_title(shortened(face), fontsize=10)
        axes.set_xlabel("people to train on (count)")
        axes.set_ylabel("EER (share)")
        axes.set_ylim(0, 0.58)
        axes.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1000"])
        axes.minorticks_off()
    for axes in grid[len(faces) :]:
        axes.set_visible(False)
    handles = [handle(color=colour_of(voices, v), marker=mark_of(voices, v), linestyle="-") for v in voices]
    labels = [shortened(v) for v in voices]
    if card is not None and report.prediction is not None:
        handles.append(handle(color=INK, marker="o", markerfacecolor="none", linestyle="none"))
        labels.append("predicted, 90 %" if report.prediction.coverage == 0.9 else "predicted")
    add_legend(figure, handles, labels)
    alt = f"EER of the scorer {scorer} by number of training people, a panel per face encoder. " + " ".join(
        f"{p.face} with {p.voice}: {p['curve'].points[-1].eer[scorer]:.3f} at {p['curve'].points[-1].n_train}."
        for p in kept
        if p["curve"]
    )
    return figure, alt


def _predicted(report: Validation) -> Drawn:
    kept = []
    for p in report.pairs:
        if p.ranked is None or p["measured"] is None:
            continue
        said = p.ranked.predictions.get("encsel-calibrated")
        if said is not None and said.eer is not None and said.interval is not None:
            kept.append((p, said, p["measured"].levels["identity"]["reference"].eer))
    if not kept:
        return None
    figure, axes = new_figure(5.6, 4.4)
    faces, voices = names_of(report, "face"), names_of(report, "voice")
    for p, said, measured in kept:
        assert said.eer is not None
        assert said.interval is not None
        axes.errorbar(
            measured, said.eer, yerr=[[said.eer - said.interval[0]], [said.interval[1] - said.eer]], capsize=3,
            color=colour_of(faces, p.face), marker=mark_of(voices, p.voice), markersize=7, linewidth=1.2,
        )  # fmt: skip
    ends = [min(m for _, _, m in kept), max(m for _, _, m in kept)]
    low, high = max(0, ends[0] - 0.08), min(0.6, ends[1] + 0.08)
    axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    trained = kept[0][0]["measured"]
    axes.set_xlabel(f"measured EER after training on {trained.n_train} people (share)")
    axes.set_ylabel("predicted EER at 999 people (share)")
    add_encoder_legend(figure, faces, voices)
    alt = "Predicted against measured EER. " + " ".join(
        f"{p.face} with {p.voice}: predicted {said.eer:.3f}, measured {measured:.3f}." for p, said, measured in kept
    )
    return figure, alt


FIGURES: tuple[tuple[str, str, str, Callable[[Validation], Drawn]], ...] = (
    ("cka", "CKA of every pair", "How alike the two encoders of a pair order people.", _cka),
    (
        "det",
        "Detection error trade-off",
        "Centroids of test people, scorer {scorer}; axes on normal deviates. The grey line: both are equal.",
        _det,
    ),
    (
        "against-eer",
        "Each number against the EER",
        "Scorer {scorer}. Colour: face encoder; mark: voice encoder.",
        _against_eer,
    ),
    (
        "learning-curves",
        "Learning curves",
        "Measured, scorer {scorer}; dotted: carried on to 999 people; open marks with intervals: what the calibrated "
        "card predicts for 999, drawn side by side.",
        _curves,
    ),
    (
        "predicted",
        "Predicted and measured EER",
        "Scorer reference. On the grey line both agree; with fewer than 999 training people the measured is larger.",
        _predicted,
    ),
    ("intrinsic-dimension", "Intrinsic dimensions", "Maximum likelihood, median over points.", _dimensions),
    (
        "curvature",
        "Curvature",
        "Absolute mean curvature over points; outline: a flat cloud of the same covariance.",
        _curvature,
    ),
    ("spectra", "Spectra", "Normalised Laplacian of the graph of the 20 nearest people.", _spectra),
)
