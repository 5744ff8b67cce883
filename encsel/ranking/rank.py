"""The workflow `rank`: all face-voice pairs of a calibration set, ordered by predicted cross-modal EER."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from encsel.core import MODALITIES, Modality, Part, Runtime, SetOptions
from encsel.data.calibration_set import CalibrationSet
from encsel.embedding.candidates import Names
from encsel.embedding.health import DOUBTS
from encsel.embedding.prepare import Prepared, prepare
from encsel.gates.compare import PairValue, ResultToCompare, value_of
from encsel.gates.judge import Gates, Verdict, check_baseline, checked_gates, field_of, judge
from encsel.matching.folds import MIN_FOR_FOLDS, people_sampled
from encsel.matching.scorers import DEFAULT_SCORER
from encsel.matching.sensitivity import distance_of_eer, eer_of_distance
from encsel.metrics.centroids import median_samples
from encsel.metrics.linear_cka import REFERENCE_SIZE, ckas_of_grams, gram
from encsel.metrics.neighbours import Neighbours
from encsel.parallel.tasks import running_on
from encsel.prediction.card import PROBE_SAMPLES, TRAIN_PEOPLE, CalibratedCard
from encsel.prediction.decision import Decision, decide, rate, standings, undecided
from encsel.prediction.order import chance_of_order, covariance, drawn_distances
from encsel.prediction.plan import people_to_tell
from encsel.prediction.predict import MIN_TO_PREDICT, PairPrediction, predict_pairs
from encsel.prediction.shipped import DEFAULT_REGRESSION, AnyCard, scorer_of
from encsel.progress import Progress, Silent
from encsel.ranking.flags import CONTRADICTED
from encsel.ranking.geometry import EncoderGeometry, measure_encoder, permutation_null
from encsel.ranking.pairs import (
    MeasuredPair,
    encoder_ranking,
    mismatches_at,
    needs_mismatch,
    pair_ranking,
    people_of,
    rows_of,
)
from encsel.ranking.result import BY_CKA, RANK_SCHEMA, CardUsed, PairRanking, Ranking, summary_of
from encsel.ranking.settings import RankSettings
from encsel.regression.card import GeometricCard
from encsel.rows import return_memory, taken
from encsel.runtime import Backend
from encsel.storage.signature import signature_text


def rank(
    data: str | Path | CalibrationSet,
    *,
    faces: Names = (),
    voices: Names = (),
    regression: str = DEFAULT_REGRESSION,
    coverage: float = 0.9,
    train_people: int = TRAIN_PEOPLE,
    probe_samples: int = PROBE_SAMPLES,
    within: str | None = None,
    seed: int = 0,
    identities: int | None = None,
    samples_per_identity: int | None = None,
    min_identities: int = MIN_TO_PREDICT,
    max_skipped: float = 0.05,
    allow_outside: bool = False,
    clip: Part = "first",
    ffmpeg: bool = False,
    device: str = "auto",
    dtype: str = "float32",
    batch_size: int | None = None,
    offline: bool = False,
    allow_pickle: bool = False,
    timeout: float | None = None,
    cache: str | Path | None = "default",
    backend: Backend = "local",
    scheduler: str | None = None,
    max_eer: float | None = None,
    expect_best: str | None = None,
    min_margin: float | None = None,
    baseline: str | Path | None = None,
    max_regression: float | None = None,
    gate_on: Literal["interval", "point"] = "interval",
    above_chance: bool = False,
    strict_health: bool = False,
    show_names: bool = False,
    explain: str | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Rank every face-voice pair of encoders by predicted cross-modal EER.

    Args:
        data: folder of a calibration set, its manifest CSV, or a CalibrationSet.
        faces, voices: encoders by name ([FAMILY:]CHECKPOINT_OR_PATH[@key=value,...] or a family), files of embeddings,
            Python functions, or FunctionEncoders; empty: all that can run on these data without a download.
        regression: name of a shipped card, or path of a card file.
        coverage: coverage of the intervals, in [0.5, 0.99].
        train_people: number of people, 100 to 3000, that the matcher of the predicted EER is trained on.
        probe_samples: samples per person, 20 or 1, that the matcher of the predicted EER compares.
        within: column of the set within whose groups people are shuffled for the null; None: sex or gender if every
            person has one.
        identities, samples_per_identity: use only this many people, or samples per person and modality.
        min_identities: fewest people with both modalities.
        max_skipped: largest fraction of samples that may be unusable.
        allow_outside: read files that a manifest names outside its own folder.
        clip: which 5 seconds of a longer clip are used: "first" (after leading digital silence), "middle" or "loudest".
        ffmpeg: decode clips that libsndfile cannot read, such as m4a and video, with the ffmpeg on this machine.
        device, dtype, batch_size: where and how models run; "auto" is CUDA, else MPS, else the CPU; on "cuda:0,cuda:1"
            encoders run side by side.
        offline: do not use the network.
        allow_pickle: read pickled weights of checkpoints other than the defaults.
        timeout: seconds for an encoder to open, and again to load and embed.
        cache: folder of the embedding cache; "default": the user's cache folder; None: keep nothing on disk.
        backend, scheduler: where encoders run and pairs are evaluated: "local", or the workers of a "dask" or "ray"
            cluster, and its address (see `encsel help scale`).
        max_eer, expect_best, min_margin, baseline, max_regression, above_chance, gate_on: gates, as the options of
            `encsel rank`; their verdict is in the result and its `exit_code`.
        strict_health: make `exit_code` 4 for an unsound encoder.
        show_names: name skipped samples in the result instead of hashing their names.
        explain: FACE/VOICE that must be among the pairs, for `Ranking.explain`; checked before anything is embedded.
        progress: receives notes and progress; None: discard them.
    Raises:
        UsageError: unknown encoder, pair or card, a card that does not fit this encsel, or a gate that makes no sense.
        BadCalibration: the data are insufficient or unreadable.
        EncoderFailed: no encoder of a modality could be loaded and run; if only some failed, the result has `failures`.

    >>> import numpy as np
    >>> from encsel import CalibrationSet, rank
    >>> rng = np.random.default_rng(0)
    >>> people = [f"person {i}" for i in range(40)] * 4
    >>> traits = np.tile(rng.normal(size=(40, 5)), (4, 1))
    >>> def encoder(dim):
    ...     return traits @ rng.normal(size=(5, dim)) + rng.normal(size=(160, dim))
    >>> data = CalibrationSet.from_arrays(
    ...     faces={"a": (encoder(32), people)}, voices={"b": (encoder(24), people)}
    ... )
    >>> ranking = rank(data, cache=None)
    >>> ranking.best.face, ranking.best.voice, 0 < ranking.best.predicted_eer < 0.5
    ('a', 'b', True)
    """
    gates = checked_gates(
        max_eer=max_eer, expect_best=expect_best, min_margin=min_margin, baseline=baseline,
        max_regression=max_regression, gate_on=gate_on, above_chance=above_chance,
    )  # fmt: skip
    settings = RankSettings.checked(regression, coverage, level=(train_people, probe_samples))
    check_baseline(gates, RANK_SCHEMA, f"predicted EER, scorer {scorer_of(settings.cards[0])}")
    progress = progress or Silent()
    options = SetOptions(
        identities, samples_per_identity, seed, min_identities, max_skipped, allow_outside, within, show_names, clip,
        ffmpeg,
    )  # fmt: skip
    runtime = Runtime(
        device=device, dtype=dtype, offline=offline, allow_pickle=allow_pickle, timeout=timeout, batch_size=batch_size,
        cache=cache, backend=backend, scheduler=scheduler,
    )  # fmt: skip
    with running_on(runtime):
        prepared = prepare(
            data, faces, voices, options=options, runtime=runtime, expect_best=expect_best, explain=explain,
            progress=progress,
        )  # fmt: skip
        ranking = replace(measure(prepared, settings, progress=progress), strict_health=strict_health)
    return replace(ranking, verdict=verdict_on(ranking, gates))


