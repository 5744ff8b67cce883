"""A small procedural calibration set: cartoon faces and synthetic voices of people who do not exist.

Three traits of a person (sex, build, age) show in both modalities as noisy copies; the others show in one only. A face
therefore predicts the voice in part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encsel.core import SAMPLING_RATE
from encsel.data.demo_faces import IRISES, FaceTraits, draw_face
from encsel.data.demo_voices import VOWELS, VoiceTraits, synthesise_voice
from encsel.errors import UsageError

# Correlation of each modality's copy with the trait; the two copies correlate with its square.
SEX_AGREEMENT, BUILD_AGREEMENT, AGE_AGREEMENT = 0.95, 0.9, 0.9
SEX_SPREAD = 0.45  # sd of the sex trait within a class; the class means account for the rest of a variance of 1


@dataclass(frozen=True)
class Person:
    face: FaceTraits
    voice: VoiceTraits


def write_demo_set(
    root: Path,
    *,
    n_identities: int = 64,
    samples_per_identity: int = 6,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `root/faces/personNN/NN.png` and `root/voices/personNN/NN.wav`.

    Equal seeds and library versions give equal bytes; a larger set begins with the people of a smaller one. A new root
    is private. `on_progress` is called after each person with the number of people written and the total.

    Raises:
        UsageError: a count below 1, a negative seed, or an unusable root.
    """
    import soundfile
    from PIL import Image as PillowImage

    if n_identities < 1 or samples_per_identity < 1 or seed < 0:
        raise UsageError(
            f"{n_identities} identities, {samples_per_identity} samples per identity, seed {seed}; "
            "a demo set needs at least 1 identity, 1 sample per identity and a seed of 0 or more."
        )
    faces, voices = root / "faces", root / "voices"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = [folder.name for folder in (faces, voices) if folder.exists()]
        if taken:
            raise UsageError(f"{root} already contains {' and '.join(taken)}. Choose a new folder or remove them.")
        faces.mkdir()
        voices.mkdir()
    except OSError as error:
        raise UsageError(f"{root} cannot be written: {error.strerror}. Choose a writable folder.") from error
    for number in range(1, n_identities + 1):
        name = f"person{number:02d}"
        for folder in (faces, voices):
            (folder / name).mkdir()
        person = imagine_person(np.random.default_rng([seed, number]))
        for sample in range(1, samples_per_identity + 1):
            # One generator per file: a file depends on neither the counts nor the other modality.
            image = draw_face(person.face, np.random.default_rng([seed, number, 1, sample]))
            PillowImage.fromarray(image).save(faces / name / f"{sample:02d}.png")
            clip = synthesise_voice(person.voice, np.random.default_rng([seed, number, 2, sample]))
            soundfile.write(voices / name / f"{sample:02d}.wav", clip, SAMPLING_RATE, subtype="PCM_16")
        if on_progress is not None:
            on_progress(number, n_identities)


def imagine_person(rng: np.random.Generator) -> Person:
    """Draw a person at random: the shared traits, then each modality's noisy copies and other traits."""
    sex = rng.choice([-1.0, 1.0]) * np.sqrt(1 - SEX_SPREAD**2) + SEX_SPREAD * rng.standard_normal()
    build, age = rng.standard_normal(2)
    shared = ((sex, SEX_AGREEMENT), (build, BUILD_AGREEMENT), (age, AGE_AGREEMENT))

    def copies() -> list[float]:
        return [float(r * trait + np.sqrt(1 - r**2) * rng.standard_normal()) for trait, r in shared]

    skin_shade = rng.beta(1.2, 1.6)
    face = FaceTraits(
        *copies(),
        skin_shade=skin_shade,
        hair_shade=float(np.clip(rng.beta(1.6, 1.2) + 0.8 * max(skin_shade - 0.4, 0), 0, 1)),
        hair_redness=rng.beta(1, 2.5), hair_volume=rng.standard_normal(), parting=rng.uniform(-1, 1),
        nose=rng.standard_normal(), eye_spacing=rng.standard_normal(), eye_size=rng.standard_normal(),
        lips=rng.standard_normal(), iris=int(rng.integers(len(IRISES))), glasses=bool(rng.random() < 0.2),
    )  # fmt: skip
    # The order of the fields: pitch, rate, nasality, tilt, liveliness.
    voice = VoiceTraits(*copies(), *rng.standard_normal(5), vowel_weights=rng.dirichlet(np.full(len(VOWELS), 2.0)))
    return Person(face, voice)
