"""A comparison of two results as table, Markdown and JSON."""

from dataclasses import asdict
from typing import Any

from encsel.gates.compare import Comparison
from encsel.reports.tables import csv_of, render_sections
from encsel.storage.result import rows, show
from encsel.storage.sections import MISSING, Section, number


@show.register
def _(comparison: Comparison, form: str, *, width: int | None = None, colour: bool = False, wide: bool = True) -> str:
    if form == "csv":
        return csv_of(comparison)
    return render_sections([section(comparison)], form, width=width, colour=colour)


@rows.register
def _(comparison: Comparison) -> list[dict[str, Any]]:
    return [asdict(change) for change in comparison.changes]


def section(comparison: Comparison) -> Section:
    """The table of a comparison."""
    cells = tuple(
        (
            c.face, c.voice, number(c.old), number(c.new), MISSING if c.change is None else f"{c.change:+.3f}",
            MISSING if c.interval is None else f"{c.interval[0]:+.3f} to {c.interval[1]:+.3f}", c.verdict,
        )
        for c in comparison.changes
    )  # fmt: skip
    notes = ["Interval: of the change, 90 %. Worse or better: the interval does not contain 0."]
    if comparison.changed_encoders:
        notes.append(f"Encoders that were made differently: {', '.join(comparison.changed_encoders)}.")
    notes += [f"NOT ALIKE: {reason}." for reason in comparison.unlike]
    header = ("Face", "Voice", "Old EER", "New EER", "Change", "Interval 90 %", "Verdict")
    return Section(f"Changes of the {comparison.what}", header, cells, tuple(notes), n_names=2)
