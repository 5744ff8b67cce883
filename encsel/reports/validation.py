"""Turns a validation into what a person or a program reads: sections of tables, JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from encsel.gates.judge import as_dict as verdict_dict
from encsel.gates.judge import lines as verdict_lines
from encsel.matching.error_rates import WAYS, Matching
from encsel.matching.evaluate import AXES
from encsel.matching.scorers import SCORERS
from encsel.regression.analysis import AgainstEer, Fared
from encsel.regression.card import FitErrors, LeftOutErrors
from encsel.reports.github import workflow_commands
from encsel.reports.ranking import MEANINGS as OF_RANK
from encsel.reports.ranking import MISSING, calibration_dict, inert, plain_table
from encsel.validation.result import (
    FEW_ERRORS,
    ONLY_ITS_GROUP,
    SAME_RECORDINGS,
    SCHEMA,
    EncoderValidated,
    PairValidated,
    ValidationReport,
)
from encsel.validation.validate import pair_columns

FORMATS = ("table", "json", "csv", "markdown", "github")
BASELINE = "no geometry: face effect + voice effect"

MEANINGS = {
    SAME_RECORDINGS: "it cannot be told whether faces and voices are from the same recordings (a session column, "
    "or sample "
    "names as VIDEO/CLIP, would tell); part of what is measured may be the recording",
    FEW_ERRORS: "by the rule of 30 the true EER may be more than a third off; add people",
    ONLY_ITS_GROUP: "with group means taken off, shuffling people within groups does as well",
}

COLUMNS = {
    "cka": "CKA, biased",
    "cka_debiased": "CKA, debiased",
    "cka_matched": "CKA, matched to 1249 people",
    "geodesic_cka": "geodesic CKA, debiased",
    "mutual_knn": "mutual 10-NN",
    "id_mismatch": "ID mismatch (MLE, k = 20)",
    "two_nn_mismatch": "ID mismatch (TwoNN)",
    "gw_distance": "Gromov-Wasserstein",
    "gw_bound": "Gromov-Wasserstein, lower bound",
    "spectral_gap": "spectral gap",
    "compactness_gap": "compactness gap, mean of the two",
    "mean_curvature": "|mean curvature|, mean of the two",
    "unimodal_eer": "verification EER, mean of the two",
}


@dataclass(frozen=True)
class Section:
    """One table, with words after it. Cells are text; the first `n_names` columns hold names."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    n_names: int = 1


def render(report: ValidationReport, form: str, *, width: int | None = None, colour: bool = False) -> str:
    """The validation as text in one of FORMATS, ending in a newline."""
    if form == "json":
        return as_json(report)
    if form == "csv":
        return as_csv(report)
    if form == "github":
        return as_github(report)
    body = render_sections(sections(report), form, width=width, colour=colour)
    if form == "markdown":
        below = [*(f"- {line}" for line in closing(report)), "", f"`{report.signature_text}`"]
        return f"# {title_of(report)}\n\n{body}" + "\n".join(below) + "\n"
    return f"{title_of(report)}\n\n{body}" + "\n".join([*closing(report), report.signature_text]) + "\n"


def render_sections(parts: Sequence[Section], form: str, *, width: int | None = None, colour: bool = False) -> str:
    """Tables with their notes, as "table" or "markdown", ending in an empty line."""
    lines = []
    for part in parts:
        if form == "markdown":
            lines += [f"## {part.title}", "", _markdown_row(part.header), _markdown_row(["---"] * len(part.header))]
            lines += [*(_markdown_row(row) for row in part.rows), "", *(f"- {note}" for note in part.notes), ""]
            continue
        table = plain_table(part.header, part.rows, n_names=part.n_names, width=width or 160, colour=colour)
        lines += [part.title.upper(), table.rstrip(), *part.notes, ""]
    return "\n".join(lines) + "\n"


def title_of(report: ValidationReport) -> str:
    """What was measured, on how much, by which protocol."""
    n = len(report.pairs)
    how = {
        "crossval": "cross-validated over people, corrected metrics",
        "reference": "the study's single 80/20 split and the numbers of its released code",
    }[report.protocol]
    return f"{n} face-voice pair{'' if n == 1 else 's'}, {report.n_identities} people: {how}"