def verdict_on(ranking: Ranking, gates: Gates) -> Verdict:
    """Judge the gates on a ranking."""
    card = ranking.card if ranking.card is not None and ranking.ordered_by == ranking.card.name else None
    stated = {(p.face, p.voice): value_of(p.predicted_eer, p.interval, ranking.coverage) for p in ranking.pairs}
    values, joint = list(stated.values()), None
    if card is not None:
        for i, (pair, value) in enumerate(stated.items()):
            if value.eer is not None and pair in ranking.details:
                estimate = ranking.details[pair].estimates[card.name]
                values[i] = PairValue(value.eer, estimate.distance, estimate.sd)
        if values and all(v.sd is not None for v in values):
            faces, voices = zip(*stated, strict=True)
            joint = covariance(card, np.array([v.sd for v in values]), faces, voices)
    field = field_of(
        [f"{face}/{voice}" for face, voice in stated], values, [p.interval for p in ranking.pairs], joint,
        seed=int(ranking.signature["options"]["seed"]), p=[p.p_familywise for p in ranking.pairs],
        within=ranking.signature["options"]["within"],
    )  # fmt: skip
    what = f"predicted EER, scorer {ranking.scorer}"
    new = ResultToCompare(RANK_SCHEMA, what, ranking.signature, stated)
    unexamined = ranking.unexamined if ranking.strict_health else ()
    doubts = doubts_in(ranking.pairs)
    if any(CONTRADICTED in p.flags for p in ranking.pairs):
        doubts.append(CONTRADICTED)
    return judge(gates, field, new, card, unexamined=unexamined, doubts=doubts)


