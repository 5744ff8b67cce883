"""The measured rows as text, Markdown, and parts of pages; ratios stored and checked."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEADER = ("stage", "seconds", "CPU s", "peak MB", "target", "yardstick", "CPU s", "ratio")
ALIGNED = "lrrrllrr"
LEGEND = (
    "Seconds are wall time, CPU s those of all threads and child processes; peak MB is that of the whole process, with "
    "Python, its libraries and the data. A ratio is the CPU s of the stage over those of the yardstick, which runs in "
    "turns with it in the same process, or of wall times where the yardstick says so."
)
WORSE = 1.25
"""Ratio over the stored one from which a stage has become worse."""

Document = dict[str, Any]
"""What a run measured: `machine`, `rounds`, `quick`, `rows`."""


def text_table(document: Document) -> str:
    """The table for a terminal."""
    notes = [textwrap.fill(note, 120) for note in _notes(document)]
    return "\n".join([aligned([HEADER, *_cells(document["rows"])], ALIGNED), "", *notes, ""])


def markdown_table(document: Document) -> str:
    """The same in Markdown."""
    notes = [f"- {note}" for note in _notes(document)]
    return "\n".join([markdown([HEADER, *_cells(document["rows"])], ALIGNED), "", *notes, ""])


def savings(document: Document) -> str | None:
    """What encsel costs beside training heads, in Markdown; None if those rows were not measured."""
    found = {row["key"]: row for row in document["rows"]}
    table = [("CPU seconds", "encsel", "a linear head", "times as much", "in every fold", "times as much")]
    for stage, keys in (
        ("CKA of a pair and its error, 70 people", ("cka-70-most", "cka-70-least")),
        ("CKA of a pair and its error, 999 people", ("cka-999-most", "cka-999-least")),
        ("`rank`, 12 pairs of 1249 people; a head a pair", ("rank",)),
    ):
        if not set(keys) <= set(found):
            return None
        rows = [found[key] for key in keys]
        cells = [stage, _span([row["cpu_seconds"] for row in rows])]
        of_heads = ([y for y in row["yardsticks"] if "head" in y["name"]] for row in rows)
        for yardsticks in zip(*of_heads, strict=True):
            cells += [_span([y["cpu_seconds"] for y in yardsticks]), _span([1 / y["ratio"] for y in yardsticks])]
        table.append((*cells, *[""] * (len(table[0]) - len(cells))))
    return markdown(table, "lrrrrr")


def ratios(document: Document) -> dict[str, dict[str, float]]:
    """Ratios by stage and yardstick."""
    return {
        row["stage"]: {y["name"]: float(f"{y['ratio']:.3g}") for y in row["yardsticks"]}
        for row in document["rows"]
        if row["yardsticks"]
    }


def store(document: Document, path: Path) -> None:
    """Write the ratios; those of stages that were not measured stay."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(stored | ratios(document), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def check(document: Document, path: Path) -> tuple[list[str], list[str]]:
    """A line for every ratio that is worse than the stored one, and one for every ratio that is not stored."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    worse, missing = [], []
    for stage, of_stage in ratios(document).items():
        for yardstick, ratio in of_stage.items():
            before = stored.get(stage, {}).get(yardstick)
            if before is None:
                missing.append(f"{stage}, beside {yardstick}: not in {path.name}")
            elif ratio > WORSE * before:
                change = f"{ratio / before - 1:+.0%}"
                worse.append(
                    f"{stage}, beside {yardstick}: ratio {_number(ratio)}, stored {_number(before)} ({change})"
                )
    return worse, missing


def rewrite(path: Path, parts: dict[str, str]) -> None:
    """Replace in place what stands between `<!-- benchmark: NAME -->` and `<!-- end -->`, for every name in `parts`."""
    text = path.read_text(encoding="utf-8")
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- benchmark: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, part=part: found[1] + part.rstrip("\n") + "\n" + found[2], text)
    path.write_text(text, encoding="utf-8")


def aligned(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Columns for a terminal, the first row a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        sides = zip(cells, widths, alignment, strict=True)
        return "  ".join(
            cell.ljust(width) if side == "l" else cell.rjust(width) for cell, width, side in sides
        ).rstrip()

    return "\n".join([line(rows[0]), "  ".join("-" * width for width in widths), *map(line, rows[1:])])


def markdown(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """A Markdown table, the first row its heading."""
    rule = ["---" if side == "l" else "--:" for side in alignment]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def _cells(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = []
    for row in rows:
        own = (row["stage"], *(_number(row[key]) for key in ("seconds", "cpu_seconds")), f"{row['peak_mb']:.0f}")
        of_yardsticks = [(y["name"], _number(y["cpu_seconds"]), _number(y["ratio"])) for y in row["yardsticks"]]
        first, *others = of_yardsticks or [("", "", "")]
        cells.append((*own, row["target"], *first))
        cells += [("", "", "", "", "", *other) for other in others]
    return cells


def _notes(document: Document) -> list[str]:
    notes = [f"{row['stage']}: {row['note']}." for row in document["rows"] if row["note"]]
    rounds = f"medians of {document['rounds']} rounds" if document["rounds"] > 1 else "one round"
    quick = ", small sizes" if document["quick"] else ""
    return [*notes, LEGEND, f"{document['machine']}; {rounds}{quick}."]


def _span(values: Sequence[float]) -> str:
    low, high = _number(min(values)), _number(max(values))
    return low if low == high else f"{low} to {high}"


def _number(x: float) -> str:
    """Three digits, or two below 1, without an exponent."""
    if x >= 100:
        return f"{float(f'{x:.3g}'):,.0f}"
    if x >= 1:
        return f"{x:.3g}" if x < 10 else f"{x:.1f}"
    return f"{x:.2g}" if x >= 1e-4 else f"{x:.7f}".rstrip("0") if x >= 1e-7 else "0"
