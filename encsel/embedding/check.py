"""Checks of what every encoder must do, for `encsel encoders check` and the tests of encsel's encoders."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from encsel.core import SAMPLING_RATE, Encoder, Modality, Model, Vectors
from encsel.data.images import MIN_SIDE
from encsel.embedding.model_run import describe
from encsel.embedding.worker import checked
from encsel.errors import EncoderFailed, UnusableSample, first_line
from encsel.storage.signature import canonical

TOLERANCE = 1e-5
"""Tolerance, relative to the largest value: a batch may be summed in another order, which moves the last digits."""
TOLERANCE_16 = 0.02
N_SAMPLES = 6
_TONE = np.sin(2 * np.pi * 150 * np.arange(SAMPLING_RATE) / SAMPLING_RATE).astype(np.float32)


class Fault(Exception):
    """An encoder breaks a rule; the message says which."""


@dataclass(frozen=True)
class Subject:
    """A loaded encoder and the samples it is checked on.

    Attributes:
        samples: usable samples, all different; voices have different lengths.
        load: loads the encoder again.
    """

    encoder: Encoder
    model: Model
    samples: Sequence[Any]
    load: Callable[[], Model]

    @cached_property
    def vectors(self) -> Vectors:
        """(samples, dim) of all samples in one batch."""
        return vectors_of(self.model, self.encoder, self.samples)


def vectors_of(model: Model, encoder: Encoder, samples: Sequence[Any]) -> Vectors:
    """(samples, dim) of samples in one batch, or in a batch per shape if batches must hold equal shapes."""
    prepared = [model.prepare(_read_only(sample)) for sample in samples]
    batches: dict[Any, list[int]] = {}
    for i, one in enumerate(prepared):
        batches.setdefault(np.shape(one) if encoder.equal_lengths else None, []).append(i)
    made = np.empty((len(samples), encoder.dim))
    for rows in batches.values():
        vectors = model.embed([prepared[i] for i in rows])
        made[rows] = checked(vectors, len(rows), encoder.tap + 1, encoder.dim)[:, encoder.tap]
    return made


def describes_itself(subject: Subject) -> None:
    encoder = subject.encoder
    empty = [name for name in ("name", "licence", "source") if not str(getattr(encoder, name)).strip()]
    if empty:
        raise Fault(f"it states no {' and no '.join(empty)}")
    description = describe(encoder)
    try:
        canonical(description)
    except (TypeError, ValueError) as error:
        raise Fault(f"its description is not plain JSON: {error}") from error
    if absent := sorted(name for name, version in description["libraries"].items() if version is None):
        raise Fault(f"it names libraries that are not installed: {', '.join(absent)}")


def makes_finite_vectors(subject: Subject) -> None:
    if rows := np.flatnonzero(~np.isfinite(subject.vectors).all(axis=1)).tolist():
        raise Fault(f"values of {len(rows)} of {len(subject.samples)} ordinary samples are not finite")


def repeats_itself(subject: Subject) -> None:
    for model, when in ((subject.model, "the second time"), (subject.load(), "after it is loaded again")):
        if not np.array_equal(vectors_of(model, subject.encoder, subject.samples), subject.vectors):
            raise Fault(f"the same samples give different vectors {when}")


def ignores_the_order_of_a_batch(subject: Subject) -> None:
    reverse = vectors_of(subject.model, subject.encoder, subject.samples[::-1])[::-1]
    _compare(subject, reverse, "a sample gives a different vector at another position in its batch")


def ignores_the_rest_of_a_batch(subject: Subject) -> None:
    alone = [vectors_of(subject.model, subject.encoder, [sample])[0] for sample in subject.samples]
    _compare(subject, np.stack(alone), "a sample gives a different vector alone than in a batch")
    usable = []
    for sample in odd_samples(subject.encoder.modality).values():
        with contextlib.suppress(UnusableSample):
            subject.model.prepare(sample)
            usable.append(sample)
    beside = vectors_of(subject.model, subject.encoder, [*subject.samples, *usable])[: len(subject.samples)]
    _compare(subject, beside, "a sample gives a different vector beside odd ones, such as very short or constant ones")


def prepares_in_several_threads(subject: Subject) -> None:
    expected = [subject.model.prepare(sample) for sample in subject.samples]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(subject.model.prepare, [*subject.samples] * 8))
    if not all(np.array_equal(one, expected[i % len(expected)]) for i, one in enumerate(found)):
        raise Fault("prepare returns something else when several threads call it at once")


def leaves_samples_as_they_are(subject: Subject) -> None:
    before = [np.copy(sample) for sample in subject.samples]
    prepared = [subject.model.prepare(sample) for sample in subject.samples]
    copies = [np.copy(one) for one in prepared]
    for one in prepared:
        subject.model.embed([one])
    pairs = zip([*subject.samples, *prepared], [*before, *copies], strict=True)
    if not all(np.array_equal(one, copy) for one, copy in pairs):
        raise Fault("it writes into its samples, which it shares with other encoders")


def tells_samples_apart(subject: Subject) -> None:
    vectors = subject.vectors
    with np.errstate(invalid="ignore"):
        apart = np.linalg.norm(vectors[:, None] - vectors, axis=2)[np.triu_indices(len(vectors), 1)]
    # By more than their last digits.
    if apart.min() <= 1e-3 * np.linalg.norm(vectors, axis=1).max():
        raise Fault("two different samples give the same vector, or nearly so")


def embeds_or_refuses_odd_samples(subject: Subject) -> None:
    for what, sample in odd_samples(subject.encoder.modality).items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                (vector,) = vectors_of(subject.model, subject.encoder, [sample])
        except UnusableSample as refusal:
            if not str(refusal).strip():
                raise Fault(f"it refuses a sample ({what}) without a reason") from refusal
            continue
        except Fault:
            raise
        except Exception as error:
            raise Fault(
                f"a legal sample ({what}) makes it fail ({type(error).__name__}: {first_line(error)}); return NaN, or "
                "raise UnusableSample when it is prepared"
            ) from error
        if not np.isfinite(vector).all() and not np.isnan(vector).all():
            raise Fault(f"a legal sample ({what}) gives a vector that is only partly finite")


CHECKS: Mapping[str, Callable[[Subject], None]] = {
    "describes itself": describes_itself,
    "makes finite vectors of the declared size": makes_finite_vectors,
    "gives the same vectors again": repeats_itself,
    "ignores the order of a batch": ignores_the_order_of_a_batch,
    "ignores the other samples of a batch": ignores_the_rest_of_a_batch,
    "prepares in several threads": prepares_in_several_threads,
    "leaves samples as they are": leaves_samples_as_they_are,
    "tells samples apart": tells_samples_apart,
    "embeds or refuses odd samples": embeds_or_refuses_odd_samples,
}


def examined(encoder: Encoder, samples: Sequence[Any]) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each check with what is wrong, or None; a check that cannot run says why.

    Raises:
        EncoderFailed: it does not load, or refuses every sample.
    """
    model = encoder.load()
    usable, reason = [], ""
    for sample in samples:
        try:
            model.prepare(_read_only(sample))
            usable.append(sample)
        except UnusableSample as refusal:
            reason = str(refusal)
    if len(usable) < 2:
        raise EncoderFailed(
            f"it uses {len(usable)} of {len(samples)} samples ({reason}). Try it on yours, with --data."
        )
    subject = Subject(encoder, model, usable, encoder.load)
    for name, check in CHECKS.items():
        try:
            check(subject)
        except Fault as fault:
            yield name, str(fault)
        except (Exception, SystemExit) as error:
            yield name, f"{type(error).__name__}: {first_line(error)}"
        else:
            yield name, None


