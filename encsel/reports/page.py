"""A result as a folder: a self-contained page, and beside it the JSON, the pairs as CSV and the figures as PNG."""

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from encsel.errors import UsageError, printable
from encsel.ranking.result import RankDocument
from encsel.regression.analysis import MIN_PAIRS
from encsel.reports import ranking as rankings
from encsel.reports import validation as validations
from encsel.reports.drawing import COLOURS, ON_DARK
from encsel.reports.escapes import in_html, note_text
from encsel.reports.figures import ON_PAGE_OTHERWISE, Drawing, drawings
from encsel.reports.glossary import glossary
from encsel.reports.overview import overview
from encsel.reports.pictures import pictures
from encsel.reports.plots import DetPlot, HeatMap, det_plot, heat_map_of_eers, heat_maps
from encsel.reports.tables import WORDS, cell_text, csv_of
from encsel.storage.files import write_private, write_public
from encsel.storage.sections import MISSING, Section
from encsel.validation.result import Validation
from encsel.version import __version__

PAGE, TABLE, FIGURES = "index.html", "pairs.csv", "figures"
RANKING, VALIDATION = "ranking.json", "validation.json"
FILES = (PAGE, TABLE, RANKING, VALIDATION)
"""Every name that a report may write in its folder, beside the folder of figures."""
LEFT_OUT = "Left out, because no line has a value:"


@dataclass(frozen=True)
class Origin:
    """Where a result is from: name of the data set, the command, and the date."""

    data: str
    command: str
    date: str


@dataclass(frozen=True)
class Content:
    """What a page shows below its overview.

    Attributes:
        document: name of the JSON.
        sections: the main table first.
        problems: encoders that failed or are unsound, and samples that could not be used.
    """

    title: str
    document: str
    sections: Sequence[Section]
    problems: Sequence[str]
    notes: Sequence[str] = ()
    heat_maps: Sequence[HeatMap] = ()
    det: DetPlot | None = None


def write_report(result: RankDocument | Validation, folder: Path, origin: Origin, *, private: bool = False) -> Path:
    """Write the page and the files beside it into a folder, and return the path of the page.

    Args:
        private: make files readable by their owner only.
    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        # matplotlib needs a place of its own.
        figures = [*pictures(overview(result)), *(drawings(result) if isinstance(result, Validation) else ())]
        document = VALIDATION if isinstance(result, Validation) else RANKING
        texts = {PAGE: page(result, figures, origin), TABLE: csv_of(result), document: result.to_json()}
        files = {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}
        files |= {f"{FIGURES}/{one.name}.png": one.png for one in figures}
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (write_private if private else write_public)(folder / name, content)
    except OSError as error:
        raise UsageError(
            f"--report {folder} cannot be written: {error.strerror or error}. Choose another folder."
        ) from error
    return folder / PAGE


def page(result: RankDocument | Validation, figures: Sequence[Drawing], origin: Origin) -> str:
    """A self-contained HTML document."""
    content = _of_validation(result) if isinstance(result, Validation) else _of_ranking(result)
    shown = overview(result)
    # Problems and the verdict stand at the top.
    told = {*content.problems, *result.verdict.lines}
    filled = [_filled(replace(part, notes=_without(part.notes, told))) for part in content.sections]
    main, *others = [part for part in filled if len(part.header) > part.n_names]
    on_page = [one for one in figures if one.name not in ON_PAGE_OTHERWISE]
    notes = list(_without(content.notes, told))
    if empty := [part.title for part in filled if len(part.header) == part.n_names]:
        notes.append(f"{LEFT_OUT} {', '.join(empty)}.")
    text: str = _template().render(
        result=result, content=content, origin=origin, version=__version__, overview=shown, main=main, others=others,
        eers=heat_map_of_eers(shown), figures=on_page, notes=notes, colours=COLOURS, on_dark=ON_DARK,
        titles=dict.fromkeys((*(part.title for part in others), *(one.section for one in on_page))),
        files=(content.document, TABLE), pictures=[(f"{FIGURES}/{one.name}.png", one.title) for one in figures],
        terms=glossary(_text([main, *others], (shown.what, *notes, *(answer for _, answer in shown.answers)))),
    )  # fmt: skip
    return text


def _of_ranking(ranking: RankDocument) -> Content:
    parts = [rankings.section(ranking), *rankings.encoders(ranking)]
    return Content(parts[0].title, RANKING, parts, rankings.problems(ranking))


def _of_validation(validation: Validation) -> Content:
    # Correlations of a few pairs are large by luck.
    parts = validations.sections(validation, fewest_pairs=MIN_PAIRS)
    if not any(p["measured"] for p in validation.pairs):
        parts.insert(0, validations.summary(validation))
    return Content(
        validations.title_of(validation), VALIDATION, parts, validations.problems(validation),
        validations.closing(validation), heat_maps(validation), det_plot(validation),
    )  # fmt: skip


def _without(notes: Iterable[str], told: Collection[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for note in notes if note not in told))


def _filled(part: Section) -> Section:
    """The section without columns that nothing has a value in, which a note names."""
    kept = [i for i in range(len(part.header)) if i < part.n_names or any(row[i] != MISSING for row in part.rows)]
    if empty := [heading for i, heading in enumerate(part.header) if i not in kept]:
        note = f"{LEFT_OUT} {', '.join(empty)}."
        rows = tuple(tuple(row[i] for i in kept) for row in part.rows)
        part = replace(part, header=tuple(part.header[i] for i in kept), rows=rows, notes=(*part.notes, note))
    return part


def _text(parts: Iterable[Section], others: Iterable[str]) -> str:
    return " \n".join([*(text for part in parts for text in (part.title, *part.header, *part.notes)), *others])


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    def svg(one: Drawing) -> Markup:
        label = f'<svg role="img" aria-label="{in_html(one.alt)}"'
        return Markup(one.svg.replace("<svg", label, 1))

    environment = Environment(
        loader=PackageLoader("encsel.reports"), autoescape=True, undefined=StrictUndefined, finalize=shown,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"note": note_text, "cell": cell_text, "svg": svg, "anchor": _anchor}
    environment.globals |= {"WORDS": WORDS, "MISSING": MISSING}
    return environment.get_template("page.html")


def _anchor(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
