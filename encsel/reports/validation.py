"""A validation as tables, Markdown, CSV, JUnit and annotations: the sections of its stages, then the analysis."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from encsel.matching.scorers import SCORERS
from encsel.ranking.flags import MEANINGS
from encsel.reports.escapes import in_html, in_markdown, markdown_code, markdown_item
from encsel.reports.github import annotations, job_summary
from encsel.reports.junit import junit
from encsel.reports.ranking import places_text
from encsel.reports.regression import BASELINE, correlations, regressions
from encsel.reports.tables import csv_of, plain_table, render_sections, wrapped
from encsel.storage.result import rows, show
from encsel.storage.sections import MISSING, Section, number, span, table
from encsel.validation.columns import column_label
from encsel.validation.result import PairValidation, Validation
from encsel.validation.stage import SKIPPED, stages

MORE = "Everything measured: --report DIR, or --wide."
PROTOCOL_WORDS = {
    "crossval": "cross-validated over people, corrected metrics",
    "reference": "the study's single 80/20 split and the numbers of its released code",
}


@show.register
def _(validation: Validation, form: str, *, width: int | None = None, colour: bool = False, wide: bool = True) -> str:
    if form == "csv":
        return csv_of(validation)
    if form == "github":
        return annotations(validation, title_of(validation))
    if form == "junit":
        return junit(validation, "encsel validate")
    decision = validation.decision.text
    is_short = form == "table" and not wide
    written = "markdown" if form == "summary" else form
    body = "" if is_short else render_sections(sections(validation), written, width=width, colour=colour)
    if form == "html":
        return f"<p>{in_html(decision)}</p>\n{body}"
    if written == "markdown":
        lines = "\n".join(map(markdown_item, closing(validation)))
        text = f"{body}{lines}\n\n{markdown_code(validation.signature_text)}\n"
        if form == "summary":
            return job_summary(validation, _decisive(validation), text)
        return f"# {in_markdown(title_of(validation))}\n\n**{in_markdown(decision)}**\n\n{text}"
    head = [*wrapped([decision], width, indent=""), "", title_of(validation)]
    if wide:
        last = wrapped([*closing(validation), validation.signature_text], width)
        return "\n".join([*head, "", body.rstrip(), "", *last]) + "\n"
    part = summary(validation)
    signed = f"Signature {validation.signature['id'][:12]}. {MORE}"
    notes = wrapped([*part.notes, *validation.verdict.lines, signed], width)
    text = plain_table(part.header, part.rows, n_names=3, width=width, colour=colour)
    return "\n".join([*head, text.rstrip(), *notes]) + "\n"


def summary(validation: Validation) -> Section:
    """One line a pair: what was measured and predicted; with failures and what is wrong."""
    scorer, marks = validation.scorer, _marks(validation)
    measured = [(pair, pair.matching(scorer)) for pair in validation.pairs]
    measured.sort(key=lambda one: 1.0 if one[1] is None else one[1].eer)
    cells = [
        {
            "#": str(place), "Face": pair.face, "Voice": pair.voice,
            "Measured EER": number(matching and matching.eer),
            "Interval 90 %": span(None if matching is None else matching.interval),
            "Predicted EER": number(pair.ranked and pair.ranked.predicted_eer),
            "Note": " ".join(marks[flag] for flag in pair.flags) or MISSING,
        }
        for place, (pair, matching) in enumerate(measured, start=1)
    ]  # fmt: skip
    lines = [f"Measured EER: on people the matcher was not fitted on, scorer '{scorer}'; chance is 0.5."]
    if (predicted := validation.prediction) is not None:
        lines.append(f"Predicted EER: after training on {predicted.n_train_identities} people (encsel rank).")
    lines += [f"{mark}: {_explained(flag)}" for flag, mark in marks.items()]
    lines += [f"UNSOUND {name}: {finding}." for name, finding in validation.findings.items()]
    lines += [f"FAILED {f.modality} encoder {f.encoder}: {f.reason}" for f in validation.failures]
    return table("Pairs", _without_empty(cells), *lines, n_names=3)[0]


def _decisive(validation: Validation) -> Section:
    """The pairs with what `rank` says of their order, and the measured EER."""
    cells = [
        {
            "Rank (predicted)": places_text(pair.ranked), "Face": pair.face, "Voice": pair.voice,
            "Measured EER": number(m and m.eer), "Interval 90 %": span(None if m is None else m.interval),
        }
        for pair, m in ((p, p.matching(validation.scorer)) for p in validation.pairs)
    ]  # fmt: skip
    return table("Pairs", cells, n_names=3)[0]


def _marks(validation: Validation) -> dict[str, str]:
    """The letter that stands for each flag in the summary."""
    flags = dict.fromkeys(flag for pair in validation.pairs for flag in pair.flags)
    return {flag: chr(ord("a") + i) for i, flag in enumerate(flags)}


def _explained(flag: str) -> str:
    """A flag with its meaning."""
    meanings = {start: text for stage in stages().values() for start, text in stage.meanings.items()}
    meaning = next((f": {text}" for start, text in meanings.items() if flag.startswith(start)), "")
    return f"{flag}{meaning or MEANINGS.get(flag, '')}."


@rows.register
def _(validation: Validation) -> list[dict[str, Any]]:
    return [_row(validation, pair) for pair in validation.pairs]


def title_of(validation: Validation) -> str:
    """What was measured, on how much, by which protocol."""
    n = len(validation.pairs)
    how = PROTOCOL_WORDS[validation.protocol]
    return f"{n} face-voice pair{'' if n == 1 else 's'}, {validation.n_identities} people: {how}"


def sections(validation: Validation, *, fewest_pairs: int = 0) -> list[Section]:
    """Every table that has something to show, the measured errors first.

    Args:
        fewest_pairs: correlations of fewer pairs are left out.
    """
    by_stage = {name: stage.sections(validation) for name, stage in stages().items()}
    first = by_stage.pop("matching", ())
    return [*first, *_shared(validation), *itertools.chain(*by_stage.values()), *_analysis(validation, fewest_pairs)]


def closing(validation: Validation) -> list[str]:
    """Notes below all tables: flags explained, what is missing and why, failures, the verdict."""
    lines = [_explained(flag) for flag in _marks(validation)]
    lines += _findings(validation)
    names = [(f"{p.face} x {p.voice}", p.reasons) for p in validation.pairs]
    lines += _missing([*names, *((e.name, e.reasons) for e in validation.encoders)], len(validation.pairs))
    analysis = validation.analysis
    if analysis.reason:
        lines.append(f"No correlations: {analysis.reason}")
    n = len(validation.pairs)
    missing = [name for name, text in analysis.left_out.items() if "is missing for" in text]
    # What every pair lacks was skipped, or has its reason above.
    partly = [name for name in missing if f"is missing for {n} of {n} pairs" not in analysis.left_out[name]]
    if partly and analysis.columns:
        lines.append(f"Not in the analysis because some pair lacks it: {', '.join(map(_label, partly))}.")
    left_out = [text for name, text in analysis.left_out.items() if name not in missing]
    lines += [f"Left out of the analysis: {text.rstrip('.')}." for text in left_out]
    return [*lines, *_lost(validation), *validation.notes, *validation.verdict.lines]


def problems(validation: Validation) -> list[str]:
    """What is wrong with encoders and samples."""
    return [*_findings(validation), *_lost(validation)]


def _findings(validation: Validation) -> list[str]:
    return [f"{name}: {finding}." for name, finding in validation.findings.items()]


def _lost(validation: Validation) -> list[str]:
    """Encoders and samples that could not be used."""
    lines = [f"{failure.encoder} failed: {failure.reason}" for failure in validation.failures]
    if n_skipped := validation.calibration.skipped.count:
        lines.append(f"{n_skipped} samples could not be used; stderr names them.")
    return lines


def _missing(subjects: Iterable[tuple[str, Any]], n_pairs: int) -> list[str]:
    """What encoders and pairs lack, and why."""
    whose: dict[str, list[str]] = {}
    for name, reasons in subjects:
        for stage, reason in reasons.items():
            if reason != SKIPPED:
                whose.setdefault(f"No {stage}: {reason.rstrip('.')}", []).append(name)
    return [
        f"{text} ({'all pairs' if len(names) == n_pairs > 1 else ', '.join(names)})." for text, names in whose.items()
    ]


def _row(validation: Validation, pair: PairValidation) -> dict[str, Any]:
    measured = pair["measured"]
    eers = {name: None if measured is None else measured.levels["identity"][name].eer for name in SCORERS}
    return {
        "face_encoder": pair.face, "voice_encoder": pair.voice, "n_identities": validation.n_identities,
        "n_train_identities": measured and measured.n_train, "n_test_identities": measured and measured.n_test,
        "rows_per_identity": pair.rows_per_identity, "eer": eers[validation.scorer],
        **{f"eer_{name}": eer for name, eer in eers.items()}, **pair.columns,
    }  # fmt: skip


def _shared(validation: Validation) -> list[Section]:
    """The tables of all encoders and of all pairs, whose columns are those of the stages."""
    encoders = [
        {"Encoder": e.name, "Modality": e.modality, "Dim": str(e.dim), "Samples": f"{e.samples_per_identity:g}"}
        | _merged(stage.encoder_cells(e, validation) for stage in stages().values())
        for e in validation.encoders
    ]
    pairs = [
        {"Face": p.face, "Voice": p.voice} | _merged(stage.pair_cells(p) for stage in stages().values())
        for p in validation.pairs
    ]
    notes = (note for stage in stages().values() for note in stage.notes(validation))
    return [
        *table("Encoders", _without_empty(encoders), *notes),
        *table("Geometry of the pairs", _without_empty(pairs), n_names=2),
    ]


def _merged(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {heading: cell for part in parts for heading, cell in part.items()}


def _without_empty(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The rows without columns that nobody has a value in."""
    header = [heading for heading in rows[0] if any(row[heading] != MISSING for row in rows)]
    return [{heading: row[heading] for heading in header} for row in rows]


