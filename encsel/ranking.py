"""All face-voice pairs of a calibration set, ordered by predicted cross-modal EER."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encsel.cache import default_root
from encsel.calibration import MAX_SKIPPED, Calibration, check_skipped, open_calibration
from encsel.card import Card, check_metric_versions, load_card
from encsel.core import MODALITIES, Embeddings, EncoderFamily, Modality, Skipped
from encsel.embed import Embedded, embed
from encsel.errors import BadCalibration, UsageError, nearest
from encsel.geometry import EncoderGeometry, Null, intrinsic_dimension, measure_encoder, permutation_null
from encsel.metrics.cka import REFERENCE_SIZE, Cka, cka
from encsel.progress import Progress, Silent
from encsel.registry import encoder_families, encoder_family, metrics
from encsel.signature import digest, sign, signature_text
from encsel.vectors import SUFFIXES, read_embeddings

SCHEMA = "encsel.rank/1"
DEFAULT_REGRESSION = "upadhyay2026-ln"
STUDY_REGRESSION = "upadhyay2026"
MIN_IDENTITIES = 30
COVERAGE = 0.9
ALPHA = 0.05
"""A pair whose permutation p is above this is flagged as not distinguishable from shuffled people."""
BY_CKA = "cka_matched"
RANK_FEATURES = ("cka", "id_mismatch")

FEW_PEOPLE = "few people"
AT_CHANCE = "CKA not above chance"
EXTRAPOLATES = "extrapolates"
PEOPLE_UNLIKE = "people unlike the card's"
ROWS_UNLIKE = "samples per person unlike the card's"


@dataclass(frozen=True)
class CardPrediction:
    """What one card says of one pair. `eer` outside the card's range is an extrapolation and is flagged so."""

    eer: float | None
    interval: tuple[float, float] | None
    flags: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class PairResult:
    """One face-voice pair. EERs and CKAs are shares in [0, 1]; a lower EER and a higher CKA are better."""

    rank: int
    face: str
    voice: str
    predicted_eer: float | None
    interval: tuple[float, float] | None
    reason: str | None
    """Why `predicted_eer` is None."""
    predictions: Mapping[str, CardPrediction]
    cka: Cka
    null: Null
    id_mismatch: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class EncoderResult:
    """One encoder as it was measured."""

    name: str
    modality: Modality
    dim: int
    n_samples: int
    samples_per_identity: float
    """Median over people."""
    intrinsic_dimension: float | None
    """Reference estimate at the card's samples per person, the one behind ID mismatch."""
    intrinsic_dimensions: Mapping[str, float] | None
    reason: str | None


@dataclass(frozen=True)
class RankReport:
    """Everything `encsel rank` found out. `encsel.report` turns it into a table, JSON, CSV or Markdown."""

    signature: Mapping[str, Any]
    ordered_by: str
    coverage: float
    matched_to: int
    layout: str
    n_identities: int
    n_face_samples: int
    n_voice_samples: int
    regressions: Mapping[str, str]
    """SHA-256 of each card used."""
    encoders: tuple[EncoderResult, ...]
    pairs: tuple[PairResult, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]

    @property
    def signature_text(self) -> str:
        return signature_text(self.signature)


