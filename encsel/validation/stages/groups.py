"""groups: every pair within groups of people (sex, ...) and of samples (language, ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Vectors
from encsel.data.groups import PersonGroups, columns_of, sample_groups
from encsel.matching.error_rates import Matching
from encsel.matching.evaluate import measure_centroids
from encsel.matching.probe import centred_within, group_probe
from encsel.matching.scorers import SCORERS
from encsel.metrics.centroids import centroids, median_samples
from encsel.metrics.linear_cka import REFERENCE_SIZE, Cka, cka_of_grams, gram
from encsel.prediction.card import CalibratedCard
from encsel.prediction.predict import ALPHA, MIN_TO_PREDICT, Shuffling, predict_pairs
from encsel.prediction.shipped import DEFAULT_REGRESSION
from encsel.ranking.flags import AT_CHANCE
from encsel.storage.sections import Section, number, span
from encsel.validation.result import EncoderValidation, PairValidation, Validation
from encsel.validation.stage import Key, Outcome, Outcomes, Pair, Stage
from encsel.validation.work import Work

ONLY_ITS_GROUP = "tells only"
"""Followed by the column."""


@dataclass(frozen=True)
class CentredOnGroups:
    """One pair without the mean of each person's group: what is left beyond telling the groups apart.

    Attributes:
        predicted_eer, interval: by the default card; None with `reason`. Group means are those of all people;
            everything else fitted sees training people only.
        null_p: permutation p-value of shuffles of people within groups.
    """

    column: str
    n_people: int
    cka: Cka
    predicted_eer: float | None
    interval: tuple[float, float] | None
    null_p: float
    null_p_familywise: float
    n_permutations: int
    reason: str | None


@dataclass(frozen=True)
class WithinValue:
    """One pair on the samples of one value of a column, such as one language: by scorer, centroids."""

    column: str
    value: str
    n_people: int
    matching: Mapping[str, Matching]


def compute(work: Work) -> Outcomes:
    probes: dict[Key, dict[str, float]] = {key: {} for key in work.encoders}
    centred: dict[Pair, tuple[CentredOnGroups, ...]] = dict.fromkeys(work.pairs, ())
    values: dict[Pair, tuple[WithinValue, ...]] = dict.fromkeys(work.pairs, ())
    for column in work.columns:
        for key, probe in _probes(work, column).items():
            if probe is not None:
                probes[key] |= probe
        for pair, one in zip(work.pairs, _centred(work, column), strict=False):
            centred[pair] = (*centred[pair], one)
    for group in sample_groups(work.prepared.embeddings, work.people):
        for value in group.values:
            for pair, within in _within_value(work, group.column, value).items():
                values[pair] = (*values[pair], *(within or ()))
    outcomes: Outcomes = {key: {"group_probe": Outcome(probe)} for key, probe in probes.items()}
    for pair in work.pairs:
        outcomes[pair] = {"centred": Outcome(centred[pair]), "values": Outcome(values[pair])}
    return outcomes


def _probes(work: Work, column: PersonGroups) -> dict[Key, dict[str, float] | None]:
    outcomes = work.of_encoders(
        STAGE, "group_probe",
        lambda key, _: {column.column: group_probe(work.centroids(key), column, seed=work.seed)},
        more={"probe": column.column},
    )  # fmt: skip
    return {key: outcome["group_probe"].value for key, outcome in outcomes.items()}


def _centred(work: Work, column: PersonGroups) -> tuple[CentredOnGroups, ...]:
    """Every pair without group means. All pairs at once: the family-wise p-value is over all of them."""
    n_shuffles = work.settings.n_shuffles(len(work.people))
    more = {
        "field": "centred", "column": column.column, "n_shuffles": n_shuffles, "coverage": work.settings.coverage,
        "regressions": work.signature["regressions"],
    }  # fmt: skip
    kind = tuple[CentredOnGroups, ...]
    return work.of_set(STAGE, kind, lambda: _centred_now(work, column, n_shuffles), more=more).value or ()


def _centred_now(work: Work, column: PersonGroups, n_shuffles: int) -> tuple[CentredOnGroups, ...]:
    sides, grouped = {}, np.zeros(0, np.intp)
    for key in work.encoders:
        sides[key], grouped = centred_within(work.centroids(key), column)
    cards = [c for c in work.settings.cards if isinstance(c, CalibratedCard)]
    card = min(cards, key=lambda card: card.name != DEFAULT_REGRESSION)
    samples = {key: median_samples(e) for key, e in work.encoders.items()}
    predictions = predict_pairs(
        [sides[e] for e in work.faces], [sides[e] for e in work.voices],
        ([samples[e] for e in work.faces], [samples[e] for e in work.voices]), [card],
        seed=work.seed, coverage=work.settings.coverage, n_shuffles=n_shuffles,
        shuffling=Shuffling(column.column, column.index[grouped]), progress=work.progress,
    )  # fmt: skip
    grams = {key: gram(x) for key, x in sides.items()}
    n = len(grouped)
    few = f"{n} people; a predicted EER needs at least {MIN_TO_PREDICT}" if n < MIN_TO_PREDICT else None
    results = []
    for (f, v), one in zip(work.pairs, (one for row in predictions for one in row), strict=True):
        estimate, null = one.estimates[card.name], one.null
        results.append(
            CentredOnGroups(
                column.column, n, cka_of_grams(grams[f], grams[v], matched_to=REFERENCE_SIZE),
                None if few else estimate.eer, None if few else estimate.interval,
                null.p, null.p_familywise, null.n_permutations, few,
            )
        )  # fmt: skip
    return tuple(results)


def _within_value(work: Work, column: str, value: str) -> dict[Pair, tuple[WithinValue, ...] | None]:
    def sides_of(_: Sequence[Pair]) -> tuple[dict[Key, Vectors], int]:
        rows = {
            key: e.rows(values == value)
            for key, e in work.encoders.items()
            if (values := columns_of(e).get(column)) is not None
        }
        people = sorted(set.intersection(*(set(e.identities) for e in rows.values())))
        return {key: centroids(e.rows(np.isin(e.labels, people))) for key, e in rows.items()}, len(people)

    def one(pair: Pair, context: tuple[dict[Key, NDArray[np.float64]], int]) -> tuple[WithinValue, ...]:
        sides, n = context
        return (WithinValue(column, value, n, measure_centroids(sides[pair[0]], sides[pair[1]], seed=work.seed)),)

    more = {"column": column, "value": value, "encoders": sorted(work.content.values())}
    outcomes = work.of_pairs(STAGE, "values", one, shared=sides_of, more=more)
    return {pair: outcome["values"].value for pair, outcome in outcomes.items()}


def columns(_: PairValidation, face: EncoderValidation, voice: EncoderValidation) -> dict[str, float | None]:
    probes = [e["group_probe"] or {} for e in (face, voice)]
    # A pair tells groups apart only as well as its worse side.
    return {f"group_probe_{c}": min(p[c] for p in probes) for c in sorted(set(probes[0]) & set(probes[1]))}


def flags(pair: PairValidation, _: str, so_far: Sequence[str]) -> Sequence[str]:
    if AT_CHANCE in so_far:
        return ()
    return [f"{ONLY_ITS_GROUP} {one.column}" for one in pair["centred"] or () if one.null_p_familywise > ALPHA]


def encoder_cells(e: EncoderValidation, validation: Validation) -> Mapping[str, str]:
    probed = dict.fromkeys(c for one in validation.encoders for c in one["group_probe"] or {})
    return {f"Probe {column}": number((e["group_probe"] or {}).get(column)) for column in probed}


def notes(validation: Validation) -> Sequence[str]:
    if not any(e["group_probe"] for e in validation.encoders):
        return ()
    return ("Probe: balanced accuracy of a linear classifier of the group on people it was not fitted on.",)


def sections(validation: Validation) -> Sequence[Section]:
    return [*_by_column(validation), *_by_value(validation)]


def _by_column(validation: Validation) -> list[Section]:
    found = []
    for column, sizes in validation.group_columns.items():
        rows = []
        for p in validation.pairs:
            measured = p["measured"]
            within = next((w for w in measured.within if w.column == column), None) if measured else None
            centred = next((c for c in p["centred"] or () if c.column == column), None)
            if within is None and centred is None:
                continue
            of_scorer = None if within is None else within.matching[validation.scorer]
            everyone = p.matching(validation.scorer)
            rows.append(
                (
                    p.face, p.voice, number(everyone and everyone.eer), number(within and within.floor),
                    number(of_scorer and of_scorer.eer), span(of_scorer.interval if of_scorer else None),
                    *(number(within.eer_of[value][validation.scorer] if within else None) for value in sizes),
                    number(centred and centred.cka.debiased), number(centred and centred.predicted_eer),
                    number(centred and centred.null_p),
                )
            )  # fmt: skip
        if not rows:
            continue
        header = (
            "Face", "Voice", "EER, all", f"{column} alone", "EER within", "Interval 90 %", *sizes, "CKA centred",
            "Predicted centred", "p within",
        )  # fmt: skip
        groups = ", ".join(f"{value}: {size}" for value, size in sizes.items())
        note = (
            f"{column} alone: EER of knowing the {column} and nothing else. EER within: impostors have the same "
            f"{column}. Centred: without each group's mean. p within: permutation p-value of shuffles of people within "
            f"{column}. Near 0.5 and a large p: the pair tells only the {column}. People: {groups}."
        )
        found.append(Section(f"Within {column}", header, tuple(rows), (note,), n_names=2))
    return found


def _by_value(validation: Validation) -> list[Section]:
    by_column: dict[str, list[tuple[str, ...]]] = {}
    for p in validation.pairs:
        for w in p["values"] or ():
            of_scorer = w.matching[validation.scorer]
            by_column.setdefault(w.column, []).append(
                (
                    p.face, p.voice, w.value, str(w.n_people), *(number(w.matching[name].eer) for name in SCORERS),
                    span(of_scorer.interval), number(of_scorer.auc),
                )
            )  # fmt: skip
    found = []
    for column, rows in by_column.items():
        header = (
            "Face", "Voice", column.capitalize(), "People", *(f"EER {name}" for name in SCORERS), "Interval 90 %",
            "AUC",
        )  # fmt: skip
        note = f"Samples of one {column} on both sides, of people who have it; centroids, cross-validated."
        found.append(Section(f"Within each {column}", header, tuple(rows), (note,), n_names=3))
    return found


STAGE = Stage(
    name="groups",
    meaning="within groups of people and samples",
    about="encoder",
    version=1,
    order=65,
    fields={"group_probe": Mapping[str, float]},
    pair_fields={"centred": tuple[CentredOnGroups, ...], "values": tuple[WithinValue, ...]},
    compute=compute,
    columns=columns,
    labels={"group_probe_*": ("{} probe, the worse of the two", "fraction")},
    flags=flags,
    meanings={ONLY_ITS_GROUP: "without group means, shuffling people within groups does as well"},
    encoder_cells=encoder_cells,
    notes=notes,
    sections=sections,
)