def _label(column: str) -> str:
    return column_label(column)[0]


def _analysis(validation: Validation, fewest_pairs: int) -> list[Section]:
    analysis = validation.analysis
    trends = [t for t in analysis.trends if t.n_pairs >= fewest_pairs]
    found = [correlations(analysis, "Correlations with the EER", _label)] if analysis.columns else []
    if trends:
        encoders = list(dict.fromkeys((t.modality, t.encoder) for t in trends))
        value = {(t.modality, t.encoder, t.column): t.spearman for t in trends}
        columns = dict.fromkeys(t.column for t in trends)
        cells = tuple((_label(c), *(number(value.get((m, e, c)), 2) for m, e in encoders)) for c in columns)
        note = "Spearman with the EER over the pairs of one encoder; over three or four pairs it is often 1 by luck."
        found.append(Section("Trends within encoders", ("Number", *(e for _, e in encoders)), cells, (note,)))
    if analysis.baseline is not None:
        forms = {BASELINE: analysis.baseline, **analysis.forms}
        found.append(regressions(forms, "Regressions", "`encsel fit` keeps one of these as a card."))
    fared = [
        {
            "Card": one.card, "Scorer": one.scorer, "Against": one.against, "Pairs": str(one.n_pairs),
            "Bias": f"{one.bias:+.3f}", "RMSE": number(one.rmse),
            **({"Spearman": number(one.spearman, 2)} if analysis.n_pairs >= fewest_pairs else {}),
            "In interval": MISSING if one.inside is None else f"{100 * one.inside:.0f} %",
        }
        for one in analysis.fared
    ]  # fmt: skip
    note = (
        "Bias: predicted minus measured. What is measured after training on fewer people, or on fewer samples of each, "
        "is larger than what is predicted."
    )
    return found + table("How predictions fared", fared, note, n_names=3)