def as_github(report: ValidationReport) -> str:
    """Annotations of a GitHub Actions job."""
    measured = [p for p in report.pairs if p.measured is not None]
    first = ""
    if measured:
        best = min(measured, key=lambda p: p.measured.levels["identity"][report.scorer].eer if p.measured else 1)
        assert best.measured is not None
        rate = best.measured.levels["identity"][report.scorer]
        first = (
            f"; first {best.face} x {best.voice}, EER {rate.eer:.3f} ({_span(rate.interval)}), scorer {report.scorer}"
        )
    return workflow_commands(
        f"{title_of(report)}{first}", report.verdict, {f.encoder: f.reason for f in report.failures},
        {e.name: "; ".join(e.health.findings) for e in report.encoders if e.health.findings},
    )  # fmt: skip


def as_json(report: ValidationReport) -> str:
    return json.dumps(to_dict(report), indent=2, allow_nan=False) + "\n"


def to_dict(report: ValidationReport) -> dict[str, Any]:
    """The `encsel.validate/1` document: plain values, full precision, None where a value is missing."""
    ranked = report.ranked
    return {
        "schema": SCHEMA,
        "signature": dict(report.signature),
        "signature_text": report.signature_text,
        "protocol": report.protocol,
        "scorer": report.scorer,
        "layout": report.layout,
        "calibration": calibration_dict(report),
        "group_columns": {column: dict(sizes) for column, sizes in report.group_columns.items()},
        "prediction": None
        if ranked is None
        else {
            "ordered_by": ranked.ordered_by,
            "scorer": ranked.scorer,
            "coverage": ranked.coverage,
            "n_train_identities": ranked.n_train_identities,
            "n_permutations": ranked.n_permutations,
        },
        "encoders": [asdict(encoder) for encoder in report.encoders],
        "pairs": [_pair_dict(report, pair) for pair in report.pairs],
        "analysis": asdict(report.analysis),
        "failures": [{"modality": f.modality, "encoder": f.encoder, "reason": f.reason} for f in report.failures],
        "notes": list(report.notes),
        "verdict": verdict_dict(report.verdict),
    }


def _pair_dict(report: ValidationReport, pair: PairValidated) -> dict[str, Any]:
    f, v = _encoders_of(report, pair)
    return {**asdict(pair), "rows_per_identity": rows_per_identity(f, v), "columns": pair_columns(pair, f, v)}


def as_csv(report: ValidationReport) -> str:
    """A pair table that `encsel fit` reads: a line per pair, EER of every scorer, every column; missing cells empty."""
    rows = []
    for pair in report.pairs:
        f, v = _encoders_of(report, pair)
        measured = None if pair.measured is None else pair.measured.levels["identity"]
        rows.append(
            {
                "face_encoder": inert(pair.face),
                "voice_encoder": inert(pair.voice),
                "n_identities": report.n_identities,
                "n_train_identities": None if pair.measured is None else pair.measured.n_train,
                "n_test_identities": None if pair.measured is None else pair.measured.n_test,
                "rows_per_identity": rows_per_identity(f, v),
                "eer": None if measured is None else measured[report.scorer].eer,
                **{f"eer_{name}": None if measured is None else measured[name].eer for name in SCORERS},
                **pair_columns(pair, f, v),
            }
        )
    out = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))  # groups among them are named by the set
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([inert(column) for column in columns])
    writer.writerows([row.get(column) for column in columns] for row in rows)
    return out.getvalue()


def rows_per_identity(face: EncoderValidated, voice: EncoderValidated) -> int:
    """Samples a person behind a pair's numbers: the harmonic mean of both sides' medians, rounded."""
    return max(1, round(2 / (1 / face.samples_per_identity + 1 / voice.samples_per_identity)))


def sections(report: ValidationReport) -> list[Section]:
    """Every table that there is something to say in, the measured EERs first."""
    found = [_measured(report), _identification(report), _encoders(report), _geometry(report)]
    found += [_recordings(report), *_groups(report), _axes(report), _curves(report), _correlations(report)]
    found += [_trends(report), _forms(report), _fared(report)]
    return [section for section in found if section is not None]


