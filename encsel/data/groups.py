"""What divides samples and people: recordings, and columns such as sex or language."""

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
"""Values beyond which a column names things rather than groups them."""
MIN_PEOPLE = 10
"""People of a group for a result of its own: two test people a fold."""


@dataclass(frozen=True)
class PersonGroups:
    """A column with one value for each person.

    Attributes:
        values: names of the groups, of MIN_PEOPLE people or more each.
        index: (n,) group of each person; -1 in a group too small, or without a value.
    """

    column: str
    values: tuple[str, ...]
    index: NDArray[np.intp]


@dataclass(frozen=True)
class SampleGroups:
    """A column whose values differ between samples of one person, such as language."""

    column: str
    values: tuple[str, ...]


def recordings(embeddings: Embeddings) -> NDArray[np.str_] | None:
    """(rows,) the recording each sample is from, named within its person; None where that cannot be told.

    From a column `session`, `recording` or `video`, else from sample names: all but their last part, as in
    VIDEO/CLIP and LANGUAGE/VIDEO/CLIP.
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
    """Columns (rows,) that may group samples: the set's own, and the language where names are LANGUAGE/VIDEO/CLIP.

    The name of the person may stand before it.
    """
    found = {
        name: np.char.strip(values) for name, values in embeddings.attributes.items() if name not in SESSION_COLUMNS
    }
    if LANGUAGE_COLUMN not in found:
        names = zip(embeddings.samples.tolist(), embeddings.labels.tolist(), strict=True)
        parts = [name.removeprefix(f"{person}/").split("/") for name, person in names]
        if parts and all(len(p) == 3 for p in parts) and len({p[0] for p in parts}) <= MAX_VALUES:
            found[LANGUAGE_COLUMN] = np.array([p[0] for p in parts])
    return found


def person_groups(embeddings: Sequence[Embeddings], people: Sequence[str]) -> list[PersonGroups]:
    """Columns in which no person has two values, and at least two groups are large enough."""
    found = []
    for column, values in sorted(_values_of_people(embeddings).items()):
        single = {p: next(iter(v)) for p in people if len(v := values.get(p, set())) == 1}
        if any(len(values.get(p, ())) > 1 for p in people) or not single:
            continue
        sizes = Counter(single.values())
        large = tuple(sorted(value for value, size in sizes.items() if size >= MIN_PEOPLE))
        if 2 <= len(large) <= MAX_VALUES:
            index = np.array([large.index(single[p]) if single.get(p) in large else -1 for p in people])
            found.append(PersonGroups(column, large, index))
    return found


def sample_groups(embeddings: Sequence[Embeddings], people: Sequence[str]) -> list[SampleGroups]:
    """Columns in which people have several values, with the values that enough people have on both sides."""
    by_person = _values_of_people(embeddings)
    found = []
    for column, values in sorted(by_person.items()):
        if not any(len(values.get(p, ())) > 1 for p in people):
            continue
        counts: Counter[str] = Counter()
        for value in set().union(*values.values()):
            everywhere = set(people)
            for one in embeddings:
                column_values = columns_of(one).get(column)
                # An encoder without the column has nobody's samples of the value.
                everywhere &= set() if column_values is None else set(one.labels[column_values == value].tolist())
            counts[value] = len(everywhere)
        large = tuple(sorted(value for value, n in counts.items() if n >= MIN_PEOPLE))
        if large and len(counts) <= MAX_VALUES:
            found.append(SampleGroups(column, large))
    return found


def _values_of_people(embeddings: Sequence[Embeddings]) -> dict[str, dict[str, set[str]]]:
    """By column and person, the values that are not empty, of any encoder: files of embeddings bring their own."""
    found: dict[str, dict[str, set[str]]] = {}
    for one in embeddings:
        for column, values in columns_of(one).items():
            of_people = found.setdefault(column, {})
            pairs = np.unique(np.stack([one.labels, values]), axis=1)
            for person, value in pairs.T.tolist():
                if value:
                    of_people.setdefault(person, set()).add(value)
    return found
