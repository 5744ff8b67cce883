"""encsel calibrate: make the calibrated cards and the table of how they hold."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import click

if typing.TYPE_CHECKING:
    from encsel.prediction.card import HeldOut

SUFFIX = {"reference": "", "weighted": "-weighted"}
RIVALS = ("training mean", "best constant", "cross-validated EER", "matched CKA, ln fit", "first recipe")


@click.command()
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the cards go, and, below work/, the simulated sets; what is there already is taken up again.",
)
@click.option(
    "--populations", type=click.IntRange(2), default=30, show_default=True, help="Simulated populations of each kind."
)
@click.option("--quick", is_flag=True, help="Two populations of each kind and short truths: minutes, no card to use.")
@click.option(
    "--yardstick",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.py",
    help="Also test on the frozen populations of this Python file (World(seed), seeds 100 to 107). It is run.",
)
@click.option(
    "--yardstick-sets",
    type=click.IntRange(1),
    default=9,
    show_default=True,
    help="Sets of each size from each frozen population.",
)
@click.option(
    "--real",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DATA",
    help="Also predict one half of the people of these embeddings from the other.",
)
@click.option(
    "--name",
    default="encsel-calibrated",
    show_default=True,
    help="Of the cards; another than the shipped one's is needed to use them with `encsel rank`.",
)
@click.option("--jobs", type=int, default=-1, show_default=True, help="Processes; -1 for one a core.")
def calibrate(
    output: Path,
    populations: int,
    quick: bool,
    yardstick: Path | None,
    yardstick_sets: int,
    real: Path | None,
    name: str,
    jobs: int,
) -> int:  # fmt: skip
    """Make the calibrated cards: simulate populations, fit, and test on kinds of population kept out of the fit.

    The whole takes about an hour on two cores and is resumed where it stopped. The table of errors goes to stdout.
    """
    from encsel.cli.rank import emit
    from encsel.data.calibration_set import open_calibration
    from encsel.errors import UsageError
    from encsel.progress import OnStderr
    from encsel.simulation.populations import KINDS, TRUE_DRAWS, TRUE_SPLITS
    from encsel.simulation.recipe import fit_card, halves, held_out_yardstick, table_of
    from encsel.simulation.trials import YARDSTICK, YARDSTICK_SEEDS, load_world, trials
    from encsel.storage import documents as cardfile

    # The long part must not end in what could have been said before it.
    if jobs == 0:
        raise UsageError("--jobs is 0; a number of processes, or -1 for one a core, is needed.")
    if yardstick is not None:
        load_world(yardstick)
    if real is not None and not open_calibration(real).embeddings:
        raise UsageError(f"--real {real} holds no embeddings; faces/NAME.npz and voices/NAME.npz are needed.")
    progress = OnStderr()
    populations, seeds = (2, YARDSTICK_SEEDS[:2]) if quick else (populations, YARDSTICK_SEEDS)
    n_draws, n_splits = (1, 2) if quick else (TRUE_DRAWS, TRUE_SPLITS)
    common: dict[str, Any] = {
        "work": output / "work", "n_draws": n_draws, "n_splits": n_splits, "n_jobs": jobs, "progress": progress,
    }  # fmt: skip
    done = list(trials([(kind, seed) for seed in range(populations) for kind in KINDS], **common))
    frozen = []
    if yardstick is not None:
        n_sets = 3 if quick else yardstick_sets
        frozen = list(trials([(YARDSTICK, seed) for seed in seeds], yardstick=yardstick, n_sets=n_sets, **common))
    for scorer, suffix in SUFFIX.items():
        # What a quick run makes is no card to use, and must not stand where one does.
        title = name + suffix + ("-quick" if quick else "")
        with progress.task(f"fit {title}", 1) as task:
            card = fit_card(table_of(done, scorer), name=title, scorer=scorer)
            task.advance()
        cardfile.save(card, output / f"{title}.json")
        rows = list(card.held_out)
        if frozen:
            rows += held_out_yardstick(card, table_of(frozen, scorer))
        emit(f"{title}: predicted EER of the scorer '{scorer}', each kind kept out of the fit that predicts it\n\n")
        emit(_table(rows))
        emit(_order_lines(card) + "\n")
        if real is not None and scorer == "reference":
            emit(_real_lines(halves(card, real, n_splits=10 if quick else 100, progress=progress)) + "\n")
    return 0


def _table(rows: list[HeldOut]) -> str:
    """The errors as a Markdown table: RMSE, bias, rank correlation, regret, coverage; then the RMSE of other ways."""
    header = ["kind", "n", "sets", "RMSE", "bias 4", "bias 8", "bias 20", "Spearman", "regret", "coverage", *RIVALS]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for row in rows:
        bias = [f"{row.bias_at[m]:+.3f}" if m in row.bias_at else "-" for m in ("4", "8", "20")]
        others = [f"{row.rivals[name]:.3f}" if name in row.rivals else "-" for name in RIVALS]
        cells = [
            row.kind, str(row.n_identities), str(row.n_sets), f"{row.rmse:.3f}", *bias, f"{row.spearman:.2f}",
            f"{row.regret:.3f}", f"{row.coverage:.2f}", *others,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n"


def _order_lines(card: Any) -> str:
    lines = ["Pairs declared better than another, by the gap in predicted EER, and the share that truly were:"]
    lines += [f"  {b.low:.2f} to {b.high:.2f}: {b.right:.3f} of {b.n}" for b in card.gaps]
    lines += ["p_best, mean in its tenth, and the share that were the best:"]
    lines += [f"  {p:.2f}: {was:.2f} of {n}" for p, was, n in card.p_best]
    return "\n".join(lines) + "\n"


def _real_lines(found: list[Any]) -> str:
    return (
        "\n".join(
            f"Real people, {h.face} x {h.voice}, {h.n_identities} predict {h.n_identities} others at equal n: "
            f"{h.n_inside} of {h.n_splits} cross-validated EERs within the stated interval (mean half-width "
            f"{h.half_width:.3f}); predicted at the reference size {h.predicted:.3f} (sd over halves {h.sd:.3f})"
            for h in found
        )
        + "\n"
    )
