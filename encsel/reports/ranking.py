"""A ranking as table, Markdown, CSV, JUnit and annotations."""

from collections import Counter
from typing import Any

from encsel.errors import harmless
from encsel.prediction.predict import MIN_TO_PREDICT
from encsel.prediction.shipped import STUDY_REGRESSION
from encsel.ranking.flags import EXTRAPOLATES, FEW_PEOPLE, MUST_BE_UNSEEN, meaning
from encsel.ranking.pairs import cross_validated_scorer
from encsel.ranking.result import BY_CKA, CardPrediction, PairRanking, RankDocument
from encsel.reports.escapes import in_html, in_markdown, markdown_code, markdown_item
from encsel.reports.github import annotations, job_summary
from encsel.reports.junit import junit
from encsel.reports.tables import Dim, csv_of, markdown_table, plain_table, sections_html, wrapped
from encsel.storage.result import rows, show
from encsel.storage.sections import MISSING, Section, number, span, table

MORE = "All columns: --wide. Why a pair: --explain FACE/VOICE."


@show.register
def _(ranking: RankDocument, form: str, *, width: int | None = None, colour: bool = False, wide: bool = True) -> str:
    if form == "csv":
        return csv_of(ranking)
    if form == "junit":
        return junit(ranking, "encsel rank")
    part = section(ranking)
    if form == "github":
        return annotations(ranking, part.title)
    if form == "html":
        return f"<p>{in_html(ranking.decision.text)}</p>\n{sections_html([part])}"
    if form in ("markdown", "summary"):
        notes = "\n".join(map(markdown_item, part.notes))
        text = f"{markdown_table(part.header, part.rows)}\n{notes}\n\n{markdown_code(ranking.signature_text)}\n"
        if form == "summary":
            return job_summary(ranking, summary(ranking), text)
        return f"**{in_markdown(ranking.decision.text)}**\n\n{text}"
    if not wide:
        part = summary(ranking)
    signed = ranking.signature_text if wide else f"Signature {ranking.signature['id'][:12]}. {MORE}"
    lines = [*wrapped([ranking.decision.text], width, indent=""), "", harmless(part.title)]
    lines.append(plain_table(part.header, part.rows, n_names=3, width=width, colour=colour).rstrip())
    return "\n".join([*lines, *wrapped([*part.notes, signed], width)]) + "\n"


@rows.register
def _(ranking: RankDocument) -> list[dict[str, Any]]:
    return [_row(ranking, pair) for pair in ranking.pairs]


def section(ranking: RankDocument) -> Section:
    """The table of a ranking with its footnotes."""
    order = "matched CKA, highest first" if ranking.ordered_by == BY_CKA else f"predicted EER ({ranking.ordered_by})"
    n = len(ranking.pairs)
    title = f"{n} face-voice pair{'' if n == 1 else 's'}, {ranking.n_identities} people, ordered by {order}"
    cells = [_cells(ranking, pair) for pair in ranking.pairs]
    return table(title, cells, *_footnotes(ranking), n_names=3)[0]


def summary(ranking: RankDocument) -> Section:
    """The columns that decide, with the footnotes that they need."""
    marks = _marks(ranking, study=False)
    cells = [
        {
            "Rank": places_text(pair), "Face": pair.face, "Voice": pair.voice,
            "Predicted EER": _predicted(ranking, pair), f"Interval {ranking.coverage * 100:g} %": span(pair.interval),
            "Note": " ".join(marks[text] for text in _remarks(ranking, pair, study=False)),
        }
        for pair in ranking.pairs
    ]  # fmt: skip
    if not marks:
        for row in cells:
            del row["Note"]
    lines = [_predicted_line(ranking)]
    if ranking.pairs[0].places is not None:
        lines.append("Rank: places that the pair may have among these.")
    lines += [f"{mark}: {text}{meaning(text)}." for text, mark in marks.items()]
    lines += [*_reason_lines(ranking), *_unsound_lines(ranking), *_failure_lines(ranking)]
    return table(section(ranking).title, cells, *lines, *ranking.verdict.lines, n_names=3)[0]


def encoders(ranking: RankDocument) -> list[Section]:
    """The table of encoders."""
    cells = [
        {
            "Encoder": e.name, "Modality": e.modality, "Dim": str(e.dim), "Samples": f"{e.samples_per_identity:g}",
            "Verification EER": number(e.unimodal_eer), "ID": number(e.intrinsic_dimension, 1),
            "Within people": number(e.intra_distance), "Between people": number(e.inter_distance),
        }
        for e in ranking.encoders
    ]  # fmt: skip
    return table("Encoders", cells, "Samples: of a person, median. Within and between people: mean cosine distance.")


