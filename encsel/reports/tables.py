"""Sections and rows as tables: for a terminal, as Markdown, HTML and CSV."""

import csv
import io
import itertools
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from encsel.errors import disarmed, harmless, printable
from encsel.reports.escapes import in_html, in_markdown, inert, markdown_item, note_text
from encsel.storage.result import FILE_WIDTH, Result, rows
from encsel.storage.sections import MISSING, Section

MAX_WIDTH = 240
PROSE_WIDTH = 100
"""Columns of the longest line of prose, on terminals that are wider."""
WORDS = "Flags"
"""Heading of the column of words."""
COUNTS = ("#", "Rank")
"""Headings of columns of places, which stand on the right though they are among the names."""


def wrapped(notes: Iterable[str], width: int | None = None, *, indent: str = "  ") -> list[str]:
    """Notes as lines that end at words, those after the first of a note indented."""
    lines: list[str] = []
    for note in notes:
        first, *rest = textwrap.wrap(
            note_text(note), min(width or FILE_WIDTH, PROSE_WIDTH), subsequent_indent=indent, break_long_words=False,
            break_on_hyphens=False,
        ) or [""]  # fmt: skip
        # Only now, because any part of a note can begin a line.
        lines += [first, *map(disarmed, rest)]
    return lines


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
            lines += [f"## {in_markdown(part.title)}", "", table, *map(markdown_item, part.notes), ""]
        else:
            table = plain_table(part.header, part.rows, n_names=part.n_names, width=width, colour=colour)
            lines += [harmless(part.title.upper()), table.rstrip(), *wrapped(part.notes, width), ""]
    return "\n".join(lines) + "\n"


def plain_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    n_names: int = 1,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Table for a terminal, ending in a newline.

    Args:
        n_names: number of leading columns with names, aligned to the left ("#" excepted) and folded if too wide.
        width: columns of the terminal; None: 160. A table of numbers that does not fit is printed wider.
    """
    from rich.console import Console

    width = width or FILE_WIDTH
    measuring = Console(file=io.StringIO(), width=width)
    table = _rich_table(header, rows, n_names)
    least, needed = table.__rich_measure__(measuring, measuring.options.update(width=10_000))
    if least > width:  # lines that a narrow terminal breaks are better than numbers cut short
        width = max(width, min(needed, MAX_WIDTH))
    out = io.StringIO()
    console = Console(file=out, force_terminal=colour, no_color=not colour, width=width, highlight=False)
    console.print(table)
    # Only now, because a folded name can begin a line with any part of it.
    return "\n".join(disarmed(line.rstrip()) for line in out.getvalue().splitlines()) + "\n"


def _rich_table(header: Sequence[str], rows: Sequence[Sequence[str]], n_names: int) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for i, heading in enumerate(header):
        is_words = heading == WORDS or (i < n_names and heading not in COUNTS)
        # As Text, because rich reads markup in plain strings.
        table.add_column(
            Text(printable(heading).replace(" ", "\n", 1)),
            justify="left" if is_words else "right",
            no_wrap=not is_words,
            overflow="fold",
        )
    for row in rows:
        cells = ((printable(cell_text(cell)), "dim" if isinstance(cell, Dim) else "") for cell in row)
        table.add_row(*itertools.starmap(Text, cells))
    return table


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown table, ending in a newline."""
    lines = [[in_markdown(cell_text(cell)) for cell in cells] for cells in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def sections_html(parts: Iterable[Section]) -> str:
    """Sections one after another, as a notebook shows them."""
    return "".join(f"<h4>{in_html(part.title)}</h4>{table_html(part)}" for part in parts) + "\n"


def table_html(part: Section) -> str:
    """The table and the notes of a section, in a region that scrolls."""

    def kind(i: int) -> str:
        return ' class="words"' if part.header[i] == WORDS else ' class="name"' if i < part.n_names else ""

    def cell(i: int, text: str) -> str:
        if i == 0:
            return f'<th scope="row"{kind(i)}>{in_html(cell_text(text))}</th>'
        shown = '<span aria-label="none">-</span>' if text == MISSING else in_html(cell_text(text))
        return f"<td{kind(i)}>{shown}</td>"

    head = "".join(f'<th scope="col"{kind(i)}>{in_html(heading)}</th>' for i, heading in enumerate(part.header))
    body = "".join(f"<tr>{''.join(itertools.starmap(cell, enumerate(row)))}</tr>" for row in part.rows)
    notes = "".join(f"<li>{in_html(note_text(note))}</li>" for note in part.notes)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{in_html(part.title)}"><table>'
        f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div><ul class="notes">{notes}</ul>'
    )


def csv_of(result: Result) -> str:
    """The rows of a result as CSV; a cell is empty where a pair lacks a column that others have."""
    flat = rows(result)
    header = list(dict.fromkeys(name for row in flat for name in row))
    return csv_text(header, [[row.get(name) for name in header] for row in flat])


def csv_text(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """CSV text, a line a row; None is an empty cell, and no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow([inert(printable(cell) if isinstance(cell, str) else cell) for cell in row])
    return "".join(map(disarmed, out.getvalue().splitlines(keepends=True)))


def cell_text(cell: str) -> str:
    """The cell as it is printed."""
    return f"({cell})" if isinstance(cell, Dim) else cell