def made_up_samples(modality: Modality) -> list[Any]:
    """Drawn faces, or spoken voices of different lengths, of people who do not exist."""
    from encsel.data.demo_set import imagine_person

    people = [imagine_person(np.random.default_rng([0, i])) for i in range(N_SAMPLES)]
    if modality == "face":
        from encsel.data.demo_faces import draw_face

        return [draw_face(person.face, np.random.default_rng([0, i])) for i, person in enumerate(people)]
    from encsel.data.demo_voices import synthesise_voice

    clips = [synthesise_voice(person.voice, np.random.default_rng([0, i])) for i, person in enumerate(people)]
    return [clip[: round((0.6 + 0.07 * (i // 2)) * SAMPLING_RATE)].astype(np.float32) for i, clip in enumerate(clips)]


def odd_samples(modality: Modality) -> dict[str, Any]:
    """Legal samples that encoders may not expect."""
    if modality == "face":
        rng = np.random.default_rng(0)
        shapes = {"smallest": (MIN_SIDE, MIN_SIDE), "wide": (16, 1000), "tall": (1000, 16), "wider": (16, 5000)}
        noise = {name: rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for name, shape in shapes.items()}
        levels = {"black": 0, "grey": 128, "white": 255}
        return {**noise, **{name: np.full((64, 64, 3), level, np.uint8) for name, level in levels.items()}}
    from encsel.data.clips import MAX_SECONDS, MIN_SECONDS

    return {
        "shortest": _TONE[: int(MIN_SECONDS * SAMPLING_RATE)],
        "longest": np.resize(_TONE, int(MAX_SECONDS * SAMPLING_RATE)),
        "constant": np.full(SAMPLING_RATE, 0.3, np.float32),
        "one value": np.eye(1, SAMPLING_RATE, dtype=np.float32)[0],
        "very quiet": _TONE / 32768,
        "full scale": np.sign(_TONE + 1e-3),
    }


def _compare(subject: Subject, found: Vectors, fault: str) -> None:
    is_exact = subject.encoder.preprocessing.get("dtype", "float32") == "float32"
    with np.errstate(invalid="ignore"):  # values that are not finite are found by another check
        difference = np.abs(found - subject.vectors).max() / np.abs(subject.vectors).max()
    if not difference <= (TOLERANCE if is_exact else TOLERANCE_16):
        raise Fault(f"{fault}: by {difference:.1g} of the largest value")


def _read_only(sample: Any) -> Any:
    view = sample.view()
    view.flags.writeable = False
    return view
