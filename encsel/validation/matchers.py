"""The matcher of one pair, fitted on all people of a set, with what was measured about it."""

from __future__ import annotations

from dataclasses import replace

from encsel.core import Embeddings
from encsel.errors import UsageError, nearest
from encsel.matching.evaluate import PairMeasured
from encsel.matching.matcher import Matcher, MatcherFacts, MatcherSide
from encsel.matching.scorers import DEFAULT_SCORER
from encsel.storage.signature import digest
from encsel.validation.result import PairValidation, Validation


def side_of(embeddings: Embeddings) -> MatcherSide:
    """Facts that a matcher keeps about an encoder."""
    origin = {key: value for key, value in embeddings.provenance.items() if key != "file"}
    sha256 = str(origin["sha256"]) if origin.keys() == {"sha256"} else digest(origin)
    traits = embeddings.traits
    return MatcherSide(embeddings.name, embeddings.dim, sha256, traits.trained_on, traits.licence)


def matcher_of(validation: Validation, asked: str | None = None) -> Matcher:
    """The matcher of the pair `asked`, as FACE/VOICE, or of the first pair; UsageError if there is no such pair."""
    pairs = {f"{p.face}/{p.voice}": p for p in validation.pairs}
    asked = next(iter(pairs)) if asked is None else asked
    if asked not in pairs:
        raise UsageError(f"No pair {asked!r} to fit a matcher for; give FACE/VOICE. {nearest(asked, pairs)}")
    pair = pairs[asked]
    (face, faces), (voice, voices) = validation.centroids["face", pair.face], validation.centroids["voice", pair.voice]
    facts = MatcherFacts(face, voice, len(faces), encsel=str(validation.signature["encsel"]), flags=pair.flags)
    return Matcher.fit(faces, voices, _with_measured(facts, pair))


def _with_measured(facts: MatcherFacts, pair: PairValidation) -> MatcherFacts:
    """The facts with what the stages `matching` and `recordings` measured, unless they were skipped."""
    measured: PairMeasured | None = pair["measured"]
    if measured is not None:
        people, single = (measured.levels[level][DEFAULT_SCORER] for level in ("identity", "sample"))
        facts = replace(
            facts, eer=people.eer, interval=people.interval, cllr=people.cllr, eer_single=single.eer,
            within={group.column: group.matching[DEFAULT_SCORER].eer for group in measured.within},
        )  # fmt: skip
    recordings = pair["recordings"]
    return facts if recordings is None else replace(facts, other_recordings=recordings.other_eer[DEFAULT_SCORER])
