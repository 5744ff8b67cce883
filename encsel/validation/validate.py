"""The workflow `validate`: run the stages and assemble their results."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from encsel.core import Embeddings, Part, Runtime, SetOptions
from encsel.data.calibration_set import CalibrationSet
from encsel.data.groups import recordings
from encsel.embedding.candidates import Names
from encsel.embedding.prepare import names_for, prepare
from encsel.errors import UsageError, nearest
from encsel.extras import missing
from encsel.gates.compare import PairValue, ResultToCompare, value_of
from encsel.gates.judge import Field, Gates, Verdict, check_baseline, checked_gates, field_of, judge
from encsel.matching.error_rates import COVERAGE
from encsel.matching.folds import MIN_FOR_FOLDS, PROTOCOLS, Protocol
from encsel.matching.scorers import DEFAULT_SCORER, REFERENCE_TRAIN, SCORERS
from encsel.metrics.centroids import harmonic_mean, median_samples
from encsel.parallel.tasks import running_on
from encsel.prediction.card import PROBE_SAMPLES, TRAIN_PEOPLE, CalibratedCard
from encsel.prediction.decision import Decision, decide, range_of, undecided
from encsel.prediction.order import N_DRAWS, chance_of_best
from encsel.prediction.predict import MIN_TO_PREDICT
from encsel.prediction.shipped import DEFAULT_REGRESSION
from encsel.progress import Progress, Silent
from encsel.ranking.flags import CONTRADICTED
from encsel.ranking.rank import doubts_in
from encsel.ranking.result import Ranking, summary_of
from encsel.ranking.settings import METRICS, RankSettings
from encsel.regression.analysis import PredictionErrors, analyse, prediction_errors
from encsel.runtime import Backend
from encsel.storage.cache import StageCache, cache_root
from encsel.storage.signature import LIBRARIES, signature_text
from encsel.validation.columns import metric_values, pair_columns, pair_table
from encsel.validation.matchers import side_of
from encsel.validation.result import (
    VALIDATE_SCHEMA,
    EncoderValidation,
    PairValidation,
    PredictionSummary,
    Validation,
)
from encsel.validation.score_files import write_scores
from encsel.validation.stage import Outcome, Pair, metrics_of_their_own, stage_names, stages
from encsel.validation.work import Work

MAX_SHUFFLES = 39
"""Shuffles behind a p-value with more than 400 people: few pairs are then near chance, and each shuffle is slow."""


def validate(
    data: str | Path | CalibrationSet,
    *,
    faces: Names = (),
    voices: Names = (),
    protocol: Protocol = "crossval",
    scorer: str = DEFAULT_SCORER,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
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
    jobs: int | None = None,
    scores: str | Path | None = None,
    max_eer: float | None = None,
    expect_best: str | None = None,
    min_margin: float | None = None,
    baseline: str | Path | None = None,
    max_regression: float | None = None,
    gate_on: Literal["interval", "point"] = "interval",
    above_chance: bool = False,
    strict_health: bool = False,
    show_names: bool = False,
    progress: Progress | None = None,
) -> Validation:
    """Measure everything about every face-voice pair of a calibration set.

    Args:
        protocol: "crossval", repeated 5 folds over people and the corrected metrics; or "reference", the study's single
            80/20 split and the numbers of its released code.
        scorer: scorer of the EERs in gates, analysis and tables; every scorer is measured.
        skip, only: stages to leave out, or the only ones to run; the stage `head` runs only if `only` names it.
        jobs: number of pairs or encoders processed in parallel; None: one per processor.
        scores: folder for score files, one per pair and scorer.
        show_names: name people in score files and skipped samples in the result instead of hashing their names.
        Other arguments are those of `encsel.rank`; gates judge the measured EERs.
    Raises:
        UsageError, BadCalibration, EncoderFailed: as `encsel.rank`.

    >>> import numpy as np
    >>> from encsel import CalibrationSet, validate
    >>> rng = np.random.default_rng(0)
    >>> people = [f"person {i}" for i in range(40)] * 4
    >>> traits = np.tile(rng.normal(size=(40, 5)), (4, 1))
    >>> def encoder(dim):
    ...     return traits @ rng.normal(size=(5, dim)) + rng.normal(size=(160, dim))
    >>> data = CalibrationSet.from_arrays(
    ...     faces={"a": (encoder(32), people)}, voices={"b": (encoder(24), people)}
    ... )
    >>> validation = validate(data, only=["matching"], cache=None)
    >>> 0 < validation.best.matching("likelihood").eer < 0.3
    True
    """
    wanted = wanted_stages(skip, only)
    for name, value, choices in (("protocol", protocol, PROTOCOLS), ("scorer", scorer, tuple(SCORERS))):
        if value not in choices:
            raise UsageError(f"No {name} is named {value!r}. {nearest(value, choices)}")
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs is {jobs}; it must be at least 1.")
    if min_identities < MIN_FOR_FOLDS:
        raise UsageError(
            f"min_identities is {min_identities}; a matcher cannot be measured with fewer than {MIN_FOR_FOLDS} people."
        )
    gates = checked_gates(
        max_eer=max_eer, expect_best=expect_best, min_margin=min_margin, baseline=baseline,
        max_regression=max_regression, gate_on=gate_on, above_chance=above_chance,
    )  # fmt: skip
    settings = RankSettings.checked(
        regression, coverage, level=(train_people, probe_samples), max_shuffles=MAX_SHUFFLES
    )  # fmt: skip
    check_baseline(gates, VALIDATE_SCHEMA, f"measured EER, scorer {scorer}")
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
            data, faces, voices, options=options, runtime=runtime, expect_best=expect_best, progress=progress,
            sample_people=True,
        )  # fmt: skip
        for name, reason in stages_lacking().items():
            if not stages()[name].on_request and name not in skip and not only:
                progress.note(f"The stage {name} is left out: {reason}")
        stage_cache = StageCache(cache_root(cache))
        signature = settings.signature(
            prepared,
            metrics_used=metrics_used(wanted),
            options={"protocol": protocol, "scorer": scorer, "stages": sorted(wanted & {*stage_names()})},
            libraries=(*LIBRARIES, "POT"),
        )
        work = Work(
            prepared, settings, protocol, wanted, signature, stage_cache, jobs=jobs or os.cpu_count() or 1,
            progress=progress,
        )  # fmt: skip
        work.run()
    validation = replace(assembled(work, scorer), strict_health=strict_health)
    if stage_cache.write_error:
        progress.note(f"Results cannot be cached for the next run: {stage_cache.write_error}.")
    if scores is not None:
        write_scores(work, Path(scores), names_for(runtime, options, progress))
    return replace(validation, verdict=verdict_on(validation, gates))


def wanted_stages(skip: Sequence[str], only: Sequence[str]) -> frozenset[str]:
    """The stages to run, including those that cannot be skipped; those on request only if `only` names them.

    Raises:
        UsageError: an unknown stage, one in `only` that cannot run on this machine, or both given.
    """
    if skip and only:
        raise UsageError("skip and only were both given; give one of them.")
    names = stage_names()
    for name in (*skip, *only):
        if name not in names:
            raise UsageError(f"No stage is named {name!r}. {nearest(name, names)}")
    lacking = stages_lacking()
    for name in only:
        if name in lacking:
            raise UsageError(f"The stage {name} cannot run: {lacking[name]}")
    always = frozenset(stages()) - frozenset(names)
    by_default = frozenset(name for name in names if not stages()[name].on_request) - lacking.keys()
    return always | (frozenset(only) if only else by_default - frozenset(skip))


def stages_lacking() -> dict[str, str]:
    """Stages that cannot run on this machine, with missing modules and how to install them."""
    return {name: reason for name, stage in stages().items() if (reason := missing(stage.needs)) is not None}


def metrics_used(wanted: frozenset[str]) -> tuple[str, ...]:
    """Registered metrics that these stages contain or compute, sorted."""
    used = {name for stage in wanted for name in stages()[stage].metrics}
    return tuple(sorted({*used, *metrics_of_their_own(), *(METRICS if "prediction" in wanted else ())}))


def verdict_on(validation: Validation, gates: Gates) -> Verdict:
    """Judge the gates on measured EERs of centroids, by the validation's scorer."""
    field, pairs = _field(validation.pairs, validation.scorer, validation.signature)
    what = f"measured EER, scorer {validation.scorer}"
    new = ResultToCompare(VALIDATE_SCHEMA, what, validation.signature, pairs)
    unexamined = validation.unexamined if validation.strict_health else ()
    return judge(gates, field, new, unexamined=unexamined, doubts=doubts_in(validation.pairs))