def closing(report: ValidationReport) -> list[str]:
    """What is said below all tables: flags explained, what is missing and why, notes, failures."""
    lines = []
    flags = list(dict.fromkeys(flag for pair in report.pairs for flag in pair.flags))
    for flag in flags:
        meaning = next((f": {text}" for start, text in MEANINGS.items() if flag.startswith(start)), "")
        lines.append(f"{flag}{meaning or OF_RANK.get(flag, '')}.")
    reasons: dict[str, list[str]] = {}
    for pair in report.pairs:
        for stage, reason in pair.reasons.items():
            if reason != "skipped":
                reasons.setdefault(f"No {stage}: {reason}", []).append(f"{pair.face} x {pair.voice}")
    for encoder in report.encoders:
        for stage, reason in encoder.reasons.items():
            if reason != "skipped":
                reasons.setdefault(f"No {stage}: {reason}", []).append(encoder.name)
        lines += [f"{encoder.name}: {finding}." for finding in encoder.health.findings]
    for text, whose in reasons.items():
        who = "all pairs" if len(whose) == len(report.pairs) > 1 else ", ".join(whose)
        lines.append(f"{text.rstrip('.')} ({who}).")
    if report.analysis.reason:
        lines.append(f"No correlations: {report.analysis.reason}")
    n = len(report.pairs)
    missing = [name for name, text in report.analysis.left_out.items() if "is missing for" in text]
    # What every pair lacks was skipped, or has its reason above.
    partly = [name for name in missing if f"is missing for {n} of {n} pairs" not in report.analysis.left_out[name]]
    if partly and report.analysis.columns:
        lines.append(f"Not in the analysis, as some pair lacks it: {', '.join(map(column_name, partly))}.")
    lines += [
        f"Left out of the analysis: {text.rstrip('.')}."
        for name, text in report.analysis.left_out.items()
        if name not in missing
    ]
    lines += [f"{failure.encoder} failed: {failure.reason}" for failure in report.failures]
    if report.skipped:
        lines.append(f"{len(report.skipped)} samples could not be used; they are named on stderr.")
    return [*lines, *report.notes, *verdict_lines(report.verdict)]


def _measured(report: ValidationReport) -> Section | None:
    pairs = [p for p in report.pairs if p.measured is not None]
    if not pairs:
        return None
    rows = []
    for p in report.pairs:
        if p.measured is None:
            continue
        levels = p.measured.levels
        own, single = levels["identity"][report.scorer], levels["sample"][report.scorer]
        predicted = None if p.ranked is None else p.ranked.predicted_eer
        rows.append(
            (
                p.face, p.voice, *(_eer(levels["identity"][name]) for name in SCORERS), _span(own.interval),
                _eer(single), f"{own.auc:.3f}", f"{own.fnmr_at['0.01']:.3f}", f"{own.fnmr_at['0.1']:.3f}",
                _number(predicted), _number(None if p.ranked is None else p.ranked.null_p),
                "; ".join(p.flags) or MISSING,
            )
        )  # fmt: skip
    first = pairs[0].measured
    assert first is not None
    notes = [
        f"EER: equal error rate over {first.n_test} test people a fold after training on {first.n_train}"
        f"{f', {first.n_repeats} repeats' if first.n_repeats > 1 else ''}; 0.5 is chance. Interval (90 %, over "
        "people), "
        f"Single (one image against one clip), AUC and FNMR (false non-match rate at that false match rate) are of "
        f"the scorer {report.scorer}.",
        *(f"{name}: {meaning}." for name, meaning in SCORERS.items()),
    ]
    if report.ranked is not None:
        notes.append(
            f"Predicted: what `encsel rank` says of {report.ranked.n_train_identities} training people, scorer "
            f"{report.ranked.scorer}; p: share of {report.ranked.n_permutations} shuffles of people that come out "
            "as good."
        )
    for pair in report.pairs:
        if pair.joint_cosine is not None:
            notes.append(
                f"{pair.face} x {pair.voice} share a joint space: by plain cosine, nothing fitted, EER "
                f"{pair.joint_cosine['identity'].eer:.3f}, single samples {pair.joint_cosine['sample'].eer:.3f}."
            )
    header = (
        "Face", "Voice", *(f"EER {name}" for name in SCORERS), "Interval 90 %", "Single EER", "AUC", "FNMR @1 %",
        "FNMR @10 %", "Predicted EER", "p", "Flags",
    )  # fmt: skip
    return Section("Measured error", header, tuple(rows), tuple(notes), n_names=2)


