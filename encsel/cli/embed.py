"""encsel embed."""

from __future__ import annotations

from pathlib import Path

import click

from encsel.cli.options import cache_options, data_options, encoder_options, quiet_option


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder for faces/NAME.npz and voices/NAME.npz; `encsel rank` reads it.")  # fmt: skip
@encoder_options
@data_options
@cache_options
@quiet_option
def embed(
    data: Path,
    output: Path,
    faces: tuple[str, ...],
    voices: tuple[str, ...],
    identities: int | None,
    samples_per_identity: int | None,
    seed: int,
    max_skipped: float,
    cache: str,
    quiet: bool,
) -> None:
    """Embed a calibration set once, to be ranked many times.

    Writes one .npz per encoder (arrays embeddings, labels, samples, and a column per extra fact), readable by you
    alone. Embeddings of people are biometric data: keep them as carefully as the images and recordings.
    """
    from encsel.calibration import open_calibration
    from encsel.errors import UsageError
    from encsel.progress import OnStderr, Silent
    from encsel.ranking import embeddings_of
    from encsel.vectors import write_embeddings

    progress = Silent() if quiet else OnStderr()
    calibration = open_calibration(
        data, identities=identities, samples_per_identity=samples_per_identity, seed=seed, max_skipped=max_skipped
    )
    progress.note(f"Layout: {calibration.layout}; {len(calibration.identities)} identities in both modalities.")
    for note in calibration.notes:
        progress.note(note)
    embedded = embeddings_of(
        calibration, faces, voices, cache=cache or None, max_skipped=max_skipped, progress=progress
    )
    for one in embedded.skipped:
        progress.note(f"skipped {one.modality} {one.sample}: {one.reason}")
    for embeddings in embedded.embeddings:
        path = output / f"{embeddings.modality}s" / f"{embeddings.name}.npz"
        try:
            write_embeddings(embeddings, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}. Choose another --output.") from error
        click.echo(f"{path}: {len(embeddings.vectors)} x {embeddings.dim}, {len(embeddings.identities)} people")
