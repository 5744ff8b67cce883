"""Turns results into what a person or a program reads: table, JSON, CSV, Markdown. The only user of rich for tables."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from encsel.ranking import (
    AT_CHANCE,
    BY_CKA,
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

FORMATS = ("table", "json", "csv", "markdown")
MISSING = "-"
DISPENSABLE = ("CKA biased", "CKA debiased", "shuffled 95 %", "ID mismatch")
"""Columns that a narrow screen does without, in this order."""

MEANINGS = {
    FEW_PEOPLE: f" (under {MIN_IDENTITIES}): a coarse order only, no claim that any pair is better than chance",
    AT_CHANCE: ": with people shuffled, some pair of the table stands out as much in more than 1 of 20 cases",
    EXTRAPOLATES: ": outside the range the regression was fitted on",
    PEOPLE_UNLIKE: ": ID mismatch changes with the number of people and cannot be carried over",
    ROWS_UNLIKE: ": CKA and ID mismatch change with it",
    ROWS_UNKNOWN: ": ID mismatch is measured on all samples, which may be unlike what the card saw",
    UNSOUND: ": named below; do not believe this line",
    TRAINED_ON_THESE: ": it knows them better than it will know yours",
}
"""What follows a flag in the legend."""


def render(report: RankReport, form: str, *, colour: bool = False, width: int | None = None) -> str:
    """The report as text in one of FORMATS, ending in a newline."""
    if form == "table":
        return as_table(report, colour=colour, width=width)
    writers: Mapping[str, Callable[[RankReport], str]] = {"json": as_json, "csv": as_csv, "markdown": as_markdown}
    return writers[form](report)


def to_dict(report: RankReport) -> dict[str, Any]:
    """The `encsel.rank/1` document: plain values, full precision, None where a value is missing."""
    return {
        "schema": SCHEMA,
        "signature": dict(report.signature),
        "signature_text": report.signature_text,
        "ordered_by": report.ordered_by,
        "layout": report.layout,
        "calibration": {
            "n_identities": report.n_identities,
            "n_face_samples": report.n_face_samples,
            "n_voice_samples": report.n_voice_samples,
            # Names of people and files go to stderr alone.
            "skipped": {
                "count": len(report.skipped),
                "samples": [{"modality": s.modality, "encoder": s.encoder, "reason": s.reason} for s in report.skipped],
            },
        },
        "regressions": {name: {"sha256": sha} for name, sha in report.regressions.items()},
        "encoders": [_encoder_dict(encoder) for encoder in report.encoders],
        "pairs": [_pair_dict(report, pair) for pair in report.pairs],
        "failures": [{"modality": f.modality, "encoder": f.encoder, "reason": f.reason} for f in report.failures],
        "notes": list(report.notes),
        "verdict": {"status": "none", "gates": []},
    }  # fmt: skip


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
        "rank_group": None,
        "face": pair.face,
        "voice": pair.voice,
        "predicted_eer": pair.predicted_eer,
        "interval": None if pair.interval is None else list(pair.interval),
        "coverage": report.coverage,
        "p_best": None,
        "reason": pair.reason,
        "predictions": {
            name: {
                "eer": said.eer,
                "interval": None if said.interval is None else list(said.interval),
                "flags": list(said.flags),
                "reason": said.reason,
            }
            for name, said in pair.predictions.items()
        },
        "cross_validated": None,
        "null": None,
        "cka": {
            "biased": pair.cka.biased,
            "debiased": pair.cka.debiased,
            "matched": pair.cka.matched,
            "matched_to": report.matched_to,
            "null_p": pair.null.p,
            "null_p_familywise": pair.null.p_familywise,
            "null_mean": pair.null.mean,
            "null_quantile_95": pair.null.quantile_95,
            "null_permutations": pair.null.n_permutations,
        },
        "id_mismatch": pair.id_mismatch,
        "joint_space": None
        if pair.joint_space is None
        else {"space": pair.joint_space.space, "cosine_eer": pair.joint_space.cosine_eer},
        "flags": list(pair.flags),
    }


def as_json(report: RankReport) -> str:
    return json.dumps(to_dict(report), indent=2, allow_nan=False) + "\n"


def as_csv(report: RankReport) -> str:
    """One line per pair; missing values are empty cells."""
    out = io.StringIO()
    cards = list(report.regressions)
    header = [
        "rank", "face", "voice", "predicted_eer", "interval_low", "interval_high", "reason",
        *(f"{card} eer" for card in cards), "cka_biased", "cka_debiased", "cka_matched", "cka_null_quantile_95",
        "cka_null_p", "id_mismatch", "flags", "n_identities", "ordered_by", "signature",
    ]  # fmt: skip
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for pair in report.pairs:
        low, high = pair.interval or (None, None)
        cells = [
            pair.rank, pair.face, pair.voice, pair.predicted_eer, low, high, pair.reason,
            *(pair.predictions[card].eer for card in cards), pair.cka.biased, pair.cka.debiased, pair.cka.matched,
            pair.null.quantile_95, pair.null.p, pair.id_mismatch, "; ".join(pair.flags), report.n_identities,
            report.ordered_by, report.signature["id"],
        ]  # fmt: skip
        writer.writerow([_inert(cell) for cell in cells])
    return out.getvalue()


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
    columns = ["#", "Face", "Voice", "Predicted EER", f"Interval {report.coverage * 100:.0f} %"]
    if list(report.regressions) != [STUDY_REGRESSION]:
        columns.append("Study's EER")
    return [*columns, "CKA matched", "shuffled 95 %", "p", "CKA debiased", "CKA biased", "ID mismatch", "Flags"]


def _cells(report: RankReport, pair: PairResult) -> list[str]:
    first = next(iter(report.regressions))
    said = pair.predictions[first]
    predicted = _eer(said) if pair.predicted_eer is not None else _Grey(_eer(said)) if said.eer is not None else MISSING
    cells = [
        str(pair.rank), pair.face, pair.voice, predicted,
        f"{pair.interval[0]:.2f} to {pair.interval[1]:.2f}" if pair.interval else MISSING,
    ]  # fmt: skip
    if first != STUDY_REGRESSION:
        study = pair.predictions[STUDY_REGRESSION]
        cells.append(_Grey(_eer(study)) if EXTRAPOLATES in study.flags and study.eer is not None else _eer(study))
    marks = _marks(report)
    notes = "".join(marks[text] for text in _remarks(report, pair))
    return [
        *cells, f"{pair.cka.matched:.3f}", f"{pair.null.quantile_95:.3f}", f"{pair.null.p:.3f}",
        f"{pair.cka.debiased:.3f}", f"{pair.cka.biased:.3f}",
        MISSING if pair.id_mismatch is None else f"{pair.id_mismatch:.1f}", notes,
    ]  # fmt: skip


def _eer(said: CardPrediction) -> str:
    return MISSING if said.eer is None else f"{said.eer:.3f}"


def _remarks(report: RankReport, pair: PairResult) -> list[str]:
    """Every flag of a pair and, when it has no prediction, that it has a reason."""
    first = next(iter(report.regressions))
    study = [f"study's EER: {flag}" for flag in pair.predictions[STUDY_REGRESSION].flags if flag not in pair.flags]
    own = [EXTRAPOLATES] if EXTRAPOLATES in pair.predictions[first].flags else []
    return [*pair.flags, *own, *(study if first != STUDY_REGRESSION else [])]


def _marks(report: RankReport) -> dict[str, str]:
    seen = dict.fromkeys(text for pair in report.pairs for text in _remarks(report, pair))
    return {text: chr(ord("a") + i) for i, text in enumerate(seen)}


def _footnotes(report: RankReport) -> list[str]:
    people = f"{report.matched_to} people"
    n_train = report.n_train_identities
    trained = "an unstated number of people" if n_train is None else f"{n_train} people"
    lines = [
        f"Predicted EER: cross-modal error rate after training on {trained}, chance is 0.5; the interval is "
        "provisional, from encoders the regression did not see. In brackets: not to be relied on, see the flags.",
        f"CKA matched: what biased CKA would be at {people}; 'shuffled 95 %' and p: the same with faces and voices of "
        "different people put together.",
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
    return [*lines, *report.notes]


def _health_words(encoder: EncoderResult) -> str:
    health = encoder.health
    verification = "-" if health.unimodal_eer is None else f"{health.unimodal_eer:.3f}"
    return (
        f"{'; '.join(health.findings)} (verification EER {verification}, cosine distance within a person "
        f"{health.intra:.3f}, between people {health.inter:.3f})"
    )


def _inert(cell: object) -> object:
    """A cell that no spreadsheet runs as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