def _identification(report: ValidationReport) -> Section | None:
    rows = []
    for p in report.pairs:
        if p.measured is None:
            continue
        own = p.measured.levels["identity"][report.scorer]
        if len(own.retrieval) < len(WAYS):
            continue
        to_voice, to_face = (own.retrieval[way] for way in WAYS)
        rows.append(
            (
                p.face, p.voice, *(f"{own.two_choice[way]:.3f}" for way in WAYS),
                *(f"{to_voice.recall[str(k)]:.3f}" for k in (1, 5, 10)), f"{to_voice.mean_average_precision:.3f}",
                *(f"{to_face.recall[str(k)]:.3f}" for k in (1, 5, 10)), f"{to_face.mean_average_precision:.3f}",
            )
        )  # fmt: skip
        chance = to_voice
    if not rows:
        return None
    header = (
        "Face", "Voice", "2 voices", "2 faces", "Voice R@1", "R@5", "R@10", "mAP", "Face R@1", "R@5", "R@10", "mAP",
    )  # fmt: skip
    luck = ", ".join(f"{chance.chance[str(k)]:.3f} at {k}" for k in (1, 5, 10))
    note = (
        "2 voices: share right when one face chooses between its person's voice and another (chance 0.5); R@k: "
        "share of "
        f"faces whose person's voice is among the first k of {chance.gallery:.0f} (chance {luck}). Scorer "
        f"{report.scorer}."
    )
    return Section("Two-choice matching and retrieval", header, tuple(rows), (note,), n_names=2)


def _encoders(report: ValidationReport) -> Section:
    columns = list(dict.fromkeys(c for e in report.encoders for c in e.group_probe))
    rows = []
    for e in report.encoders:
        d, c, t = e.dimensions, e.curvature, e.topology
        rows.append(
            (
                e.name, e.modality, str(e.dim), f"{e.samples_per_identity:g}", _number(e.health.unimodal_eer),
                *(_number(d.mle_median.get(k) if d else None, 1) for k in ("5", "10", "20", "50")),
                _number(d.mle_harmonic.get("20") if d else None, 1),
                _number((d.two_nn_reference if report.protocol == "reference" else d.two_nn) if d else None, 1),
                _significant(c.encoder.mean_absolute_median if c else None),
                _significant(c.flat.mean_absolute_median if c and c.flat else None),
                _significant(c.encoder.gaussian_median if c else None),
                *((_number(x) for x in (t.intra, t.inter, t.gap)) if t else (MISSING,) * 3),
                _number(e.reliability.value if e.reliability else None),
                *(_number(e.group_probe.get(column)) for column in columns),
            )
        )  # fmt: skip
    header = (
        "Encoder", "Modality", "Dim", "Samples", "Verif. EER", "ID k=5", "k=10", "k=20", "k=50", "ID harm.", "TwoNN",
        "|H|", "flat", "K", "Intra", "Inter", "Gap", "Split half", *(f"Probe {column}" for column in columns),
    )  # fmt: skip
    form = "released code's" if report.protocol == "reference" else "corrected"
    notes = [
        "ID: intrinsic dimension (maximum likelihood, median over points, by number of neighbours; harm.: harmonic "
        "mean at "
        "20). It grows with people and samples: compare at equal numbers.",
        f"|H|, K: median absolute mean curvature and Gaussian curvature ({form} form), in one over the unit of the "
        "embeddings and its square; flat: the same of a Gaussian cloud of the same covariance, which has no curvature.",
        "Intra, Inter, Gap: cosine distance within people, between people, and the difference. Split half: "
        "debiased CKA of "
        "one half of everybody's samples with the other half.",
    ]
    if columns:
        notes.append("Probe: balanced accuracy of a linear classifier of the group on people it was not fitted on.")
    return Section("Encoders", header, tuple(rows), tuple(notes))


