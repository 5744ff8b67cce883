"""prediction: the ranking of the same set."""

from collections.abc import Sequence

from encsel.ranking.rank import measure
from encsel.ranking.result import PairRanking, RankDocument, Ranking
from encsel.ranking.settings import METRICS
from encsel.validation.result import EncoderValidation, PairValidation
from encsel.validation.shared import NEIGHBOURS
from encsel.validation.stage import Outcome, Outcomes, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    # The reference search changes predictions in the fifth digit, so `rank` then does its own search.
    searched = {} if work.reference else {key: n for key, (_, n) in work.remembered(NEIGHBOURS).items()}
    # A fresh ranking has details that a cached one lacks.
    made: list[Ranking] = []

    def now() -> Ranking:
        made.append(measure(work.prepared, work.settings, searched=searched, progress=work.progress))
        return made[0]

    signed = work.signature
    unused = ("stages", "scorer", "protocol")
    options = {name: value for name, value in signed["options"].items() if name not in unused}
    more = {
        "options": options,
        "regressions": signed["regressions"],
        "metrics": {name: signed["metrics"][name] for name in (*METRICS, "evidence")},
    }
    outcome = work.of_set(STAGE, RankDocument, now, more=more)
    work.forget(NEIGHBOURS)
    ranking = made[0] if made else Ranking(**vars(outcome.value)) if outcome.value else None
    outcomes: Outcomes = {"set": {"ranking": Outcome(ranking, outcome.reason)}}
    # As a later run reads them, to the order of their keys.
    pairs = {(p.face, p.voice): p for p in outcome.value.pairs} if outcome.value else {}
    for f, v in work.pairs:
        outcomes[f, v] = {"ranked": Outcome(pairs.get((f[1], v[1])), outcome.reason)}
    return outcomes


def columns(pair: PairValidation, _: EncoderValidation, __: EncoderValidation) -> dict[str, float | None]:
    return {} if pair.ranked is None else {f"predicted_{c}": p.eer for c, p in pair.ranked.predictions.items()}


def flags(pair: PairValidation, _: str, __: Sequence[str]) -> Sequence[str]:
    return () if pair.ranked is None else pair.ranked.flags


STAGE = Stage(
    name="prediction",
    about="set",
    order=30,
    fields={"ranking": RankDocument},
    pair_fields={"ranked": PairRanking},
    compute=compute,
    columns=columns,
    labels={"predicted_*": ("EER predicted by {}", "fraction")},
    flags=flags,
)
