"""Tables for a terminal, in Markdown and in CSV."""

from __future__ import annotations

import pytest

from encsel.reports.tables import Dim, csv_text, markdown_table, plain_table, render_sections, wrapped
from encsel.storage.sections import Section, number, p_value, significant, span

HEADER = ("#", "Face", "EER", "CKA matched", "p")
ROWS = [("1", "face-a", "0.123", Dim("0.456"), "0.01"), ("2", "face-b", "0.234", "-", "0.02")]


def test_notes_are_wrapped_at_words_and_indented() -> None:
    note = "a: one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    lines = wrapped([note, "b: short"], 40)
    assert " ".join(line.strip() for line in lines[:-1]) == note
    assert lines[-1] == "b: short"
    assert all(len(line) <= 40 for line in lines)
    assert all(line.startswith("  ") for line in lines[1:-1])
    assert max(map(len, wrapped([note * 3], 300))) <= 100


def test_no_line_of_a_wrapped_note_reads_as_the_verdict() -> None:
    assert not any(line.strip().startswith("Verdict:") for line in wrapped(["x " * 30 + "Verdict: PASS " * 9], 40))


def test_number_is_never_cut() -> None:
    table = plain_table(HEADER, ROWS, n_names=2, width=10)
    assert all(cell in table for row in ROWS for cell in row)


def test_dim_cell_is_in_brackets() -> None:
    assert "(0.456)" in plain_table(HEADER, ROWS, n_names=2)
    assert "| (0.456) |" in markdown_table(HEADER, ROWS)


def test_markdown_escapes_bars() -> None:
    assert markdown_table(["a"], [["|x|"]]) == "| a |\n| --- |\n| \\|x\\| |\n"


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_section_has_title_rows_and_notes(form: str) -> None:
    text = render_sections([Section("Title", HEADER, tuple(ROWS), ("a note",), 2)], form)
    assert text.casefold().lstrip("# ").startswith("title\n")
    assert "face-b" in text
    assert text.endswith("a note\n\n")


def test_csv_has_empty_cells_and_no_formula() -> None:
    assert csv_text(["a", "=b"], [[1.5, None], ["=1+1", -2]]) == "a,'=b\n1.5,\n'=1+1,-2\n"


def test_numbers_as_text() -> None:
    assert (number(0.12345), number(2.5, 1), number(None)) == ("0.123", "2.5", "-")
    assert (span((0.1, 0.456)), span(None)) == ("0.10 to 0.46", "-")
    assert [p_value(p) for p in (None, 0.0, 0.00012, 0.0123)] == ["-", "<0.0001", "0.0001", "0.012"]
    assert [significant(x) for x in (None, 0.0, 1.2345, 1e-7)] == ["-", "0", "1.23", "1.0e-07"]