def doubts_in(pairs: Sequence[Any]) -> list[str]:
    """Flags of DOUBTS that some pair has."""
    return list(dict.fromkeys(flag for p in pairs for flag in p.flags if flag in DOUBTS))


def measure(
    prepared: Prepared,
    settings: RankSettings,
    *,
    searched: Mapping[tuple[Modality, str], Neighbours] | None = None,
    progress: Progress,
) -> Ranking:
    """The ranking of a prepared set, without gates.

    Args:
        searched: neighbours of the distinct rows of each encoder, 20 or more, by (modality, name), if known already.
    """
    n, seed, layout = len(prepared.people), prepared.seed, prepared.calibration.layout
    cards, first = settings.cards, settings.cards[0]
    geometric = [card for card in cards if isinstance(card, GeometricCard)]
    calibrated = [card for card in cards if isinstance(card, CalibratedCard)]
    if isinstance(first, GeometricCard):
        # Shuffles are judged by the default card, which does not order here.
        calibrated = sorted(calibrated, key=lambda card: card.name != DEFAULT_REGRESSION)
    # The ID mismatch shown is that of the ordering card, else that of the study.
    with_mismatch = [card for card in geometric if needs_mismatch(card)]
    shown_rows = rows_of(first if first in with_mismatch else with_mismatch[-1])
    with progress.task("geometry", len(prepared.embeddings) + 1) as task:
        geometry: dict[tuple[Modality, str], EncoderGeometry] = {}
        for e in prepared.embeddings:
            geometry[e.modality, e.name] = measure_encoder(
                e, rows_per_identity=shown_rows, seed=seed, device=prepared.device,
                searched=(searched or {}).get((e.modality, e.name)),
            )  # fmt: skip
            return_memory()
            task.advance()
        sides = [[g for (m, _), g in geometry.items() if m == modality] for modality in MODALITIES]
        faces, voices = sides
        matched_to = people_of(first) if isinstance(first, GeometricCard) else REFERENCE_SIZE
        some = people_sampled(n, seed=seed)
        people = [[taken(g.embeddings.centroids, some) for g in side] for side in sides]
        grams = [[g.gram for g in side] for side in sides] if len(some) == n else [[*map(gram, x)] for x in people]
        shuffling = prepared.shuffling.of(some)
        nulls = permutation_null(
            *grams, matched_to=matched_to, n_permutations=settings.n_permutations(n), seed=seed,
            groups=shuffling.groups, device=prepared.device,
        )  # fmt: skip
        task.advance()
    predictions = None
    if n >= MIN_FOR_FOLDS:
        samples = [[median_samples(g.embeddings) for g in side] for side in sides]
        predictions = predict_pairs(
            people[0], people[1], (samples[0], samples[1]), calibrated, seed=seed, coverage=settings.coverage,
            n_shuffles=settings.n_shuffles(n), shuffling=shuffling, progress=progress,
        )  # fmt: skip
    sizes = {shown_rows, *(rows_of(card) for card in geometric)}
    mismatches = {rows: mismatches_at(faces, voices, rows, shown_rows, seed) for rows in sizes}
    encoders = {}
    for key, g in geometry.items():
        encoders[key] = encoder_ranking(g, prepared.healths[key], layout)
    unranked, details = [], {}
    for i, f in enumerate(faces):
        for j, v in enumerate(voices):
            prediction = None if predictions is None else predictions[i][j]
            measured = MeasuredPair(
                f, v, some, ckas_of_grams(f.gram, v.gram, {matched_to, REFERENCE_SIZE, *map(people_of, geometric)}),
                matched_to, nulls[i][j], {rows: m[i][j] for rows, m in mismatches.items()}, shown_rows, prediction,
                prepared.doubts(f.embeddings.name, v.embeddings.name),
            )  # fmt: skip
            of_pair = encoders["face", f.embeddings.name], encoders["voice", v.embeddings.name]
            unranked.append(pair_ranking(measured, cards, of_pair, settings.coverage))
            if prediction is not None:
                details[f.embeddings.name, v.embeddings.name] = prediction
    pairs, ordered_by, notes = _ordered(unranked, details, first.name)
    if isinstance(first, CalibratedCard):
        for p in pairs if details else ():
            if outside := details[p.face, p.voice].estimates[first.name].outside:
                notes.append(f"{p.face} x {p.voice}: {'; '.join(outside)}.")
        if ordered_by == first.name:
            pairs = _with_order(pairs, details, first, seed)
    decision = _decision(pairs, details, first, ordered_by, prepared)
    sampled = [g.intrinsic_dimension.note for g in (*faces, *voices) if g.intrinsic_dimension.note]
    if len(some) < n:
        sampled.append(_note_on_sample(len(some), n, details))
    reasons = [f"{g.embeddings.name}: {g.intrinsic_dimension.reason}" for g in (*faces, *voices)
               if g.intrinsic_dimension.reason]  # fmt: skip
    signature, n_train = settings.signature(prepared), first.target["n_train_identities"]
    return Ranking(
        schema=RANK_SCHEMA,
        signature=signature,
        signature_text=signature_text(signature),
        ordered_by=ordered_by,
        scorer=scorer_of(first),
        coverage=settings.coverage,
        n_train_identities=n_train if isinstance(n_train, int) else None,
        n_train_samples=first.target["samples_per_identity"] if isinstance(first, CalibratedCard) else None,
        n_probe_samples=first.probe_samples if isinstance(first, CalibratedCard) else None,
        decision=decision,
        judged_by=calibrated[0].name,
        layout=layout,
        calibration=summary_of(n, encoders.values(), prepared.embedded.skipped),
        regressions={card.name: CardUsed(card.sha256) for card in cards},
        encoders=tuple(encoders.values()),
        pairs=tuple(pairs),
        failures=prepared.embedded.failures,
        notes=(*prepared.calibration.notes, *sampled, *notes, *reasons),
        card=calibrated[0],
        details=details,
    )


