"""All face-voice pairs of a calibration set, ordered by predicted cross-modal EER."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from encsel.cache import default_root
from encsel.calibration import MAX_SKIPPED, Calibration, check_skipped, open_calibration
from encsel.card import Card, check_metric_versions, load_card, shipped_cards
from encsel.core import MODALITIES, Embeddings, Encoder, Modality, Runtime, Skipped, Spec
from encsel.eer import eer
from encsel.embed import Embedded, Failure, embed
from encsel.errors import BadCalibration, EncoderFailed, UsageError, nearest
from encsel.geometry import EncoderGeometry, Null, centroids, intrinsic_dimension, measure_encoder, permutation_null
from encsel.health import Health, examine
from encsel.metrics.cka import REFERENCE_SIZE, Cka, cka
from encsel.pretrained import torch_device
from encsel.progress import Progress, Silent
from encsel.registry import checked_spec, encoder_families, metrics, open_encoders
from encsel.sampling import limit_rows
from encsel.signature import digest, sign, signature_text
from encsel.vectors import SUFFIXES, read_embeddings

SCHEMA = "encsel.rank/1"
DEFAULT_REGRESSION = "upadhyay2026-ln"
STUDY_REGRESSION = "upadhyay2026"
MIN_IDENTITIES = 30
COVERAGE = 0.9
ALPHA = 0.05
"""A pair whose family-wise permutation p is above this is flagged as not distinguishable from shuffled people."""
BY_CKA = "cka_matched"
RANK_FEATURES = ("cka", "id_mismatch")

FEW_PEOPLE = "few people"
AT_CHANCE = "CKA not above chance"
EXTRAPOLATES = "extrapolates"
PEOPLE_UNLIKE = "people unlike the card's"
ROWS_UNLIKE = "samples per person unlike the card's"
ROWS_UNKNOWN = "the card does not state its samples per person"
UNSOUND = "unsound encoder"
TRAINED_ON_THESE = "trained on VoxCeleb, where these people are from"
_VOXCELEB_IDS = range(10_001, 11_252)


@dataclass(frozen=True)
class CardPrediction:
    """What one card says of one pair. `eer` outside the card's range is an extrapolation and is flagged so."""

    eer: float | None
    interval: tuple[float, float] | None
    flags: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class JointSpace:
    """Two encoders of one joint space compared by plain cosine of centroids, no projection fitted: EER in [0, 1]."""

    space: str
    cosine_eer: float


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
    joint_space: JointSpace | None
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
    health: Health
    flags: tuple[str, ...]


@dataclass(frozen=True)
class RankReport:
    """Everything `encsel rank` found out. `encsel.report` turns it into a table, JSON, CSV or Markdown."""

    signature: Mapping[str, Any]
    ordered_by: str
    coverage: float
    matched_to: int
    n_train_identities: int | None
    """People behind the EER that is predicted; None when the card does not say."""
    layout: str
    n_identities: int
    n_face_samples: int
    n_voice_samples: int
    regressions: Mapping[str, str]
    """SHA-256 of each card used."""
    encoders: tuple[EncoderResult, ...]
    pairs: tuple[PairResult, ...]
    skipped: tuple[Skipped, ...]
    failures: tuple[Failure, ...]
    """Encoders that could not be loaded or run; the pairs are those of the others."""
    notes: tuple[str, ...]
    strict_health: bool = False

    @property
    def exit_code(self) -> int:
        """What the command line ends with: 4 when an encoder failed, or is unsound and health is strict."""
        unsound = self.strict_health and any(e.health.findings for e in self.encoders)
        return EncoderFailed.exit_code if self.failures or unsound else 0

    @property
    def signature_text(self) -> str:
        return signature_text(self.signature)