def _field(
    pairs: Sequence[PairValidation], scorer: str, signature: Mapping[str, Any]
) -> tuple[Field, dict[tuple[str, str], PairValue]]:
    """The measured EERs of centroids to judge, and by pair."""
    measured = [p.matching(scorer) for p in pairs]
    values = [value_of(m.eer, m.interval, COVERAGE) if m else value_of(None, None, COVERAGE) for m in measured]
    options = signature["options"]
    field = field_of(
        [f"{p.face}/{p.voice}" for p in pairs], values, [None if m is None else m.interval for m in measured], None,
        seed=int(options["seed"]), p=[p.ranked.p_familywise if p.ranked else None for p in pairs],
        within=options["within"],
    )  # fmt: skip
    return field, {(p.face, p.voice): value for p, value in zip(pairs, values, strict=True)}


def _decision(
    pairs: Sequence[PairValidation], scorer: str, signature: Mapping[str, Any], ranking: Ranking | None, n_people: int
) -> Decision:
    """The decision: that of the ranking of the same set, if any, with the measured EERs; else by those alone.

    They alone decide, too, where they are far below the predicted ones.
    """
    matchings = {(p.face, p.voice): p.matching(scorer) for p in pairs}
    if ranking is not None and not any(CONTRADICTED in p.flags for p in ranking.pairs):
        decision = ranking.decision
        eers = [m.eer for name in decision.shortlist if (m := matchings[name]) is not None]
        n_train = next((p["measured"].n_train for p in pairs if p["measured"]), 0)
        if not eers:
            return decision
        measured = f"Measured after training on {n_train} of these people: EER {range_of(eers)}."
        return replace(decision, text=f"{decision.text} {measured}")
    field, _ = _field(pairs, scorer, signature)
    if field.undecided or field.covariance is None:
        return undecided("No pair can be recommended: the error rates of some pair were not measured.")
    rng = np.random.default_rng([field.seed, 3])
    drawn = rng.multivariate_normal(field.distances, field.covariance, size=N_DRAWS, method="eigh")
    pair_of = {f"{p.face}/{p.voice}": (p.face, p.voice) for p in pairs}
    names, eers = [pair_of[name] for name in field.names], [float(value.eer or 0) for value in field.values]
    return decide(
        names, eers, field.intervals, chance_of_best(drawn).tolist(), field.p, what="measured", n_people=n_people,
    )  # fmt: skip


