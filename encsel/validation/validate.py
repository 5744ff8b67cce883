"""Everything measured: the stages of `encsel validate`, and the report they make."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Embeddings, Runtime, Vectors
from encsel.data.calibration_set import MAX_SKIPPED
from encsel.data.groups import PersonGroups, columns_of, person_groups, recordings, sample_groups
from encsel.embedding.health import Health
from encsel.errors import BadCalibration, UsageError, nearest, printable
from encsel.gates.compare import Result, value_of
from encsel.gates.judge import Gates, Verdict, check_baseline, field_of, judge
from encsel.matching.crossval import MIN_PEOPLE, Folds, folds_of
from encsel.matching.error_rates import COVERAGE as INTERVAL_COVERAGE
from encsel.matching.error_rates import Matching
from encsel.matching.evaluate import (
    AXES,
    FEW_PEOPLE,
    PROTOCOLS,
    LearningCurve,
    PairMeasured,
    Projections,
    Protocol,
    RecordingsCompared,
    centred_within,
    compare_recordings,
    curve_projections,
    eer_by_axes,
    first_axes,
    folds_for,
    group_probe,
    halves,
    learning_curve,
    measure_centroids,
    measure_pair,
    plain_cosine,
    project_encoder,
    score_blocks,
    some_folds,
)
from encsel.matching.scorers import N_AXES, REFERENCE_TRAIN, SCORERS
from encsel.metrics.cka import REFERENCE_SIZE, cka, gram
from encsel.metrics.gromov_wasserstein import GromovWasserstein
from encsel.metrics.neighbours import Neighbours
from encsel.metrics.topology import Topology, topology
from encsel.prediction.card import CalibratedCard
from encsel.prediction.predict import Shuffling, predict_pairs
from encsel.progress import Progress, Silent
from encsel.ranking.geometry import centroids
from encsel.ranking.rank import DEFAULT_REGRESSION, Prepared, cache_root, health_of, measure, names_for, prepare
from encsel.ranking.result import ALPHA, AT_CHANCE, MIN_IDENTITIES, RankReport
from encsel.regression.analysis import Fared, analyse, how_fared
from encsel.regression.pair_tables import PairFile, PairTable
from encsel.storage.cache import Results
from encsel.storage.files import write_private
from encsel.storage.pseudonyms import Pseudonyms
from encsel.storage.signature import LIBRARIES
from encsel.validation.geometry import (
    Alignment,
    Curved,
    Dimensions,
    Reliability,
    Spectrum,
    alignment,
    ceiling,
    curved,
    dimensions,
    gromov_wasserstein_of,
    people_of,
    reliability,
    search,
    shared_halves,
    spectral_gap_of,
    spectrum_of,
)
from encsel.validation.result import (
    FEW_ERRORS,
    ONLY_ITS_GROUP,
    SAME_RECORDINGS,
    SCHEMA,
    STAGES,
    CentredOnGroups,
    EncoderValidated,
    PairValidated,
    Ranked,
    RankedPair,
    ValidationReport,
    WithinValue,
)
from encsel.validation.runner import SKIPPED, Key, Outcome, Pair, Stages, outcome_of

VERSION = 1
"""Of what the stages measure: a kept result of another version is not used."""
FEW_SHUFFLES = 39
"""Shuffles behind a p of more than 400 people, where little is near chance and each takes long."""
RECORDING_SPLITS, FEW_SPLITS = 6, 2


def validate(
    data: str | Path,
    *,
    faces: str | Sequence[str] = (),
    voices: str | Sequence[str] = (),
    protocol: Protocol = "crossval",
    scorer: str = "reference",
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    regression: str = DEFAULT_REGRESSION,
    coverage: float = 0.9,
    within: str | None = None,
    seed: int = 0,
    min_identities: int = MIN_IDENTITIES,
    identities: int | None = None,
    samples_per_identity: int | None = None,
    max_skipped: float = MAX_SKIPPED,
    cache: str | Path | None = "default",
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    jobs: int | None = None,
    scores: str | Path | None = None,
    strict_health: bool = False,
    show_names: bool = False,
    allow_outside: bool = False,
    gates: Gates | None = None,
    progress: Progress | None = None,
) -> ValidationReport:
    """Measure everything about every face-voice pair of a calibration set.

    Args:
        protocol: "crossval", repeated 5 folds over people and the corrected metrics; or "reference", the study's single
            80/20 split and the numbers of its released code.
        scorer: of the EERs that the analysis is about; every scorer is measured.
        skip, only: names of `STAGES` to leave out, or to do alone.
        jobs: pairs and encoders at a time; None: as many as there are processors.
        strict_health, gates: as `encsel.rank`, on the measured EERs of `scorer`.
        scores: folder for score files, one a pair and scorer.
        show_names: people in score files, and skipped samples in the report, are named, instead of hashed with the
            cache's key.
        Others as `encsel.rank`.
    Raises:
        UsageError, BadCalibration, EncoderFailed: as `encsel.rank`.
    """
    progress = progress or Silent()
    wanted = wanted_stages(skip, only)
    if protocol not in PROTOCOLS:
        raise UsageError(f"No protocol {protocol!r}. {nearest(protocol, PROTOCOLS)}")
    if scorer not in SCORERS:
        raise UsageError(f"No scorer {scorer!r}. {nearest(scorer, SCORERS)}")
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs is {jobs}; at least 1 is needed.")
    if min_identities < MIN_PEOPLE:
        raise UsageError(f"min_identities is {min_identities}; a matcher cannot be measured under {MIN_PEOPLE} people.")
    check_baseline(gates, f"measured EER, scorer {scorer}")
    prepared = prepare(
        data, faces=faces, voices=voices, regression=regression, coverage=coverage, within=within, seed=seed,
        min_identities=min_identities, identities=identities, samples_per_identity=samples_per_identity,
        max_skipped=max_skipped, cache=cache, runtime=runtime, batch_size=batch_size, progress=progress,
        expect_best=None if gates is None else gates.expect_best, few_shuffles=FEW_SHUFFLES,
        show_names=show_names, allow_outside=allow_outside,
        libraries=(*LIBRARIES, "POT"),
        options={"protocol": protocol, "scorer": scorer, "stages": sorted(wanted), "validation": VERSION},
    )  # fmt: skip
    results = Results(cache_root(cache))
    work = _Work(prepared, protocol, wanted, results, jobs or os.cpu_count() or 1, progress)
    report = work.report(scorer)
    if results.write_error:
        progress.note(f"Results cannot be kept for the next run: {results.write_error}.")
    if scores is not None:
        write_scores(work, Path(scores), names_for(cache, show_names, progress))
    report = replace(report, strict_health=strict_health)
    return report if gates is None else replace(report, verdict=verdict_on(report, gates))


def verdict_on(report: ValidationReport, gates: Gates) -> Verdict:
    """What gates say of measured EERs, those of the report's scorer on centroids."""
    found = [None if p.measured is None else p.measured.levels["identity"][report.scorer] for p in report.pairs]
    values = [
        value_of(None if m is None else m.eer, None if m is None else m.interval, INTERVAL_COVERAGE) for m in found
    ]
    names = [f"{p.face}/{p.voice}" for p in report.pairs]
    intervals = [None if m is None else m.interval for m in found]
    field = field_of(names, values, intervals, None, seed=int(report.signature["options"]["seed"]))
    pairs = {(p.face, p.voice): value for p, value in zip(report.pairs, values, strict=True)}
    return judge(gates, field, Result(SCHEMA, f"measured EER, scorer {report.scorer}", report.signature, pairs))


