"""A fitted matcher that can be saved and deployed: log likelihood ratios of faces and voices."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from encsel.core import MODALITIES, Modality, Vectors
from encsel.errors import UsageError
from encsel.matching.axes import checked_people, checked_rows, project
from encsel.matching.likelihood import LARGEST_CORRELATION, N_AXES, LikelihoodRatio, likelihood_ratio
from encsel.rows import unit_rows
from encsel.storage.documents import Malformed, check_names, decoded
from encsel.storage.files import read_whole, write_private
from encsel.storage.result import CHECKSUM, checksum, json_text, plain

SCHEMA: Final = "encsel.matcher/1"
TENSORS, FACTS = "matcher.safetensors", "matcher.json"
MAX_BYTES = 64 << 20
N_TO_COMPARE = 20
"""Fewest rows whose distribution is compared with that of the training rows."""
SHIFT, SPREAD = 0.5, 2.0
"""Rows are unlike the training rows if their mean is farther away than SHIFT of the spread, plus what chance explains,
or if the spread differs by more than this factor."""
_REMEDY = "Write it again with `encsel validate --matcher`."


@dataclass(frozen=True)
class MatcherSide:
    """One encoder of a matcher.

    Attributes:
        sha256: hash of everything that can change its vectors, or of its embedding file.
        trained_on, licence: what is known about its weights; empty if unknown.
    """

    name: str
    dim: int
    sha256: str
    trained_on: str = ""
    licence: str = ""


@dataclass(frozen=True)
class MatcherFacts:
    """Facts about a fitted matcher: its encoders, and how well such a matcher does on people it has not seen.

    Attributes:
        n_people: number of people it was fitted on.
        eer, interval, cllr: cross-validated on the same people, for centroids; None if not measured.
        eer_single: the same for one image against one clip.
        within: by column, EER with impostors of the same group.
        other_recordings: EER with faces and voices from different recordings; None if recordings are unknown.
        flags: remarks about the pair, such as "not above chance".
    """

    face: MatcherSide
    voice: MatcherSide
    n_people: int
    encsel: str = ""
    eer: float | None = None
    interval: tuple[float, float] | None = None
    cllr: float | None = None
    eer_single: float | None = None
    within: Mapping[str, float] = field(default_factory=dict)
    other_recordings: float | None = None
    flags: tuple[str, ...] = ()
    schema: Literal["encsel.matcher/1"] = SCHEMA


@dataclass(frozen=True)
class _Fitted:
    """One side: (dim,) mean of the people, (dim, r) directions to variates of unit variance, and their spread."""

    mean: Vectors
    directions: Vectors
    spread: float


class Matcher:
    """Scores faces against voices by their log likelihood ratio; fitted by `fit`, or read by `load`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> trait = rng.normal(size=(60, 4))
    >>> faces = trait @ rng.normal(size=(4, 16)) + 0.5 * rng.normal(size=(60, 16))
    >>> voices = trait @ rng.normal(size=(4, 12)) + 0.5 * rng.normal(size=(60, 12))
    >>> matcher = Matcher.fit(faces[:50], voices[:50])
    >>> ratios = matcher.score(faces[50:], voices[50:])
    >>> ratios.shape
    (10, 10)
    >>> bool(np.diag(ratios).mean() > 0 > ratios.mean())
    True
    """

    def __init__(self, facts: MatcherFacts, sides: Mapping[Modality, _Fitted], correlations: Vectors) -> None:
        self.facts = facts
        self._sides, self._correlations = dict(sides), correlations

    @classmethod
    def fit(cls, faces: Vectors, voices: Vectors, facts: MatcherFacts | None = None) -> Matcher:
        """Fit a matcher on all people given.

        Args:
            faces, voices: (n, dim) means of each person's embeddings, the same people in the same order.
            facts: facts to keep with it; their numbers of people and dimensions must match.
        Raises:
            UsageError: different numbers of rows, or rows that are not finite.
            BadCalibration: fewer than 10 people, or rows that do not differ.
        """
        people = zip(MODALITIES, checked_people(faces, voices), strict=True)
        centroids = {modality: unit_rows(x) for modality, x in people}
        n = len(centroids["face"])
        on_axes, means = {}, {m: x.mean(axis=0) for m, x in centroids.items()}
        for m, x in centroids.items():
            # Append the unit vectors, whose projections are the axes.
            rows = np.vstack([x, means[m] + np.eye(x.shape[1])])
            on_axes[m] = project(rows, np.arange(n), np.arange(n, len(rows)), n_axes=N_AXES)
        ratio = likelihood_ratio(on_axes["face"].whitened, on_axes["voice"].whitened)
        sides: dict[Modality, _Fitted] = {}
        for m, on_side in zip(MODALITIES, (ratio.face, ratio.voice), strict=True):
            spread = float(np.square(centroids[m] - means[m]).sum(axis=1).mean())
            sides[m] = _Fitted(means[m], on_axes[m].test @ on_side, spread)
        if facts is None:
            face, voice = (MatcherSide(m, centroids[m].shape[1], "") for m in MODALITIES)
            facts = MatcherFacts(face, voice, n)
        stated = facts.face.dim, facts.voice.dim, facts.n_people
        if stated != (found := (*(centroids[m].shape[1] for m in MODALITIES), n)):
            raise UsageError(f"The facts state {stated} (face dim, voice dim, people); the data have {found}.")
        return cls(facts, sides, ratio.correlations)

    def score(self, faces: Vectors, voices: Vectors) -> Vectors:
        """Score faces against voices: (n, m) natural log likelihood ratios. Above 0, one person is likelier than two.

        Args:
            faces, voices: (n, dim) and (m, dim) embeddings as returned by the encoders, or means per person.
        Raises:
            UsageError: no rows, rows of another size, or rows that are not finite.
        Warns:
            UserWarning: 20 or more rows are not distributed like the training rows: the encoder, its preprocessing or
                the people may differ, and the ratios then mean nothing.
        """
        variates = []
        for modality, x in zip(MODALITIES, (faces, voices), strict=True):
            side = self._sides[modality]
            rows = unit_rows(checked_rows(x, f"{modality}s", len(side.mean)))
            self._compare(modality, rows)
            variates.append((rows - side.mean) @ side.directions)
        identity = np.eye(len(self._correlations))
        return LikelihoodRatio(identity, identity, self._correlations).score(*variates)

    def _compare(self, modality: Modality, rows: Vectors) -> None:
        n, side = len(rows), self._sides[modality]
        if n < N_TO_COMPARE:
            return
        mean = rows.mean(axis=0)
        shift = float(np.square(mean - side.mean).sum()) / side.spread
        spread = float(np.square(rows - mean).sum(axis=1).mean()) / side.spread
        by_chance = 3 * (1 / n + 1 / self.facts.n_people)
        if shift > SHIFT**2 + by_chance or not 1 / SPREAD < math.sqrt(spread) < SPREAD:
            warnings.warn(
                f"These {n} {modality}s are not distributed like the training {modality}s: their mean is "
                f"{math.sqrt(shift):.2f} of the spread away (up to {SHIFT} is usual), and their spread is "
                f"{math.sqrt(spread):.2f} times as large. Use the encoder and preprocessing it was fitted with "
                f"({self._side(modality).name}), or fit again.",
                stacklevel=3,
            )

    def _side(self, modality: Modality) -> MatcherSide:
        return self.facts.face if modality == "face" else self.facts.voice

    def save(self, folder: str | Path) -> None:
        """Write the matcher into a new or empty folder, readable only by its owner.

        The directions of a matcher fitted on few people nearly span their embeddings: treat it as biometric data.

        Raises:
            UsageError: the folder is not empty, or cannot be written.
        """
        from safetensors.numpy import save

        folder = Path(folder)
        tensors = {"correlations": self._correlations}
        for modality, side in self._sides.items():
            tensors |= {
                f"{modality}.mean": side.mean, f"{modality}.directions": side.directions,
                f"{modality}.spread": np.array([side.spread]),
            }  # fmt: skip
        content = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
        document = {**plain(self.facts), "tensors": hashlib.sha256(content).hexdigest()}
        try:
            check_free(folder)
            write_private(folder / TENSORS, content)
            # Written last, so that a folder without it is known to be incomplete.
            write_private(folder / FACTS, json_text({**document, CHECKSUM: checksum(document)}).encode())
        except OSError as error:
            raise UsageError(
                f"The matcher cannot be written to {folder}: {error.strerror}. Choose another folder."
            ) from error

    @classmethod
    def load(cls, folder: str | Path, *, face_encoder: str | None = None, voice_encoder: str | None = None) -> Matcher:
        """Read a matcher.

        Args:
            face_encoder, voice_encoder: SHA-256 that its encoders must have.
        Raises:
            UsageError: no matcher, a damaged one, or one with other encoders.
        """
        folder = Path(folder)
        try:
            document = json.loads(read_whole(folder / FACTS), parse_constant=_refused)
            content = read_whole(folder / TENSORS, MAX_BYTES)
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{folder} does not contain a readable matcher ({reason}). {_REMEDY}") from error
        facts = _facts_of(document, content, folder)
        for declared, side in ((face_encoder, facts.face), (voice_encoder, facts.voice)):
            if declared is not None and declared != side.sha256:
                raise UsageError(
                    f"The matcher in {folder} was fitted with {side.name}, SHA-256 {side.sha256 or 'unknown'}; "
                    f"{declared} was given. Use that encoder, or fit a matcher with yours."
                )
        return cls(facts, *_tensors_of(content, facts, folder))


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def check_free(folder: Path) -> None:
    """Raise UsageError unless a matcher can be written to a folder, which must be new or empty."""
    try:
        is_free = not folder.is_symlink() and (not folder.exists() or (folder.is_dir() and not any(folder.iterdir())))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}. Choose another folder.") from error
    if not is_free:
        raise UsageError(f"{folder} is not an empty folder; a matcher needs a new or empty one. Choose another folder.")


def _facts_of(document: Any, content: bytes, folder: Path) -> MatcherFacts:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageError(f"{folder / FACTS} is not a matcher with the schema {SCHEMA}. {_REMEDY}")
    if document.get(CHECKSUM) != checksum(document):
        raise UsageError(f"The matcher in {folder} was damaged or edited: {FACTS} has another checksum. {_REMEDY}")
    if document.get("tensors") != hashlib.sha256(content).hexdigest():
        raise UsageError(f"The matcher in {folder} was damaged or edited: {TENSORS} has another hash. {_REMEDY}")
    try:
        facts: MatcherFacts = decoded(
            MatcherFacts, {key: value for key, value in document.items() if key not in ("tensors", CHECKSUM)}, "matcher"
        )
        check_names((facts.face.name, facts.voice.name, *facts.within, *facts.flags), "the name")
        if facts.n_people < 1:
            raise Malformed(f"it was fitted on {facts.n_people} people")
    except Malformed as error:
        raise UsageError(f"The matcher in {folder} is malformed: {error}. {_REMEDY}") from error
    return facts


def _tensors_of(content: bytes, facts: MatcherFacts, folder: Path) -> tuple[dict[Modality, _Fitted], Vectors]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
        correlations = tensors["correlations"]
        sides = {
            m: _Fitted(tensors[f"{m}.mean"], tensors[f"{m}.directions"], float(tensors[f"{m}.spread"][0]))
            for m in MODALITIES
        }
        for side, one in zip(sides.values(), (facts.face, facts.voice), strict=True):
            if side.mean.shape != (one.dim,) or side.directions.shape != (one.dim, len(correlations)):
                raise ValueError("tensors have other shapes than stated")
            if side.spread <= 0:
                raise ValueError("a spread of 0")
        if correlations.ndim != 1 or not ((correlations >= 0) & (correlations <= LARGEST_CORRELATION)).all():
            raise ValueError("correlations that no fit produces")
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("numbers that are not finite")
    except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UsageError(f"The matcher in {folder} is malformed: {error}. {_REMEDY}") from error
    return sides, correlations
