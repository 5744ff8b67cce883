"""recordings: every pair with faces and voices from the same recordings, and from different ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings, Modality
from encsel.data.groups import recordings
from encsel.data.sampling import pick
from encsel.matching.folds import MAX_FOR_ALL_FOLDS, MIN_FOR_FOLDS, Folds, folds_of
from encsel.matching.recordings import RecordingsCompared, compare_recordings, halves
from encsel.matching.scorers import SCORERS
from encsel.storage.sections import Section, number
from encsel.validation.result import PairValidation, Validation
from encsel.validation.stage import SKIPPED, Key, Outcome, Outcomes, Stage
from encsel.validation.work import Work

SAME_RECORDINGS = "same recordings"
MANY_SPLITS, FEW_SPLITS = 6, 2


def compute(work: Work) -> Outcomes:
    """Pairs of encoders whose recordings are known, on the recordings that all such encoders have."""
    recording_of = {key: names for key, e in work.encoders.items() if (names := recordings(e)) is not None}
    outcomes: Outcomes = {}
    for pair in work.pairs:
        unknown = [key[1] for key in pair if key not in recording_of]
        if unknown:
            reason = f"samples of {' and '.join(unknown)} do not tell their recordings"
            outcomes[pair] = {"recordings": Outcome(None, reason)}
    usable = [pair for pair in work.pairs if pair not in outcomes]
    if not usable:
        return outcomes
    people: tuple[str, ...] = ()
    splits: list[dict[Key, NDArray[np.intp]]] = []
    sides = [[work.encoders[k] for k in keys if k in recording_of] for keys in (work.faces, work.voices)]
    for split in range(MANY_SPLITS if len(work.people) <= MAX_FOR_ALL_FOLDS else FEW_SPLITS):
        people, of_split = shared_halves(sides[0], sides[1], recording_of, seed=work.seed * MANY_SPLITS + split)
        splits.append(of_split)
    if len(people) < MIN_FOR_FOLDS:
        reason = f"{len(people)} people have two recordings that every such encoder has; {MIN_FOR_FOLDS} are needed"
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
    faces: Sequence[Embeddings],
    voices: Sequence[Embeddings],
    recording_of: Mapping[tuple[Modality, str], NDArray[np.str_]],
    *,
    seed: int,
) -> tuple[tuple[str, ...], dict[tuple[Modality, str], NDArray[np.intp]]]:
    """People with two recordings that every encoder has, and by encoder the half of each sample.

    Args:
        recording_of: recording of each sample, by (modality, name of the encoder).
    Returns:
        Names, sorted; by (modality, name), (rows,) 0 or 1, or -1 for other people's and other recordings' samples.
    """
    by_encoder: list[dict[str, set[str]]] = []
    for one in (*faces, *voices):
        by_person: dict[str, set[str]] = {}
        parts = np.unique(np.stack([one.labels, recording_of[one.modality, one.name]]), axis=1)
        for person, recording in parts.T.tolist():
            by_person.setdefault(person, set()).add(recording)
        by_encoder.append(by_person)
    half_of: dict[tuple[str, str], int] = {}
    people = []
    for person in sorted(set.intersection(*(set(by_person) for by_person in by_encoder))):
        shared = sorted(set.intersection(*(by_person[person] for by_person in by_encoder)))
        if len(shared) < 2:
            continue
        people.append(person)
        first = set(pick([f"{person}/{r}" for r in shared], len(shared) // 2, seed=seed).tolist())
        half_of.update({(person, recording): 0 if i in first else 1 for i, recording in enumerate(shared)})
    halves_of = {}
    for one in (*faces, *voices):
        keys = zip(one.labels.tolist(), recording_of[one.modality, one.name].tolist(), strict=True)
        halves_of[one.modality, one.name] = np.array([half_of.get(key, -1) for key in keys], dtype=np.intp)
    return tuple(people), halves_of


def flags(pair: PairValidation, _: str, __: Sequence[str]) -> Sequence[str]:
    lacking = pair["recordings"] is None and pair.reasons.get("recordings") != SKIPPED
    return (SAME_RECORDINGS,) if lacking else ()


def sections(validation: Validation) -> Sequence[Section]:
    rows = []
    for p in validation.pairs:
        r: RecordingsCompared | None = p["recordings"]
        if r is not None:
            rows.append(
                (
                    p.face, p.voice, str(r.n_people),
                    *(number(x[name]) for name in SCORERS for x in (r.same_eer, r.other_eer)),
                    *(number(x["debiased"]) for x in (r.same_cka, r.other_cka)),
                )
            )  # fmt: skip
    if not rows:
        return []
    header = (
        "Face", "Voice", "People", *(f"{name}, {kind}" for name in SCORERS for kind in ("same", "other")), "CKA, same",
        "CKA, other",
    )  # fmt: skip
    note = (
        "EER and debiased CKA with faces and voices from the same recordings, and from different recordings of the "
        "same people, with equally many samples. What is better with the same recordings is the recording, not the "
        "person."
    )
    return [Section("Is it the person, or the recording?", header, tuple(rows), (note,), n_names=2)]


STAGE = Stage(
    name="recordings",
    meaning="same recordings against others",
    about="pair",
    version=1,
    order=60,
    fields={"recordings": RecordingsCompared},
    compute=compute,
    flags=flags,
    meanings={
        SAME_RECORDINGS: "faces and voices may come from the same recordings (a session column, or sample names as "
        "VIDEO/CLIP, would tell); part of what is measured may be the recording",
    },
    sections=sections,
)
