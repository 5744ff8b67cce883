"""Made-up embeddings of people who do not exist, on which a ranking has something to say of every kind.

Faces: `portrait` knows its people, `blur` knows nobody. Voices: `timbre` shares traits and sex with `portrait`, `pitch`
only the sex.
"""

from pathlib import Path

import numpy as np

from encsel.data.calibration_set import CalibrationSet
from encsel.data.embedding_files import write_embeddings

N_PEOPLE, N_SAMPLES, DIM = 80, 6, 32
N_SHARED, N_PRIVATE = 4, 8
FIRST_SEED = 4
"""The default set shows all of it; chance moves the others."""
NOISE, BLUR = 5.0, 40.0
"""Deviation of samples about their person, of a usual encoder and of `blur`."""


def demo_embeddings(seed: int = 0) -> CalibrationSet:
    """The set: 80 people, half of them women, with six samples each by two face and two voice encoders."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    sex = rng.permutation(np.arange(N_PEOPLE) % 2)
    shared = rng.normal(size=(N_PEOPLE, N_SHARED))
    who = np.repeat(np.arange(N_PEOPLE), N_SAMPLES)

    def encoder(of_shared: float, of_sex: float, noise: float = NOISE) -> tuple[object, object, object]:
        private = 0.7 * rng.normal(size=(N_PEOPLE, N_PRIVATE))
        traits = np.column_stack([of_shared * shared, private, of_sex * (2 * sex - 1)])
        axes = rng.normal(size=(traits.shape[1], DIM)) / DIM**0.5
        rows = traits[who] @ axes + noise / DIM**0.5 * rng.normal(size=(len(who), DIM))
        people = np.array([f"person{i:02d}" for i in range(1, N_PEOPLE + 1)])[who]
        return rows.astype(np.float32), people, {"sex": np.where(sex, "m", "f")[who]}

    return CalibrationSet.from_arrays(
        faces={"portrait": encoder(0.9, 1), "blur": encoder(0.3, 0, BLUR)},
        voices={"timbre": encoder(0.9, 1), "pitch": encoder(0, 2.5)},
    )


def write_demo_embeddings(root: Path, *, seed: int = 0) -> None:
    """Write the set as `root/faces/NAME.npz` and `root/voices/NAME.npz`; OSError if it cannot be written."""
    for embeddings in demo_embeddings(seed).embeddings:
        write_embeddings(embeddings, root / f"{embeddings.modality}s" / f"{embeddings.name}.npz")
