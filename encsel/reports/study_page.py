"""The study behind encsel as a folder: a self-contained page, the figures as PNG, and the JSON."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from encsel.errors import UsageError
from encsel.regression.study import DATA_SETS, FEATURES, Study, StudyPair
from encsel.reports.drawing import (
    COLOURS,
    MARKS,
    add_legend,
    add_names_legend,
    as_png,
    as_svg,
    handle,
    log_axis,
    new_figure,
    shortened,
    style_of,
    styled,
)
from encsel.reports.escapes import in_html
from encsel.reports.panels import against_eer, heat_map, heat_map_size
from encsel.reports.study import sections
from encsel.reports.tables import table_html
from encsel.storage.files import write_public

PAGE, DATA, FOLDER = "index.html", "study.json", "figures"
LABELS = dict(zip(FEATURES, ("CKA", "ID mismatch (dimensions)", "Gromov-Wasserstein", "spectral gap"), strict=True))
_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1.5rem; max-width: 75rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; } figure { margin: 1.25rem 0; } svg { display: block; max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8886; }
th.name, td.name { text-align: left; }
.notes, figcaption { font-size: .875rem; max-width: 60rem; }
"""


def write_study(study: Study, folder: Path) -> Path:
    """Write the page, the figures and the JSON into a folder, and return the path of the page.

    Raises:
        UsageError: the folder cannot be written.
    """
    files, figures = {DATA: study.to_json().encode()}, []
    with styled():
        for name, caption, draw in FIGURES:
            figure = draw(study)
            svg = as_svg(figure, name).replace("<svg", f'<svg role="img" aria-label="{in_html(caption)}"', 1)
            figures.append(f"<figure>{svg}<figcaption>{in_html(caption)}</figcaption></figure>")
            files[f"{FOLDER}/{name}.png"] = as_png(figure)
    tables = (f"<section><h2>{in_html(part.title)}</h2>{table_html(part)}</section>" for part in sections(study))
    files[PAGE] = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>encsel: the study behind it</title><style>{_STYLE}</style></head>\n<body>\n"
        "<h1>The study behind encsel, rebuilt from its published numbers</h1>\n<main>\n"
        + "\n".join((*figures, *tables))
        + "\n</main>\n</body></html>\n"
    ).encode()
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_public(folder / name, content)
    except OSError as error:
        raise UsageError(
            f"--report {folder} cannot be written: {error.strerror or error}. Choose another folder."
        ) from error
    return folder / PAGE


def _against_eer(study: Study) -> Any:
    faces, voices = _names(study.pairs)
    figure, panels = new_figure(3.0, 2.7, len(DATA_SETS) * len(FEATURES), max_columns=len(FEATURES))
    wanted = ((data_set, feature) for data_set in DATA_SETS.values() for feature in FEATURES)
    for axes, (data_set, feature) in zip(panels, wanted, strict=True):
        pairs = [p for p in study.pairs if p.data_set == data_set]
        looks = [{"color": style_of(COLOURS, faces, p.face), "marker": style_of(MARKS, voices, p.voice)} for p in pairs]
        rho = study.analyses[data_set].columns[feature].rank.spearman
        x = [getattr(p, feature) for p in pairs]
        against_eer(axes, x, [p.eer for p in pairs], looks, LABELS[feature], rho)
        axes.set_ylabel(f"EER (fraction), {data_set}", fontsize=9)
    add_names_legend(figure, faces, voices)
    return figure


def _of_pairs(feature: str) -> Callable[[Study], Any]:
    def draw(study: Study) -> Any:
        figure, panels = new_figure(*heat_map_size(*_names(study.pairs)), len(DATA_SETS), max_columns=2)
        for axes, data_set in zip(panels, DATA_SETS.values(), strict=True):
            here = [p for p in study.pairs if p.data_set == data_set]
            values = {(p.face, p.voice): getattr(p, feature) for p in here}
            heat_map(axes, *_names(here), values, LABELS[feature])
            axes.set_title(data_set, fontsize=10)
        return figure

    return draw


def _curvature(study: Study) -> Any:
    names = list(dict.fromkeys(e.encoder for e in study.encoders))
    figure, panels = new_figure(4.2, 1.4 + 0.3 * len(names), 2, max_columns=2)
    columns = {
        "mean_curvature_std": "spread of mean curvature over points (1 / unit)",
        "gaussian_curvature_median": "median of Gaussian curvature (1 / unit squared)",
    }
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for i, data_set in enumerate(DATA_SETS.values()):
            of_set = [e for e in study.encoders if e.data_set == data_set]
            rows = [names.index(e.encoder) for e in of_set]
            axes.plot(
                [abs(getattr(e, column)) for e in of_set], rows, linestyle="none", color=COLOURS[i], marker=MARKS[i]
            )
        log_axis(axes)
        axes.set_yticks(range(len(names)), list(map(shortened, names)))
        axes.invert_yaxis()
        axes.set_xlabel(label, fontsize=9)
    handles = [handle(color=COLOURS[i], marker=MARKS[i], linestyle="none") for i in range(len(DATA_SETS))]
    add_legend(figure, handles, list(DATA_SETS.values()))
    return figure


def _names(pairs: Sequence[StudyPair]) -> tuple[list[str], list[str]]:
    """Face and voice encoders of the pairs."""
    return list(dict.fromkeys(p.face for p in pairs)), list(dict.fromkeys(p.voice for p in pairs))


FIGURES: tuple[tuple[str, str, Callable[[Study], Any]], ...] = (
    ("against-eer", "The study's four numbers about each pair against its EER, with least-squares lines; a row per "
     "data set. Colour: face encoder; mark: voice encoder.", _against_eer),
    ("cka", "Biased CKA of every pair. It depends on the number of people: compare within a data set only.",
     _of_pairs("cka")),
    ("gw", "Gromov-Wasserstein distance of every pair; 0: both encoders space people in the same way.",
     _of_pairs("gw_distance")),
    ("curvature", "Curvature of every encoder, both data sets on one axis.", _curvature),
)  # fmt: skip
"""Name, caption and how to draw it."""