def _note_on_sample(n_sampled: int, n: int, details: Mapping[tuple[str, str], PairPrediction]) -> str:
    """State the sample of people, and its largest standard error of an EER."""
    errors = []
    for p in details.values():
        for scorer, measured in p.measured.items():
            distance, error = distance_of_eer(measured.eer), p.evidence.standard_error[scorer]
            errors.append(float(eer_of_distance(distance - error) - eer_of_distance(distance + error)) / 2)
    return (
        f"Cross-validation, predictions and p-values are those of a random {n_sampled} of the {n} people (a "
        f"cross-validated EER has a standard error of at most {max(errors):.2g}); CKA is that of all."
    )


def _ordered(
    pairs: Sequence[PairRanking], details: Mapping[tuple[str, str], PairPrediction], card: str
) -> tuple[list[PairRanking], str, list[str]]:
    """The pairs with ranks, what ordered them, and notes that say why if it was not the card."""
    ordered_by, notes = card, []
    if n_without := sum(p.predicted_eer is None for p in pairs):
        ordered_by = BY_CKA
        notes.append(
            f"{n_without} of {len(pairs)} pairs have no predicted EER (see their reasons), so all pairs are ordered by "
            "matched CKA, highest first."
        )
        if len(details) > 1:
            by_cka = max(pairs, key=lambda p: p.cka.matched)
            by_eer = min(details, key=lambda pair: details[pair].measured[DEFAULT_SCORER].eer)
            if by_eer != (by_cka.face, by_cka.voice):
                notes.append(
                    f"Matched CKA is highest for {by_cka.face} x {by_cka.voice}, cross-validated EER lowest for "
                    f"{' x '.join(by_eer)}: the two disagree."
                )
    # Predicted EERs are used only if every pair has one.
    ordered = sorted(pairs, key=lambda p: (not n_without and p.predicted_eer, -p.cka.matched, p.face, p.voice))
    return [replace(p, rank=i) for i, p in enumerate(ordered, start=1)], ordered_by, notes


