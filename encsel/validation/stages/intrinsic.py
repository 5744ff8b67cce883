"""intrinsic: intrinsic dimensions of every encoder, at several numbers of neighbours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from encsel.core import Embeddings
from encsel.metrics.distance_ratio import two_nn
from encsel.metrics.mle import K, dimension_per_person, error_of_median, mle_harmonic, mle_median
from encsel.metrics.neighbours import Neighbours
from encsel.storage.sections import number
from encsel.validation.result import EncoderValidation, Validation
from encsel.validation.shared import KS, neighbours_of
from encsel.validation.stage import Outcome, Outcomes, Pair, Stage, cells
from encsel.validation.work import Work

METRICS = {
    "mle_median": f"dimensions.mle_median.{K}", "mle_harmonic": f"dimensions.mle_harmonic.{K}",
    "two_nn": "dimensions.two_nn", "two_nn_reference": "dimensions.two_nn_reference",
}  # fmt: skip
K_PERSON = KS[0]
one_decimal = partial(number, digits=1)


@dataclass(frozen=True)
class PerPerson:
    """Intrinsic dimensions of each person's rows at K_PERSON neighbours, over the people with enough rows."""

    median: float
    quartiles: tuple[float, float]
    mean: float
    n_people: int


@dataclass(frozen=True)
class Dimensions:
    """Intrinsic dimensions of all distinct rows pooled.

    Attributes:
        mle_median, mle_harmonic: Levina and Bickel, by number of neighbours; the study uses the median at 20.
        two_nn: Facco et al. without the largest tenth of ratios; two_nn_reference: all ratios, as in the study.
        n_rows: distinct rows; n_searched: those whose neighbours were searched, all or a random sample.
        standard_error: of the median at 20 neighbours, due to the sample; None without one.
        per_person: for each person separately; None if nobody has enough rows.
    """

    mle_median: Mapping[str, float]
    mle_harmonic: Mapping[str, float]
    two_nn: float
    two_nn_reference: float
    n_rows: int
    n_searched: int
    standard_error: float | None
    per_person: PerPerson | None


def dimensions(neighbours: Neighbours, embeddings: Embeddings) -> Dimensions:
    """Intrinsic dimensions of `embeddings` at every number of neighbours that was searched among its distinct rows.

    Raises:
        BadCalibration: rows that do not differ enough.
    """
    distances = neighbours.distances
    ks = [k for k in KS if k <= distances.shape[1]]
    return Dimensions(
        {str(k): mle_median(distances, k=k) for k in ks},
        {str(k): mle_harmonic(distances, k=k) for k in ks},
        two_nn(distances),
        two_nn(distances, discard=0.0),
        neighbours.n_rows,
        len(neighbours.rows),
        error_of_median(distances) if len(neighbours.rows) < neighbours.n_rows and K in ks else None,
        _per_person(embeddings),
    )


def _per_person(embeddings: Embeddings) -> PerPerson | None:
    values = dimension_per_person(embeddings.vectors, embeddings.labels, k=K_PERSON)
    if not len(values):
        return None
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return PerPerson(middle, (low, high), float(values.mean()), len(values))


def compute(work: Work) -> Outcomes:
    outcomes = work.of_encoders(
        STAGE, "dimensions", lambda key, neighbours: dimensions(neighbours[key][1], work.encoders[key]),
        shared=lambda keys: neighbours_of(work, keys), more={"protocol": work.protocol},
    )  # fmt: skip

    def mismatch(pair: Pair) -> float | None:
        values = [outcomes[key]["dimensions"].value for key in pair]
        at_k = [None if d is None else d.mle_median.get(str(K)) for d in values]
        return None if at_k[0] is None or at_k[1] is None else abs(at_k[0] - at_k[1])

    for pair in work.pairs:
        outcomes[pair] = {"id_mismatch": Outcome(mismatch(pair))}
    return outcomes


def encoder_cells(e: EncoderValidation, validation: Validation) -> Mapping[str, str]:
    paths = {"ID k=5" if k == 5 else f"k={k}": f"dimensions.mle_median.{k}" for k in KS}
    ratio = "two_nn_reference" if validation.protocol == "reference" else "two_nn"
    return cells(
        e,
        {
            **paths,
            "ID harm.": METRICS["mle_harmonic"],
            "TwoNN": METRICS[ratio],
            "ID person": "dimensions.per_person.median",
        },
        one_decimal,
    )


def notes(validation: Validation) -> Sequence[str]:
    measured = {e.name: e["dimensions"] for e in validation.encoders if e["dimensions"] is not None}
    errors = [
        f"{name} {d.n_searched} of {d.n_rows}, {d.standard_error:.2g}"
        for name, d in measured.items()
        if d.standard_error is not None
    ]
    sample = "ID is that of a random sample of rows with neighbours among all (sample, standard error at 20): "
    return (
        *([f"{sample}{'; '.join(errors)}."] if errors else []),
        "ID: intrinsic dimension (maximum likelihood, median over points, by number of neighbours; harm.: harmonic "
        "mean at 20). It grows with people and samples: compare at equal numbers. ID person: median over people of the "
        f"dimension of a person's samples, at {K_PERSON} neighbours.",
        "In the study, pairs with a larger ID mismatch have a lower error.",
    )


STAGE = Stage(
    name="intrinsic",
    about="encoder",
    order=20,
    fields={"dimensions": Dimensions},
    pair_fields={"id_mismatch": float},
    compute=compute,
    version=3,
    metrics=METRICS,
    encoder_cells=encoder_cells,
    pair_cells=lambda p: cells(p, {"ID mismatch": "id_mismatch"}, one_decimal),
    notes=notes,
)
