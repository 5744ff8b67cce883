"""Sections as HTML tables."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from encsel.reports.tables import cell_text
from encsel.storage.sections import MISSING, Section

WORDS = "Flags"
"""Heading of the column of words."""


def sections_html(parts: Iterable[Section]) -> str:
    """Sections one after another, as a notebook shows them."""
    return "".join(f"<h4>{escape(part.title)}</h4>{table_html(part)}" for part in parts) + "\n"


def table_html(part: Section) -> str:
    def kind(i: int) -> str:
        words = part.header[i] == WORDS
        return ' class="words"' if words else ' class="name"' if i < part.n_names else ""

    head = "".join(f'<th scope="col"{kind(i)}>{escape(cell)}</th>' for i, cell in enumerate(part.header))
    rows = []
    for row in part.rows:
        cells = "".join(
            f'<th scope="row"{kind(i)}>{escape(cell_text(cell))}</th>' if i == 0 else f"<td{kind(i)}>{_cell(cell)}</td>"
            for i, cell in enumerate(row)
        )
        rows.append(f"<tr>{cells}</tr>")
    notes = "".join(f"<li>{escape(note)}</li>" for note in part.notes)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(part.title)}"><table>'
        f'<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div><ul class="notes">{notes}</ul>'
    )


def _cell(cell: str) -> str:
    return '<span aria-label="none">-</span>' if cell == MISSING else escape(cell_text(cell))
