"""Flags: short remarks that results carry about a pair, each explained in the report's legend."""

from collections.abc import Mapping

from encsel.embedding.health import DOUBTS
from encsel.prediction.predict import MIN_TO_PREDICT

FEW_PEOPLE = "few people"
AT_CHANCE = "not above chance"
ONLY_GROUPS = "may tell no more than"
"""Prefix of a flag; the name of the column follows."""
DISAGREE = "CKA and cross-validation disagree"
EXTRAPOLATES = "extrapolates"
CONTRADICTED = "measured far below predicted"
PEOPLE_UNLIKE = "people unlike the card's"
ROWS_UNLIKE = "samples per person unlike the card's"
ROWS_UNKNOWN = "the card does not state its samples per person"
UNSOUND = "unsound encoder"
TRAINED_ON_THESE = "trained on VoxCeleb, where these people are from"

MUST_BE_UNSEEN = "If these people were in the joint training, every number of the pair is too good."
"""Text after the EER of a pair of one joint space."""

MEANINGS: Mapping[str, str] = {
    **DOUBTS,
    FEW_PEOPLE: f" (under {MIN_TO_PREDICT}): a coarse order only, no claim that any pair is better than chance",
    AT_CHANCE: ": with people shuffled, some pair of the table does as well in more than 1 of 20 shuffles",
    ONLY_GROUPS: ": with people shuffled within groups, some pair of the table does as well in more than 1 of 20 "
    "shuffles",
    DISAGREE: ": few simulated pairs differ so much; use --explain to see why",
    EXTRAPOLATES: ": outside the range that the regression was fitted on",
    CONTRADICTED: ": a link stronger than in any population that predictions were fitted on; go by the EERs that "
    "`encsel validate` measures. No gate of `encsel rank` passes",
    PEOPLE_UNLIKE: ": ID mismatch depends on the number of people and cannot be converted",
    ROWS_UNLIKE: ": CKA and ID mismatch depend on it",
    ROWS_UNKNOWN: ": ID mismatch is measured on all samples, which may differ from what the card was fitted on",
    UNSOUND: ": named below; do not rely on this line",
    TRAINED_ON_THESE: ": it does better on them than it will on other people",
}
"""Text after a flag in the legend."""


def meaning(flag: str) -> str:
    """Text after this flag in the legend; empty for flags that explain themselves."""
    return MEANINGS[ONLY_GROUPS] if flag.startswith(ONLY_GROUPS) else MEANINGS.get(flag, "")
