"""Sections and rows as tables: for a terminal, as Markdown, HTML and CSV."""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from encsel.storage.result import FILE_WIDTH, Result, rows
from encsel.storage.sections import MISSING, Section

MAX_WIDTH = 240
WORDS = "Flags"
"""Heading of the column of words."""


class Dim(str):
    """A cell of an unreliable value: in brackets, and dim on a terminal."""

    __slots__ = ()


def render_sections(parts: Iterable[Section], form: str, *, width: int | None = None, colour: bool = False) -> str:
    """Sections as "table" (for a terminal), "markdown" or "html", ending in an empty line."""
    if form == "html":
        return sections_html(parts)
    lines: list[str] = []
    for part in parts:
        if form == "markdown":
            table = markdown_table(part.header, part.rows)
            lines += [f"## {part.title}", "", table, *(f"- {note}" for note in part.notes), ""]
        else:
            table = plain_table(part.header, part.rows, n_names=part.n_names, width=width, colour=colour)
            lines += [part.title.upper(), table.rstrip(), *part.notes, ""]
    return "\n".join(lines) + "\n"


def plain_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    n_names: int = 1,
    width: int | None = None,
    colour: bool = False,
    dispensable: Sequence[str] = (),
) -> str:
    """Table for a terminal, ending in a newline.

    Args:
        n_names: number of leading columns with names, aligned to the left ("#" excepted) and folded if too wide.
        width: columns of the terminal; None: 160. A table of numbers that does not fit is printed wider.
        dispensable: headings of columns to hide, in this order, until the table fits; a last line names them.
    """
    from rich.console import Console
    from rich.text import Text

    width = width or FILE_WIDTH
    measuring = Console(file=io.StringIO(), width=width)
    for n_hidden in range(len(dispensable) + 1):
        table = _rich_table(header, rows, n_names, dispensable[:n_hidden])
        needed = table.__rich_measure__(measuring, measuring.options.update(width=10_000)).maximum
        if needed <= width:
            break
    if not dispensable:
        # Lines that a narrow terminal breaks are better than numbers cut short.
        width = max(width, min(needed, MAX_WIDTH))
    out = io.StringIO()
    console = Console(file=out, force_terminal=colour, no_color=not colour, width=width, highlight=False)
    console.print(table)
    if n_hidden:
        hidden = ", ".join(dispensable[:n_hidden])
        console.print(Text(f"Columns hidden (terminal too narrow): {hidden}."), soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _rich_table(header: Sequence[str], rows: Sequence[Sequence[str]], n_names: int, hidden: Sequence[str]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    shown = [i for i, heading in enumerate(header) if heading not in hidden]
    for i in shown:
        is_words = header[i] == WORDS or (i < n_names and header[i] != "#")
        table.add_column(
            header[i].replace(" ", "\n", 1),
            justify="left" if is_words else "right",
            no_wrap=not is_words,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell_text(row[i]), style="dim" if isinstance(row[i], Dim) else "") for i in shown))
    return table


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown table, ending in a newline."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell_text(cell).replace("|", "\\|") for cell in cells) + " |\n" for cells in lines)


def sections_html(parts: Iterable[Section]) -> str:
    """Sections one after another, as a notebook shows them."""
    return "".join(f"<h4>{escape(part.title)}</h4>{table_html(part)}" for part in parts) + "\n"


def table_html(part: Section) -> str:
    """The table and the notes of a section, in a region that scrolls."""

    def kind(i: int) -> str:
        return ' class="words"' if part.header[i] == WORDS else ' class="name"' if i < part.n_names else ""

    def cell(i: int, text: str) -> str:
        if i == 0:
            return f'<th scope="row"{kind(i)}>{escape(cell_text(text))}</th>'
        shown = '<span aria-label="none">-</span>' if text == MISSING else escape(cell_text(text))
        return f"<td{kind(i)}>{shown}</td>"

    head = "".join(f'<th scope="col"{kind(i)}>{escape(heading)}</th>' for i, heading in enumerate(part.header))
    body = "".join(f"<tr>{''.join(itertools.starmap(cell, enumerate(row)))}</tr>" for row in part.rows)
    notes = "".join(f"<li>{escape(note)}</li>" for note in part.notes)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(part.title)}"><table>'
        f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div><ul class="notes">{notes}</ul>'
    )


def csv_of(result: Result) -> str:
    """The rows of a result as CSV; a cell is empty where a pair lacks a column that others have."""
    flat = rows(result)
    header = list(dict.fromkeys(name for row in flat for name in row))
    return csv_text(header, [[row.get(name) for name in header] for row in flat])


def csv_text(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """CSV text; None is an empty cell, and no cell is a formula."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([inert(cell) for cell in row] for row in (header, *rows))
    return out.getvalue()


def inert(cell: object) -> object:
    """The cell, with an apostrophe before text that a spreadsheet would run as a formula.

    Some spreadsheets also run formulas after blanks, or with full-width signs.
    Source: OWASP, CSV Injection.
    """
    return _FORMULA.sub("'", cell) if isinstance(cell, str) else cell


# After a semicolon, too: it separates cells where the comma is the decimal sign.
_FORMULA = re.compile(r"(?:^|(?<=;))(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")


def cell_text(cell: str) -> str:
    """The cell as it is printed."""
    return f"({cell})" if isinstance(cell, Dim) else cell