def problems(ranking: RankDocument) -> list[str]:
    """What is wrong with encoders and samples."""
    return [*_unsound_lines(ranking), *_failure_lines(ranking)]


def _row(ranking: RankDocument, pair: PairRanking) -> dict[str, Any]:
    (low, high), (first, last) = pair.interval or (None, None), pair.places or (None, None)
    return {
        "rank": pair.rank, "place_first": first, "place_last": last, "face": pair.face, "voice": pair.voice,
        "predicted_eer": pair.predicted_eer, "interval_low": low, "interval_high": high, "p_best": pair.p_best,
        "expected_loss": pair.expected_loss, "reason": pair.reason,
        **{f"{card} eer": pair.predictions[card].eer for card in ranking.regressions},
        "scorer": ranking.scorer, "cross_validated_eer": pair.cross_validated and pair.cross_validated.eer,
        "null_predicted_eer": pair.null and pair.null.predicted_eer, "null_p": pair.null and pair.null.p,
        "cka_biased": pair.cka.biased, "cka_debiased": pair.cka.debiased, "cka_matched": pair.cka.matched,
        "cka_null_quantile_95": pair.cka.null_quantile_95, "cka_null_p": pair.cka.null_p,
        "id_mismatch": pair.id_mismatch, "flags": "; ".join(pair.flags), "n_identities": ranking.n_identities,
        "ordered_by": ranking.ordered_by, "signature": ranking.signature["id"],
    }  # fmt: skip


def _cells(ranking: RankDocument, pair: PairRanking) -> dict[str, str]:
    first, calibrated = next(iter(ranking.regressions)), ranking.judged_by
    cells = {
        "#": places_text(pair), "Face": pair.face, "Voice": pair.voice, "Predicted EER": _predicted(ranking, pair),
        f"Interval {ranking.coverage * 100:g} %": span(pair.interval), "P best": number(pair.p_best, 2),
        "CV EER": number(pair.cross_validated and pair.cross_validated.eer),
    }  # fmt: skip
    if first != calibrated:
        cells["Calibrated EER"] = _eer(pair.predictions[calibrated])
    if first != STUDY_REGRESSION:
        study = pair.predictions[STUDY_REGRESSION]
        cells["Study's EER"] = _eer(study, reliable=EXTRAPOLATES not in study.flags)
    marks = _marks(ranking)
    return cells | {
        "p": number(pair.cka.null_p if pair.null is None else pair.null.p), "CKA matched": number(pair.cka.matched),
        "CKA debiased": number(pair.cka.debiased), "CKA biased": number(pair.cka.biased),
        "ID mismatch": number(pair.id_mismatch, 1),
        "Flags": "".join(marks[text] for text in _remarks(ranking, pair)),
    }  # fmt: skip


def places_text(pair: PairRanking | None) -> str:
    """First and last place that a pair may have."""
    return MISSING if pair is None or pair.places is None else "-".join(map(str, dict.fromkeys(pair.places)))


def _predicted(ranking: RankDocument, pair: PairRanking) -> str:
    first = next(iter(ranking.regressions))
    return _eer(pair.predictions[first], reliable=pair.predicted_eer is not None)


def _eer(prediction: CardPrediction, *, reliable: bool = True) -> str:
    text = number(prediction.eer)
    return text if reliable or prediction.eer is None else Dim(text)


def _remarks(ranking: RankDocument, pair: PairRanking, *, study: bool = True) -> list[str]:
    """Every flag of a pair, and those of the study's prediction."""
    first = next(iter(ranking.regressions))
    of_study = [f"study's EER: {flag}" for flag in pair.predictions[STUDY_REGRESSION].flags if flag not in pair.flags]
    extrapolates = EXTRAPOLATES in pair.predictions[first].flags and EXTRAPOLATES not in pair.flags
    beyond = [EXTRAPOLATES] if extrapolates and FEW_PEOPLE not in pair.flags else []
    return [*pair.flags, *beyond, *(of_study if study and first != STUDY_REGRESSION else [])]


