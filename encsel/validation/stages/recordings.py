"""recordings: every pair with faces and voices from the same recordings, and from different ones."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings
from encsel.data.groups import recordings
from encsel.data.sampling import pick
from encsel.matching.folds import MAX_FOR_ALL_FOLDS, MIN_FOR_FOLDS, Folds, folds_of
from encsel.matching.recordings import RecordingsCompared, compare_recordings, halves
from encsel.matching.scorers import SCORERS
from encsel.storage.sections import Section, number, table
from encsel.validation.result import PairValidation, Validation
from encsel.validation.stage import SKIPPED, Key, Outcome, Outcomes, Stage
from encsel.validation.work import Work

SAME_RECORDINGS = "same recordings"
MANY_SPLITS, FEW_SPLITS = 3, 2


def compute(work: Work) -> Outcomes:
    """Measure pairs of encoders whose recordings are known, on the recordings that all such encoders have."""
    recording_of = {key: names for key, e in work.encoders.items() if (names := recordings(e)) is not None}
    outcomes: Outcomes = {}
    for pair in work.pairs:
        if unknown := [key[1] for key in pair if key not in recording_of]:
            reason = f"the recordings of the samples of {' and '.join(unknown)} are unknown"
            outcomes[pair] = {"recordings": Outcome(None, reason)}
    usable = [pair for pair in work.pairs if pair not in outcomes]
    if not usable:
        return outcomes
    people: tuple[str, ...] = ()
    splits: list[dict[Key, NDArray[np.intp]]] = []
    encoders = [work.encoders[key] for key in recording_of]
    for split in range(MANY_SPLITS if len(work.people) <= MAX_FOR_ALL_FOLDS else FEW_SPLITS):
        people, of_split = shared_halves(encoders, recording_of, seed=work.seed * MANY_SPLITS + split)
        splits.append(of_split)
    if len(people) < MIN_FOR_FOLDS:
        reason = (
            f"{len(people)} people have two recordings that every such encoder has; at least {MIN_FOR_FOLDS} are needed"
        )
        return outcomes | {pair: {"recordings": Outcome(None, reason)} for pair in usable}
    folds: Folds = folds_of(len(people), n_repeats=len(splits), seed=work.seed)
    return outcomes | work.of_pairs(
        STAGE, "recordings", lambda pair, sides: compare_recordings(sides[pair[0]], sides[pair[1]], folds),
        shared=work.for_pairs(
            "halves of recordings", lambda key: halves(work.encoders[key], [split[key] for split in splits], folds)
        ),
        more={"encoders": sorted(work.content[key] for key in recording_of)}, pairs=usable,
    )  # fmt: skip


def shared_halves(
    encoders: Sequence[Embeddings], parts: Mapping[Key, NDArray[np.str_]], *, seed: int
) -> tuple[tuple[str, ...], dict[Key, NDArray[np.intp]]]:
    """People with two parts, such as recordings, that every encoder has, and by encoder the half of each sample.

    Args:
        parts: part that each sample is from, by encoder.
    Returns:
        Names, sorted; by encoder, (rows,) 0 or 1, or -1 for samples of other people and other parts.
    """
    by_encoder: list[dict[str, set[str]]] = []
    for e in encoders:
        by_person: dict[str, set[str]] = {}
        for person, part in np.unique(np.stack([e.labels, parts[e.modality, e.name]]), axis=1).T.tolist():
            by_person.setdefault(person, set()).add(part)
        by_encoder.append(by_person)
    half_of: dict[tuple[str, str], int] = {}
    for person in sorted(set.intersection(*map(set, by_encoder))):
        shared = sorted(set.intersection(*(by_person[person] for by_person in by_encoder)))
        if len(shared) > 1:
            first = set(pick([f"{person}/{part}" for part in shared], len(shared) // 2, seed=seed).tolist())
            half_of |= {(person, part): int(i not in first) for i, part in enumerate(shared)}
    halves_of = {}
    for e in encoders:
        rows = zip(e.labels.tolist(), parts[e.modality, e.name].tolist(), strict=True)
        halves_of[e.modality, e.name] = np.array([half_of.get(row, -1) for row in rows], dtype=np.intp)
    return tuple(dict.fromkeys(person for person, _ in half_of)), halves_of


def flags(pair: PairValidation, _: str, __: Sequence[str]) -> Sequence[str]:
    lacking = pair["recordings"] is None and pair.reasons.get("recordings") != SKIPPED
    return (SAME_RECORDINGS,) if lacking else ()


def sections(validation: Validation) -> Sequence[Section]:
    rows = []
    for p in validation.pairs:
        r: RecordingsCompared | None = p["recordings"]
        if r is not None:
            eers = {"same": r.same_eer, "other": r.other_eer}
            row = {
                "Face": p.face, "Voice": p.voice, "People": str(r.n_people),
                **{f"{name}, {kind}": number(eer[name]) for name in SCORERS for kind, eer in eers.items()},
                "CKA, same": number(r.same_cka["debiased"]), "CKA, other": number(r.other_cka["debiased"]),
            }  # fmt: skip
            rows.append(row)
    return table(
        "Is it the person, or the recording?", rows,
        "EER and debiased CKA with faces and voices from the same recordings, and from different recordings of the "
        "same people, with equally many samples. The advantage of the same recordings is due to the recording, not the "
        "person.", n_names=2,
    )  # fmt: skip


STAGE = Stage(
    name="recordings",
    about="pair",
    order=60,
    fields={"recordings": RecordingsCompared},
    compute=compute,
    version=2,
    flags=flags,
    meanings={
        SAME_RECORDINGS: "faces and voices may come from the same recordings, so part of what is measured may be the "
        "recording; add a session column, or name samples VIDEO/CLIP, to find out",
    },
    sections=sections,
)
