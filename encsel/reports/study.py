"""The study behind encsel as tables."""

import dataclasses

from encsel.regression.analysis import Analysis
from encsel.regression.study import DATA_SETS, SUSPECT, Study, StudyEncoder, StudyPair
from encsel.reports.regression import BASELINE, correlations, regressions
from encsel.reports.tables import render_sections
from encsel.storage.result import show
from encsel.storage.sections import Section, number

FORMS = ("cka", "ln_cka", "cka + id_mismatch", "cka + id_mismatch + gw_distance + spectral_gap")


@show.register
def _(study: Study, form: str, *, width: int | None = None, colour: bool = False, wide: bool = True) -> str:
    return render_sections(sections(study), form, width=width, colour=colour)


def sections(study: Study) -> list[Section]:
    """Tables 1 and 2 of both data sets, then every analysis."""
    parts = []
    for title in DATA_SETS.values():
        parts.append(_encoders([e for e in study.encoders if e.data_set == title], title))
        parts.append(_pairs([p for p in study.pairs if p.data_set == title], title))
    for title, analysis in study.analyses.items():
        parts += _analysis(analysis, title)
    return parts


def _encoders(encoders: list[StudyEncoder], title: str) -> Section:
    header = (
        "Encoder", "Modality", "Ambient dim", "ID (MLE)", "ID (TwoNN)", "Mean curvature", "Curvature spread", "log|K|",
        "Compactness gap",
    )  # fmt: skip
    rows = tuple(
        (
            e.encoder, e.modality, str(e.ambient_dim), number(e.id_mle, 1), number(e.id_twonn, 1),
            number(e.mean_curvature_median, 4), number(e.mean_curvature_std, 4), number(e.log_gaussian_curvature, 2),
            number(e.compactness_gap),
        )
        for e in encoders
    )  # fmt: skip
    notes = (
        "Mean curvature has the arbitrary sign of a normal, so its median is near 0 for any curvature. Curvature "
        "spread: its standard deviation over points. log|K|: natural logarithm of the median Gaussian curvature.",
        *_concentration({e.encoder: e.mean_curvature_std for e in encoders}),
    )
    return Section(f"Table 1, {title}: geometry of the encoders", header, rows, notes)


def _concentration(spreads: dict[str, float]) -> tuple[str, ...]:
    """Whether the spreads of curvature, by encoder, support the study's claim about the suspect encoder."""
    if SUSPECT not in spreads:
        return ()
    least = min(spreads, key=lambda name: spreads[name])
    spread, place = spreads[SUSPECT], sorted(spreads.values()).index(spreads[SUSPECT]) + 1
    verdict = "support" if least == SUSPECT else "contradict"
    return (
        f"The study says that {SUSPECT} has the most concentrated curvature. These numbers {verdict} that: its "
        f"spread is {spread:.4f}, number {place} of {len(spreads)} from the smallest, which is "
        f"{spreads[least]:.4f} ({least}).",
    )


def _pairs(pairs: list[StudyPair], title: str) -> Section:
    header = ("Face", "Voice", "GW dist.", "Spectral gap", "CKA", "ID mismatch", "EER")
    rows = tuple(
        (p.face, p.voice, *map(number, (p.gw_distance, p.spectral_gap, p.cka, p.id_mismatch, p.eer))) for p in pairs
    )
    return Section(f"Table 2, {title}: pairs and their EER", header, rows, n_names=2)


def _analysis(analysis: Analysis, title: str) -> list[Section]:
    ranks = {name: one.rank.p for name, one in analysis.columns.items() if one.rank.p is not None}
    published = ", ".join(f"{name} {p:.4f}" for name, p in ranks.items())
    table_of_columns = correlations(analysis, f"Correlations with the EER, {title} ({analysis.n_pairs} pairs)")
    note = f"The study reports the naive p of Spearman: {published}."
    forms = {BASELINE: analysis.baseline, **{label: analysis.forms.get(label) for label in FORMS}}
    return [
        dataclasses.replace(table_of_columns, notes=(*table_of_columns.notes, note)),
        regressions({label: errors for label, errors in forms.items() if errors}, f"Regressions, {title}"),
    ]
