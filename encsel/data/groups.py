"""Groups of samples and identities: recordings, and attributes such as sex or language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings

SESSION_COLUMNS = ("session", "recording", "video")
LANGUAGE_COLUMN = "language"
MAX_VALUES = 20
"""Most values of a column that is used for grouping."""
MIN_GROUP_SIZE = 10
"""Fewest identities of a group with its own result: two test identities per fold."""


@dataclass(frozen=True)
class PersonGroups:
    """A column with one value per identity.

    Attributes:
        values: names of the groups with at least MIN_GROUP_SIZE identities.
        index: (n,) position in `values` for each identity; -1 without a value or in a smaller group.
    """

    column: str
    values: tuple[str, ...]
    index: NDArray[np.intp]


@dataclass(frozen=True)
class SampleGroups:
    """A column whose values differ between samples of an identity, such as language."""

    column: str
    values: tuple[str, ...]


def recordings(embeddings: Embeddings) -> NDArray[np.str_] | None:
    """(rows,) recording of each sample, unique within its identity; None if unknown.

    Taken from a column `session`, `recording` or `video`, else from sample names VIDEO/CLIP or LANGUAGE/VIDEO/CLIP
    without their last part.
    """
    for column in SESSION_COLUMNS:
        if column in embeddings.attributes and (embeddings.attributes[column] != "").all():
            language = embeddings.attributes.get(LANGUAGE_COLUMN)
            sessions = embeddings.attributes[column]
            return sessions if language is None else np.char.add(np.char.add(language, "/"), sessions)
    if not len(embeddings.samples) or not all("/" in name for name in embeddings.samples.tolist()):
        return None
    return np.array([name.rpartition("/")[0] for name in embeddings.samples.tolist()])


def columns_of(embeddings: Embeddings) -> dict[str, NDArray[np.str_]]:
    """Columns (rows,) that may group samples, with the language from sample names [IDENTITY/]LANGUAGE/VIDEO/CLIP."""
    columns = {
        name: np.char.strip(values) for name, values in embeddings.attributes.items() if name not in SESSION_COLUMNS
    }
    if LANGUAGE_COLUMN not in columns:
        names = zip(embeddings.samples.tolist(), embeddings.labels.tolist(), strict=True)
        parts = [name.removeprefix(f"{person}/").split("/") for name, person in names]
        if parts and all(len(p) == 3 for p in parts) and len({p[0] for p in parts}) <= MAX_VALUES:
            columns[LANGUAGE_COLUMN] = np.array([p[0] for p in parts])
    return columns


def person_groups(embeddings: Sequence[Embeddings], people: Sequence[str]) -> list[PersonGroups]:
    """Columns with at most one value per identity and at least two groups of MIN_GROUP_SIZE."""
    groups = []
    for column, values in sorted(_values_of_people(embeddings).items()):
        single = {p: next(iter(v)) for p in people if len(v := values.get(p, set())) == 1}
        if any(len(values.get(p, ())) > 1 for p in people) or not single:
            continue
        sizes = Counter(single.values())
        large = tuple(sorted(value for value, size in sizes.items() if size >= MIN_GROUP_SIZE))
        if 2 <= len(large) <= MAX_VALUES:
            index = np.array([large.index(single[p]) if single.get(p) in large else -1 for p in people])
            groups.append(PersonGroups(column, large, index))
    return groups


def sample_groups(embeddings: Sequence[Embeddings], people: Sequence[str]) -> list[SampleGroups]:
    """Columns with several values per identity; their values that MIN_GROUP_SIZE identities have for every encoder."""
    by_person = _values_of_people(embeddings)
    groups = []
    for column, values in sorted(by_person.items()):
        if not any(len(values.get(p, ())) > 1 for p in people):
            continue
        counts: Counter[str] = Counter()
        for value in set().union(*values.values()):
            complete = set(people)
            for one in embeddings:
                column_values = columns_of(one).get(column)
                complete &= set() if column_values is None else set(one.labels[column_values == value].tolist())
            counts[value] = len(complete)
        large = tuple(sorted(value for value, n in counts.items() if n >= MIN_GROUP_SIZE))
        if large and len(counts) <= MAX_VALUES:
            groups.append(SampleGroups(column, large))
    return groups


def _values_of_people(embeddings: Sequence[Embeddings]) -> dict[str, dict[str, set[str]]]:
    """The values by column and identity that are not empty, of all encoders: each embedding file has its own."""
    by_column: dict[str, dict[str, set[str]]] = {}
    for one in embeddings:
        for column, values in columns_of(one).items():
            by_person = by_column.setdefault(column, {})
            pairs = np.unique(np.stack([one.labels, values]), axis=1)
            for person, value in pairs.T.tolist():
                if value:
                    by_person.setdefault(person, set()).add(value)
    return by_column
