"""encsel calibrate: fit the calibrated cards on simulated populations and print their held-out errors."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from encsel.cli.options import FOLDER

if typing.TYPE_CHECKING:
    from encsel.prediction.card import CalibratedCard, HeldOut

NAMES = {"likelihood": "likelihood", "reference": "calibrated"}
"""End of the card's name, by scorer."""


@click.command()
@click.option("--output", "-o", required=True, type=FOLDER, metavar="DIR",
              help="Folder for the cards; simulated sets go to work/ below it and are reused if present.")  # fmt: skip
@click.option("--populations", type=click.IntRange(2), default=10, help="Simulated populations of each kind.")
@click.option("--quick", is_flag=True, help="Two populations of each kind and short truths: a trial run, in minutes.")
@click.option("--name", default="encsel",
              help="Prefix of the cards' names. Change it to use the new cards with `encsel rank`.")  # fmt: skip
@click.option("--jobs", type=int, default=-1, help="Number of processes; -1 for one per core.")
def calibrate(output: Path, populations: int, quick: bool, name: str, jobs: int) -> int:
    """Fit the calibrated cards: simulate populations, fit, and test on held-out kinds of population.

    Takes about an hour and a half on two cores; an interrupted run can be resumed. Prints tables of the errors.
    """
    from encsel.cli.output import emit
    from encsel.errors import UsageError
    from encsel.prediction.evidence import COSTLY, FEATURES
    from encsel.progress import OnStderr
    from encsel.simulation.fit import fit_levels
    from encsel.simulation.populations import KINDS, TruthSizes
    from encsel.simulation.trials import end_processes, resumed, training_job
    from encsel.storage import documents

    if jobs == 0:
        raise UsageError("--jobs is 0; give a number of processes, or -1 for one per core.")
    click.get_current_context().call_on_close(end_processes)
    progress = OnStderr()
    sizes = TruthSizes(n_draws=1, n_splits=2) if quick else TruthSizes()
    todo = [training_job(kind, seed, sizes) for seed in range(2 if quick else populations) for kind in KINDS]
    trials = list(resumed(todo, output / "work", n_jobs=jobs, progress=progress))
    for scorer, ending in NAMES.items():
        # A card of a quick run must not overwrite a real one.
        title = f"{name}-{ending}" + ("-quick" if quick else "")
        # The card of `reference` judges shuffles, which are too many for costly evidence.
        features = [f for f in FEATURES if scorer != "reference" or f not in COSTLY]
        with progress.task(f"fit {title}", 1) as task:
            card, levels = fit_levels(trials, name=title, scorer=scorer, features=features, n_jobs=jobs)
            task.advance()
        documents.save(card, output / f"{title}.json")
        emit(f"{title}: predicted EER of the scorer '{scorer}', each kind predicted by a fit without it\n\n")
        emit(errors_table(card.held_out) + "\n" + _order_lines(card) + "\n")
        emit("Every level, by training people and samples per person at test\n\n")
        emit(levels_table(levels) + "\n")
    return 0


def errors_table(rows: Sequence[HeldOut]) -> str:
    """Held-out errors as a Markdown table; the last columns are the RMSE of simpler predictions."""
    from encsel.reports.tables import markdown_table
    from encsel.storage.sections import MISSING, number, table

    rivals = list(dict.fromkeys(name for row in rows for name in row.rivals))
    cells = [
        {
            "kind": row.kind, "n": str(row.n_identities), "sets": str(row.n_sets), "RMSE": number(row.rmse),
            **{f"bias {m}": f"{row.bias_at[m]:+.3f}" if m in row.bias_at else MISSING for m in ("4", "8", "20")},
            "Spearman": number(row.spearman, 2), "regret": number(row.regret),
            "regret of likeliest": number(row.regret_likeliest), "shortlist holds": number(row.shortlist_holds, 2),
            "its size": number(row.shortlist_size, 1), "other people": number(row.between_sets),
            "coverage": f"{number(row.coverage, 2)} ({number(row.coverage_se, 2)})",
            **{name: number(row.rivals.get(name)) for name in rivals},
        }
        for row in rows
    ]  # fmt: skip
    (section,) = table("", cells)
    return markdown_table(section.header, section.rows)


def levels_table(cards: Mapping[tuple[int, int], CalibratedCard]) -> str:
    """Held-out errors of each level as a Markdown table: over all kinds, and the kind with the lowest coverage."""
    from encsel.prediction.card import ALL_KINDS
    from encsel.reports.tables import markdown_table
    from encsel.simulation.trials import TESTED_PEOPLE
    from encsel.storage.sections import number, table

    cells = []
    for (n_train, probe), card in cards.items():
        for n in TESTED_PEOPLE:
            rows = [row for row in card.held_out if row.n_identities == n]
            whole = next(row for row in rows if row.kind == ALL_KINDS)
            worst = min((row for row in rows if row.kind != ALL_KINDS), key=lambda row: row.coverage)
            cells.append({
                "trained on": str(n_train), "samples": str(probe), "n": str(n), "RMSE": number(whole.rmse),
                "training mean": number(whole.rivals["training mean"]), "Spearman": number(whole.spearman, 2),
                "regret": number(whole.regret), "coverage": number(whole.coverage, 2),
                "lowest": f"{number(worst.coverage, 2)} {worst.kind}",
            })  # fmt: skip
    (section,) = table("", cells)
    return markdown_table(section.header, section.rows)


def _order_lines(card: CalibratedCard) -> str:
    lines = ["Pairs declared better than another, by predicted gap in EER, and the fraction that truly are:"]
    lines += [f"  {b.low:.2f} to {b.high:.2f}: {b.right:.3f} of {b.n}" for b in card.gaps]
    lines += ["p_best, mean of its tenth, and the fraction of pairs that are the best:"]
    lines += [f"  {p:.2f}: {fraction:.2f} of {n}" for p, fraction, n in card.p_best]
    return "\n".join(lines) + "\n"
