"""The top of a report page: one line a pair, and the answers to a reader's first questions."""

from collections.abc import Sequence
from dataclasses import dataclass

from encsel.matching.error_rates import COVERAGE
from encsel.prediction.decision import MOST_NAMED, named, range_of
from encsel.prediction.predict import CHANCE, MIN_TO_PREDICT, PredictionNull
from encsel.ranking.result import PairRanking, RankDocument
from encsel.reports.ranking import places_text
from encsel.storage.sections import number, span
from encsel.validation.result import PairValidation, Validation

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class PairLine:
    """One pair at a glance.

    Attributes:
        places: ranks that the pair may have, as text; "-" if unknown.
        eer, interval: of the quantity that the overview is about.
        predicted, predicted_interval: beside a measured EER.
        chosen: on the shortlist.
    """

    face: str
    voice: str
    places: str
    eer: float | None
    interval: Interval
    predicted: float | None
    predicted_interval: Interval
    chosen: bool

    @property
    def words(self) -> str:
        """The EER with its interval."""
        return number(self.eer) if self.interval is None else f"{number(self.eer)} ({span(self.interval)})"


@dataclass(frozen=True)
class Overview:
    """What is known of all pairs.

    Attributes:
        what: the quantity, such as "Predicted EER".
        meaning: what it is of, in words.
        pairs: lowest EER first.
        levels: EERs of matchers that know nothing, or nothing but a group, with their names.
        answers: (question, answer), of which pair, how good, how sure, above chance, what next.
    """

    what: str
    meaning: str
    pairs: tuple[PairLine, ...]
    levels: tuple[tuple[float, str], ...]
    answers: tuple[tuple[str, str], ...]

    @property
    def top(self) -> float:
        """End of an axis from 0 that holds every interval and chance."""
        pairs = self.pairs
        ends = [end for p in pairs for end in (p.eer, p.predicted, *(p.interval or ()), *(p.predicted_interval or ()))]
        return max(CHANCE, *(end for end in ends if end is not None)) + 0.02

    @property
    def has_eers(self) -> bool:
        return any(p.eer is not None for p in self.pairs)


def overview(result: RankDocument | Validation) -> Overview:
    """The overview by the measured EER or, where that is missing, by the predicted, else the cross-validated one."""
    pairs: Sequence[PairRanking | PairValidation] = result.pairs
    ranked = [p.ranked if isinstance(p, PairValidation) else p for p in pairs]
    shown = _quantities(result, ranked)
    predicted = shown.get("Predicted EER")
    what = next((name for name, one in shown.items() if any(eer is not None for eer, _ in one.eers)), next(iter(shown)))
    lines = []
    for i, (p, r) in enumerate(zip(pairs, ranked, strict=True)):
        beside = predicted.eers[i] if predicted and what == "Measured EER" else (None, None)
        chosen = (p.face, p.voice) in result.decision.shortlist
        lines.append(PairLine(p.face, p.voice, places_text(r), *shown[what].eers[i], *beside, chosen))
    lines.sort(key=lambda line: 1.0 if line.eer is None else line.eer)
    nulls = [p.null for p in ranked if p and p.null]
    levels = [(CHANCE, "chance")]
    if nulls and nulls[0].within and nulls[0].chance != CHANCE:
        levels.insert(0, (nulls[0].chance, f"knowing the {nulls[0].within} alone"))
    answers = _answers(result, what, shown[what].coverage, lines, ranked)
    return Overview(what, shown[what].meaning, tuple(lines), tuple(levels), answers)


@dataclass(frozen=True)
class _Quantity:
    """An EER of every pair with its interval, what it is of, and the fraction of intervals with the true value."""

    eers: Sequence[tuple[float | None, Interval]]
    meaning: str
    coverage: float


