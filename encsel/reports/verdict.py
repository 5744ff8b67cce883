"""The verdict of gates in words."""

from __future__ import annotations

from encsel.gates.judge import Verdict


def verdict_lines(verdict: Verdict) -> list[str]:
    """One line per gate, the overall verdict last; nothing without gates."""
    if not verdict.gates:
        return []
    lines = [f"Gate {g.gate}: {g.status.upper()}: {g.reason}." for g in verdict.gates]
    return [*lines, f"Verdict: {verdict.status.upper()}."]