def _marks(ranking: RankDocument, *, study: bool = True) -> dict[str, str]:
    """The letter that stands for each remark in the table."""
    remarks = dict.fromkeys(text for pair in ranking.pairs for text in _remarks(ranking, pair, study=study))
    return {text: chr(ord("a") + i) for i, text in enumerate(remarks)}


def _footnotes(ranking: RankDocument) -> list[str]:
    lines = [
        _predicted_line(ranking),
        _place_line(ranking),
        _null_line(ranking),
        f"CV EER: measured here by cross-validation with the scorer '{cross_validated_scorer(ranking.scorer)}', on "
        f"{ranking.n_identities} people only. CKA matched: what biased CKA would be at "
        f"{ranking.pairs[0].cka.matched_to} people.",
    ]
    lines += [f"{mark}: {text}{meaning(text)}" for text, mark in _marks(ranking).items()]
    lines += _reason_lines(ranking)
    verified = ", ".join(f"{e.name} {number(e.unimodal_eer)}" for e in ranking.encoders)
    lines += [f"Verification EER, within the encoder's own modality: {verified}.", *_unsound_lines(ranking)]
    lines += [f"{encoder.name}: {'; '.join(encoder.flags)}." for encoder in ranking.encoders if encoder.flags]
    lines += [
        f"{p.face} x {p.voice} share the space {p.joint_space.space}: EER by plain cosine on these people "
        f"{p.joint_space.cosine_eer:.3f}. {MUST_BE_UNSEEN}"
        for p in ranking.pairs
        if p.joint_space
    ]
    return [*lines, *_failure_lines(ranking), *ranking.notes, *ranking.verdict.lines]


def _predicted_line(ranking: RankDocument) -> str:
    n_train = ranking.n_train_identities
    trained = "an unstated number of people" if n_train is None else f"{n_train} people"
    if ranking.n_train_samples is not None:
        trained += f" with {ranking.n_train_samples} samples each"
    if ranking.n_probe_samples == 1:
        trained += ", one photo against one clip"
    some = any(isinstance(_predicted(ranking, pair), Dim) for pair in ranking.pairs)
    return (
        f"Predicted EER: of the scorer '{ranking.scorer}' after training on {trained}; chance is 0.5."
        f"{' In brackets: not to be relied on.' if some else ''}"
    )


def _reason_lines(ranking: RankDocument) -> list[str]:
    """Why pairs have no predicted EER."""
    reasons = Counter(pair.reason for pair in ranking.pairs if pair.reason)
    if len(reasons) == 1 and len(ranking.pairs) > 1:
        return [f"No predicted EER: {next(iter(reasons))}."]
    return [f"No predicted EER for {p.face} x {p.voice}: {p.reason}." for p in ranking.pairs if p.reason]


def _unsound_lines(ranking: RankDocument) -> list[str]:
    return [
        f"UNSOUND {e.modality} encoder {e.name}: {'; '.join(e.health)} (verification EER {number(e.unimodal_eer)})."
        for e in ranking.encoders
        if e.health
    ]


def _failure_lines(ranking: RankDocument) -> list[str]:
    lines = [f"FAILED {f.modality} encoder {f.encoder}: {f.reason}" for f in ranking.failures]
    if n_skipped := ranking.calibration.skipped.count:
        lines.append(f"{n_skipped} samples were skipped; stderr names them.")
    return lines


def _place_line(ranking: RankDocument) -> str:
    if ranking.pairs[0].places is None:
        return "Places and the chance of being best (P best) are given only where a calibrated card orders all pairs."
    return (
        "#: places that the pair may have; others count as better or worse only where they are with a chance of 0.9. P "
        "best: chance of being the best pair."
    )


def _null_line(ranking: RankDocument) -> str:
    nulls = [p.null for p in ranking.pairs if p.null is not None]
    if not nulls:
        return "p: permutation p-value of CKA, people shuffled."
    within = f" within {nulls[0].within}" if nulls[0].within else ""
    shuffles = f"permutation p-value of {nulls[0].n_permutations} shuffles of people{within}"
    eers = [n.predicted_eer for n in nulls if n.predicted_eer is not None]
    if ranking.n_identities < MIN_TO_PREDICT or not eers:
        return f"p: {shuffles}."
    low, high = f"{min(eers):.2f}", f"{max(eers):.2f}"
    return (
        f"Null: with faces and voices of different people paired{within}, {ranking.judged_by} predicts "
        f"{low if low == high else f'{low} to {high}'} (sd {max(n.sd or 0 for n in nulls):.2f}); p: {shuffles}."
    )