def _quantities(result: RankDocument | Validation, ranked: Sequence[PairRanking | None]) -> dict[str, _Quantity]:
    """Every EER that a result has, the best known first."""
    quantities = {}
    if isinstance(result, Validation):
        measured = [(m.eer, m.interval) if (m := p.matching(result.scorer)) else (None, None) for p in result.pairs]
        n_train = next((p["measured"].n_train for p in result.pairs if p["measured"]), None)
        meaning = f"scorer '{result.scorer}', trained on {n_train} of these people and measured on others"
        quantities["Measured EER"] = _Quantity(measured, meaning, COVERAGE)
    if (made := result.prediction if isinstance(result, Validation) else result) is not None:
        predicted = [(p.predicted_eer, p.interval) if p else (None, None) for p in ranked]
        trained = "" if made.n_train_identities is None else f", after training on {made.n_train_identities} people"
        quantities["Predicted EER"] = _Quantity(predicted, f"scorer '{made.scorer}'{trained}", made.coverage)
        scored = [(c.eer, c.interval) if p and (c := p.cross_validated) else (None, None) for p in ranked]
        meaning = f"on these {result.n_identities} people only"
        quantities["Cross-validated EER"] = _Quantity(scored, meaning, COVERAGE)
    return quantities


def _answers(
    result: RankDocument | Validation,
    what: str,
    coverage: float,
    lines: Sequence[PairLine],
    ranked: Sequence[PairRanking | None],
) -> tuple[tuple[str, str], ...]:
    chosen = [line for line in lines if line.chosen]
    known = [line for line in (chosen or lines) if line.eer is not None]
    which = "None can be recommended"
    if chosen:
        which = f"One of {len(chosen)} of the {len(lines)} pairs"
        which = named([(line.face, line.voice) for line in chosen]) if len(chosen) <= MOST_NAMED else which
    good = "Not known"
    if known:
        good = f"{what} {range_of([line.eer for line in known if line.eer is not None])}"
        good += f"{'' if chosen else ' over all pairs'}; 0 is perfect, 0.5 is chance"
    predicted = [line.predicted for line in known if line.predicted is not None]
    if predicted and isinstance(result, Validation) and result.prediction is not None:
        good += f". Predicted after {result.prediction.n_train_identities} people: {range_of(predicted)}"
    sure = "Not known"
    if intervals := [line.interval for line in known if line.interval]:
        sure = f"{100 * coverage:g} % interval{' ' if len(intervals) == 1 else 's within '}"
        sure += f"{min(low for low, _ in intervals):.2f} to {max(high for _, high in intervals):.2f}"
    if 1 < len(chosen) == len(lines):
        sure += "; which one is the best is not known"
    elif result.decision.chance is not None and len(lines) > 1:
        one = "it is the best pair" if len(chosen) == 1 else "the best pair is among these"
        sure += f"; with a chance of {result.decision.chance:.2f} {one}"
    shortlist = result.decision.shortlist
    nulls = [r.null for r in ranked if r and r.null and (not shortlist or (r.face, r.voice) in shortlist)]
    return (
        ("Which pair", which), ("How good", good), ("How sure", sure), ("Above chance", _above_chance(nulls)),
        ("What next", _next(result, chosen, nulls)),
    )  # fmt: skip


def _above_chance(nulls: Sequence[PredictionNull]) -> str:
    if not nulls:
        return "Not measured"
    p = ", p " + " to ".join(dict.fromkeys(f"{rank(null.p_familywise for null in nulls):.3f}" for rank in (min, max)))
    told = sum(null.told for null in nulls)
    if told:
        return f"{'Yes' if told == len(nulls) else f'{told} of these {len(nulls)}'}{p}"
    if any(null.only_groups for null in nulls):
        return f"Perhaps no more than knowing the {nulls[0].within}{p}"
    return f"Not shown{p}"


def _next(result: RankDocument | Validation, chosen: Sequence[PairLine], nulls: Sequence[PredictionNull]) -> str:
    if result.n_identities < MIN_TO_PREDICT:
        return f"Add people: a prediction needs {MIN_TO_PREDICT}, and several hundred separate similar pairs"
    if not chosen or (nulls and not any(null.told for null in nulls)):
        return "Add people, or other encoders; encsel plan DATA tells how many people it takes"
    if isinstance(result, RankDocument):
        return "Measure it on these people: encsel validate DATA"
    if len(chosen) > 1:
        return "Take any of these; encsel plan DATA tells whether more people would separate them"
    return f"Keep its matcher: encsel validate DATA --matcher DIR --matcher-pair {chosen[0].face}/{chosen[0].voice}"
