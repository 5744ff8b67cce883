"""groups: every pair within groups of people (sex, ...) and of samples (language, ...)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encsel.data.groups import PersonGroups, columns_of, sample_groups
from encsel.matching.axes import Side
from encsel.matching.error_rates import Matching
from encsel.matching.evaluate import tally_by_scorer
from encsel.matching.folds import Folds, protocol_folds, scored
from encsel.matching.probe import centred_within, group_probe
from encsel.matching.projections import project_centroids
from encsel.matching.scorers import SCORERS
from encsel.metrics.centroids import median_samples
from encsel.metrics.linear_cka import REFERENCE_SIZE, Cka, cka_of_grams, gram
from encsel.prediction.card import CalibratedCard
from encsel.prediction.predict import ALPHA, MIN_TO_PREDICT, Shuffling, predict_pairs
from encsel.prediction.shipped import DEFAULT_REGRESSION
from encsel.ranking.flags import AT_CHANCE, MEANINGS, ONLY_GROUPS
from encsel.ranking.pairs import too_few
from encsel.storage.sections import Section, number, span, table
from encsel.validation.result import EncoderValidation, PairValidation, Validation
from encsel.validation.stage import Key, Outcome, Outcomes, Pair, Stage
from encsel.validation.work import Work

MAX_REPEATS = 3
"""Repeats of the cross-validation within each value of a column."""


@dataclass(frozen=True)
class CentredOnGroups:
    """One pair without the mean of each person's group: what remains beyond distinguishing the groups.

    Attributes:
        predicted_eer, interval: by the default card; None with `reason`. Group means are those of all people;
            everything else is fitted on training people only.
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
    """One pair on the samples with one value of a column, such as one language; centroids, by scorer."""

    column: str
    value: str
    n_people: int
    matching: Mapping[str, Matching]


def compute(work: Work) -> Outcomes:
    probes: dict[Key, dict[str, float]] = {key: {} for key in work.encoders}
    centred: dict[Pair, tuple[CentredOnGroups, ...]] = dict.fromkeys(work.pairs, ())
    values: dict[Pair, tuple[WithinValue, ...]] = dict.fromkeys(work.pairs, ())
    for column in work.columns:

        def probe(key: Key, _: object, column: PersonGroups = column) -> dict[str, float]:
            return {column.column: group_probe(work.centroids(key), column, seed=work.seed)}

        probed = work.of_encoders(STAGE, "group_probe", probe, more={"probe": column.column})
        for key, outcome in probed.items():
            probes[key] |= outcome["group_probe"].value or {}
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


def _centred(work: Work, column: PersonGroups) -> tuple[CentredOnGroups, ...]:
    """Every pair without group means, all at once: the family-wise p-value is over all pairs."""
    n_shuffles, coverage = work.settings.n_shuffles(len(work.people)), work.settings.coverage

    def compute() -> tuple[CentredOnGroups, ...]:
        sides, grouped = {}, np.zeros(0, np.intp)
        for key in work.encoders:
            sides[key], grouped = centred_within(work.centroids(key), column)
        cards = [c for c in work.settings.cards if isinstance(c, CalibratedCard)]
        cards = sorted(cards, key=lambda card: card.name != DEFAULT_REGRESSION)
        samples = {key: median_samples(e) for key, e in work.encoders.items()}
        predictions = predict_pairs(
            [sides[e] for e in work.faces], [sides[e] for e in work.voices],
            ([samples[e] for e in work.faces], [samples[e] for e in work.voices]), cards,
            seed=work.seed, coverage=coverage, n_shuffles=n_shuffles,
            shuffling=Shuffling(column.column, column.index[grouped]), progress=work.progress,
        )  # fmt: skip
        grams, n = {key: gram(x) for key, x in sides.items()}, len(grouped)
        few = too_few(n) if n < MIN_TO_PREDICT else None
        results = []
        for (f, v), prediction in zip(work.pairs, itertools.chain(*predictions), strict=True):
            estimate, p = prediction.estimates[cards[0].name], prediction.null
            eer, interval = (None, None) if few else (estimate.eer, estimate.interval)
            cka = cka_of_grams(grams[f], grams[v], matched_to=REFERENCE_SIZE)
            results.append(
                CentredOnGroups(column.column, n, cka, eer, interval, p.p, p.p_familywise, p.n_permutations, few)
            )
        return tuple(results)

    more = {
        "field": "centred", "column": column.column, "n_shuffles": n_shuffles, "coverage": coverage,
        "regressions": work.signature["regressions"],
    }  # fmt: skip
    return work.of_set(STAGE, tuple[CentredOnGroups, ...], compute, more=more).value or ()


