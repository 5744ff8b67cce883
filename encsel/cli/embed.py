"""encsel embed."""

import re
from pathlib import Path
from typing import Any, TextIO

import click

from encsel.cli.options import FOLDER, PATH, Grouped, cache_of, quiet_option, set_options
from encsel.cli.output import check_apart, inputs_of, progress_of, results_apart, say


@click.command(cls=Grouped)
@click.argument("data", type=PATH)
@click.option("--output", "-o", required=True, type=FOLDER,
              help="Folder for faces/NAME.npz and voices/NAME.npz; `encsel rank` reads it.")  # fmt: skip
@set_options
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
    """Embed a calibration set once, so that it can be ranked many times.

    Writes one .npz per encoder (arrays embeddings, labels, samples, a column per attribute, and space if the encoder
    has a joint space), readable only by you. Embeddings of people are biometric data: protect them like the images and
    recordings.
    """
    from encsel.core import MODALITIES, Runtime, SetOptions
    from encsel.data.calibration_set import CalibrationSet
    from encsel.data.embedding_files import write_embeddings
    from encsel.embedding.candidates import embeddings_of, names_embeddings
    from encsel.errors import EncoderFailed, UsageError
    from encsel.loading.hub import check_devices
    from encsel.parallel.tasks import running_on

    inputs = inputs_of(data, (*faces, *voices))
    # Embedding files among the inputs have the same names as the outputs.
    folders = [Path(name).parent for name in (*faces, *voices) if names_embeddings(name)]
    check_apart([], [output, *(output / f"{modality}s" for modality in MODALITIES)], inputs=[*inputs, *folders])
    progress = progress_of(quiet)
    in_runtime = ("device", "dtype", "offline", "allow_pickle", "timeout", "batch_size", "backend", "scheduler")
    runtime = Runtime(cache=cache_of(cache), **{name: options.pop(name) for name in in_runtime})
    check_devices(runtime)
    calibration = CalibrationSet.from_path(data, SetOptions(**options))
    progress.note(f"Layout: {calibration.layout}; {len(calibration.identities)} identities in both modalities.")
    for note in (*calibration.notes, *calibration.details):
        progress.note(note)
    with running_on(runtime):
        embedded = embeddings_of(calibration, faces, voices, runtime=runtime, progress=progress)
    for skipped in embedded.skipped:
        progress.note(f"skipped {skipped.modality} {skipped.sample}: {skipped.reason}")
    written = set()
    for e in embedded.embeddings:
        # Not allowed in file names everywhere.
        name = re.sub(r'[\\/:*?"<>|]', "-", e.name)
        path = output / f"{e.modality}s" / f"{name}.npz"
        try:
            write_embeddings(e, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}. Choose another --output.") from error
        written.add(path)
        say(f"{path}: {len(e.vectors)} x {e.dim}, {len(e.identities)} people", out=out)
    if others := sorted(p.name for p in output.glob("*s/*.npz") if p not in written):
        progress.note(
            f"{output} also holds files of earlier runs, which `encsel rank {output}` reads: {', '.join(others)}."
        )
    return EncoderFailed.exit_code if embedded.failures else 0
