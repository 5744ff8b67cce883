"""The first step of `rank` and `validate`: open the set, embed it, and find the people that all encoders have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encsel.core import MODALITIES, Embeddings, Failure, Modality, Runtime, SetOptions
from encsel.data.calibration_set import CalibrationSet
from encsel.embedding.candidates import Names, check_asked, embeddings_of
from encsel.embedding.embed import Embedded
from encsel.embedding.health import (
    SAME_PEOPLE,
    Health,
    doubts_of_encoder,
    doubts_of_pairs,
    examine,
    few_shared_rows,
    unmeasurable,
)
from encsel.embedding.labels import notes_on_labels
from encsel.embedding.memory import check_memory
from encsel.errors import BadCalibration, EncoderFailed, UsageError, nearest
from encsel.extras import is_installed
from encsel.loading.hub import check_devices
from encsel.matching.folds import MAX_PEOPLE, MIN_FOR_FOLDS, people_sampled
from encsel.prediction.predict import Shuffling
from encsel.progress import Progress, each
from encsel.storage.cache import cache_root
from encsel.storage.pseudonyms import Pseudonyms, pseudonyms, without_folders

GROUP_COLUMNS = ("sex", "gender")
MAX_NAMED = 5
"""Largest number of cases that a note names, such as people who share a vector."""


@dataclass(frozen=True)
class Prepared:
    """A calibration set, embedded and checked, before anything is measured.

    Attributes:
        people: identities that every encoder has, sorted; `embeddings` have no others.
        healths: health of each encoder, by (modality, name).
        doubts_of_encoders, doubts_of_pairs: flags of DOUBTS that hold, by (modality, name) and by (face, voice).
        device: torch device for geometry, or "cpu".
    """

    calibration: CalibrationSet
    embedded: Embedded
    embeddings: tuple[Embeddings, ...]
    people: tuple[str, ...]
    shuffling: Shuffling
    options: SetOptions
    healths: Mapping[tuple[Modality, str], Health]
    doubts_of_encoders: Mapping[tuple[Modality, str], tuple[str, ...]]
    doubts_of_pairs: Mapping[tuple[str, str], tuple[str, ...]]
    device: str

    @property
    def seed(self) -> int:
        return self.options.seed

    def doubts(self, face: str, voice: str) -> tuple[str, ...]:
        """Reasons why the numbers of a pair say nothing about faces and voices: flags of DOUBTS."""
        of_encoders = [*self.doubts_of_encoders["face", face], *self.doubts_of_encoders["voice", voice]]
        return tuple(dict.fromkeys([*of_encoders, *self.doubts_of_pairs[face, voice]]))


def prepare(
    data: str | Path | CalibrationSet,
    faces: Names,
    voices: Names,
    *,
    options: SetOptions,
    runtime: Runtime,
    expect_best: str | None,
    progress: Progress,
    explain: str | None = None,
    sample_people: bool = False,
) -> Prepared:
    """Open a calibration set and embed it with every candidate.

    Args:
        sample_people: use a random sample of MAX_PEOPLE of more people.
        expect_best, explain: FACE/VOICE that must be among the pairs; checked before anything is embedded.
    Raises:
        UsageError, BadCalibration, EncoderFailed: as `encsel.rank`.
    """
    if options.min_identities < 1 or options.seed < 0:
        raise UsageError(
            f"min_identities is {options.min_identities} and seed {options.seed}; they must be at least 1 and 0."
        )
    check_devices(runtime)
    opened = (
        data.restricted(options)
        if isinstance(data, CalibrationSet)
        else CalibrationSet.from_path(data, options, progress=progress)
    )
    check_asked(opened, faces, voices, {"--expect-best": expect_best, "--explain": explain})
    n = len(opened.identities)
    progress.note(f"Layout: {opened.layout}; {n} identities in both modalities.")
    if n < options.min_identities:
        raise BadCalibration(
            f"{n} identities have both faces and voices; at least {options.min_identities} are needed. "
            "Add people, or lower --min-identities for a coarse order."
        )
    for note in (*opened.notes, *opened.details):
        progress.note(note)
    embedded = embeddings_of(
        opened, faces, voices, runtime=runtime, expect_best=expect_best, progress=progress,
        check=lambda n_faces, n_voices: check_memory(n, n_faces, n_voices),
    )  # fmt: skip
    for one in embedded.skipped:
        by = f" [{one.encoder}]" if one.encoder else ""
        progress.note(f"skipped {one.modality} {one.sample}{by}: {one.reason}")
    names = names_for(runtime, options, progress) if embedded.skipped else Pseudonyms(None)
    embedded = replace(
        embedded,
        skipped=names.skipped(embedded.skipped),
        failures=tuple(replace(f, reason=without_folders(f.reason)) for f in embedded.failures),
    )
    embedded, people = _measurable(embedded, options, progress)
    notes = []
    if sample_people and len(people) > MAX_PEOPLE:
        notes.append(
            f"Everything is measured on a random {MAX_PEOPLE} of the {len(people)} people, and intervals are those of "
            "so many."
        )
        people = tuple(people[i] for i in people_sampled(len(people), seed=options.seed))
    shuffling, of_people = _shuffling(opened, embedded.embeddings, people, options.within)
    common = tuple(e.of_people(people) for e in embedded.embeddings)
    n_skipped = Counter((s.modality, s.encoder) for s in embedded.skipped)

    def examined(e: Embeddings) -> tuple[tuple[str, ...], Health]:
        doubts = doubts_of_encoder(e)
        return doubts, examine(e, seed=options.seed, n_skipped=n_skipped[e.modality, e.name], doubts=doubts)

    found = dict(
        zip([(e.modality, e.name) for e in common], each(examined, progress, "examining encoders", common), strict=True)
    )
    of_encoders = {key: doubts for key, (doubts, _) in found.items()}
    healths = {key: health for key, (_, health) in found.items()}
    of_pairs = doubts_of_pairs(common)
    whose = [(f"{m} encoder {name}", flags) for (m, name), flags in of_encoders.items()]
    whose += [(f"{face} x {voice}", flags) for (face, voice), flags in of_pairs.items()]
    # The set has a note about people who may be the same.
    notes += [f"{name}: {flag}; no gate passes." for name, flags in whose for flag in flags if flag != SAME_PEOPLE]
    notes += of_people
    notes += notes_on_labels(common, progress)
    for e in common:
        if shared := few_shared_rows(e):
            for samples in shared[:MAX_NAMED]:
                progress.note(f"{e.modality} encoder {e.name}: the same vector stands for {' and '.join(samples)}.")
            notes.append(
                f"{e.modality} encoder {e.name}: {sum(map(len, shared))} of {len(e.vectors)} rows equal a row of "
                "another person, too few to matter; stderr names them."
            )
    notes += spaces_of_several_dimensions(common)
    for note in notes:
        progress.note(note)
    opened = replace(opened, notes=(*opened.notes, *notes))
    device = _geometry_device(runtime, embedded)
    return Prepared(opened, embedded, common, people, shuffling, opened.options, healths, of_encoders, of_pairs, device)


def names_for(runtime: Runtime, options: SetOptions, progress: Progress) -> Pseudonyms:
    """The pseudonyms of a result, with a note if names cannot be hashed."""
    try:
        return pseudonyms(cache_root(runtime.cache), show=options.show_names)
    except OSError as error:
        progress.note(f"Results contain no hashes of names: the key cannot be stored ({error.strerror or error}).")
        return Pseudonyms(None)


def spaces_of_several_dimensions(embeddings: Sequence[Embeddings]) -> list[str]:
    """Notes on joint spaces whose encoders have different dimensions, so that some are not compared in them."""
    of_space: dict[str, list[Embeddings]] = {}
    for e in embeddings:
        if e.traits.space is not None:
            of_space.setdefault(e.traits.space, []).append(e)
    notes = []
    for space, members in of_space.items():
        if len({e.dim for e in members}) > 1:
            dims = ", ".join(f"{e.modality} {e.name} {e.dim}" for e in members)
            notes.append(
                f"The joint space {space} has encoders of different dimensions ({dims}); only encoders of the same "
                "dimension are compared by plain cosine. Save the embeddings after the last joint layer, or remove the "
                "space."
            )
    return notes


def _measurable(embedded: Embedded, options: SetOptions, progress: Progress) -> tuple[Embedded, tuple[str, ...]]:
    """The encoders that can be measured, with the others as failures, and the people that all of them have."""
    while True:
        people = _common_people(embedded.embeddings, options.min_identities, progress)
        reasons = each(
            lambda e: unmeasurable(e.of_people(people), seed=options.seed),  # noqa: B023 (called in this turn)
            progress, "measuring people", embedded.embeddings,
        )  # fmt: skip
        usable, failures = [], []
        for e, reason in zip(embedded.embeddings, reasons, strict=True):
            if reason is None:
                usable.append(e)
            else:
                failures.append(Failure(e.modality, e.name, reason))
                progress.note(f"{e.name} failed: {reason}", in_result=True)
        if not failures:
            return embedded, people
        embedded = replace(embedded, embeddings=tuple(usable), failures=(*embedded.failures, *failures))
        for modality in MODALITIES:
            if all(e.modality != modality for e in usable):
                why = " ".join(f"{f.encoder}: {f.reason}" for f in embedded.failures if f.modality == modality)
                raise EncoderFailed(f"No {modality} encoder can be measured. {why}")


def _common_people(embeddings: Sequence[Embeddings], min_identities: int, progress: Progress) -> tuple[str, ...]:
    """Identities that every encoder has, so that all pairs are compared on the same people."""
    sets = {f"{e.modality} {e.name}": set(e.identities) for e in embeddings}
    common = set.intersection(*sets.values())
    if not common:
        sides = "; ".join(f"{name} has {', '.join(sorted(people)[:3])}, ..." for name, people in sets.items())
        raise BadCalibration(
            f"No identity has usable samples for every encoder: {sides}. Use the same names for the same people."
        )
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
) -> tuple[Shuffling, list[str]]:
    """Groups within which people are shuffled: those of the column `within`, else of sex or gender if complete.

    Also notes on what was chosen, and on people who have two values of such a column.
    """
    columns: dict[str, dict[str, set[str]]] = {}
    for name in {within} if within is not None else GROUP_COLUMNS:
        cells = {(s.identity, s.attributes[name]) for s in calibration.samples if name in s.attributes}
        in_files = [e for e in embeddings if name in e.attributes]
        for e in in_files:
            cells |= _cells(e, e.attributes[name])
        if cells or in_files:
            columns[name] = {}
        for person, value in cells:
            columns[name].setdefault(person, set()).add(value.strip())

    def fault(column: str) -> str | None:
        values_of = {p: columns[column].get(p, set()) - {""} for p in people}
        if n_lacking := sum(not values for values in values_of.values()):
            return f"{n_lacking} of {len(people)} people have no value"
        if numbers := [i for i, values in enumerate(values_of.values(), start=1) if len(values) > 1]:
            named = ", ".join(map(str, numbers[:MAX_NAMED])) + (", ..." if len(numbers) > MAX_NAMED else "")
            return (
                f"{len(numbers)} people have more than one value (by position in the order of names: {named}), so "
                "their faces and voices may be of different people"
            )
        sizes = Counter(next(iter(values)) for values in values_of.values())
        if len(sizes) == 1:
            return f"all people have the value {next(iter(sizes))!r}, so predictions apply only to such people"
        smallest = min(sizes.values())
        # Two test people per fold, or a fold has nobody to swap with.
        return (
            f"a group has {smallest} people; at least {MIN_FOR_FOLDS} are needed" if smallest < MIN_FOR_FOLDS else None
        )

    if within is not None:
        if within not in columns:
            names = {name for s in calibration.samples for name in s.attributes}
            names.update(*(e.attributes for e in embeddings))
            raise UsageError(f"No column {within!r} to shuffle within. {nearest(within, sorted(names))}")
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
        return Shuffling(), [f"People are shuffled across {c}, not within it: {fault}." for c, fault in faults.items()]
    group_of = [next(iter(columns[chosen][p] - {""})) for p in people]
    groups = np.unique(group_of, return_inverse=True)[1].astype(np.intp)
    return Shuffling(chosen, groups, compared=True), [f"People are shuffled within {chosen}."]


def _cells(embeddings: Embeddings, column: NDArray[np.str_]) -> set[tuple[str, str]]:
    """Identities with their values of a column; those of rows that follow each other are looked at once."""
    is_first = np.ones(len(column), bool)
    is_first[1:] = (embeddings.owners[1:] != embeddings.owners[:-1]) | (column[1:] != column[:-1])
    return set(zip(embeddings.labels[is_first].tolist(), column[is_first].tolist(), strict=True))


def _geometry_device(runtime: Runtime, embedded: Embedded) -> str:
    """CUDA if the encoders ran on it, else the CPU, since MPS has no float64. Torch is not imported just to look.

    The CPU, too, where workers run the encoders: this machine, or another worker, may have no other device.
    """
    if runtime.backend != "local":
        return "cpu"
    if runtime.device == "auto":
        return "cuda" if embedded.on_gpu else "cpu"
    return runtime.devices[0] if runtime.device.startswith("cuda") and is_installed("torch") else "cpu"