def rank(
    data: str | Path,
    *,
    faces: Sequence[str] = (),
    voices: Sequence[str] = (),
    regression: str = DEFAULT_REGRESSION,
    seed: int = 0,
    min_identities: int = MIN_IDENTITIES,
    identities: int | None = None,
    samples_per_identity: int | None = None,
    max_skipped: float = MAX_SKIPPED,
    cache: str | Path | None = "default",
    progress: Progress | None = None,
) -> RankReport:
    """Rank every face-voice pair of encoders by predicted cross-modal EER.

    Args:
        data: folder of a calibration set, or its manifest CSV.
        faces, voices: encoder names, or files of embeddings; empty: all that can run on these data.
        regression: name of a shipped card, or path of a card file.
        seed: of every random choice: subsamples, draws of rows, shuffles.
        min_identities: fewest people in both modalities for the set to be used at all.
        identities, samples_per_identity: use only this many people, or samples of each person and modality.
        max_skipped: largest share of samples that may be unusable.
        cache: folder of the embedding cache; "default": the user's; None: keep nothing on disk.
    Raises:
        UsageError: unknown encoder or card, or a card that does not fit this encsel.
        BadCalibration: the data are insufficient or unreadable.
        EncoderFailed: an encoder could not be loaded or run.
    """
    progress = progress or Silent()
    cards = _cards(regression)
    if min_identities < 1:
        raise UsageError(f"--min-identities is {min_identities}; at least 1 is needed.")
    calibration = open_calibration(
        Path(data), identities=identities, samples_per_identity=samples_per_identity, seed=seed, max_skipped=max_skipped
    )
    progress.note(f"Layout: {calibration.layout}; {len(calibration.identities)} identities in both modalities.")
    if len(calibration.identities) < min_identities:
        raise BadCalibration(
            f"{len(calibration.identities)} identities of {data} have both faces and voices; at least "
            f"{min_identities} are needed. Add people, or lower --min-identities for a coarse order."
        )
    for note in calibration.notes:
        progress.note(note)
    embedded = _embeddings(calibration, faces, voices, cache, max_skipped, progress)
    for one in embedded.skipped:
        by = f" [{one.encoder}]" if one.encoder else ""
        progress.note(f"skipped {one.modality} {one.sample}{by}: {one.reason}")
    people = _common_people(embedded.embeddings, min_identities)
    options = {
        "seed": seed, "identities": identities, "samples_per_identity": samples_per_identity,
        "regression": regression if regression in {c.name for c in cards} else cards[0].name,
        "n_permutations": _n_permutations(len(people)), "coverage": COVERAGE,
    }  # fmt: skip
    signature = sign(
        data={"layout": calibration.layout, "sha256": embedded.data_sha256},
        encoders={f"{e.modality}:{e.name}": dict(e.provenance) for e in embedded.embeddings},
        regressions={card.name: card.sha256 for card in cards},
        metrics={name: metric.version for name, metric in metrics().items()},
        options=options,
    )
    return _measure(calibration, embedded, people, cards, signature, seed, progress)


def embeddings_of(
    calibration: Calibration,
    faces: Sequence[str] = (),
    voices: Sequence[str] = (),
    *,
    cache: str | Path | None = "default",
    max_skipped: float = MAX_SKIPPED,
    progress: Progress | None = None,
) -> Embedded:
    """The embeddings that `rank` would use: made from media, or taken from files."""
    return _embeddings(calibration, faces, voices, cache, max_skipped, progress or Silent())


def _cards(regression: str) -> tuple[Card, ...]:
    """The card that orders, then the study's own for its column."""
    chosen = load_card(regression)
    cards = (chosen,) if chosen.name == STUDY_REGRESSION else (chosen, load_card(STUDY_REGRESSION))
    versions = {name: metric.version for name, metric in metrics().items()}
    for card in cards:
        check_metric_versions(card, versions)
        unknown = [f.name for f in card.features if f.name not in RANK_FEATURES]
        if unknown:
            raise UsageError(
                f"The card {card.name} needs {', '.join(unknown)}; rank measures {' and '.join(RANK_FEATURES)}. "
                "Fit a card on these, or choose another."
            )
        if card.sizes_mixed:
            raise UsageError(
                f"The card {card.name} pools pairs measured on different numbers of people, and biased CKA means "
                "something else at each. Fit one on pairs of one size."
            )
    return cards


def _embeddings(
    calibration: Calibration,
    faces: Sequence[str],
    voices: Sequence[str],
    cache: str | Path | None,
    max_skipped: float,
    progress: Progress,
) -> Embedded:
    made: list[Embeddings] = []
    skipped: list[Skipped] = []
    families: list[EncoderFamily] = []
    ready = {(e.modality, e.name): e for e in calibration.embeddings}
    for modality, wanted in zip(MODALITIES, (faces, voices), strict=True):
        here = [name for m, name in ready if m == modality]
        names = list(dict.fromkeys(wanted)) or here or [
            f.name for f in encoder_families().values() if f.modality == modality
        ]  # fmt: skip
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES:
                embeddings, unusable = read_embeddings(Path(name), modality)
                check_skipped(unusable, dict.fromkeys(MODALITIES, len(embeddings.labels) + len(unusable)), max_skipped)
                made.append(embeddings)
                skipped.extend(unusable)
            elif (modality, name) in ready:
                made.append(ready[modality, name])
            elif calibration.samples:
                families.append(encoder_family(name, modality))
            else:
                raise UsageError(
                    f"{calibration.root} holds embeddings, and none in {modality}s/ is named {name!r}. "
                    f"{nearest(name, here)}"
                )
    names_used = Counter([(e.modality, e.name) for e in made] + [(f.modality, f.name) for f in families])
    clash = [key for key, count in names_used.items() if count > 1]
    if clash:
        raise UsageError(f"Two {clash[0][0]} encoders are named {clash[0][1]!r}. Rename one file.")
    sources = [[e.modality, e.name, e.provenance["sha256"]] for e in made]
    if not families:
        unused = [s for s in calibration.skipped if any((e.modality, e.name) == (s.modality, s.encoder) for e in made)]
        return Embedded(tuple(made), (*skipped, *unused), digest(sorted(sources)))
    where = default_root() if cache == "default" else None if cache is None else Path(cache)
    embedded = embed(calibration, families, cache=where, max_skipped=max_skipped, progress=progress)
    data = digest([embedded.data_sha256, *sorted(sources)]) if sources else embedded.data_sha256
    return Embedded((*made, *embedded.embeddings), (*skipped, *embedded.skipped), data)


