"""Small populations with known structure, shared by tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encsel.core import Embeddings, Modality


def people(n: int) -> list[str]:
    return [f"id{i:04d}" for i in range(n)]


def population(
    n: int, *, shared: float = 1.0, rows: int = 4, dims: tuple[int, int] = (24, 16), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(n, rows, dim) faces and voices; `shared` is the weight of what both see of a person."""
    rng = np.random.default_rng(seed)
    trait = rng.normal(size=(n, 6))
    sides = []
    for dim in dims:
        own = rng.normal(size=(n, 12))
        person = shared * trait @ rng.normal(size=(6, dim)) + own @ rng.normal(size=(12, dim))
        sides.append((person[:, None] + 2 * rng.normal(size=(n, rows, dim))).astype(np.float32))
    return sides[0], sides[1]


def embeddings(name: str, modality: Modality, samples: np.ndarray) -> Embeddings:
    """From (n, rows, dim) with people in order."""
    n, rows, dim = samples.shape
    return Embeddings(
        name,
        modality,
        samples.reshape(-1, dim),
        np.repeat(people(n), rows),
        np.tile([f"s{j}" for j in range(rows)], n),
        provenance={"file": f"{name}.npz", "sha256": name},
    )


def write_population(
    root: Path, n: int, *, faces: int = 2, voices: int = 2, seed: int = 0, shared: float = 1.0
) -> Path:
    """An embeddings set: face0.., voice0.., each later one with less of what is shared."""
    for side, count in (("face", faces), ("voice", voices)):
        (root / f"{side}s").mkdir(parents=True, exist_ok=True)
        for i in range(count):
            x = population(n, shared=shared / (1 + i), seed=seed)[0 if side == "face" else 1]
            flat = x.reshape(-1, x.shape[2])
            labels = np.repeat(people(n), x.shape[1])
            np.savez(root / f"{side}s" / f"{side}{i}.npz", embeddings=flat, labels=labels)
    return root


def in_parallel(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """The values of a function, on all cores."""
    from joblib import Parallel, delayed

    return Parallel(n_jobs=-1)(delayed(function)(item) for item in items)


def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffle people less often than users do, which moves p-values alone."""
    from encsel.prediction import predict
    from encsel.ranking import settings

    monkeypatch.setattr(settings, "N_SHUFFLES", 19)
    monkeypatch.setattr(settings, "MANY_PERMUTATIONS", 19)
    monkeypatch.setattr(predict, "COMPLETE_SHUFFLES", 1)