def wanted_stages(skip: Sequence[str], only: Sequence[str]) -> frozenset[str]:
    """The stages to do.

    Raises:
        UsageError: an unknown stage, or both given.
    """
    if skip and only:
        raise UsageError("Stages to skip and stages to do alone were both given; give one of them.")
    for name in (*skip, *only):
        if name not in STAGES:
            raise UsageError(f"No stage {name!r}. {nearest(name, STAGES)} Stages: {', '.join(STAGES)}.")
    return frozenset(only) if only else frozenset(STAGES) - frozenset(skip)


class _Work:
    """One validation under way: the set, what it is made with, and what is done already."""

    def __init__(
        self,
        prepared: Prepared,
        protocol: Protocol,
        wanted: frozenset[str],
        results: Results,
        jobs: int,
        progress: Progress,
    ) -> None:
        self.prepared, self.protocol, self.wanted, self.progress = prepared, protocol, wanted, progress
        self.people, self.seed = prepared.people, prepared.seed
        self.encoders: dict[Key, Embeddings] = {(e.modality, e.name): e for e in prepared.embeddings}
        self.faces, self.voices = ([k for k in self.encoders if k[0] == m] for m in MODALITIES)
        self.pairs = [(f, v) for f in self.faces for v in self.voices]
        self.reference = protocol == "reference"
        self.folds = folds_for(len(self.people), protocol, seed=self.seed)
        self.columns = person_groups(prepared.embeddings, self.people)
        signed = prepared.signature
        made_with = {
            "encsel": signed["encsel"], "metrics": signed["metrics"], "libraries": signed["libraries"],
            "validation": VERSION, "seed": self.seed, "people": _hash(*self.people),
        }  # fmt: skip
        self.content = {key: _content(e) for key, e in self.encoders.items()}
        self.stages = Stages(results, made_with, self.content, jobs=jobs, progress=progress)
        self._sides: dict[Key, Projections] = {}
        self._centroids: dict[Key, Vectors] = {}

    def centroids(self, key: Key) -> Vectors:
        if key not in self._centroids:
            self._centroids[key] = centroids(self.encoders[key])
        return self._centroids[key]

    # One stage after another -------------------------------------------------------------------------------------

    def report(self, scorer: str) -> ValidationReport:
        healths = self.of_encoders("health", Health, lambda key, _: health_of(self.prepared, self.encoders[key]))
        searched: dict[Key, Neighbours] = {}
        intrinsic, curvature = self._from_search(searched)
        topologies = self.of_encoders("topology", Topology, lambda key, _: self._topology(key))
        spectra = self.of_encoders("spectral", Spectrum, lambda key, _: spectrum_of(self.encoders[key]))
        reliabilities = self.of_encoders("reliability", Reliability, lambda key, _: self._reliability(key))
        ranked = self._ranked(searched, {key: one.value for key, one in healths.items() if one.value is not None})
        searched.clear()
        aligned = self._aligned()
        gw = self.of_pairs(
            "gw", GromovWasserstein,
            lambda pair, _: gromov_wasserstein_of(
                *(self.centroids(k) for k in pair), reference=self.reference, seed=self.seed
            ),
            more={"protocol": self.protocol},
        )  # fmt: skip
        measured = self._measured()
        axes, curves = self._axes(), self._curves()
        compared = self._recordings()
        probes, centred, values = self._groups()
        joint = self._joint()

        encoders = []
        of_rank = {} if ranked.value is None else {(e.modality, e.name): e for e in ranked.value.encoders}
        for key, one in self.encoders.items():
            health = healths[key].value
            assert health is not None
            found: dict[str, Outcome[Any]] = {
                "intrinsic": intrinsic[key], "curvature": curvature[key], "topology": topologies[key],
                "spectral": spectra[key], "reliability": reliabilities[key],
            }  # fmt: skip
            encoders.append(
                EncoderValidated(
                    name=one.name, modality=one.modality, dim=one.dim, n_samples=len(one.vectors),
                    samples_per_identity=_median_samples(one), health=health,
                    dimensions=found["intrinsic"].value, curvature=found["curvature"].value,
                    topology=found["topology"].value, spectrum=found["spectral"].value,
                    reliability=found["reliability"].value, group_probe=probes.get(key, {}),
                    recordings_known=recordings(one) is not None,
                    reasons={name: o.reason for name, o in found.items() if o.reason is not None},
                    flags=of_rank[key].flags if key in of_rank else one.traits.flags,
                )
            )  # fmt: skip
        of_encoder = {(e.modality, e.name): e for e in encoders}
        by_rank = {} if ranked.value is None else {(p.face, p.voice): p for p in ranked.value.pairs}
        pairs = []
        for pair in self.pairs:
            f, v = (of_encoder[key] for key in pair)
            outcomes: dict[str, Outcome[Any]] = {
                "matching": measured[pair], "axes": axes[pair], "curve": curves[pair], "recordings": compared[pair],
                "gw": gw[pair],
            }  # fmt: skip
            place = by_rank.get((f.name, v.name))
            similar = aligned[pair].value
            assert similar is not None
            reasons = {name: o.reason for name, o in outcomes.items() if o.reason is not None} | dict(similar.reasons)
            if place is None:
                reasons["prediction"] = ranked.reason or SKIPPED
            known = f.reliability is not None and v.reliability is not None
            spectral = f.spectrum is not None and v.spectrum is not None
            ids = [None if e.dimensions is None else e.dimensions.mle_median.get("20") for e in (f, v)]
            validated = PairValidated(
                face=f.name, voice=v.name, measured=measured[pair].value, joint_cosine=joint.get(pair),
                axes=axes[pair].value, curve=curves[pair].value, recordings=compared[pair].value,
                centred=centred.get(pair, ()), values=values.get(pair, ()), alignment=similar,
                ceiling=ceiling(f.reliability, v.reliability) if known else None,  # type: ignore[arg-type]
                gromov_wasserstein=gw[pair].value,
                spectral_gap=spectral_gap_of(f.spectrum, v.spectrum) if spectral else None,  # type: ignore[arg-type]
                id_mismatch=None if ids[0] is None or ids[1] is None else abs(ids[0] - ids[1]),
                ranked=place, flags=(), reasons=reasons,
            )  # fmt: skip
            pairs.append(_with_flags(validated, scorer))
        if all(p.ranked is not None for p in pairs):
            pairs.sort(key=lambda p: p.ranked.rank if p.ranked else 0)
        return self._finished(scorer, ranked.value, tuple(encoders), tuple(pairs))

    def _finished(
        self,
        scorer: str,
        ranked: Ranked | None,
        encoders: tuple[EncoderValidated, ...],
        pairs: tuple[PairValidated, ...],
    ) -> ValidationReport:
        prepared = self.prepared
        table = pair_table(encoders, pairs, n_identities=len(self.people), scorer=scorer)
        analysis = analyse(table, scorer=scorer, fared=_fared(pairs, prepared), seed=self.seed)
        sizes = {c.column: {value: int((c.index == i).sum()) for i, value in enumerate(c.values)} for c in self.columns}
        notes = (*prepared.calibration.notes, *(ranked.notes if ranked else ()))
        return ValidationReport(
            signature=prepared.signature, protocol=self.protocol, scorer=scorer,
            layout=prepared.calibration.layout, n_identities=len(self.people),
            n_face_samples=max(e.n_samples for e in encoders if e.modality == "face"),
            n_voice_samples=max(e.n_samples for e in encoders if e.modality == "voice"),
            ranked=ranked, encoders=encoders, pairs=pairs, group_columns=sizes, analysis=analysis,
            skipped=prepared.embedded.skipped, failures=prepared.embedded.failures,
            notes=tuple(dict.fromkeys(notes)),
        )  # fmt: skip

    def _topology(self, key: Key) -> Topology:
        one = self.encoders[key]
        return topology(one.vectors, one.labels)

    def _reliability(self, key: Key) -> Reliability:
        return reliability(self.encoders[key], recordings(self.encoders[key]), seed=self.seed)

    def _from_search(
        self, searched: dict[Key, Neighbours]
    ) -> tuple[dict[Key, Outcome[Dimensions]], dict[Key, Outcome[Curved]]]:
        """Intrinsic dimensions and curvature, from one search of neighbours, which is left in `searched`."""
        key = {"protocol": self.protocol}
        stages: dict[str, Any] = {"intrinsic": Dimensions, "curvature": Curved}
        kept = {
            stage: {e: self.stages.kept(stage, kind, self.stages.key((e,), key)) for e in self.encoders}
            for stage, kind in stages.items()
        }
        wanted = [stage for stage in stages if stage in self.wanted]
        missing = [e for e in self.encoders if any(kept[stage][e] is None for stage in wanted)]
        found: dict[str, dict[Key, Outcome[Any]]] = {
            stage: {e: o for e, o in of.items() if o is not None} for stage, of in kept.items()
        }

        def both(e: Key) -> tuple[Neighbours | None, dict[str, Outcome[Any]]]:
            try:
                rows, neighbours = search(self.encoders[e], reference=self.reference, device=self.prepared.device)
            except BadCalibration as error:
                return None, {stage: Outcome(None, str(error)) for stage in wanted}
            done: dict[str, Outcome[Any]] = {}
            for stage in wanted:
                if kept[stage][e] is None and stage == "intrinsic":
                    done[stage] = outcome_of(lambda: dimensions(neighbours))
                elif kept[stage][e] is None:
                    done[stage] = outcome_of(lambda: curved(rows, neighbours, reference=self.reference, seed=self.seed))
            return neighbours, done

        with self.stages.several("neighbours, dimensions, curvature", missing) as each:
            for e, (neighbours, done) in each(both):
                for stage, outcome in done.items():
                    found[stage][e] = self.stages.keep(stage, stages[stage], self.stages.key((e,), key), outcome)
                # The reference search moves what `rank` says in the fifth digit: `rank` searches by itself then.
                if neighbours is not None and not self.reference and "prediction" in self.wanted:
                    searched[e] = neighbours
        nothing: Outcome[Any] = Outcome(None, SKIPPED)
        first, second = (
            {e: found[s].get(e, nothing) if s in wanted else nothing for e in self.encoders} for s in stages
        )
        return first, second

    def _ranked(self, searched: Mapping[Key, Neighbours], healths: Mapping[Key, Health]) -> Outcome[Ranked]:
        if "prediction" not in self.wanted:
            return Outcome(None, SKIPPED)
        signed = self.prepared.signature
        options = {k: v for k, v in signed["options"].items() if k not in ("stages", "scorer", "protocol")}
        key = self.stages.key(tuple(self.encoders), {"options": options, "regressions": signed["regressions"]})
        kept: Outcome[Ranked] | None = self.stages.kept("prediction", Ranked, key)
        if kept is not None:
            return kept
        outcome = Outcome(
            _ranked_of(
                measure(self.prepared, searched=searched, healths=healths, progress=self.progress), self.prepared
            )
        )
        return self.stages.keep("prediction", Ranked, key, outcome)

    def _aligned(self) -> dict[Pair, Outcome[Alignment]]:
        options = {name: name in self.wanted for name in ("geodesic", "mutual")}

        def need(missing: Sequence[Pair]) -> dict[Key, Any]:
            return self.for_encoders(missing, "kernels", lambda key: people_of(self.encoders[key], **options))

        return self.of_pairs(
            "alignment", Alignment, lambda pair, people: alignment(*(people[k] for k in pair)), need=need, more=options
        )

    def _measured(self) -> dict[Pair, Outcome[PairMeasured]]:
        def one(pair: Pair, sides: Mapping[Key, Projections]) -> PairMeasured:
            return measure_pair(first_axes(sides[pair[0]]), first_axes(sides[pair[1]]), self.folds, self.columns)

        return self.of_pairs("matching", PairMeasured, one, need=self.projections, more={"protocol": self.protocol})

    def _axes(self) -> dict[Pair, Outcome[Mapping[str, Mapping[str, float | None]]]]:
        def one(pair: Pair, sides: Mapping[Key, Projections]) -> dict[str, dict[str, float | None]]:
            return eer_by_axes(sides[pair[0]], sides[pair[1]], self.folds)

        found = self.of_pairs(
            "axes", Mapping[str, Mapping[str, float | None]], one,
            need=self.projections, more={"protocol": self.protocol},
        )  # fmt: skip
        self._sides.clear()
        return found

    def projections(self, pairs: Sequence[Pair]) -> dict[Key, Projections]:
        """Encoders of these pairs in every fold, on as many principal axes as any stage wants."""
        n_axes = max(AXES) if "axes" in self.wanted else N_AXES
        missing = [pair for pair in pairs if any(key not in self._sides for key in pair)]
        self._sides |= self.for_encoders(
            missing,
            "projections",
            lambda key: project_encoder(self.encoders[key], self.folds, seed=self.seed, n_axes=n_axes),
        )
        return self._sides

    def _curves(self) -> dict[Pair, Outcome[LearningCurve]]:
        folds = some_folds(self.folds, len(self.people))

        def need(missing: Sequence[Pair]) -> dict[Key, Any]:
            return self.for_encoders(
                missing,
                "smaller training sets",
                lambda key: curve_projections(self.centroids(key), folds, seed=self.seed),
            )

        return self.of_pairs(
            "curve", LearningCurve, lambda pair, sides: learning_curve(sides[pair[0]], sides[pair[1]], folds),
            need=need, more={"protocol": self.protocol},
        )  # fmt: skip

    def _recordings(self) -> dict[Pair, Outcome[RecordingsCompared]]:
        """Pairs of encoders whose samples tell their recordings, on the recordings that all such encoders have."""
        if "recordings" not in self.wanted:
            return dict.fromkeys(self.pairs, Outcome(None, SKIPPED))
        named = {key: names for key, e in self.encoders.items() if (names := recordings(e)) is not None}
        found: dict[Pair, Outcome[RecordingsCompared]] = {}
        for pair in self.pairs:
            unknown = [key[1] for key in pair if key not in named]
            if unknown:
                found[pair] = Outcome(None, f"samples of {' and '.join(unknown)} do not tell their recordings")
        told = {pair: pair for pair in self.pairs if pair not in found}
        if not told:
            return found
        people: tuple[str, ...] = ()
        splits: list[dict[Key, NDArray[np.intp]]] = []
        sides = [[self.encoders[k] for k in keys if k in named] for keys in (self.faces, self.voices)]
        for split in range(RECORDING_SPLITS if len(self.people) <= FEW_PEOPLE else FEW_SPLITS):
            people, of_split = shared_halves(sides[0], sides[1], named, seed=self.seed * RECORDING_SPLITS + split)
            splits.append(of_split)
        if len(people) < MIN_PEOPLE:
            reason = (
                f"{len(people)} people have two recordings or more that every such encoder has; {MIN_PEOPLE} are needed"
            )
            return found | dict.fromkeys(told, Outcome(None, reason))
        folds: Folds = folds_of(len(people), n_repeats=len(splits), seed=self.seed)

        def need(missing: Sequence[Pair]) -> dict[Key, Any]:
            return self.for_encoders(
                missing, "halves of recordings",
                lambda key: halves(self.encoders[key], [split[key] for split in splits], folds),
            )  # fmt: skip

        return found | self.stages.run(
            "recordings", RecordingsCompared, told,
            lambda pair, sides: compare_recordings(sides[pair[0]], sides[pair[1]], folds), need=need,
            more={"encoders": sorted(self.content[key] for key in named)},
        )  # fmt: skip

    def _groups(
        self,
    ) -> tuple[
        dict[Key, dict[str, float]],
        dict[Pair, tuple[CentredOnGroups, ...]],
        dict[Pair, tuple[WithinValue, ...]],
    ]:
        probes: dict[Key, dict[str, float]] = {key: {} for key in self.encoders}
        centred: dict[Pair, tuple[CentredOnGroups, ...]] = {}
        values: dict[Pair, tuple[WithinValue, ...]] = {}
        if "groups" not in self.wanted:
            return probes, centred, values
        for column in self.columns:
            for key, accuracy in self._probes(column).items():
                probes[key][column.column] = accuracy
            for pair, one in self._centred(column).items():
                centred[pair] = (*centred.get(pair, ()), one)
        for group in sample_groups(self.prepared.embeddings, self.people):
            for value in group.values:
                for pair, within in self._within_value(group.column, value).items():
                    values[pair] = (*values.get(pair, ()), within)
        return probes, centred, values

    def _probes(self, column: PersonGroups) -> dict[Key, float]:
        found = self.of_encoders(
            "groups",
            float,
            lambda key, _: group_probe(self.centroids(key), column, seed=self.seed),
            more={"probe": column.column},
            label=f"probes of {column.column}",
        )
        return {key: outcome.value for key, outcome in found.items() if outcome.value is not None}

    def _centred(self, column: PersonGroups) -> dict[Pair, CentredOnGroups]:
        """Every pair, group means taken off. All at once: the family-wise p is over all pairs."""
        key = self.stages.key(
            tuple(self.encoders),
            {"column": column.column, "n_shuffles": self.prepared.n_shuffles, "coverage": self.prepared.coverage,
             "regressions": self.prepared.signature["regressions"]},
        )  # fmt: skip
        kept: Outcome[tuple[CentredOnGroups, ...]] | None = self.stages.kept(
            "centred", tuple[CentredOnGroups, ...], key
        )
        if kept is None:
            kept = outcome_of(lambda: self._centred_now(column))
            kept = self.stages.keep("centred", tuple[CentredOnGroups, ...], key, kept)
        return dict(zip(self.pairs, kept.value, strict=True)) if kept.value is not None else {}

    def _centred_now(self, column: PersonGroups) -> tuple[CentredOnGroups, ...]:
        sides, known = {}, np.zeros(0, np.intp)
        for e in self.encoders:
            sides[e], known = centred_within(self.centroids(e), column)
        cards = [c for c in self.prepared.cards if isinstance(c, CalibratedCard)]
        cards.sort(key=lambda card: card.name != DEFAULT_REGRESSION)
        samples = {e: _median_samples(one) for e, one in self.encoders.items()}
        found = predict_pairs(
            [sides[e] for e in self.faces], [sides[e] for e in self.voices],
            ([samples[e] for e in self.faces], [samples[e] for e in self.voices]), cards[:1],
            seed=self.seed, coverage=self.prepared.coverage, n_shuffles=self.prepared.n_shuffles,
            shuffling=Shuffling(column.column, column.index[known]), progress=self.progress,
        )  # fmt: skip
        grams = {e: gram(x) for e, x in sides.items()}
        n = len(known)
        few = f"{n} people; a predicted EER needs at least {MIN_IDENTITIES}" if n < MIN_IDENTITIES else None
        results = []
        for (f, v), one in zip(self.pairs, (one for row in found for one in row), strict=True):
            estimate, null = one.estimates[cards[0].name], one.null
            results.append(
                CentredOnGroups(
                    column.column, n, cka(grams[f], grams[v], matched_to=REFERENCE_SIZE),
                    None if few else estimate.eer, None if few else estimate.interval,
                    null.p, null.p_familywise, null.n_permutations, few,
                )
            )  # fmt: skip
        return tuple(results)

    def _within_value(self, column: str, value: str) -> dict[Pair, WithinValue]:
        def need(_: Sequence[Pair]) -> tuple[dict[Key, Vectors], int]:
            rows = {
                key: e.rows(found == value)
                for key, e in self.encoders.items()
                if (found := columns_of(e).get(column)) is not None
            }
            common = set.intersection(*(set(e.identities) for e in rows.values()))
            people = sorted(common)
            return {key: centroids(e.rows(np.isin(e.labels, people))) for key, e in rows.items()}, len(people)

        def one(pair: Pair, context: tuple[dict[Key, Vectors], int]) -> WithinValue:
            sides, n = context
            return WithinValue(column, value, n, measure_centroids(*(sides[k] for k in pair), seed=self.seed))

        found = self.of_pairs(
            "groups", WithinValue, one, need=need,
            more={"column": column, "value": value, "encoders": sorted(self.content.values())},
            label=f"{column} {value}",
        )  # fmt: skip
        return {pair: outcome.value for pair, outcome in found.items() if outcome.value is not None}

    def _joint(self) -> dict[Pair, dict[str, Matching]]:
        """Pairs of one joint space, by plain cosine."""
        found = {}
        for pair in self.pairs:
            f, v = (self.encoders[key] for key in pair)
            if f.traits.space is not None and f.traits.space == v.traits.space and f.dim == v.dim:
                found[pair] = plain_cosine(f, v, seed=self.seed)
        return found if "matching" in self.wanted else {}

    # How stages are run ------------------------------------------------------------------------------------------

    def of_encoders(
        self,
        stage: str,
        kind: Any,
        compute: Callable[[Key, Any], Any],
        *,
        more: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> dict[Key, Outcome[Any]]:
        """A stage over encoders, where it is wanted."""
        subjects = {key: (key,) for key in self.encoders}
        if stage in STAGES and stage not in self.wanted:
            return dict.fromkeys(subjects, Outcome(None, SKIPPED))
        return self.stages.run(stage, kind, subjects, compute, more=more, label=label)

    def of_pairs(
        self,
        stage: str,
        kind: Any,
        compute: Callable[[Pair, Any], Any],
        *,
        need: Callable[[Sequence[Pair]], Any] | None = None,
        more: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> dict[Pair, Outcome[Any]]:
        """A stage over pairs, where it is wanted; `need` makes what the missing ones share."""
        if stage in STAGES and stage not in self.wanted:
            return dict.fromkeys(self.pairs, Outcome(None, SKIPPED))
        subjects = {pair: pair for pair in self.pairs}
        return self.stages.run(stage, kind, subjects, compute, need=need, more=more, label=label)

    def for_encoders(self, pairs: Sequence[Pair], label: str, make: Callable[[Key], Any]) -> dict[Key, Any]:
        """What `make` makes of every encoder of these pairs; not kept."""
        with self.stages.several(label, [k for k in self.encoders if any(k in pair for pair in pairs)]) as each:
            return dict(each(make))


def write_scores(work: _Work, folder: Path, pseudonyms: Pseudonyms) -> None:
    """One file a pair and scorer: the scores of test people's centroids in every fold of the first repeat.

    Each line has four columns, as bob.bio and its kin read them: the person of the face, the person of the voice, what
    was scored, and the score.
    """
    names = [_column(name) for name in pseudonyms.people(work.people)]
    sides = work.projections(work.pairs)
    with work.progress.task("score files", len(work.pairs) * len(SCORERS)) as task:
        for f, v in work.pairs:
            for scorer in SCORERS:
                lines = []
                for test, matrix in score_blocks(first_axes(sides[f]), first_axes(sides[v]), work.folds, scorer):
                    of_test = [names[i] for i in test.tolist()]
                    lines += [
                        f"{a} {b} centroid {score:.9g}"
                        for a, row in zip(of_test, matrix.tolist(), strict=True)
                        for b, score in zip(of_test, row, strict=True)
                    ]
                path = folder / f"{_file_name(f[1])}__{_file_name(v[1])}__{scorer}.txt"
                try:
                    write_private(path, ("\n".join(lines) + "\n").encode())
                except OSError as error:
                    raise UsageError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from error
                task.advance()


def _column(name: str) -> str:
    """A name as one column of a file whose columns are parted by blanks; different names stay different."""
    return "".join(f"%{ord(c):02X}" if c.isspace() or c == "%" else c for c in printable(name))


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.=@" else "-" for c in text)


def pair_table(
    encoders: Sequence[EncoderValidated], pairs: Sequence[PairValidated], *, n_identities: int, scorer: str
) -> PairTable:
    """Every number about a pair that may go with its EER, for pairs that have one; no columns that some pair lacks."""
    of_encoder = {(e.modality, e.name): e for e in encoders}
    kept = [p for p in pairs if p.measured is not None]
    rows: list[dict[str, float | None]] = []
    for p in kept:
        f, v = of_encoder["face", p.face], of_encoder["voice", p.voice]
        rows.append(pair_columns(p, f, v))
    columns: dict[str, NDArray[np.float64]] = {}
    unusable = {}
    for name in dict.fromkeys(n for row in rows for n in row):
        values = [row.get(name) for row in rows]
        lacking = [p for p, value in zip(kept, values, strict=True) if value is None]
        if lacking:
            unusable[name] = f"{name} is missing for {len(lacking)} of {len(kept)} pairs"
        else:
            columns[name] = np.array(values, dtype=np.float64)
    return PairTable(
        np.array(["this set"] * len(kept), dtype=np.str_),
        np.array([p.face for p in kept], dtype=np.str_),
        np.array([p.voice for p in kept], dtype=np.str_),
        np.array([p.measured.levels["identity"][scorer].eer for p in kept if p.measured], dtype=np.float64),
        columns,
        unusable,
        (PairFile("this set", ""),),
    )


def pair_columns(p: PairValidated, f: EncoderValidated, v: EncoderValidated) -> dict[str, float | None]:
    """The numbers of one pair, by the names that pair tables and `encsel fit` know them by."""
    similar, gw = p.alignment, p.gromov_wasserstein
    unimodal = [e.health.unimodal_eer for e in (f, v)]
    two_nn = [None if e.dimensions is None else e.dimensions.two_nn for e in (f, v)]
    gaps = [None if e.topology is None else e.topology.gap for e in (f, v)]
    curvatures = [None if e.curvature is None else e.curvature.encoder.mean_absolute_median for e in (f, v)]
    found: dict[str, float | None] = {
        "cka": similar.linear.biased,
        "cka_debiased": similar.linear.debiased,
        "cka_matched": similar.linear.matched,
        "geodesic_cka": None if similar.geodesic is None else similar.geodesic.debiased,
        "mutual_knn": similar.mutual_knn,
        "id_mismatch": p.id_mismatch,
        "two_nn_mismatch": _difference(two_nn),
        "gw_distance": None if gw is None else gw.value,
        "gw_bound": None if gw is None else gw.lower_bound,
        "spectral_gap": p.spectral_gap,
        "compactness_gap": _mean(gaps),
        "mean_curvature": _mean(curvatures),
        "unimodal_eer": _mean(unimodal),
    }
    for column in sorted(set(f.group_probe) & set(v.group_probe)):
        # A pair tells groups apart only as well as its worse side.
        found[f"group_probe_{column}"] = min(f.group_probe[column], v.group_probe[column])
    if p.ranked is not None:
        found |= {f"predicted_{card}": said.eer for card, said in p.ranked.predictions.items()}
    return found


def _difference(values: Sequence[float | None]) -> float | None:
    a, b = values
    return None if a is None or b is None else abs(a - b)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _fared(pairs: Sequence[PairValidated], prepared: Prepared) -> list[Fared]:
    """Each card's predictions against what was measured, and against the learning curve carried on to the same size."""
    found = []
    for card in prepared.cards:
        said = [p.ranked.predictions[card.name] if p.ranked else None for p in pairs]
        scorer = next((s.scorer for s in said if s is not None), "")
        if scorer not in SCORERS:
            continue
        predicted = [None if s is None else s.eer for s in said]
        intervals = [None if s is None else s.interval for s in said]
        trained = next((p.measured.n_train for p in pairs if p.measured), 0)
        measured = [p.measured.levels["identity"][scorer].eer if p.measured else None for p in pairs]
        extrapolated = [p.curve.extrapolated[scorer].eer if p.curve else None for p in pairs]
        for values, against in (
            (measured, f"measured after training on {trained} people"),
            (extrapolated, f"the learning curve at {REFERENCE_TRAIN} people"),
        ):
            one = how_fared(card.name, scorer, predicted, intervals, values, against)
            if one is not None:
                found.append(one)
    return found


def _with_flags(pair: PairValidated, scorer: str) -> PairValidated:
    flags = list(pair.ranked.flags) if pair.ranked is not None else []
    if pair.recordings is None and pair.reasons.get("recordings") != SKIPPED:
        flags.append(SAME_RECORDINGS)
    if pair.measured is not None and pair.measured.levels["identity"][scorer].few_errors:
        flags.append(FEW_ERRORS)
    for one in pair.centred:
        if one.null_p_familywise > ALPHA and AT_CHANCE not in flags:
            flags.append(f"{ONLY_ITS_GROUP} {one.column}")
    return replace(pair, flags=tuple(flags))


def _ranked_of(report: RankReport, prepared: Prepared) -> Ranked:
    return Ranked(
        report.ordered_by,
        report.scorer,
        report.coverage,
        report.n_train_identities,
        prepared.n_shuffles,
        report.encoders,
        tuple(
            RankedPair(
                p.rank, p.rank_group, p.face, p.voice, p.predicted_eer, p.interval, p.p_best, p.reason, p.predictions,
                p.cka_interval, p.cka_null.p, None if p.prediction is None else p.prediction.null.p,
                None if p.prediction is None else p.prediction.null.p_familywise, p.id_mismatch,
                None if p.joint_space is None else p.joint_space.space, p.flags,
            )
            for p in report.pairs
        ),
        report.notes,
    )  # fmt: skip


def _median_samples(one: Embeddings) -> float:
    return float(np.median(np.unique(one.labels, return_counts=True)[1]))


def _hash(*parts: str) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return found.hexdigest()


def _content(e: Embeddings) -> str:
    """Hash of everything in an encoder's embeddings that a result can depend on."""
    found = hashlib.sha256(f"{e.modality}\0{e.name}\0{e.vectors.shape}\0{e.vectors.dtype}\0".encode())
    found.update(np.ascontiguousarray(e.vectors).data)
    for name, column in (("", e.labels), (" ", e.samples), *sorted(e.attributes.items())):
        found.update(_hash(name, *column.tolist()).encode())
    found.update(repr(e.traits).encode())
    return found.hexdigest()
