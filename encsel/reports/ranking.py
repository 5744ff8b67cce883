"""Turns results into what a person or a program reads: table, JSON, CSV, Markdown. The only user of rich for tables."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from encsel.gates.compare import Comparison
from encsel.gates.judge import as_dict as verdict_dict
from encsel.gates.judge import lines as verdict_lines
from encsel.matching.crossval import MEASURED
from encsel.prediction.predict import REPLICATE_COVERAGE, Measured, PairPrediction
from encsel.ranking.explain import Explanation
from encsel.ranking.result import (
    AT_CHANCE,
    BY_CKA,
    DISAGREE,
    EXTRAPOLATES,
    FEW_PEOPLE,
    MIN_IDENTITIES,
    PEOPLE_UNLIKE,
    ROWS_UNKNOWN,
    ROWS_UNLIKE,
    SCHEMA,
    STUDY_REGRESSION,
    TRAINED_ON_THESE,
    UNSOUND,
    CardPrediction,
    EncoderResult,
    PairResult,
    RankReport,
)
from encsel.reports.github import workflow_commands

FORMATS = ("table", "json", "csv", "markdown", "github")
MISSING = "-"
DISPENSABLE = ("CKA biased", "CKA debiased", "ID mismatch", "CKA matched", "CV EER", "p")
"""Columns that a narrow screen does without, in this order."""

MEANINGS = {
    FEW_PEOPLE: f" (under {MIN_IDENTITIES}): a coarse order only, no claim that any pair is better than chance",
    AT_CHANCE: ": with people shuffled, some pair of the table stands out as much in more than 1 of 20 cases",
    DISAGREE: ": about 1 in 100 simulated pairs are so far apart; look at it with --explain",
    EXTRAPOLATES: ": outside the range the regression was fitted on",
    PEOPLE_UNLIKE: ": ID mismatch changes with the number of people and cannot be carried over",
    ROWS_UNLIKE: ": CKA and ID mismatch change with it",
    ROWS_UNKNOWN: ": ID mismatch is measured on all samples, which may be unlike what the card saw",
    UNSOUND: ": named below; do not believe this line",
    TRAINED_ON_THESE: ": it knows them better than it will know yours",
}
"""What follows a flag in the legend."""


def render(
    report: RankReport,
    form: str,
    *,
    explanation: Explanation | None = None,
    colour: bool = False,
    width: int | None = None,
) -> str:
    """The report as text in one of FORMATS, ending in a newline; CSV has no place for an explanation."""
    if form == "json":
        return as_json(report, explanation)
    if form == "csv":
        return as_csv(report)
    if form == "github":
        return as_github(report)
    table = as_table(report, colour=colour, width=width) if form == "table" else as_markdown(report)
    if explanation is None:
        return table
    text = as_explanation(explanation)
    return f"{table}\n{text}" if form == "table" else f"{table}\n```text\n{text}```\n"


def to_dict(report: RankReport, explanation: Explanation | None = None) -> dict[str, Any]:
    """The `encsel.rank/1` document: plain values, full precision, None where a value is missing."""
    return {
        "schema": SCHEMA,
        "signature": dict(report.signature),
        "signature_text": report.signature_text,
        "ordered_by": report.ordered_by,
        "scorer": report.scorer,
        "layout": report.layout,
        "calibration": calibration_dict(report),
        "regressions": {name: {"sha256": sha} for name, sha in report.regressions.items()},
        "encoders": [_encoder_dict(encoder) for encoder in report.encoders],
        "pairs": [_pair_dict(report, pair) for pair in report.pairs],
        "failures": [{"modality": f.modality, "encoder": f.encoder, "reason": f.reason} for f in report.failures],
        "notes": list(report.notes),
        "verdict": verdict_dict(report.verdict),
        **({} if explanation is None else {"explanation": asdict(explanation)}),
    }  # fmt: skip


def calibration_dict(report: Any) -> dict[str, Any]:
    """The `calibration` of a document, from a RankReport or a ValidationReport."""
    return {
        "n_identities": report.n_identities,
        "n_face_samples": report.n_face_samples,
        "n_voice_samples": report.n_voice_samples,
        # Names of people and files go to stderr alone; here they are hashes, unless the user asked for names.
        "skipped": {
            "count": len(report.skipped),
            "samples": [
                {"modality": s.modality, "sample": s.sample or None, "encoder": s.encoder, "reason": s.reason}
                for s in report.skipped
            ],
        },
    }


def _encoder_dict(encoder: EncoderResult) -> dict[str, Any]:
    health = encoder.health
    return {
        "name": encoder.name,
        "modality": encoder.modality,
        "dim": encoder.dim,
        "n_samples": encoder.n_samples,
        "samples_per_identity": encoder.samples_per_identity,
        "intrinsic_dimension": encoder.intrinsic_dimension,
        "intrinsic_dimensions": None if encoder.intrinsic_dimensions is None else dict(encoder.intrinsic_dimensions),
        "unimodal_eer": health.unimodal_eer,
        "intra_distance": health.intra,
        "inter_distance": health.inter,
        "skipped_share": health.skipped,
        "health": list(health.findings),
        "flags": list(encoder.flags),
        "reason": "; ".join(filter(None, (encoder.reason, health.reason))) or None,
    }


def _pair_dict(report: RankReport, pair: PairResult) -> dict[str, Any]:
    return {
        "rank": pair.rank,
        "rank_group": pair.rank_group,
        "face": pair.face,
        "voice": pair.voice,
        "predicted_eer": pair.predicted_eer,
        "interval": None if pair.interval is None else list(pair.interval),
        "coverage": report.coverage,
        "p_best": pair.p_best,
        "reason": pair.reason,
        "predictions": {
            name: {
                "eer": said.eer,
                "scorer": said.scorer,
                "interval": None if said.interval is None else list(said.interval),
                "flags": list(said.flags),
                "reason": said.reason,
            }
            for name, said in pair.predictions.items()
        },
        "cross_validated": None if pair.prediction is None else _measured_dict(report, pair.prediction),
        "null": None if pair.prediction is None else _null_dict(report, pair.prediction),
        "cka": {
            "biased": pair.cka.biased,
            "debiased": pair.cka.debiased,
            "matched": pair.cka.matched,
            "matched_interval": None if pair.cka_interval is None else list(pair.cka_interval),
            "matched_to": report.matched_to,
            "null_p": pair.cka_null.p,
            "null_p_familywise": pair.cka_null.p_familywise,
            "null_mean": pair.cka_null.mean,
            "null_quantile_95": pair.cka_null.quantile_95,
            "null_permutations": pair.cka_null.n_permutations,
        },
        "id_mismatch": pair.id_mismatch,
        "joint_space": None
        if pair.joint_space is None
        else {"space": pair.joint_space.space, "cosine_eer": pair.joint_space.cosine_eer},
        "flags": list(pair.flags),
    }


def _measured_dict(report: RankReport, prediction: PairPrediction) -> dict[str, Any]:
    """The scorer that the prediction is about first, then the others."""
    own = _measured(report, prediction)
    others = [m for m in prediction.measured.values() if m is not own]
    return {**_one_measured(own), "n_repeats": prediction.evidence.cross_validated.n_repeats,
            "others": [_one_measured(m) for m in others]}  # fmt: skip


def _measured(report: RankReport, prediction: PairPrediction) -> Measured:
    return prediction.measured[_cv_scorer(report)]


def _null_dict(report: RankReport, prediction: PairPrediction) -> dict[str, Any]:
    """Under 30 people a prediction says nothing, shuffled or not; the p holds all the same."""
    few = dict.fromkeys(("predicted_eer", "sd")) if report.n_identities < MIN_IDENTITIES else {}
    return {**asdict(prediction.null), **few}


def _cv_scorer(report: RankReport) -> str:
    """The scorer behind CV EER: that of the prediction, where cross-validation measures it."""
    return report.scorer if report.scorer in MEASURED else MEASURED[0]


def _one_measured(measured: Measured) -> dict[str, Any]:
    return {**asdict(measured), "interval": list(measured.interval), "coverage": REPLICATE_COVERAGE}


def as_json(report: RankReport, explanation: Explanation | None = None) -> str:
    return json.dumps(to_dict(report, explanation), indent=2, allow_nan=False) + "\n"


def as_csv(report: RankReport) -> str:
    """One line per pair; missing values are empty cells."""
    out = io.StringIO()
    cards = list(report.regressions)
    header = [
        "rank", "rank_group", "face", "voice", "predicted_eer", "interval_low", "interval_high", "p_best", "reason",
        *(f"{card} eer" for card in cards), "scorer", "cross_validated_eer", "null_predicted_eer", "null_p",
        "cka_biased", "cka_debiased", "cka_matched", "cka_null_quantile_95", "cka_null_p", "id_mismatch", "flags",
        "n_identities", "ordered_by", "signature",
    ]  # fmt: skip
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([inert(name) for name in header])
    for pair in report.pairs:
        low, high = pair.interval or (None, None)
        cells = [
            pair.rank, pair.rank_group, pair.face, pair.voice, pair.predicted_eer, low, high, pair.p_best, pair.reason,
            *(pair.predictions[card].eer for card in cards), report.scorer,
            *((None, None, None) if pair.prediction is None else (
                _measured(report, pair.prediction).eer,
                *(_null_dict(report, pair.prediction)[key] for key in ("predicted_eer", "p")))),
            pair.cka.biased, pair.cka.debiased, pair.cka.matched, pair.cka_null.quantile_95, pair.cka_null.p,
            pair.id_mismatch, "; ".join(pair.flags), report.n_identities, report.ordered_by, report.signature["id"],
        ]  # fmt: skip
        writer.writerow([inert(cell) for cell in cells])
    return out.getvalue()


def as_github(report: RankReport) -> str:
    """Annotations of a GitHub Actions job."""
    best = report.pairs[0]
    value = "" if best.predicted_eer is None else f", predicted EER {best.predicted_eer:.3f}"
    if best.interval is not None:
        value += f" ({best.interval[0]:.2f} to {best.interval[1]:.2f})"
    return workflow_commands(
        f"{_title(report)}; first {best.face} x {best.voice}{value}", report.verdict,
        {f.encoder: f.reason for f in report.failures},
        {e.name: "; ".join(e.health.findings) for e in report.encoders if e.health.findings},
    )  # fmt: skip


def comparison_section(found: Comparison) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Header, rows and notes of a comparison of two results."""
    rows = tuple(
        (
            c.face, c.voice, MISSING if c.old is None else f"{c.old:.3f}", MISSING if c.new is None else f"{c.new:.3f}",
            MISSING if c.change is None else f"{c.change:+.3f}",
            MISSING if c.interval is None else f"{c.interval[0]:+.3f} to {c.interval[1]:+.3f}", c.verdict,
        )
        for c in found.changes
    )  # fmt: skip
    notes = ["Interval: of the change, 90 %. Worse or better: it does not hold 0."]
    if found.changed_encoders:
        notes.append(f"Encoders that were made differently: {', '.join(found.changed_encoders)}.")
    notes += [f"NOT ALIKE: {reason}." for reason in found.unlike]
    return ("Face", "Voice", "Old EER", "New EER", "Change", "Interval 90 %", "Verdict"), rows, tuple(notes)


