"""`encsel fit`: pair tables in, the errors of several forms on the screen, a regression card out."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path

import click

if typing.TYPE_CHECKING:
    from encsel.regression.association import Association
    from encsel.regression.card import Card, FitErrors, LeftOutErrors
    from encsel.regression.pair_tables import PairTable

COLUMNS = ("cka", "id_mismatch", "gw_distance", "spectral_gap")
COMPARED = (("cka", "id_mismatch"), ("ln_cka",), COLUMNS)
BASELINE = "no geometry: face effect + voice effect"


@click.command(short_help="Fit a regression card to measured face-voice pairs.")
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULTS...")
@click.option("--features", default="ln_cka", show_default=True, help="Columns, by comma; ln_ takes the natural log.")
@click.option("--exclude", "excluded", multiple=True, metavar="ENCODER", help="Leave its pairs out. May be repeated.")
@click.option("--name", help="The card's name. Default: the output file's, or the tables'.")
@click.option("--rows-per-identity", type=click.IntRange(min=1), help="For tables without that column.")
@click.option("--source", default="", metavar="TEXT", help="Where the pairs come from; kept in the card.")
@click.option(
    "--scorer", default="reference", show_default=True, help="What measured the EERs; of a validation, which to take."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of bootstrap and permutation.")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="CARD.json", help="Where to write the card.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def fit(
    tables: tuple[Path, ...],
    features: str,
    excluded: tuple[str, ...],
    name: str | None,
    rows_per_identity: int | None,
    source: str,
    scorer: str,
    seed: int,
    output: Path | None,
    form: str,
) -> None:
    """Fit a regression of EER on geometry to measured pairs (several files are pooled) and keep it as a JSON card.

    RESULTS are results of `encsel validate` (its JSON; --scorer says which EER), or pair tables in CSV. A pair table
    has the columns face_encoder, voice_encoder, n_identities, eer and one per feature; data_set and rows_per_identity
    may be there, too. The table on the screen tells how each form holds for pairs, face encoders and voice encoders it
    has not seen, beside a baseline that knows the encoders' names and no geometry.
    """
    from encsel.loading.registry import metrics
    from encsel.regression import card as cards
    from encsel.regression import fit as regression
    from encsel.regression import pair_tables as pairs

    table = pairs.exclude(pairs.read_pairs(tables, rows_per_identity=rows_per_identity, scorer=scorer), excluded)
    card = regression.fit(
        table,
        chosen := tuple(part.strip() for part in features.split(",")),
        name=name or (output.stem if output else "+".join(Path(file.name).stem for file in table.files)),
        metric_versions={metric.name: metric.version for metric in metrics().values()},
        scorer=scorer,
        source=source,
        seed=seed,
    )
    # Written before anything is shown: a card that cannot be written leaves stdout clean.
    if output:
        cards.save_card(card, output)
    if form == "json":
        click.echo(cards.card_text(card), nl=False)
    else:
        _show(table, card, chosen, seed)
    for note in _notes(card):
        click.echo(note, err=True)
    where = f"Card written to {output}." if output else "No card written; --output CARD.json keeps it."
    click.echo(where, err=form == "json")


def _show(table: PairTable, card: Card, chosen: tuple[str, ...], seed: int) -> None:
    from encsel.errors import UsageError
    from encsel.regression import fit as regression

    n_face, n_voice = len(set(table.face_encoder)), len(set(table.voice_encoder))
    click.echo(f"{len(table)} pairs of {n_face} face and {n_voice} voice encoders from {table.file_names}", nl=False)
    click.echo(f", without {', '.join(table.excluded)}\n" if table.excluded else "\n")

    present = [column for column in COLUMNS if column in table.columns]
    associations = {**regression.associations(table, present, seed=seed), **card.associations}
    click.echo("Rank association with EER; the crossed p shuffles face and voice labels, the other takes pairs as")
    click.echo("independent.")
    of_columns = ("column", "Spearman", "p", "95 % bootstrap", "crossed p")
    click.echo(_aligned([of_columns, *map(_association, associations.items())]))
    for column, found in associations.items():
        for reason in dict.fromkeys(filter(None, (found.reason, found.crossed.reason))):
            click.echo(f"{column}: {reason}.", err=True)

    forms = {BASELINE: card.baseline_errors}
    for features in (*COMPARED, chosen):
        label = " + ".join(features) + (" (chosen)" if features == chosen else "")
        if features == chosen:
            forms[label] = card.errors
        elif all(feature.removeprefix("ln_") in table.columns for feature in features):
            try:
                forms[label] = regression.form_errors(table, features)
            except UsageError as error:
                click.echo(f"Not compared, {label}: {error}", err=True)
    click.echo("\nErrors by form, then with one pair, one face encoder, one voice encoder left out at a time.")
    click.echo("R2: 1 is exact, 0 no better than the mean EER. RMSE in EER.")
    of_forms = ("form", "R2", "adjusted", "pair R2", "RMSE", "face R2", "RMSE", "voice R2", "RMSE")
    click.echo(_aligned([of_forms, *map(_form, forms.items())]))
    for label, errors in forms.items():
        left_out = (errors.leave_pair, errors.leave_face, errors.leave_voice)
        for reason in dict.fromkeys(filter(None, (errors.reason, *(one.reason for one in left_out)))):
            click.echo(f"{label}: {reason}.", err=True)
    if sentence := _baseline_sentence(card):
        click.echo(f"\n{sentence}")
    click.echo(f"\n{card.name}: {card.equation}")


def _baseline_sentence(card: Card) -> str | None:
    """That encoder names alone do better than the card's form, when they do on pairs left out."""
    names, chosen = card.baseline_errors, card.errors
    if names.leave_pair.rmse is None:
        return None
    if chosen.leave_pair.rmse is not None and names.leave_pair.rmse >= chosen.leave_pair.rmse:
        return None
    pair, face, voice = (
        f"{_number(of_names.r2)} against {_number(of_chosen.r2)}"
        for of_names, of_chosen in (
            (names.leave_pair, chosen.leave_pair),
            (names.leave_face, chosen.leave_face),
            (names.leave_voice, chosen.leave_voice),
        )
    )
    form = " + ".join(feature.label for feature in card.features)
    return (
        f"The no-geometry baseline, encoder names only, beats {form} on these {card.n_pairs} pairs (R2 "
        f"{_number(names.r2)} against {_number(chosen.r2)}, leave-one-pair-out R2 {pair}); for unseen encoders its R2 "
        f"is {face} (face) and {voice} (voice)."
    )