def _common_people(embeddings: Sequence[Embeddings], min_identities: int) -> tuple[str, ...]:
    """People whom every encoder has, so that all pairs are compared on the same ones."""
    sets = [set(e.identities) for e in embeddings]
    common = set.intersection(*sets)
    if len(common) < min_identities:
        sizes = ", ".join(f"{e.name} {len(s)}" for e, s in zip(embeddings, sets, strict=True))
        raise BadCalibration(
            f"{len(common)} identities have usable samples for every encoder ({sizes}); at least {min_identities} are "
            "needed. Add people, leave out an encoder that lacks them, or lower --min-identities for a coarse order."
        )
    return tuple(sorted(common))


def _n_permutations(n_identities: int) -> int:
    return 999 if n_identities <= 400 else 199


def _measure(
    calibration: Calibration,
    embedded: Embedded,
    people: tuple[str, ...],
    cards: tuple[Card, ...],
    signature: Mapping[str, Any],
    seed: int,
    progress: Progress,
) -> RankReport:
    n = len(people)
    rows_wanted = {card.name: _rows_of(card) for card in cards}
    shown_rows = next((rows for rows in rows_wanted.values() if rows is not None), None)
    with progress.task("geometry", len(embedded.embeddings) + 1) as task:
        measured: dict[tuple[str, str], EncoderGeometry] = {}
        for e in embedded.embeddings:
            measured[e.modality, e.name] = measure_encoder(e, people, rows_per_identity=shown_rows, seed=seed)
            task.advance()
        faces, voices = ([g for (m, _), g in measured.items() if m == modality] for modality in MODALITIES)
        matched_to = _people_of(cards[0])
        forms = [[cka(f.gram, v.gram, matched_to=matched_to) for v in voices] for f in faces]
        observed = np.array([[form.matched for form in row] for row in forms])
        nulls = permutation_null(
            faces, voices, observed, matched_to=matched_to, n_permutations=_n_permutations(n), seed=seed
        )
        task.advance()
    sizes = {shown_rows, *rows_wanted.values()}
    mismatches = {rows: _mismatch(faces, voices, rows, shown_rows, seed) for rows in sizes}
    unranked = []
    for i, f in enumerate(faces):
        for j, v in enumerate(voices):
            predictions = {}
            for card in cards:
                values = {"cka": cka(f.gram, v.gram, matched_to=_people_of(card)).matched}
                mismatch = mismatches[rows_wanted[card.name]][i][j]
                predictions[card.name] = _predict(card, values, mismatch, n, (f, v))
            mismatch = mismatches[shown_rows][i][j]
            unranked.append(_pair(f, v, cards[0], predictions, forms[i][j], nulls[i][j], mismatch, n))
    pairs, ordered_by, notes = _ordered(unranked, cards[0].name)
    encoders = [_encoder(g) for g in (*faces, *voices)]
    notes = (*calibration.notes, *notes, *(f"{e.name}: {e.reason}" for e in encoders if e.reason))
    return RankReport(
        signature=signature,
        ordered_by=ordered_by,
        coverage=COVERAGE,
        matched_to=matched_to,
        layout=calibration.layout,
        n_identities=n,
        n_face_samples=max(e.n_samples for e in encoders if e.modality == "face"),
        n_voice_samples=max(e.n_samples for e in encoders if e.modality == "voice"),
        regressions={card.name: card.sha256 for card in cards},
        encoders=tuple(encoders),
        pairs=pairs,
        skipped=embedded.skipped,
        notes=notes,
    )


def _people_of(card: Card) -> int:
    return next((f.n_identities for f in card.features if f.n_identities is not None), REFERENCE_SIZE)