def _geometry(report: ValidationReport) -> Section:
    rows = []
    for p in report.pairs:
        a, gw = p.alignment, p.gromov_wasserstein
        rows.append(
            (
                p.face, p.voice, _number(a.linear.biased), _number(a.linear.debiased), _number(a.linear.matched),
                _number(p.ceiling), _number(a.geodesic.debiased if a.geodesic else None), _number(a.mutual_knn),
                _number(a.mutual_knn_chance), _number(p.id_mismatch, 1),
                MISSING if gw is None else f"{gw.lower_bound:.4f} to {gw.value:.4f}",
                MISSING if gw is None else gw.start + ("" if gw.converged else ", not converged"),
                _number(p.spectral_gap),
            )
        )  # fmt: skip
    header = (
        "Face", "Voice", "CKA biased", "CKA debiased", "CKA matched", "Ceiling", "Geodesic CKA", "Mutual 10-NN",
        "Chance", "ID mismatch", "GW", "GW start", "Spectral gap",
    )  # fmt: skip
    gw_form = (
        "squared, faces and voices of different people, as the released code has it"
        if report.protocol == "reference"
        else "root, the same people on both sides"
    )
    notes = (
        "CKA matched: what biased CKA would be at 1249 people. Ceiling: root of both encoders' split halves, which "
        "debiased "
        "CKA can hardly exceed at half the samples. A larger ID mismatch goes with a lower error in the study.",
        f"GW: Gromov-Wasserstein distance ({gw_form}), from its lower bound to the best coupling found.",
    )
    return Section("Geometry of the pairs", header, tuple(rows), notes, n_names=2)


def _recordings(report: ValidationReport) -> Section | None:
    rows = []
    for p in report.pairs:
        if p.recordings is None:
            continue
        r = p.recordings
        rows.append(
            (
                p.face, p.voice, str(r.n_people),
                *(f"{x[name]:.3f}" for name in SCORERS for x in (r.same_eer, r.other_eer)),
                *(f"{x['debiased']:.3f}" for x in (r.same_cka, r.other_cka)),
            )
        )  # fmt: skip
    if not rows:
        return None
    header = (
        "Face", "Voice", "People", *(f"{name}, {kind}" for name in SCORERS for kind in ("same", "other")), "CKA, same",
        "CKA, other",
    )  # fmt: skip
    note = (
        "EER and debiased CKA with faces and voices from the same recordings, and from other recordings of the "
        "same people, "
        "equally many of both. What is better with the same recordings is the recording, not the person."
    )
    return Section("Is it the person, or the recording?", header, tuple(rows), (note,), n_names=2)


def _groups(report: ValidationReport) -> list[Section]:
    found = []
    for column, sizes in report.group_columns.items():
        rows = []
        for p in report.pairs:
            within = next((w for w in p.measured.within if w.column == column), None) if p.measured else None
            centred = next((c for c in p.centred if c.column == column), None)
            if within is None and centred is None:
                continue
            own = None if within is None else within.matching[report.scorer]
            everyone = None if p.measured is None else p.measured.levels["identity"][report.scorer]
            rows.append(
                (
                    p.face, p.voice, _eer(everyone), _number(within.floor if within else None), _eer(own),
                    _span(own.interval if own else None),
                    *(_number(within.eer_of[value][report.scorer] if within else None) for value in sizes),
                    _number(centred.cka.debiased if centred else None),
                    _number(centred.predicted_eer if centred else None), _number(centred.null_p if centred else None),
                )
            )  # fmt: skip
        if not rows:
            continue
        header = (
            "Face", "Voice", "EER, all", f"{column} alone", "EER within", "Interval 90 %", *(f"{v}" for v in sizes),
            "CKA centred", "Predicted centred", "p within",
        )  # fmt: skip
        groups = ", ".join(f"{value}: {size}" for value, size in sizes.items())
        note = (
            f"{column} alone: what knowing the {column} and nothing else would reach. EER within: impostors have "
            "the same "
            f"{column}. Centred: each group's mean taken off. p within: share of shuffles of people within {column} "
            "that "
            f"predict as well. Near 0.5 and a large p: the pair tells only the {column}. People: {groups}."
        )
        found.append(Section(f"Within {column}", header, tuple(rows), (note,), n_names=2))
    by_value: dict[str, list[tuple[str, ...]]] = {}
    for p in report.pairs:
        for w in p.values:
            own = w.matching[report.scorer]
            by_value.setdefault(w.column, []).append(
                (
                    p.face, p.voice, w.value, str(w.n_people), *(_eer(w.matching[name]) for name in SCORERS),
                    _span(own.interval), f"{own.auc:.3f}",
                )
            )  # fmt: skip
    for column, rows_of in by_value.items():
        header = (
            "Face", "Voice", column.capitalize(), "People", *(f"EER {name}" for name in SCORERS), "Interval 90 %",
            "AUC",
        )  # fmt: skip
        note = f"Samples of one {column} on both sides, people who have it; centroids, cross-validated."
        found.append(Section(f"Within each {column}", header, tuple(rows_of), (note,), n_names=3))
    return found


