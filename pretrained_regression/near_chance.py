"""What predictions are worth where there is no link, or hardly any, between faces and voices. A developer's script.

python pretrained_regression/near_chance.py CARDS

CARDS is the folder of `encsel calibrate`, with its simulated sets in work/. All rows are of kinds left out of the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from encsel.matching.crossval import MEASURED
from encsel.matching.sensitivity import distance_of_eer
from encsel.prediction.card import CalibratedCard, load_calibrated, predicted_eer
from encsel.progress import OnStderr
from encsel.simulation.error_model import error_model, standard_deviation
from encsel.simulation.fit import clustered_error, ridge, rmse
from encsel.simulation.populations import KINDS, UNLINKED_EVERY, TruthSizes
from encsel.simulation.table import Table, Values, design, quantiles_by_people, table_of
from encsel.simulation.trials import TESTED_PEOPLE, resumed, training_job

SHARES: Mapping[str, Sequence[int]] = {"10 %": (0, 1, 2, 3, 4, 5, 6, 7, 8), "20 %": range(10), "40 %": (0, 1, 2, 4, 9)}
"""Seeds of the populations in a fit, by about the share of them that have no link or a weak one."""


@dataclass(frozen=True)
class Predicted:
    """(rows,) predicted d' and half-width of the 90 % interval, from fits without the row's kind."""

    distance: Values
    half_width: Values

    def holds(self, truth: Values) -> NDArray[np.bool_]:
        low, high = predicted_eer(self.distance + self.half_width), predicted_eer(self.distance - self.half_width)
        return np.asarray((low <= truth) & ((truth <= high) | (high >= 0.5)))


def is_linked(table: Table, seeds: NDArray[np.intp]) -> NDArray[np.bool_]:
    return seeds[table.population] % UNLINKED_EVERY != UNLINKED_EVERY - 1


def predicted(card: CalibratedCard, table: Table, used: NDArray[np.bool_]) -> Predicted:
    """Predictions for all rows by fits on the rows `used` of other kinds, as those of a card."""
    matrix, target = design(table, card.features), distance_of_eer(table.truth)
    d, half_width = np.empty((2, len(table)))
    for kind in KINDS:
        inside = table.kind == kind
        d[inside] = matrix[inside] @ ridge(matrix[~inside & used], target[~inside & used], card.shrinkage)
    for kind in KINDS:
        inside = table.kind == kind
        others, rows = ~inside & used, table.rows(inside)
        model = error_model(table.rows(others), d[others])
        fit = (model["spread"], model["own_error"])
        excess = np.abs(d - target)[others] / standard_deviation(*fit, table.rows(others), d[others])
        people, tail = np.array(quantiles_by_people(table.rows(others), excess, (0.9,))).T
        half_width[inside] = np.interp(np.log(rows.n), np.log(people), tail) * standard_deviation(*fit, rows, d[inside])
    return Predicted(d, half_width)


def of_shares(card: CalibratedCard, table: Table, seeds: NDArray[np.intp]) -> Iterator[list[str]]:
    linked = is_linked(table, seeds)
    for share, chosen in SHARES.items():
        made = predicted(card, table, np.isin(seeds[table.population], list(chosen)))
        eer, inside = predicted_eer(made.distance), made.holds(table.truth)
        for n in TESTED_PEOPLE:
            cells = [card.name, share, f"{n:.0f}"]
            for rows in (linked & (table.n == n), ~linked & (table.n == n)):
                error, held = (eer - table.truth)[rows], inside[rows]
                cells += [
                    f"{rmse(eer[rows], table.truth[rows]):.3f}", f"{error.mean():+.3f}",
                    f"{held.mean():.2f} ({clustered_error(held, table.population[rows]):.2f})",
                ]  # fmt: skip
            yield cells


def of_evidence(card: CalibratedCard, table: Table) -> Iterator[list[str]]:
    """Mean predicted and true EER by what cross-validation shows: d' in its standard errors above that of chance."""
    made = predicted(card, table, np.ones(len(table), dtype=bool))
    shown = distance_of_eer(np.minimum(table.measured, 0.5)) / table.d_error
    for n in TESTED_PEOPLE:
        for low, high in ((-np.inf, 1), (1, 2), (2, np.inf)):
            rows = (table.n == n) & (shown >= low) & (shown < high)
            if rows.any():
                eer, true = predicted_eer(made.distance[rows]), table.truth[rows]
                gap = clustered_error(eer - true, table.population[rows])
                what = f"under {high:g}" if low < 0 else f"{low:g} to {high:g}" if high < np.inf else f"over {low:g}"
                near = (true >= 0.45).mean()
                yield [card.name, f"{n:.0f}", what, str(rows.sum()), f"{eer.mean():.3f}", f"{true.mean():.3f}",
                       f"{gap:.3f}", f"{near:.2f}"]  # fmt: skip


@click.command()
@click.argument("cards", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(cards: Path) -> None:
    """Print both tables for both cards."""
    jobs = [training_job(kind, seed, TruthSizes()) for seed in range(10) for kind in KINDS]
    trials = list(resumed(jobs, cards / "work", progress=OnStderr()))
    seeds = np.array([one.seed for one in trials])
    by_scorer = {card.scorer: card for card in map(load_calibrated, sorted(cards.glob("*.json")))}
    tables = {scorer: table_of(trials, scorer) for scorer in MEASURED}
    click.echo("| card | fit with | n | linked: RMSE | bias | held | not linked: RMSE | bias | held |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for scorer, card in by_scorer.items():
        for cells in of_shares(card, tables[scorer], seeds):
            click.echo(f"| {' | '.join(cells)} |")
    click.echo(
        "\n| card | n | d' in standard errors | pairs | predicted | true | error of the gap | true .45 or more |"
    )
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for scorer, card in by_scorer.items():
        for cells in of_evidence(card, tables[scorer]):
            click.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