def rank(
    data: str | Path,
    *,
    faces: str | Sequence[str] = (),
    voices: str | Sequence[str] = (),
    regression: str = DEFAULT_REGRESSION,
    seed: int = 0,
    min_identities: int = MIN_IDENTITIES,
    identities: int | None = None,
    samples_per_identity: int | None = None,
    max_skipped: float = MAX_SKIPPED,
    cache: str | Path | None = "default",
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    strict_health: bool = False,
    progress: Progress | None = None,
) -> RankReport:
    """Rank every face-voice pair of encoders by predicted cross-modal EER.

    Args:
        data: folder of a calibration set, or its manifest CSV.
        faces, voices: encoders (FAMILY[:CHECKPOINT_OR_DIR][@key=value,...]), or files of embeddings; empty: all that
            can run on these data with what is on this machine.
        regression: name of a shipped card, or path of a card file.
        seed: of every random choice: subsamples, draws of rows, shuffles.
        min_identities: fewest people in both modalities for the set to be used at all.
        identities, samples_per_identity: use only this many people, or samples of each person and modality.
        max_skipped: largest share of samples that may be unusable.
        cache: folder of the embedding cache; "default": the user's; None: keep nothing on disk.
        runtime: device, number type, offline, pickled weights; the default is CUDA where there is one, float32.
        batch_size: samples a batch; None: chosen by device.
        strict_health: an unsound encoder makes `exit_code` 4.
    Raises:
        UsageError: unknown encoder or card, or a card that does not fit this encsel.
        BadCalibration: the data are insufficient or unreadable.
        EncoderFailed: no encoder of a modality could be loaded and run; where others could, the report has `failures`.
    """
    progress = progress or Silent()
    cards = _cards(regression)
    if min_identities < 1 or seed < 0:
        raise UsageError(f"min_identities is {min_identities} and seed {seed}; at least 1 and 0 are needed.")
    calibration = open_calibration(
        Path(data), identities=identities, samples_per_identity=samples_per_identity, seed=seed, max_skipped=max_skipped
    )
    progress.note(f"Layout: {calibration.layout}; {len(calibration.identities)} identities in both modalities.")
    if len(calibration.identities) < min_identities:
        raise BadCalibration(
            f"{len(calibration.identities)} identities of {data} have both faces and voices; at least "
            f"{min_identities} are needed. Add people, or lower --min-identities for a coarse order."
        )
    for note in (*calibration.notes, *calibration.details):
        progress.note(note)
    embedded = embeddings_of(
        calibration, faces, voices, samples_per_identity=samples_per_identity, seed=seed, cache=cache,
        max_skipped=max_skipped, runtime=runtime, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    for one in embedded.skipped:
        by = f" [{one.encoder}]" if one.encoder else ""
        progress.note(f"skipped {one.modality} {one.sample}{by}: {one.reason}")
    people = _common_people(embedded.embeddings, min_identities, progress)
    options = {
        "seed": seed, "identities": identities, "samples_per_identity": samples_per_identity,
        "regression": regression if regression in {c.name for c in cards} else cards[0].name,
        "n_permutations": _n_permutations(len(people)), "coverage": COVERAGE,
    }  # fmt: skip
    signature = sign(
        data={"layout": calibration.layout, "sha256": embedded.data_sha256},
        encoders={f"{e.modality}:{e.name}": _without_file(e.provenance) for e in embedded.embeddings},
        regressions={card.name: card.sha256 for card in cards},
        metrics={name: metric.version for name, metric in metrics().items()},
        options=options,
    )
    report = _measure(
        calibration, embedded, people, cards, signature, seed, _geometry_device(runtime or Runtime()), progress
    )
    return replace(report, strict_health=strict_health)


def _cards(regression: str) -> tuple[Card, ...]:
    """The card that orders, then the study's own for its column."""
    chosen = load_card(regression)
    if chosen.name in shipped_cards() and chosen.sha256 != load_card(chosen.name).sha256:
        raise UsageError(
            f"The card {regression} is named {chosen.name!r}, as one that encsel ships. "
            "Fit it again with another --name."
        )
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


def embeddings_of(
    calibration: Calibration,
    faces: str | Sequence[str] = (),
    voices: str | Sequence[str] = (),
    *,
    samples_per_identity: int | None = None,
    seed: int = 0,
    cache: str | Path | None = "default",
    max_skipped: float = MAX_SKIPPED,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """The embeddings that `rank` uses: taken from files, or made from media.

    Raises:
        UsageError: unknown encoder, or two of one name.
        EncoderFailed: no encoder of a modality could be opened, loaded and run.
    """
    runtime, progress = runtime or Runtime(), progress or Silent()
    ready = {(e.modality, e.name): e for e in calibration.embeddings}
    made: list[Embeddings] = []
    skipped: list[Skipped] = []
    specs: list[tuple[Modality, Spec]] = []
    failures: list[Failure] = []
    encoders: list[Encoder] = []
    for modality, asked in zip(MODALITIES, (faces, voices), strict=True):
        wanted = [asked] if isinstance(asked, str) else asked
        here = [name for m, name in ready if m == modality]
        for name in dict.fromkeys(wanted) or here:
            if Path(name).suffix.lower() in SUFFIXES:
                embeddings, unusable = read_embeddings(Path(name), modality)
                check_skipped(unusable, dict.fromkeys(MODALITIES, len(embeddings.labels) + len(unusable)), max_skipped)
                if samples_per_identity is not None:
                    embeddings = limit_rows(embeddings, samples_per_identity, seed=seed)
                made.append(embeddings)
                skipped.extend(unusable)
            elif (modality, name) in ready:
                made.append(ready[modality, name])
            elif calibration.samples:
                specs.append((modality, checked_spec(name, modality)))
            else:
                raise UsageError(
                    f"{calibration.root} holds embeddings, and none in {modality}s/ is named {name!r}. "
                    f"{nearest(name, here)}"
                )
        if not wanted and not here:
            encoders.extend(_at_hand(modality, runtime, progress))
    for modality, spec in specs:
        try:
            encoders.extend(open_encoders(spec, runtime))
        except EncoderFailed as error:
            failures.append(Failure(modality, spec.name, str(error)))
            progress.note(f"{spec.name} failed: {error}")
    names = Counter([(e.modality, e.name) for e in made] + [(e.modality, e.name) for e in encoders])
    clash = [key for key, count in names.items() if count > 1]
    if clash:
        raise UsageError(
            f"Two {clash[0][0]} encoders are named {clash[0][1]!r}. Give one a name: ...@name=NAME, or rename its file."
        )
    sources = [[e.modality, e.name, e.provenance["sha256"]] for e in made]
    data = digest(sorted(sources))
    unused = [s for s in calibration.skipped if (s.modality, s.encoder) in {(e.modality, e.name) for e in made}]
    if encoders:
        where = default_root() if cache == "default" else None if cache is None else Path(cache)
        embedded = embed(
            calibration, encoders, cache=where, max_skipped=max_skipped, batch_size=batch_size, progress=progress
        )
        made.extend(embedded.embeddings)
        failures.extend(embedded.failures)
        skipped.extend(embedded.skipped)
        data = digest([embedded.data_sha256, *sorted(sources)]) if sources else embedded.data_sha256
    for modality in MODALITIES:
        if not any(e.modality == modality for e in made):
            reasons = " ".join(f"{f.encoder}: {f.reason}" for f in failures if f.modality == modality)
            raise EncoderFailed(f"No {modality} encoder could be run. {reasons}")
    return Embedded(tuple(made), (*skipped, *unused), data, tuple(failures))


def _at_hand(modality: Modality, runtime: Runtime, progress: Progress) -> list[Encoder]:
    """Every encoder of a modality that needs no download: the default when none is named."""
    found: list[Encoder] = []
    absent = []
    for family in encoder_families().values():
        if family.modality == modality:
            try:
                found.extend(open_encoders(Spec(family.name), replace(runtime, offline=True)))
            except EncoderFailed:
                absent.append(family.name)
    if absent:
        progress.note(
            f"Not on this machine and left out: {', '.join(absent)}. Name one with --{modality} to download and use it."
        )
    return found


def _without_file(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The file's hash says what it held; its name is nobody's business."""
    return {key: value for key, value in provenance.items() if key != "file"}


def _common_people(embeddings: Sequence[Embeddings], min_identities: int, progress: Progress) -> tuple[str, ...]:
    """People whom every encoder has, so that all pairs are compared on the same ones."""
    sets = {f"{e.modality} {e.name}": set(e.identities) for e in embeddings}
    common = set.intersection(*sets.values())
    if not common:
        sides = "; ".join(f"{name} has {', '.join(sorted(people)[:3])}, ..." for name, people in sets.items())
        raise BadCalibration(f"No identity has usable samples for every encoder: {sides}. Name people alike.")
    sizes = ", ".join(f"{name} {len(people)}" for name, people in sets.items())
    if len(common) < min_identities:
        raise BadCalibration(
            f"{len(common)} identities have usable samples for every encoder ({sizes}); at least {min_identities} are "
            "needed. Add people, leave out an encoder that lacks them, or lower --min-identities for a coarse order."
        )
    n_any = len(set.union(*sets.values()))
    if n_any > len(common):
        progress.note(
            f"{n_any - len(common)} of {n_any} identities are left out: not every encoder has them ({sizes})."
        )
    return tuple(sorted(common))


def _geometry_device(runtime: Runtime) -> str:
    """Where the encoders ran; torch is not imported only to look for a GPU."""
    if runtime.device == "auto":
        torch = sys.modules.get("torch")
        return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
    return str(torch_device(runtime.device)) if runtime.device != "cpu" else "cpu"


def _n_permutations(n_identities: int) -> int:
    return 999 if n_identities <= 400 else 199


def _measure(
    calibration: Calibration,
    embedded: Embedded,
    people: tuple[str, ...],
    cards: tuple[Card, ...],
    signature: Mapping[str, Any],
    seed: int,
    device: str,
    progress: Progress,
) -> RankReport:
    n = len(people)
    rows_wanted = {card.name: _rows_of(card) for card in cards}
    # What is shown is what enters the ordering card; where that has no ID mismatch, the study's.
    shown_rows = rows_wanted[cards[0].name if _needs_mismatch(cards[0]) else cards[-1].name]
    with progress.task("geometry", len(embedded.embeddings) + 1) as task:
        measured: dict[tuple[str, str], EncoderGeometry] = {}
        for e in embedded.embeddings:
            measured[e.modality, e.name] = measure_encoder(
                e, people, rows_per_identity=shown_rows, seed=seed, device=device
            )
            task.advance()
        faces, voices = ([g for (m, _), g in measured.items() if m == modality] for modality in MODALITIES)
        matched_to = _people_of(cards[0])
        forms = [[cka(f.gram, v.gram, matched_to=matched_to) for v in voices] for f in faces]
        observed = np.array([[form.matched for form in row] for row in forms])
        nulls = permutation_null(
            faces, voices, observed, matched_to=matched_to, n_permutations=_n_permutations(n), seed=seed, device=device
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
    encoders = [_encoder(g, embedded.skipped, seed, calibration.layout) for g in (*faces, *voices)]
    of_encoder = {(e.modality, e.name): e for e in encoders}
    unranked = [_with_encoder_flags(p, of_encoder["face", p.face], of_encoder["voice", p.voice]) for p in unranked]
    pairs, ordered_by, notes = _ordered(unranked, cards[0].name)
    notes = (*calibration.notes, *notes, *(f"{e.name}: {e.reason}" for e in encoders if e.reason))
    return RankReport(
        signature=signature,
        ordered_by=ordered_by,
        coverage=COVERAGE,
        matched_to=matched_to,
        n_train_identities=n_train if isinstance(n_train := cards[0].target["n_train_identities"], int) else None,
        layout=calibration.layout,
        n_identities=n,
        n_face_samples=max(e.n_samples for e in encoders if e.modality == "face"),
        n_voice_samples=max(e.n_samples for e in encoders if e.modality == "voice"),
        regressions={card.name: card.sha256 for card in cards},
        encoders=tuple(encoders),
        pairs=pairs,
        skipped=embedded.skipped,
        failures=embedded.failures,
        notes=notes,
    )


def _people_of(card: Card) -> int:
    return next((f.n_identities for f in card.features if f.n_identities is not None), REFERENCE_SIZE)


def _needs_mismatch(card: Card) -> bool:
    return any(f.name == "id_mismatch" for f in card.features)


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
    needs_mismatch = _needs_mismatch(card)
    if needs_mismatch and mismatch is None:
        return CardPrediction(None, None, (), "intrinsic dimension could not be measured")
    prediction = card.apply(values if mismatch is None else {**values, "id_mismatch": mismatch}, COVERAGE)
    flags = [EXTRAPOLATES] if prediction.outside else []
    if needs_mismatch and n != _people_of(card):
        # CKA is carried over to the card's number of people; no such correction exists for ID mismatch.
        flags.append(PEOPLE_UNLIKE)
    rows = _rows_of(card)
    if rows is None and needs_mismatch:
        flags.append(ROWS_UNKNOWN)
    elif rows is not None and any(not 0.5 <= g.median_rows_per_identity / rows <= 2 for g in pair):
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
    if null.p_familywise > ALPHA:
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
        joint_space=_joint_space(face, voice),
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
    ranked = (replace(p, rank=i) for i, p in enumerate(ordered, start=1))
    return tuple(ranked), ordered_by, tuple(notes)


def _joint_space(face: EncoderGeometry, voice: EncoderGeometry) -> JointSpace | None:
    space = face.embeddings.traits.space
    if space is None or space != voice.embeddings.traits.space or face.embeddings.dim != voice.embeddings.dim:
        return None
    scores = centroids(face.embeddings) @ centroids(voice.embeddings).T
    return JointSpace(space, eer(np.diag(scores), scores[~np.eye(len(scores), dtype=bool)]))


def _with_encoder_flags(pair: PairResult, face: EncoderResult, voice: EncoderResult) -> PairResult:
    flags = [UNSOUND] if face.health.findings or voice.health.findings else []
    if TRAINED_ON_THESE in (*face.flags, *voice.flags):
        flags.append(TRAINED_ON_THESE)
    return replace(pair, flags=(*pair.flags, *flags))


def _are_voxceleb(people: Iterable[str], layout: str) -> bool:
    ids = [name[2:] for name in people if name.startswith("id")]
    return layout.startswith("VoxCeleb") or any(i.isdigit() and int(i) in _VOXCELEB_IDS for i in ids)


def _encoder(g: EncoderGeometry, skipped: Sequence[Skipped], seed: int, layout: str) -> EncoderResult:
    values = g.intrinsic_dimension.values
    name, modality = g.embeddings.name, g.embeddings.modality
    flags = g.embeddings.traits.flags
    if "VoxCeleb" in g.embeddings.traits.trained_on and _are_voxceleb(g.embeddings.identities, layout):
        flags = (*flags, TRAINED_ON_THESE)
    n_skipped = sum((s.modality, s.encoder) == (modality, name) for s in skipped)
    return EncoderResult(
        name=g.embeddings.name,
        modality=g.embeddings.modality,
        dim=g.embeddings.dim,
        n_samples=len(g.embeddings.vectors),
        samples_per_identity=g.median_rows_per_identity,
        intrinsic_dimension=None if values is None else values["mle_median"],
        intrinsic_dimensions=values,
        reason=g.intrinsic_dimension.reason,
        health=examine(
            g.embeddings, seed=seed, n_skipped=n_skipped,
            identity_trained=g.embeddings.traits.identity_trained,
        ),
        flags=flags,
    )  # fmt: skip