def _within_value(work: Work, column: str, value: str) -> dict[Pair, tuple[WithinValue, ...] | None]:
    rows = {
        key: e.rows(values == value)
        for key, e in work.encoders.items()
        if (values := columns_of(e).get(column)) is not None
    }
    people = sorted(set.intersection(*(set(e.identities) for e in rows.values())))

    def folds_of_value() -> Folds:
        return protocol_folds(len(people), "crossval", seed=work.seed)[:MAX_REPEATS]

    def project(key: Key) -> list[list[Side]]:
        of_people = rows[key].rows(np.isin(rows[key].labels, people))
        return project_centroids(of_people.centroids, folds_of_value())

    def one(pair: Pair, sides: Mapping[Key, list[list[Side]]]) -> tuple[WithinValue, ...]:
        face, voice = (sides[key] for key in pair)
        folds = folds_of_value()
        return (WithinValue(column, value, len(people), tally_by_scorer(scored(face, voice, folds))),)

    more = {"column": column, "value": value, "encoders": sorted(work.content.values())}
    outcomes = work.of_pairs(STAGE, "values", one, shared=work.for_pairs(f"{column} {value}", project), more=more)
    work.forget(f"{column} {value}")
    return {pair: outcome["values"].value for pair, outcome in outcomes.items()}


def columns(_: PairValidation, face: EncoderValidation, voice: EncoderValidation) -> dict[str, float | None]:
    probes = [e["group_probe"] or {} for e in (face, voice)]
    # A pair distinguishes groups only as well as its worse side.
    return {f"group_probe_{c}": min(p[c] for p in probes) for c in sorted(set(probes[0]) & set(probes[1]))}


def flags(pair: PairValidation, _: str, so_far: Sequence[str]) -> Sequence[str]:
    if AT_CHANCE in so_far:
        return ()
    return [f"{ONLY_GROUPS} {one.column}" for one in pair["centred"] or () if one.null_p_familywise > ALPHA]


def encoder_cells(e: EncoderValidation, validation: Validation) -> Mapping[str, str]:
    probed = dict.fromkeys(c for one in validation.encoders for c in one["group_probe"] or {})
    return {f"Probe {column}": number((e["group_probe"] or {}).get(column)) for column in probed}


def notes(validation: Validation) -> Sequence[str]:
    probed = any(e["group_probe"] for e in validation.encoders)
    note = "Probe: balanced accuracy of a linear classifier of the group on people it was not fitted on."
    return (note,) if probed else ()


def sections(validation: Validation) -> Sequence[Section]:
    return [*_by_column(validation), *_by_value(validation)]


def _by_column(validation: Validation) -> list[Section]:
    tables = []
    for column, sizes in validation.group_columns.items():
        rows = []
        for p in validation.pairs:
            measured, everyone = p["measured"], p.matching(validation.scorer)
            within = next((w for w in measured.within if w.column == column), None) if measured else None
            centred = next((c for c in p["centred"] or () if c.column == column), None)
            if within is None and centred is None:
                continue
            of_scorer = within and within.matching[validation.scorer]
            row = (
                ("Face", p.face), ("Voice", p.voice), ("EER, all", number(everyone and everyone.eer)),
                (f"{column} alone", number(within and within.floor)),
                ("EER within", number(of_scorer and of_scorer.eer)),
                ("Interval 90 %", span(of_scorer and of_scorer.interval)),
                *((value, number(within and within.eer_of[value][validation.scorer])) for value in sizes),
                ("CKA centred", number(centred and centred.cka.debiased)),
                ("Predicted centred", number(centred and centred.predicted_eer)),
                ("p within", number(centred and centred.null_p)),
            )  # fmt: skip
            rows.append(row)
        groups = ", ".join(f"{value}: {size}" for value, size in sizes.items())
        tables += table(
            f"Within {column}", rows,
            f"{column} alone: EER of a matcher that knows only the {column}, among the test people of each fold. EER "
            f"within: impostors have the same {column}. Centred: without each group's mean. p within: permutation "
            f"p-value of shuffles of people within {column}. If these EERs are near 0.5 and p is large, the pair "
            f"reflects only the {column}. People: {groups}.", n_names=2,
        )  # fmt: skip
    return tables


def _by_value(validation: Validation) -> list[Section]:
    by_column: dict[str, list[Sequence[tuple[str, str]]]] = {}
    for p in validation.pairs:
        for w in p["values"] or ():
            of_scorer = w.matching[validation.scorer]
            row = (
                ("Face", p.face), ("Voice", p.voice), (w.column.capitalize(), w.value), ("People", str(w.n_people)),
                *((f"EER {name}", number(w.matching[name].eer)) for name in SCORERS),
                ("Interval 90 %", span(of_scorer.interval)), ("AUC", number(of_scorer.auc)),
            )  # fmt: skip
            by_column.setdefault(w.column, []).append(row)
    note = "Samples with one {} on both sides, for people who have it; centroids, cross-validated."
    tables = (table(f"Within each {c}", rows, note.format(c), n_names=3) for c, rows in by_column.items())
    return list(itertools.chain(*tables))


STAGE = Stage(
    name="groups",
    about="encoder",
    order=65,
    fields={"group_probe": Mapping[str, float]},
    pair_fields={"centred": tuple[CentredOnGroups, ...], "values": tuple[WithinValue, ...]},
    compute=compute,
    version=2,
    columns=columns,
    labels={"group_probe_*": ("{} probe, the worse of the two", "fraction")},
    flags=flags,
    meanings={ONLY_GROUPS: MEANINGS[ONLY_GROUPS].removeprefix(": ")},
    encoder_cells=encoder_cells,
    notes=notes,
    sections=sections,
)