def assembled(work: Work, scorer: str) -> Validation:
    """The validation made from the outcomes of all stages."""
    prepared = work.prepared
    ranking: Ranking | None = work.value("prediction", "ranking", "set")
    encoders = {key: _encoder(work, key, e, ranking) for key, e in work.encoders.items()}
    pairs = [_pair(work, pair, encoders[pair[0]], encoders[pair[1]], scorer) for pair in work.pairs]
    if ranking is not None:
        pairs.sort(key=lambda p: p.ranked.rank if p.ranked else 0)
    table = pair_table(pairs, scorer)
    analysis = analyse(table, scorer=scorer, fared=_prediction_errors(pairs, work), seed=work.seed)
    sizes = {c.column: {value: int((c.index == i).sum()) for i, value in enumerate(c.values)} for c in work.columns}
    notes = (*prepared.calibration.notes, *(ranking.notes if ranking else ()))
    summary = None
    if ranking is not None:
        of_ranking = (ranking.ordered_by, ranking.scorer, ranking.coverage, ranking.n_train_identities)
        summary = PredictionSummary(
            *of_ranking, ranking.n_probe_samples, n_permutations=work.settings.n_shuffles(len(work.people))
        )
    decision = _decision(pairs, scorer, work.signature, ranking, len(work.people))
    return Validation(
        schema=VALIDATE_SCHEMA, signature=work.signature, signature_text=signature_text(work.signature),
        protocol=work.protocol, scorer=scorer, layout=prepared.calibration.layout,
        calibration=summary_of(len(work.people), encoders.values(), prepared.embedded.skipped), group_columns=sizes,
        decision=decision, prediction=summary, encoders=tuple(encoders.values()), pairs=tuple(pairs), analysis=analysis,
        failures=prepared.embedded.failures, notes=tuple(dict.fromkeys(notes)), ranking=ranking,
        centroids={key: (side_of(e), work.centroids(key)) for key, e in work.encoders.items()},
    )  # fmt: skip


