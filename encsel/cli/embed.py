"""encsel embed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TextIO

import click

from encsel.cli.options import (
    cache_of,
    cache_options,
    data_options,
    encoder_options,
    quiet_option,
    runtime_options,
)
from encsel.cli.output import results_apart


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder for faces/NAME.npz and voices/NAME.npz; `encsel rank` reads it.")  # fmt: skip
@encoder_options
@runtime_options
@data_options
@cache_options
@quiet_option
@results_apart
def embed(
    data: Path,
    out: TextIO,
    output: Path,
    faces: tuple[str, ...],
    voices: tuple[str, ...],
    cache: str,
    quiet: bool,
    **options: Any,
) -> int:
    """Embed a calibration set once, to be ranked many times.

    Writes one .npz per encoder (arrays embeddings, labels, samples, and a column per extra fact), readable by you
    alone. Embeddings of people are biometric data: keep them as carefully as the images and recordings.
    """
    from encsel.core import Runtime, SetOptions
    from encsel.data.calibration_set import CalibrationSet
    from encsel.data.embedding_files import write_embeddings
    from encsel.embedding.candidates import embeddings_of
    from encsel.errors import EncoderFailed, UsageError
    from encsel.progress import OnStderr, Silent

    progress = Silent() if quiet else OnStderr()
    in_runtime = ("device", "dtype", "offline", "allow_pickle", "timeout", "batch_size")
    runtime = Runtime(cache=cache_of(cache), **{name: options.pop(name) for name in in_runtime})
    calibration = CalibrationSet.from_path(data, SetOptions(**options))
    progress.note(f"Layout: {calibration.layout}; {len(calibration.identities)} identities in both modalities.")
    for note in (*calibration.notes, *calibration.details):
        progress.note(note)
    embedded = embeddings_of(calibration, faces, voices, runtime=runtime, progress=progress)
    for one in embedded.skipped:
        progress.note(f"skipped {one.modality} {one.sample}: {one.reason}")
    written = set()
    for embeddings in embedded.embeddings:
        # A spec's colon and slash are no part of a file's name everywhere.
        path = output / f"{embeddings.modality}s" / f"{re.sub('[:/]', '-', embeddings.name)}.npz"
        try:
            write_embeddings(embeddings, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}. Choose another --output.") from error
        written.add(path)
        click.echo(
            f"{path}: {len(embeddings.vectors)} x {embeddings.dim}, {len(embeddings.identities)} people", file=out
        )
    others = sorted(p.name for p in output.glob("*s/*.npz") if p not in written)
    if others:
        progress.note(
            f"{output} also holds files from before, which `encsel rank {output}` takes in: {', '.join(others)}."
        )
    return EncoderFailed.exit_code if embedded.failures else 0
