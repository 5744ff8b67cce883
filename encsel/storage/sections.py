"""Sections: the tables that results are shown as, and how numbers are written in them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "-"


class VerdictLine(str):
    """A line of the verdict. No other note may look like one."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """One table with notes below it. Cells are text; the first `n_names` columns hold names."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    n_names: int = 1


def table(
    title: str, rows: Sequence[Mapping[str, str] | Sequence[tuple[str, str]]], *notes: str, n_names: int = 1
) -> list[Section]:
    """A section of rows with a heading for each cell, as pairs if headings may repeat; empty without rows."""
    if not rows:
        return []
    pairs = [tuple(row.items()) if isinstance(row, Mapping) else tuple(row) for row in rows]
    header = tuple(heading for heading, _ in pairs[0])
    return [Section(title, header, tuple(tuple(cell for _, cell in row) for row in pairs), notes, n_names)]


def number(value: Any, digits: int = 3) -> str:
    """A number with this many decimals; None is shown as missing."""
    return MISSING if value is None else f"{value:.{digits}f}"


def span(interval: tuple[float, float] | None) -> str:
    """An interval of rates."""
    return MISSING if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def significant(value: float | None) -> str:
    """A number of any size, to three digits."""
    if value is None:
        return MISSING
    return f"{value:.3g}" if value == 0 or abs(math.log10(abs(value))) < 4 else f"{value:.1e}"


def p_value(p: float | None) -> str:
    """A p-value: three decimals, four below 0.001."""
    if p is None:
        return MISSING
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.001 else f"{p:.3f}"
