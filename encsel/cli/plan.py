"""encsel plan: how many people a calibration set needs, or what the set at hand can decide."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from encsel.cli.options import format_option

if typing.TYPE_CHECKING:
    from encsel.prediction.plan import Plan


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--width", type=float, help="Whole width of the interval that is wanted, such as 0.08.")
@click.option("--difference", type=float, help="Difference of two pairs' EERs that is to be told apart, such as 0.03.")
@click.option("--allow-outside", is_flag=True, help="Count files that a manifest names outside its own folder, too.")
@click.option("--eer", type=float, help="EER to plan for. Default: the mean of the simulated pairs.")
@click.option(
    "--coverage",
    type=click.FloatRange(0.5, 0.99),
    default=0.9,
    show_default=True,
    help="Share of intervals that hold the true value.",
)
@click.option("--card", default="encsel-calibrated", show_default=True, help="Calibrated card, by name or path.")
@format_option(("table", "json"))
def plan(
    data: Path | None,
    width: float | None,
    difference: float | None,
    eer: float | None,
    coverage: float,
    card: str,
    allow_outside: bool,
    form: str,
) -> int:  # fmt: skip
    """How many people, and samples of each, for a given interval or to tell two pairs apart.

    With DATA, the folder of a calibration set or its manifest: what this set can and cannot decide; nothing is
    embedded. All figures are typical of simulated sets; a set's own are in `encsel rank`.
    """
    import json
    from dataclasses import asdict

    from encsel.cli.rank import emit
    from encsel.prediction.card import load_calibrated
    from encsel.prediction.plan import plan as plan_set
    from encsel.ranking.result import MIN_IDENTITIES

    own = None if data is None else _size(data, allow_outside=allow_outside)
    made = plan_set(load_calibrated(card), eer=eer, coverage=coverage, width=width, difference=difference, own=own)
    if form == "json":
        size = None if own is None else {"n_identities": own[0], "samples_per_identity": own[1]}
        reason = f"under {MIN_IDENTITIES} people nothing is predicted" if own and made.own is None else None
        document = {"schema": "encsel.plan/1", **asdict(made), "set": size, "reason": reason}
        emit(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        emit(_table(made, own))
    return 0


def _size(data: Path, *, allow_outside: bool) -> tuple[int, float]:
    """People in both modalities, and samples of each: harmonic mean of the two medians."""
    import numpy as np

    from encsel.data.calibration_set import open_calibration
    from encsel.errors import BadCalibration

    calibration = open_calibration(data, allow_outside=allow_outside)
    people = set(calibration.identities).intersection(*(e.identities for e in calibration.embeddings))
    if not people:
        raise BadCalibration(f"No identity of {data} has samples for every encoder. Name people alike.")
    medians = []
    for modality in ("face", "voice"):
        ready = [e.labels for e in calibration.embeddings if e.modality == modality]
        labels = ready or [np.array([s.identity for s in calibration.samples if s.modality == modality])]
        counts = [np.unique(one[np.isin(one, sorted(people))], return_counts=True)[1] for one in labels]
        medians.append(min(float(np.median(count)) for count in counts))
    return len(people), 2 / (1 / medians[0] + 1 / medians[1])


def _table(made: Plan, size: tuple[int, float] | None) -> str:
    from encsel.prediction.plan import SAMPLES
    from encsel.ranking.result import MIN_IDENTITIES

    by_size = {(r.n_identities, r.samples_per_identity): r for r in made.grid}
    people = sorted({n for n, _ in by_size})
    lines = [
        f"Card {made.card}, scorer '{made.scorer}', pairs of EER about {made.eer:.2f}. Half-width of the "
        f"{made.coverage * 100:g} % interval,",
        "and in brackets the smallest difference of two pairs without a common encoder that is called an order:",
        "",
        "people  " + "".join(f"{f'{m} samples':>18}" for m in SAMPLES),
    ]
    for n in people:
        cells = (by_size[n, m] for m in SAMPLES)
        lines.append(f"{n:>6}  " + "".join(f"{f'{c.half_width:.3f} ({c.difference:.3f})':>18}" for c in cells))
    lines += ["", "Above 300 people few sets were simulated: those rows are rough."]
    if made.enough:
        wish = " and ".join(
            words
            for words, value in (
                (f"an interval no wider than {made.width}", made.width),
                (f"a difference of {made.difference} told apart", made.difference),
            )
            if value is not None
        )
        lines += ["", f"Fewest people for {wish}:"]
        for m, fewest in made.enough.items():
            lines.append(f"  {m:>2} samples each: {'not with 2000 people' if fewest is None else fewest}")
    if size is not None:
        lines += ["", f"This set: {size[0]} people, {size[1]:.0f} samples each."]
        if made.own is None:
            lines.append(f"It decides no EER: under {MIN_IDENTITIES} people the order is coarse.")
        else:
            own = made.own
            lines += [
                f"It gives an EER within {own.half_width:.3f} either way, and calls one pair better than another from "
                f"a difference of {own.difference:.3f}",
                f"({own.difference_sharing:.3f} where the two share an encoder). What differs less will be a tie.",
            ]
            more = [r for r in made.grid if r.n_identities >= 2 * own.n_identities]
            if more:
                samples = own.samples_per_identity
                best = min(more, key=lambda r: (r.n_identities, abs(r.samples_per_identity - samples)))
                lines.append(
                    f"{best.n_identities} people with {best.samples_per_identity} samples each would give "
                    f"{best.half_width:.3f} and {best.difference:.3f}."
                )
    return "\n".join(lines) + "\n"
