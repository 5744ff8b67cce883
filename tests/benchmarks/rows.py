"""The rows of the table by key, and the data that they are measured on."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .measure import Case

Size = TypeVar("Size")
MANY, FEW = (1249, 70), (70, 40)
"""People of the two populations, in full and with --quick."""


@dataclass(frozen=True)
class Data:
    """Where the data of all rows are: populations in `people` and `few`, and 70 `real` people if they are there.

    `folder` is one for temporary files.
    """

    folder: Path
    quick: bool
    real: Path | None

    @property
    def people(self) -> Path:
        return self.folder / "people"

    @property
    def few(self) -> Path:
        return self.folder / "few"

    @property
    def n_many(self) -> int:
        return MANY[self.quick]

    @property
    def n_few(self) -> int:
        return FEW[self.quick]

    def size(self, full: Size, quick: Size) -> Size:
        return quick if self.quick else full


ROWS: Mapping[str, tuple[str, ...]] = {
    "gemm": ("stages", "gemm"),
    "neighbours": ("stages", "neighbours"),
    "neighbours-20000": ("stages", "many_neighbours"),
    "neighbours-sampled": ("stages", "sampled_neighbours"),
    "cka-70-most": ("stages", "cka", "70", "clip", "wavlm"),
    "cka-70-least": ("stages", "cka", "70", "arcface", "wav2vec2"),
    "cka-999-most": ("stages", "cka", "999", "clip", "wavlm"),
    "cka-999-least": ("stages", "cka", "999", "arcface", "wav2vec2"),
    "cka-20000": ("stages", "cka_of_many"),
    "cka-null": ("stages", "cka_null"),
    "shuffles": ("stages", "shuffled"),
    "evidence-encoder": ("stages", "evidence_of_encoder"),
    "evidence-pair": ("stages", "evidence_of_pair"),
    "curvature": ("stages", "curved"),
    "transport": ("stages", "transport"),
    "spectrum": ("stages", "spectral"),
    "topology": ("stages", "clusters"),
    "silhouette": ("stages", "silhouettes"),
    "embedding-face": ("stages", "embedding", "face"),
    "embedding-voice": ("stages", "embedding", "voice"),
    "rank": ("commands", "whole", "rank", "10 s"),
    "validate": ("commands", "whole", "validate", "25 s, 700 MB"),
    "rank-real": ("commands", "real", "rank", "3 s"),
    "validate-real": ("commands", "real", "validate"),
    "rank-few": ("commands", "few", "rank"),
    "validate-few": ("commands", "few", "validate"),
    "rank-beside": ("commands", "rank_beside"),
    "help": ("commands", "help_"),
    "help-rank": ("commands", "help_of_rank"),
}
"""Module and function of each row, with its arguments; `most` and `least` are how much the encoders share."""


def case_of(key: str, data: Data) -> Case:
    """The row, ready to be measured; imports nothing that other rows need."""
    module, function, *arguments = ROWS[key]
    make = getattr(importlib.import_module(f".{module}", __package__), function)
    return make(data, *(int(a) if a.isdigit() else a for a in arguments))