def _axes(report: ValidationReport) -> Section | None:
    rows = [
        (p.face, p.voice, *(_number(p.axes[str(k)][name]) for name in SCORERS for k in AXES))
        for p in report.pairs
        if p.axes is not None
    ]
    if not rows:
        return None
    header = ("Face", "Voice", *(f"{name} {k}" for name in SCORERS for k in AXES))
    note = "EER by number of principal axes kept of each side; 50 everywhere else. Missing: fewer people or dimensions."
    return Section("Principal axes", header, tuple(rows), (note,), n_names=2)


def _curves(report: ValidationReport) -> Section | None:
    kept = [p for p in report.pairs if p.curve is not None]
    if not kept:
        return None
    first = kept[0].curve
    assert first is not None
    rows = []
    for p in kept:
        assert p.curve is not None
        at = p.curve.extrapolated[report.scorer]
        said = None if p.ranked is None else p.ranked.predictions.get("encsel-calibrated")
        rows.append(
            (
                p.face, p.voice, *(f"{point.eer[report.scorer]:.3f}" for point in p.curve.points), _number(at.eer),
                _span(at.interval), _number(at.plateau), _number(said.eer if said else None),
                _span(said.interval if said else None),
            )
        )  # fmt: skip
    header = (
        "Face", "Voice", *(f"{point.n_train}" for point in first.points),
        f"At {first.extrapolated[report.scorer].n_train}",
        "Interval 90 %", "Plateau", "Predicted", "Interval",
    )  # fmt: skip
    note = (
        f"EER of the scorer {report.scorer} by number of training people, carried on along d' = d sqrt(N / (N + "
        "k)); beside "
        "it what the calibrated card predicts."
    )
    reasons = {
        p.curve.extrapolated[report.scorer].reason
        for p in kept
        if p.curve is not None and p.curve.extrapolated[report.scorer].reason is not None
    }
    notes = (note, *(f"Not carried on: {reason}." for reason in sorted(r for r in reasons if r)))
    return Section("Learning curve", header, tuple(rows), notes, n_names=2)


def column_name(column: str) -> str:
    """A column of the analysis in words."""
    if column.startswith("predicted_"):
        return f"EER predicted by {column.removeprefix('predicted_')}"
    if column.startswith("group_probe_"):
        return f"{column.removeprefix('group_probe_')} probe, the worse of the two"
    return COLUMNS.get(column, column)


def _correlations(report: ValidationReport) -> Section | None:
    if not report.analysis.columns:
        return None
    ordered = sorted(report.analysis.columns.items(), key=lambda item: -abs(item[1].rank.spearman or 0))
    rows = tuple(correlation_row(name, found) for name, found in ordered)
    header = ("Number", "Spearman", "Bootstrap 95 %", "Crossed p", "Pearson", "Naive p")
    note = (
        f"Over {report.analysis.n_pairs} pairs, EER of the scorer {report.analysis.scorer}. Crossed p: labels of "
        "face and "
        "voice encoders shuffled, which respects that pairs share encoders; the naive p and the bootstrap do not."
    )
    return Section("What goes with the EER", header, rows, (note,))


