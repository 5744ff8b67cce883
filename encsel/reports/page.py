"""A validation as a folder: a self-contained page, the figures as PNG, and the JSON."""

from pathlib import Path

from encsel.errors import UsageError
from encsel.reports.escapes import in_html, note_text
from encsel.reports.figures import Drawing, drawings
from encsel.reports.tables import table_html
from encsel.reports.validation import closing, sections, title_of
from encsel.storage.files import write_private, write_public
from encsel.validation.result import Validation

PAGE, DATA, FIGURES = "index.html", "validation.json", "figures"

_STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --faint: #59636e; --line: #d0d7de; --band: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e6edf3; --faint: #9da7b3; --line: #3d444d; --band: #1c2128; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 90rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
h1, h2, figcaption strong { overflow-wrap: anywhere; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; list-style: none; }
a { color: inherit; } a:focus-visible { outline: 2px solid currentColor; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; } tbody tr:nth-child(even) { background: var(--band); }
th.name, td.name { text-align: left; } td.words { text-align: left; white-space: normal; min-width: 14rem; }
.notes { color: var(--faint); font-size: .875rem; max-width: 60rem; padding-left: 1.1rem; }
figure { margin: 1.25rem 0; } figure svg { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--faint); font-size: .875rem; max-width: 46rem; margin-top: .4rem; }
code { overflow-wrap: anywhere; font-size: .8125rem; }
"""


def write_report(validation: Validation, folder: Path, *, private: bool = False) -> Path:
    """Write the page, the figures and the JSON into a folder, and return the path of the page.

    Args:
        private: make files readable by their owner only.
    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        figures = drawings(validation)  # matplotlib needs a place of its own
        files = {PAGE: page(validation, figures).encode(), DATA: validation.to_json().encode()}
        files |= {f"{FIGURES}/{one.name}.png": one.png for one in figures}
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (write_private if private else write_public)(folder / name, content)
    except OSError as error:
        raise UsageError(
            f"--report {folder} cannot be written: {error.strerror or error}. Choose another folder."
        ) from error
    return folder / PAGE


def page(validation: Validation, figures: list[Drawing]) -> str:
    """A self-contained HTML document."""
    parts = sections(validation)
    titles = [part.title for part in parts]
    body = []
    for part in parts:
        body += [f'<section id="{_anchor(part.title)}"><h2>{in_html(part.title)}</h2>', table_html(part)]
        body += [*(_figure(one) for one in figures if one.section == part.title), "</section>"]
    body += [_figure(one) for one in figures if one.section not in titles]
    links = "".join(f'<li><a href="#{_anchor(t)}">{in_html(t)}</a></li>' for t in [*titles, "Notes"])
    notes = "".join(f"<li>{in_html(note_text(line))}</li>" for line in closing(validation))
    title = in_html(title_of(validation))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>encsel: {title}</title><style>{_STYLE}</style></head>\n<body>\n<header><h1>{title}</h1>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main>\n'
        f"<p><strong>{in_html(validation.decision.text)}</strong></p>\n" + "\n".join(body) + "\n"
        f'<section id="notes"><h2>Notes</h2><ul class="notes">{notes}</ul>'
        f"<p><code>{in_html(validation.signature_text)}</code></p></section>\n</main>\n</body></html>\n"
    )


def _anchor(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def _figure(one: Drawing) -> str:
    svg = one.svg.replace("<svg", f'<svg role="img" aria-label="{in_html(one.alt)}"', 1)
    return (
        f'<figure id="figure-{one.name}">{svg}<figcaption><strong>{in_html(one.title)}.</strong> '
        f"{in_html(one.caption)}</figcaption></figure>"
    )