def _rows_of(card: Card) -> int | None:
    return next((f.rows_per_identity for f in card.features if f.rows_per_identity is not None), None)


def _mismatch(
    faces: Sequence[EncoderGeometry],
    voices: Sequence[EncoderGeometry],
    rows: int | None,
    measured_at: int | None,
    seed: int,
) -> list[list[float | None]]:
    """Absolute difference of reference intrinsic dimensions at `rows` rows of each person, faces x voices."""

    def estimate(g: EncoderGeometry) -> float | None:
        if rows == measured_at:
            values = g.intrinsic_dimension.values
        else:
            values = intrinsic_dimension(g.embeddings, rows_per_identity=rows, seed=seed).values
        return None if values is None else values["mle_median"]

    sides = [[estimate(g) for g in side] for side in (faces, voices)]
    return [[None if f is None or v is None else abs(f - v) for v in sides[1]] for f in sides[0]]


def _predict(
    card: Card, values: dict[str, float], mismatch: float | None, n: int, pair: tuple[EncoderGeometry, EncoderGeometry]
) -> CardPrediction:
    needs_mismatch = any(f.name == "id_mismatch" for f in card.features)
    if needs_mismatch and mismatch is None:
        return CardPrediction(None, None, (), "intrinsic dimension could not be measured")
    prediction = card.apply(values if mismatch is None else {**values, "id_mismatch": mismatch}, COVERAGE)
    flags = [EXTRAPOLATES] if prediction.outside else []
    if needs_mismatch and n != _people_of(card):
        # CKA is carried over to the card's number of people; no such correction exists for ID mismatch.
        flags.append(PEOPLE_UNLIKE)
    rows = _rows_of(card)
    if rows is not None and any(not 0.5 <= g.median_rows_per_identity / rows <= 2 for g in pair):
        flags.append(ROWS_UNLIKE)
    reason = prediction.reason or "; ".join(prediction.outside) or None
    return CardPrediction(prediction.eer, None if prediction.outside else prediction.interval, tuple(flags), reason)


def _pair(
    face: EncoderGeometry,
    voice: EncoderGeometry,
    card: Card,
    predictions: Mapping[str, CardPrediction],
    form: Cka,
    null: Null,
    mismatch: float | None,
    n: int,
) -> PairResult:
    said = predictions[card.name]
    reason = said.reason
    flags = [flag for flag in said.flags if flag != EXTRAPOLATES]
    if n < MIN_IDENTITIES:
        flags.insert(0, FEW_PEOPLE)
        reason = f"{n} people; a predicted EER needs at least {MIN_IDENTITIES}"
    if null.p > ALPHA:
        flags.append(AT_CHANCE)
    usable = reason is None
    return PairResult(
        rank=0,
        face=face.embeddings.name,
        voice=voice.embeddings.name,
        predicted_eer=said.eer if usable else None,
        interval=said.interval if usable else None,
        reason=reason,
        predictions=predictions,
        cka=form,
        null=null,
        id_mismatch=mismatch,
        flags=tuple(flags),
    )


def _ordered(pairs: Sequence[PairResult], card: str) -> tuple[tuple[PairResult, ...], str, tuple[str, ...]]:
    """The pairs with ranks, what ordered them, and why when it was not the card."""
    n_without = sum(p.predicted_eer is None for p in pairs)
    if n_without:
        ordered_by = BY_CKA
        notes = [
            f"{n_without} of {len(pairs)} pairs have no predicted EER (see the reason of each), so all are ordered by "
            "matched CKA, highest first."
        ]
        ordered = sorted(pairs, key=lambda p: (-p.cka.matched, p.face, p.voice))
    else:
        ordered_by, notes = card, []
        ordered = sorted(pairs, key=lambda p: (p.predicted_eer, -p.cka.matched, p.face, p.voice))
    ranked = (PairResult(**{**vars(p), "rank": i}) for i, p in enumerate(ordered, start=1))
    return tuple(ranked), ordered_by, tuple(notes)


def _encoder(g: EncoderGeometry) -> EncoderResult:
    values = g.intrinsic_dimension.values
    return EncoderResult(
        name=g.embeddings.name,
        modality=g.embeddings.modality,
        dim=g.embeddings.dim,
        n_samples=len(g.embeddings.vectors),
        samples_per_identity=g.median_rows_per_identity,
        intrinsic_dimension=None if values is None else values["mle_median"],
        intrinsic_dimensions=values,
        reason=g.intrinsic_dimension.reason,
    )
