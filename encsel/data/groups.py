"""Groups of samples and identities: recordings, and attributes such as sex or language."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encsel.core import Embeddings

SESSION_COLUMNS = ("session", "recording", "video")
LANGUAGE_COLUMN = "language"
MAX_VALUES = 20  # most values of a column that is used for grouping
MIN_GROUP_SIZE = 10  # fewest identities of a group with its own result: two test identities per fold


@dataclass(frozen=True)
class PersonGroups:
    """A column with one value per identity, and its values that at least MIN_GROUP_SIZE identities have."""

    column: str
    values: tuple[str, ...]
    index: NDArray[np.intp]  # (n,) position in `values` for each identity; -1 without a value or in a smaller group


@dataclass(frozen=True)
class SampleGroups:
    """A column whose values differ between samples of an identity, such as language."""

    column: str
    values: tuple[str, ...]


def recordings(embeddings: Embeddings) -> NDArray[np.str_] | None:
    """(rows,) recording of each sample, unique within its identity; None if unknown.

    Taken from one of SESSION_COLUMNS, else from sample names [LANGUAGE/]VIDEO/CLIP without their last part.
    """
    columns, samples = embeddings.attributes, embeddings.samples
    for sessions in (columns[column] for column in SESSION_COLUMNS if column in columns):
        if (sessions != "").all():
            language = columns.get(LANGUAGE_COLUMN)
            return sessions if language is None else np.char.add(np.char.add(language, "/"), sessions)
    if not len(samples) or "/" not in samples[0] or not all("/" in name for name in samples.tolist()):
        return None
    return np.array([name.rpartition("/")[0] for name in samples.tolist()])


def columns_of(embeddings: Embeddings) -> dict[str, NDArray[np.str_]]:
    """Columns (rows,) that may group samples, and the language from sample names [IDENTITY/]LANGUAGE/VIDEO/CLIP."""
    columns = {name: np.char.strip(x) for name, x in embeddings.attributes.items() if name not in SESSION_COLUMNS}
    # If a column states the session, sample names need not begin with a language.
    has_parts = len(embeddings.samples) > 0 and "/" in embeddings.samples[0]
    if has_parts and LANGUAGE_COLUMN not in columns and not any(c in embeddings.attributes for c in SESSION_COLUMNS):
        names = zip(embeddings.samples.tolist(), embeddings.labels.tolist(), strict=True)
        parts = [name.removeprefix(f"{person}/").split("/") for name, person in names]
        if all(len(p) == 3 for p in parts) and len({p[0] for p in parts}) <= MAX_VALUES:
            columns[LANGUAGE_COLUMN] = np.array([p[0] for p in parts])
    return columns


def person_groups(embeddings: Sequence[Embeddings], people: Sequence[str]) -> list[PersonGroups]:
    """Columns with at most one value per identity and at least two groups of MIN_GROUP_SIZE."""
    groups = []
    for column, values in sorted(_values_of_people(embeddings).items()):
        if any(len(values.get(p, ())) > 1 for p in people):
            continue
        single = [next(iter(values.get(p, {""}))) for p in people]
        large = tuple(sorted(value for value, n in Counter(single).items() if value and n >= MIN_GROUP_SIZE))
        if 2 <= len(large) <= MAX_VALUES:
            index = np.array([large.index(value) if value in large else -1 for value in single])
            groups.append(PersonGroups(column, large, index))
    return groups


def sample_groups(embeddings: Sequence[Embeddings], people: Sequence[str]) -> list[SampleGroups]:
    """Columns with several values per identity; their values that MIN_GROUP_SIZE identities have for every encoder."""
    columns = [(one.labels, columns_of(one)) for one in embeddings]
    groups = []
    for column, by_person in sorted(_values_of_people(embeddings).items()):
        if not any(len(by_person.get(p, ())) > 1 for p in people):
            continue
        values = sorted(set().union(*by_person.values()))
        people_with = {
            value: set(people).intersection(
                *(labels[c[column] == value] if column in c else () for labels, c in columns)
            )
            for value in values
        }
        large = tuple(value for value in values if len(people_with[value]) >= MIN_GROUP_SIZE)
        if large and len(values) <= MAX_VALUES:
            groups.append(SampleGroups(column, large))
    return groups


def _values_of_people(embeddings: Sequence[Embeddings]) -> dict[str, dict[str, set[str]]]:
    """Non-empty values by column and identity, of all encoders: each embedding file has its own."""
    by_column: dict[str, dict[str, set[str]]] = {}
    for one in embeddings:
        for column, values in columns_of(one).items():
            by_person = by_column.setdefault(column, {})
            for person, value in set(zip(one.labels.tolist(), values.tolist(), strict=True)):
                if value:
                    by_person.setdefault(person, set()).add(value)
    return by_column
