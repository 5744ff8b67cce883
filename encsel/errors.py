"""Every failure encsel reports on purpose, each with the exit code the command line gives it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EncselError(Exception):
    """A failure the user can act on: what was found, what was needed, what to do."""

    exit_code = 1


class UsageError(EncselError):
    """The command or call itself is wrong: an unknown name, a bad option value, a wrong card."""

    exit_code = 2


class BadCalibration(EncselError):
    """The calibration data are insufficient or cannot be read."""

    exit_code = 3


class EncoderFailed(EncselError):
    """An encoder could not be loaded or run."""

    exit_code = 4


class UnusableSample(Exception):
    """One sample cannot be used; the message is the reason, in a few words. Counted and reported by who catches it."""


INTERRUPTED = 5
GATE_FAILED = 1
GATE_INCONCLUSIVE = 6


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase naming the known name most like `name`, or all of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}? Known: {', '.join(names)}."
    return f"Known: {', '.join(names) or 'none'}."
