"""encsel rank."""

from pathlib import Path
from typing import Any, TextIO

import click

from encsel.cli.options import (
    PATH,
    Grouped,
    cache_of,
    min_identities_option,
    report_option,
    result_options,
    set_options,
    together,
)
from encsel.cli.output import (
    check_outputs,
    deliver,
    inputs_of,
    progress_of,
    results_apart,
    resumable,
    unwritten,
    write_page,
)


@click.command(cls=Grouped)
@click.argument("data", type=PATH)
@set_options
@min_identities_option(1, "Below 30 the order is coarse and no EER is predicted.")
@together(
    click.option("--explain", metavar="FACE/VOICE", help="Also show what made the prediction for this pair."),
    report_option,
    group="Output",
)
@result_options
def rank(data: Path, **options: Any) -> int:
    """Rank every face-voice pair of encoders by predicted cross-modal EER.

    DATA is the folder of a calibration set, or its manifest CSV: the same people in both modalities.

    \b
    Recognised, in this order:
      a manifest CSV (or DATA/manifest.csv): identity,modality,path[,sample][,sex,...]
      embeddings: DATA/faces/NAME.npz with DATA/voices/NAME.npz (arrays embeddings,
      labels[, samples]; also .safetensors, or .npy with a .csv of labels beside it)
      MAV-Celeb (vN/{faces,voices}/ID/LANGUAGE/VIDEO/*)
      VoxCeleb1 (wav/id1xxxx/VIDEO/*.wav; faces by id, or by name with vox1_meta.csv)
      DATA/faces/ID/** with DATA/voices/ID/**
      DATA/ID/{face*,image*}/** with DATA/ID/{voice*,audio*,wav*}/**

    The table goes to stdout, everything else to stderr.
    """
    return run(data, **options)


@results_apart
def run(
    data: Path,
    *,
    out: TextIO,
    form: str,
    quiet: bool,
    cache: str,
    wide: bool = False,
    outputs: tuple[Path, ...] = (),
    explain: str | None = None,
    folder: Path | None = None,
    **options: Any,
) -> int:
    """Check the outputs, rank, write, print; the exit code."""
    from encsel.errors import UsageError
    from encsel.ranking.rank import rank as rank_pairs
    from encsel.reports import ranking as _  # noqa: F401 - registers how a ranking is shown
    from encsel.reports.explanation import explanation_text
    from encsel.storage.result import json_text, plain, render

    if explain is not None and form in ("csv", "github", "junit"):
        raise UsageError(f"--explain has no place in {form}. Choose another --format.")
    encoders = (*options["faces"], *options["voices"])
    inputs = inputs_of(data, encoders, options.get("regression"), options.get("baseline"))
    check_outputs(outputs, inputs=inputs, report=folder)
    progress, kept_in = progress_of(quiet, before_result=form == "table"), cache_of(cache)
    with resumable(progress, kept_in):
        ranking = rank_pairs(data, cache=kept_in, progress=progress, explain=explain, **options)
    explanation = failed = None
    if explain is not None:
        try:
            explanation = ranking.explain(*(explain.split("/", 1) if "/" in explain else (explain, "")))
        except UsageError as error:
            # The ranking took long, and is written all the same.
            failed = error

    def text_of(form: str, **look: Any) -> str:
        if explanation is None or form in ("csv", "junit"):
            return render(ranking, form, **look)
        if form == "json":
            document = ranking.to_dict() | {"explanation": plain(explanation)}
            return json_text(document)
        text = explanation_text(explanation)
        return render(ranking, form, **look) + ("\n" + text if form == "table" else f"\n```text\n{text}```\n")

    private = bool(options.get("show_names"))

    def report() -> None:
        if folder is not None:
            write_page(ranking, folder, data, progress, private=private)

    code = deliver(text_of, form, outputs, out, result=ranking, wide=wide, private=private, more=[report])
    return code if failed is None else unwritten(failed, code)