def _with_order(
    pairs: Sequence[PairRanking],
    details: Mapping[tuple[str, str], PairPrediction],
    card: CalibratedCard,
    seed: int,
) -> list[PairRanking]:
    """The ordered pairs with the chance that each is the best, and the places it may have."""
    faces, voices = [p.face for p in pairs], [p.voice for p in pairs]
    estimates = [details[pair].estimates[card.name] for pair in zip(faces, voices, strict=True)]
    distance, sd = np.array([e.distance for e in estimates]), np.array([e.sd for e in estimates])
    drawn = drawn_distances(card, distance, sd, faces, voices, seed=seed)
    found = standings(drawn, chance_of_order(card, distance, sd, faces, voices))
    return [
        replace(p, places=s.places, p_best=s.p_best, expected_loss=s.expected_loss)
        for p, s in zip(pairs, found, strict=True)
    ]


def _decision(
    pairs: Sequence[PairRanking],
    details: Mapping[tuple[str, str], PairPrediction],
    card: AnyCard,
    ordered_by: str,
    prepared: Prepared,
) -> Decision:
    """The decision on the ordered pairs."""
    n, best = len(prepared.people), pairs[0]
    if ordered_by == BY_CKA:
        return undecided(
            f"No pair can be recommended: {best.reason or pairs[-1].reason}. Matched CKA is highest for {best.face} x "
            f"{best.voice}."
        )
    if not isinstance(card, CalibratedCard):
        return undecided(
            f"The card {card.name} predicts the lowest EER for {best.face} x {best.voice}, not how certain that is; "
            f"{DEFAULT_REGRESSION} does."
        )
    names = [(p.face, p.voice) for p in pairs]
    estimates = [details[name].estimates[card.name] for name in names]
    if beyond := sum(CONTRADICTED in p.flags for p in pairs):
        lowest, eer = min(
            ((p, p.cross_validated.eer) for p in pairs if p.cross_validated is not None), key=lambda found: found[1]
        )
        return undecided(
            f"No pair can be recommended: for {beyond} of {len(pairs)} pairs the EER measured on these people is far "
            "below the predicted one; no population that predictions were fitted on has such strong links. The "
            f"measured EER is lowest for {lowest.face} x {lowest.voice} ({rate(eer)}). Run `encsel validate`, and take "
            "what it measures."
        )

    def people(i: int, j: int) -> int | None:
        first, second = estimates[i].eer, estimates[j].eer
        sharing = names[i][0] == names[j][0] or names[i][1] == names[j][1]
        return people_to_tell(card, (first, second), details[names[i]].samples, sharing=sharing)

    return decide(
        names, [e.eer for e in estimates], [e.interval for e in estimates], [p.p_best or 0.0 for p in pairs],
        [p.p_familywise for p in pairs], what="predicted", n_people=n, shuffling=prepared.shuffling,
        people_to_tell=people,
    )  # fmt: skip
