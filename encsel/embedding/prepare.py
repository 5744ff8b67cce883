"""The first step of `rank` and `validate`: open the set, embed it, and find the people that all encoders have."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from encsel.core import Embeddings, Runtime, SetOptions
from encsel.data.calibration_set import CalibrationSet
from encsel.embedding.candidates import Names, check_expected_early, embeddings_of
from encsel.embedding.embed import Embedded
from encsel.embedding.health import Health, examine
from encsel.errors import BadCalibration, UsageError, nearest
from encsel.loading.hub import torch_device
from encsel.matching.folds import MIN_FOR_FOLDS
from encsel.prediction.predict import Shuffling
from encsel.progress import Progress
from encsel.storage.cache import cache_root
from encsel.storage.pseudonyms import Pseudonyms, pseudonyms, without_folders

MAX_IDENTITIES = 6000
"""Memory grows with the square of their number. The cards cover sets of up to 2000."""
GROUP_COLUMNS = ("sex", "gender")


@dataclass(frozen=True)
class Prepared:
    """A calibration set, embedded and checked, before anything is measured.

    Attributes:
        people: identities that every encoder has, sorted; `embeddings` have no others.
        device: torch device for geometry, or "cpu".
    """

    calibration: CalibrationSet
    embedded: Embedded
    embeddings: tuple[Embeddings, ...]
    people: tuple[str, ...]
    shuffling: Shuffling
    options: SetOptions
    device: str

    @property
    def seed(self) -> int:
        return self.options.seed

    def health(self, embeddings: Embeddings) -> Health:
        """The health of one encoder of the set."""
        key, trained = (embeddings.modality, embeddings.name), embeddings.traits.identity_trained
        n_skipped = sum((s.modality, s.encoder) == key for s in self.embedded.skipped)
        return examine(embeddings, seed=self.seed, n_skipped=n_skipped, identity_trained=trained)


def prepare(
    data: str | Path | CalibrationSet,
    faces: Names,
    voices: Names,
    *,
    options: SetOptions,
    runtime: Runtime,
    expect_best: str | None,
    progress: Progress,
) -> Prepared:
    """Open a calibration set and embed it with every candidate.

    Args:
        expect_best: FACE/VOICE that must be among the pairs; checked before anything is embedded.
    Raises:
        UsageError, BadCalibration, EncoderFailed: as `encsel.rank`.
    """
    if options.min_identities < 1 or options.seed < 0:
        raise UsageError(
            f"min_identities is {options.min_identities} and seed {options.seed}; they must be at least 1 and 0."
        )
    opened = data.restricted(options) if isinstance(data, CalibrationSet) else CalibrationSet.from_path(data, options)
    if expect_best is not None:
        check_expected_early(expect_best, opened, faces, voices)
    n = len(opened.identities)
    progress.note(f"Layout: {opened.layout}; {n} identities in both modalities.")
    if n < options.min_identities:
        raise BadCalibration(
            f"{n} identities have both faces and voices; at least {options.min_identities} are needed. "
            "Add people, or lower --min-identities for a coarse order."
        )
    if n > MAX_IDENTITIES:
        raise BadCalibration(
            f"{n} identities have both faces and voices; memory grows with their square, and at most {MAX_IDENTITIES} "
            "are ranked. Choose some with --identities 2000."
        )
    for note in (*opened.notes, *opened.details):
        progress.note(note)
    embedded = embeddings_of(opened, faces, voices, runtime=runtime, expect_best=expect_best, progress=progress)
    for one in embedded.skipped:
        by = f" [{one.encoder}]" if one.encoder else ""
        progress.note(f"skipped {one.modality} {one.sample}{by}: {one.reason}")
    names = names_for(runtime, options, progress) if embedded.skipped else Pseudonyms(None)
    embedded = replace(
        embedded,
        skipped=names.skipped(embedded.skipped),
        failures=tuple(replace(f, reason=without_folders(f.reason)) for f in embedded.failures),
    )
    people = _common_people(embedded.embeddings, options.min_identities, progress)
    shuffling = _shuffling(opened, embedded.embeddings, people, options.within, progress)
    if shuffling.within:
        progress.note(f"People are shuffled within {shuffling.within}.")
    common = tuple(e.rows(np.isin(e.labels, people)) for e in embedded.embeddings)
    return Prepared(opened, embedded, common, people, shuffling, opened.options, _geometry_device(runtime))


def names_for(runtime: Runtime, options: SetOptions, progress: Progress) -> Pseudonyms:
    """The pseudonyms of a result, with a note if names cannot be hashed."""
    try:
        return pseudonyms(cache_root(runtime.cache), show=options.show_names)
    except OSError as error:
        progress.note(f"Results carry no hashes of names: their key cannot be stored ({error.strerror or error}).")
        return Pseudonyms(None)


def _common_people(embeddings: Sequence[Embeddings], min_identities: int, progress: Progress) -> tuple[str, ...]:
    """Identities that every encoder has, so that all pairs are compared on the same people."""
    sets = {f"{e.modality} {e.name}": set(e.identities) for e in embeddings}
    common = set.intersection(*sets.values())
    if not common:
        sides = "; ".join(f"{name} has {', '.join(sorted(people)[:3])}, ..." for name, people in sets.items())
        raise BadCalibration(f"No identity has usable samples for every encoder: {sides}. Name people alike.")
    sizes = ", ".join(f"{name} {len(people)}" for name, people in sets.items())
    if len(common) < min_identities:
        raise BadCalibration(
            f"{len(common)} identities have usable samples for every encoder ({sizes}); at least {min_identities} are "
            "needed. Add people, leave out an encoder that lacks them, or lower --min-identities for a coarse order."
        )
    n_any = len(set.union(*sets.values()))
    if n_any > len(common):
        progress.note(
            f"{n_any - len(common)} of {n_any} identities are left out: not every encoder has them ({sizes})."
        )
    return tuple(sorted(common))


def _shuffling(
    calibration: CalibrationSet,
    embeddings: Sequence[Embeddings],
    people: Sequence[str],
    within: str | None,
    progress: Progress,
) -> Shuffling:
    """Groups within which people are shuffled: those of the column `within`, else of sex or gender if complete."""
    cells = [(column, s.identity, value) for s in calibration.samples for column, value in s.attributes.items()]
    for e in embeddings:
        for column, values in e.attributes.items():
            cells += [(column, *row) for row in zip(e.labels.tolist(), values.tolist(), strict=True)]
    columns: dict[str, dict[str, set[str]]] = {}
    for column, person, value in cells:
        columns.setdefault(column, {}).setdefault(person, set()).add(value.strip())

    def fault(column: str) -> str | None:
        values_of = {p: columns[column].get(p, set()) - {""} for p in people}
        if n_lacking := sum(not values for values in values_of.values()):
            return f"{n_lacking} of {len(people)} people have none"
        if n_several := sum(len(values) > 1 for values in values_of.values()):
            return f"{n_several} people have more than one"
        smallest = min(Counter(next(iter(values)) for values in values_of.values()).values())
        # Two test people per fold, or a fold has nobody to swap with.
        return f"a group has {smallest} people, {MIN_FOR_FOLDS} are needed" if smallest < MIN_FOR_FOLDS else None

    if within is not None:
        if within not in columns:
            raise UsageError(f"No column {within!r} to shuffle within. {nearest(within, columns)}")
        if reason := fault(within):
            raise BadCalibration(
                f"People cannot be shuffled within {within!r}: {reason}. "
                "Give each person one value, and each group enough people."
            )
        faults: dict[str, str | None] = {within: None}
    else:
        faults = {column: fault(column) for column in GROUP_COLUMNS if column in columns}
    chosen = next((column for column, reason in faults.items() if reason is None), None)
    if chosen is None:
        for column, reason in faults.items():
            progress.note(f"People are shuffled across {column}, not within it: {reason}.")
        return Shuffling()
    group_of = [next(iter(columns[chosen][p] - {""})) for p in people]
    return Shuffling(chosen, np.unique(group_of, return_inverse=True)[1].astype(np.intp))


def _geometry_device(runtime: Runtime) -> str:
    """Where the encoders ran; torch is not imported just to look for a GPU."""
    if runtime.device == "auto":
        torch = sys.modules.get("torch")
        return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
    return str(torch_device(runtime.device)) if runtime.device != "cpu" else "cpu"
