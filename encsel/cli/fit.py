"""encsel fit."""

from pathlib import Path

import click

from encsel.cli.options import PATH, format_option


@click.command(short_help="Fit a regression card to measured face-voice pairs.")
@click.argument("tables", nargs=-1, required=True, type=PATH, metavar="RESULTS...")
@click.option("--features", help="Columns, comma-separated; ln_ takes the log. Default: cka_matched, or ln_cka.")
@click.option(
    "--exclude", "excluded", multiple=True, metavar="ENCODER", help="Leave out pairs with this encoder. Repeatable."
)
@click.option("--name", help="Name of the card. Default: the name of the output file, or of the tables.")
@click.option("--rows-per-identity", type=click.IntRange(min=1), help="Samples per identity, for tables without it.")
@click.option("--source", metavar="TEXT", help="Where the pairs come from; kept in the card.")
@click.option("--scorer", default="likelihood", help="Scorer that measured the EERs.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Random seed.")
@click.option("--output", "-o", type=PATH, metavar="CARD.json", help="Where to write the card.")
@format_option(("text", "json"))
def fit(
    tables: tuple[Path, ...],
    features: str | None,
    excluded: tuple[str, ...],
    name: str | None,
    rows_per_identity: int | None,
    source: str | None,
    scorer: str,
    seed: int,
    output: Path | None,
    form: str,
) -> None:
    """Fit a regression of EER on geometry to measured pairs, and write it as a JSON card.

    RESULTS are JSON results of `encsel validate` (--scorer selects the EER) or pair tables in CSV; several are pooled.
    A pair table has the columns face_encoder, voice_encoder, n_identities, eer and one per feature; data_set and
    rows_per_identity are optional. The report shows the errors of each form on held-out pairs, face encoders and voice
    encoders, beside a baseline that uses encoder names and no geometry.
    """
    from encsel.cli.output import check_apart, emit, say, terminal_width
    from encsel.regression import fit as regression
    from encsel.regression.analysis import analyse
    from encsel.regression.pair_tables import exclude, read_pairs
    from encsel.reports.regression import card_warnings, fit_report
    from encsel.storage.documents import text_of

    if output:
        check_apart([output], inputs=tables)
    table = exclude(read_pairs(tables, rows_per_identity=rows_per_identity, scorer=scorer), excluded)
    name = name or (output.stem if output else None)
    card = regression.fit(table, features, name=name, scorer=scorer, source=source or "", seed=seed)
    # Written before anything is printed, so that a failure leaves stdout clean.
    if output:
        card.save(output)
    if form == "json":
        emit(text_of(card))
    else:
        emit(fit_report(card, analyse(table, scorer=scorer, seed=seed), width=terminal_width(120)))
    for warning in card_warnings(card):
        click.echo(warning, err=True)
    written = f"Card written to {output}." if output else "No card written. Pass --output CARD.json to keep it."
    say(written, err=form == "json")