def _notes(card: Card) -> list[str]:
    notes = []
    if card.sizes_mixed:
        notes.append("The pairs were measured on different n_identities; `encsel rank` will refuse this card.")
    elif all(feature.rows_per_identity is None for feature in card.features):
        notes.append("rows_per_identity is not the same for all pairs or not known; --rows-per-identity states it.")
    if card.target["n_train_identities"] is None:
        notes.append("The card does not say how many identities its EERs were measured on (n_train_identities).")
    return notes


def _association(item: tuple[str, Association]) -> tuple[str, ...]:
    column, found = item
    interval = "-" if found.interval is None else f"{found.interval[0]:.2f} to {found.interval[1]:.2f}"
    how = {"exact": "exact", "monte_carlo": "Monte Carlo", "none": ""}[found.crossed.how]
    crossed = _p(found.crossed.p) + (f" ({how}, {found.crossed.n_orders} orders)" if how else "")
    return column, _number(found.spearman), _p(found.p), interval, crossed


def _form(item: tuple[str, FitErrors]) -> tuple[str, ...]:
    label, errors = item

    def both(left_out: LeftOutErrors) -> tuple[str, str]:
        return _number(left_out.r2), _number(left_out.rmse)

    left_out = (*both(errors.leave_pair), *both(errors.leave_face), *both(errors.leave_voice))
    return label, _number(errors.r2), _number(errors.adjusted_r2), *left_out


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.4f}" if 0.0001 <= p < 0.001 else "<0.0001" if p < 0.0001 else f"{p:.3f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """The rows as text: first column left, the others right, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    )