def correlation_row(name: str, found: AgainstEer) -> tuple[str, ...]:
    """One column of an analysis against the EER."""
    interval = found.rank.interval
    return (
        column_name(name), _number(found.rank.spearman, 2),
        MISSING if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}", _p(found.rank.crossed.p),
        _number(found.pearson, 2), _p(found.pearson_p),
    )  # fmt: skip


def _trends(report: ValidationReport) -> Section | None:
    trends = report.analysis.trends
    if not trends:
        return None
    encoders = list(dict.fromkeys((t.modality, t.encoder) for t in trends))
    columns = list(dict.fromkeys(t.column for t in trends))
    value = {(t.modality, t.encoder, t.column): t.spearman for t in trends}
    rows = tuple((column_name(c), *(_number(value.get((m, e, c)), 2) for m, e in encoders)) for c in columns)
    header = ("Number", *(e for _, e in encoders))
    note = "Spearman with the EER over the pairs of one encoder; over three or four pairs it is often 1 by luck."
    return Section("Trends within encoders", header, rows, (note,))


def _forms(report: ValidationReport) -> Section | None:
    analysis = report.analysis
    if analysis.baseline is None:
        return None
    forms = {BASELINE: analysis.baseline, **analysis.forms}
    rows = tuple(form_row(label, errors) for label, errors in forms.items())
    header = ("Form", "R2", "Adjusted", "Pair R2", "RMSE", "Face R2", "RMSE", "Voice R2", "RMSE")
    note = (
        "EER regressed on these; then one pair, one face encoder, one voice encoder left out at a time. R2: 1 is "
        "exact, 0 no "
        "better than the mean EER. `encsel fit` keeps one as a card."
    )
    reasons = dict.fromkeys(
        f"{label}: {reason}."
        for label, errors in forms.items()
        for reason in (errors.reason, errors.leave_pair.reason, errors.leave_face.reason, errors.leave_voice.reason)
        if reason
    )
    return Section("Regressions", header, rows, (note, *reasons))


def form_row(label: str, errors: FitErrors) -> tuple[str, ...]:
    """One regression with its errors."""

    def both(left_out: LeftOutErrors) -> tuple[str, str]:
        return _number(left_out.r2, 2), _number(left_out.rmse)

    left_out = (*both(errors.leave_pair), *both(errors.leave_face), *both(errors.leave_voice))
    return label, _number(errors.r2, 2), _number(errors.adjusted_r2, 2), *left_out


def _fared(report: ValidationReport) -> Section | None:
    if not report.analysis.fared:
        return None
    rows = tuple(_fared_row(one) for one in report.analysis.fared)
    header = ("Card", "Scorer", "Against", "Pairs", "Bias", "RMSE", "Spearman", "In interval")
    note = (
        "Bias: predicted minus measured. A prediction is about 999 training people with 20 samples each; fewer of "
        "either "
        "give a larger EER."
    )
    return Section("How predictions fared", header, rows, (note,), n_names=3)


def _fared_row(one: Fared) -> tuple[str, ...]:
    return (
        one.card, one.scorer, one.against, str(one.n_pairs), f"{one.bias:+.3f}", f"{one.rmse:.3f}",
        _number(one.spearman, 2), MISSING if one.inside is None else f"{100 * one.inside:.0f} %",
    )  # fmt: skip


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _encoders_of(report: ValidationReport, pair: PairValidated) -> tuple[EncoderValidated, EncoderValidated]:
    of_encoder = {(e.modality, e.name): e for e in report.encoders}
    return of_encoder["face", pair.face], of_encoder["voice", pair.voice]


def _eer(found: Matching | None) -> str:
    return MISSING if found is None else f"{found.eer:.3f}"


def _span(interval: tuple[float, float] | None) -> str:
    return MISSING if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def _number(value: float | None, digits: int = 3) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _significant(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.3g}" if value == 0 or abs(math.log10(abs(value))) < 4 else f"{value:.1e}"


def _p(p: float | None) -> str:
    return MISSING if p is None else f"{p:.4f}" if p < 0.001 else f"{p:.3f}"