def _results(work: Work, subject: Any, about: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Values by field, and reasons by stage, of one encoder or pair."""
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for stage in stages().values():
        outcomes = work.outcomes[stage.name].get(subject, {})
        for field in stage.fields_of(about):
            outcome = outcomes.get(field, Outcome(None))
            values[field] = outcome.value
            if outcome.reason is not None:
                reasons[stage.name] = outcome.reason
    return values, reasons


def _encoder(work: Work, key: Any, e: Embeddings, ranking: Ranking | None) -> EncoderValidation:
    results, reasons = _results(work, key, "encoder")
    flags = next((r.flags for r in ranking.encoders if (r.modality, r.name) == key), ()) if ranking else e.traits.flags
    encoder = EncoderValidation(
        e.name, e.modality, e.dim, len(e.vectors), median_samples(e), results, {}, recordings(e) is not None, reasons,
        flags,
    )  # fmt: skip
    return replace(encoder, metrics=metric_values(encoder, ("rows", "people")))


def _pair(work: Work, pair: Pair, face: EncoderValidation, voice: EncoderValidation, scorer: str) -> PairValidation:
    results, reasons = _results(work, pair, "pair")
    rows = max(1, round(harmonic_mean(face.samples_per_identity, voice.samples_per_identity)))
    made = PairValidation(face.name, voice.name, results, (), reasons, rows, {})
    made = replace(made, columns=pair_columns(made, face, voice))
    flags = list(work.prepared.doubts(face.name, voice.name))
    for stage in stages().values():
        flags += stage.flags(made, scorer, flags)
    return replace(made, flags=tuple(dict.fromkeys(flags)))


def _prediction_errors(pairs: Sequence[PairValidation], work: Work) -> list[PredictionErrors]:
    """Errors of each card's predictions against measured EERs and against the extrapolated learning curve."""
    errors = []
    for card in work.settings.cards:
        level = (card.n_train_identities, card.probe_samples) if isinstance(card, CalibratedCard) else None
        if level and level[1] != PROBE_SAMPLES:
            continue  # what is measured are people, of all their samples
        predictions = [p.ranked.predictions[card.name] if p.ranked else None for p in pairs]
        scorer = next((p.scorer for p in predictions if p is not None), "")
        if scorer not in SCORERS:
            continue
        predicted = [p.eer if p else None for p in predictions]
        intervals = [p.interval if p else None for p in predictions]
        trained = next((p["measured"].n_train for p in pairs if p["measured"]), 0)
        measured = [m.eer if m else None for m in (p.matching(scorer) for p in pairs)]
        extrapolated = [p["curve"].extrapolated[scorer].eer if p["curve"] else None for p in pairs]
        truths = [(measured, f"measured after training on {trained} people")]
        if level is None or level[0] == REFERENCE_TRAIN:
            truths.append((extrapolated, f"the learning curve at {REFERENCE_TRAIN} people"))
        for values, against in truths:
            errors.append(prediction_errors(card.name, scorer, predicted, intervals, values, against))
    return [one for one in errors if one is not None]