def as_markdown(report: RankReport) -> str:
    header, rows = _columns(report), [_cells(report, pair) for pair in report.pairs]
    escaped = [[_plain(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in escaped]
    lines += ["", *(f"- {line}" for line in _footnotes(report)), "", f"`{report.signature_text}`"]
    return "\n".join(lines) + "\n"


def as_table(report: RankReport, *, colour: bool = False, width: int | None = None) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def table_of(left_out: Sequence[str]) -> Table:
        table = Table(title=_title(report), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        shown = [i for i, name in enumerate(_columns(report)) if name not in left_out]
        for i in shown:
            is_name = i in (1, 2)
            heading = _columns(report)[i].replace(" ", "\n", 1)
            table.add_column(heading, justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold")
        for pair in report.pairs:
            cells = _cells(report, pair)
            table.add_row(*(Text(_plain(c := cells[i]), style="dim" if isinstance(c, _Grey) else "") for i in shown))
        return table

    out = io.StringIO()
    console = Console(file=out, force_terminal=colour, no_color=not colour, width=width or 160, highlight=False)
    # A number is never broken over lines: on a narrow screen whole columns give way, the least needed first.
    n_dropped = next(
        (n for n in range(len(DISPENSABLE)) if _width_of(table_of(DISPENSABLE[:n]), console) <= console.width),
        len(DISPENSABLE),
    )
    console.print(table_of(DISPENSABLE[:n_dropped]))
    if n_dropped:
        console.print(Text(f"Not shown for want of width: {', '.join(DISPENSABLE[:n_dropped])}."), soft_wrap=True)
    for line in _footnotes(report):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(report.signature_text), soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def plain_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, n_names: int, width: int, colour: bool = False
) -> str:
    """Cells of text as a table, ending in a newline; the first `n_names` columns and the flags to the left."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for i, heading in enumerate(header):
        is_words = i < n_names or heading == "Flags"
        table.add_column(
            heading.replace(" ", "\n", 1),
            justify="left" if is_words else "right",
            no_wrap=not is_words,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = io.StringIO()
    # Never narrower than its numbers: lines that a narrow screen breaks are better than numbers that are gone.
    needed = _width_of(table, Console(file=io.StringIO(), width=width))
    console = Console(
        file=out, force_terminal=colour, no_color=not colour, width=max(width, min(needed, 240)), highlight=False
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _width_of(table: Any, console: Any) -> int:
    """Columns the table takes when nothing in it wraps."""
    return int(table.__rich_measure__(console, console.options.update(width=10_000)).maximum)


class _Grey(str):
    """A number the user should not rely on."""

    __slots__ = ()


def _plain(cell: str) -> str:
    return f"({cell})" if isinstance(cell, _Grey) else cell


def _title(report: RankReport) -> str:
    n = len(report.pairs)
    pairs = f"{n} face-voice pair{'' if n == 1 else 's'}"
    return f"{pairs}, {report.n_identities} people, ordered by {_order_words(report)}"


def _order_words(report: RankReport) -> str:
    return "matched CKA, highest first" if report.ordered_by == BY_CKA else f"predicted EER ({report.ordered_by})"


def _columns(report: RankReport) -> list[str]:
    columns = ["#", "Face", "Voice", "Predicted EER", f"Interval {report.coverage * 100:g} %", "P best", "CV EER"]
    first = next(iter(report.regressions))
    if first != report.calibrated.name:
        columns.append("Calibrated EER")
    if first != STUDY_REGRESSION:
        columns.append("Study's EER")
    return [*columns, "p", "CKA matched", "CKA debiased", "CKA biased", "ID mismatch", "Flags"]


def _cells(report: RankReport, pair: PairResult) -> list[str]:
    first = next(iter(report.regressions))
    said = pair.predictions[first]
    predicted = _eer(said) if pair.predicted_eer is not None else _Grey(_eer(said)) if said.eer is not None else MISSING
    tied = sum(p.rank_group == pair.rank_group for p in report.pairs) > 1
    place = str(pair.rank) if pair.rank_group is None else f"{pair.rank_group}{'=' if tied else ''}"
    found = pair.prediction
    cells = [
        place, pair.face, pair.voice, predicted,
        f"{pair.interval[0]:.2f} to {pair.interval[1]:.2f}" if pair.interval else MISSING,
        MISSING if pair.p_best is None else f"{pair.p_best:.2f}",
        MISSING if found is None else f"{_measured(report, found).eer:.3f}",
    ]  # fmt: skip
    if first != report.calibrated.name:
        cells.append(_eer(pair.predictions[report.calibrated.name]))
    if first != STUDY_REGRESSION:
        study = pair.predictions[STUDY_REGRESSION]
        cells.append(_Grey(_eer(study)) if EXTRAPOLATES in study.flags and study.eer is not None else _eer(study))
    marks = _marks(report)
    notes = "".join(marks[text] for text in _remarks(report, pair))
    return [
        *cells, f"{pair.cka_null.p if found is None else found.null.p:.3f}", f"{pair.cka.matched:.3f}",
        f"{pair.cka.debiased:.3f}", f"{pair.cka.biased:.3f}",
        MISSING if pair.id_mismatch is None else f"{pair.id_mismatch:.1f}", notes,
    ]  # fmt: skip


def _eer(said: CardPrediction) -> str:
    return MISSING if said.eer is None else f"{said.eer:.3f}"


def _remarks(report: RankReport, pair: PairResult) -> list[str]:
    """Every flag of a pair and, when it has no prediction, that it has a reason."""
    first = next(iter(report.regressions))
    study = [f"study's EER: {flag}" for flag in pair.predictions[STUDY_REGRESSION].flags if flag not in pair.flags]
    extrapolates = EXTRAPOLATES in pair.predictions[first].flags and EXTRAPOLATES not in pair.flags
    own = [EXTRAPOLATES] if extrapolates and FEW_PEOPLE not in pair.flags else []
    return [*pair.flags, *own, *(study if first != STUDY_REGRESSION else [])]


def _marks(report: RankReport) -> dict[str, str]:
    seen = dict.fromkeys(text for pair in report.pairs for text in _remarks(report, pair))
    return {text: chr(ord("a") + i) for i, text in enumerate(seen)}


def _footnotes(report: RankReport) -> list[str]:
    n_train = report.n_train_identities
    trained = "an unstated number of people" if n_train is None else f"{n_train} people"
    samples = report.calibrated.target["samples_per_identity"]
    trained += f" with {samples} samples each" if next(iter(report.regressions)) == report.calibrated.name else ""
    lines = [
        f"Predicted EER: cross-modal error rate of the scorer '{report.scorer}' after training on {trained}, chance is "
        "0.5. In brackets: not to be relied on, see the flags.",
        *_tie_lines(report),
        *_null_lines(report),
        f"CV EER: measured here by cross-validation with the scorer '{_cv_scorer(report)}', on {report.n_identities} "
        "people only. "
        f"CKA matched: what biased CKA would be at {report.matched_to} people.",
    ]  # fmt: skip
    lines += [f"{mark}: {text}{MEANINGS.get(text, '')}" for text, mark in _marks(report).items()]
    reasons = Counter(pair.reason for pair in report.pairs if pair.reason)
    if len(reasons) == 1 and len(report.pairs) > 1:
        lines.append(f"No predicted EER: {next(iter(reasons))}.")
    else:
        lines += [f"No predicted EER for {p.face} x {p.voice}: {p.reason}." for p in report.pairs if p.reason]
    for encoder in report.encoders:
        if encoder.health.findings:
            lines.append(f"UNSOUND {encoder.modality} encoder {encoder.name}: {_health_words(encoder)}.")
        if encoder.flags:
            lines.append(f"{encoder.name}: {'; '.join(encoder.flags)}.")
    lines += [
        f"{p.face} x {p.voice} share the space {p.joint_space.space}: EER by plain cosine on these people "
        f"{p.joint_space.cosine_eer:.3f}."
        for p in report.pairs
        if p.joint_space
    ]
    lines += [f"FAILED {f.modality} encoder {f.encoder}: {f.reason}" for f in report.failures]
    if report.skipped:
        lines.append(f"{len(report.skipped)} samples were skipped; they are named on stderr.")
    return [*lines, *report.notes, *verdict_lines(report.verdict)]


def as_explanation(e: Explanation) -> str:
    """The explanation as text for a person, ending in a newline."""
    low, high = e.interval
    measured = [
        f"  scorer '{m.scorer}': EER {m.eer:.3f}, AUC {m.auc:.3f}; in 9 of 10 sets of as many other people the EER "
        f"would lie in {m.interval[0]:.2f} to {m.interval[1]:.2f}"
        for m in e.measured
    ]
    cka_interval = "" if e.cka_interval is None else f" ({e.cka_interval[0]:.3f} to {e.cka_interval[1]:.3f})"
    side = "better" if e.disagreement > 0 else "worse"
    lines = [
        f"Why {e.face} x {e.voice}: {e.predicted_eer:.3f} ({low:.2f} to {high:.2f}), card {e.card}, "
        f"scorer '{e.scorer}'",
        f"  {e.n_identities} people, {e.samples_per_identity:.0f} samples each; d' {e.distance:.2f}, sd {e.sd:.2f} "
        "(EER = Phi(-d'/2))",
        "",
        "Measured on people held out",
        *measured,
        "  canonical correlations " + " ".join(f"{r:.2f}" for r in e.canonical_correlations),
        f"CKA: biased {e.cka.biased:.3f}, debiased {e.cka.debiased:.3f}, matched {e.cka.matched:.3f}{cka_interval}",
        f"  CKA alone would lead one to expect {e.expected_from_cka:.3f}; the prediction is {side} than that by "
        f"{abs(e.disagreement):.1f} sd of simulated pairs",
        f"Shuffled people: {e.null.predicted_eer:.3f} (sd {e.null.sd:.3f}), p {e.null.p:.3f}",
        "",
        f"Where the prediction comes from: a pair with the median of everything has d' {e.base:.2f}",
        *(
            f"  {part.name:<16} {part.value:6.3f}  more than {part.percentile * 100:3.0f} % of simulated pairs  "
            f"adds {part.adds:+.2f}   {part.meaning}"
            for part in e.parts
        ),
    ]
    if e.learning_curve:
        curve = ", ".join(f"{p.eer:.3f} after {p.n_train_identities}" for p in e.learning_curve)
        lines += [
            f"Learning curve with the slope that CKA alone sets (a sketch, not the prediction): EER {curve} people"
        ]
    lines += ["Other cards"]
    lines += [
        f"  {name:<28} {MISSING if said.eer is None else f'{said.eer:.3f}'}"
        + (f" ({said.interval[0]:.2f} to {said.interval[1]:.2f})" if said.interval else "")
        + f"  scorer '{said.scorer}'"
        + (f"; {', '.join(said.flags)}" if said.flags else "")
        for name, said in e.predictions.items()
        if name != e.card
    ]
    return "\n".join(lines) + "\n"


def _tie_lines(report: RankReport) -> list[str]:
    groups = Counter(p.rank_group for p in report.pairs if p.rank_group is not None)
    if not groups:
        return ["Ties and the chance of being best (P best) are told only where a calibrated card orders all pairs."]
    tied = [f"{count} pairs share place {group}" for group, count in groups.items() if count > 1]
    if not tied:
        return ["P best: chance of being the best pair. Every order shown is right with a chance of 0.9 or more."]
    return [
        f"P best: chance of being the best pair. TIE (=): {', '.join(tied)}; a new place begins only where "
        "every pair above is better than every pair below with a chance of 0.9 or more."
    ]


def _null_lines(report: RankReport) -> list[str]:
    nulls = [p.prediction.null for p in report.pairs if p.prediction is not None]
    if not nulls:
        return ["p: share of shuffles of people with a CKA as high."]
    low, high = (f"{f(n.predicted_eer for n in nulls):.2f}" for f in (min, max))
    within = f" within {nulls[0].within}" if nulls[0].within else ""
    if report.n_identities < MIN_IDENTITIES:
        return [f"p: share of {nulls[0].n_permutations} shuffles of people{within} that come out as good."]
    return [
        f"Null: with faces and voices of different people put together{within}, {report.calibrated.name} says "
        f"{low if low == high else f'{low} to {high}'} (sd {max(n.sd for n in nulls):.2f}); p: share of "
        f"{nulls[0].n_permutations} such shuffles that come out as good."
    ]


def _health_words(encoder: EncoderResult) -> str:
    health = encoder.health
    verification = "-" if health.unimodal_eer is None else f"{health.unimodal_eer:.3f}"
    return (
        f"{'; '.join(health.findings)} (verification EER {verification}, cosine distance within a person "
        f"{health.intra:.3f}, between people {health.inter:.3f})"
    )


def inert(cell: object) -> object:
    """A cell that no spreadsheet runs as a formula: text gets an apostrophe, a number is none and stays.

    Source: OWASP, CSV Injection. Blanks in front, and signs of full width, are formulas to some spreadsheets, too.
    """
    return _FORMULA.sub("'", cell) if isinstance(cell, str) else cell


# After a semicolon, too: where the comma is in numbers, spreadsheets part cells there.
_FORMULA = re.compile(r"(?:^|(?<=;))(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
