"""Every failure encsel reports on purpose, each with the exit code the command line gives it."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator


class EncselError(Exception):
    """A failure the user can act on: what was found, what was needed, what to do.

    The message is shown on one line whatever the names in it hold; `block` follows as it is.
    """

    exit_code = 1

    def __init__(self, message: str = "", block: str = "") -> None:
        super().__init__(message, block)

    def __str__(self) -> str:
        message, block = self.args
        return f"{harmless(message)}\n{block}" if block else harmless(message)


class UsageError(EncselError):
    """The command or call itself is wrong: an unknown name, a bad option value, a wrong card."""

    exit_code = 2


class BadCalibration(EncselError):
    """The calibration data are insufficient or cannot be read."""

    exit_code = 3


class EncoderFailed(EncselError):
    """An encoder could not be loaded or run."""

    exit_code = 4


class NotHere(EncoderFailed):
    """Weights are not on this machine, and downloads are disabled. An encoder that was not named is left out."""


class UnusableSample(Exception):
    """A sample cannot be used; the message is the reason, in a few words. The catcher counts and reports it."""


INTERRUPTED = 5
GATE_FAILED = 1
GATE_INCONCLUSIVE = 6


# Control characters, line ends, marks that change the direction of text, and bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with escapes for characters that move a terminal's cursor, begin a line, or are not valid in UTF-8."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name
            return f"\\x{code - 0xDC00:02x}"
        return match[0].encode("unicode_escape", "backslashreplace").decode()

    return _UNPRINTABLE.sub(escape, text)


# Runners of CI jobs read commands after "::" at the start of a line, and after "##[" anywhere.
_COMMAND = re.compile(r"##\[")
_START = re.compile(r"^(?:[\s\ufeff]*::|\W*verdict\s*:|\W*gate[^\S\r\n])", re.IGNORECASE)


def disarmed(line: str, start: int = 0) -> str:
    """A line with escapes where it would read as encsel's verdict, or as a command to the runner of a CI job.

    Args:
        start: number of characters that are already written, and stay as they are.
    """

    def escape(match: re.Match[str]) -> str:
        text = match[0]
        # The last character, so that a line can be disarmed piece by piece.
        return text if match.end() <= start else f"{text[:-1]}\\x{ord(text[-1]):02x}"

    return _START.sub(escape, _COMMAND.sub(escape, line))


def harmless(text: str) -> str:
    """Text from outside as one line of output: printable, and disarmed."""
    return disarmed(printable(text))


def first_line(error: BaseException, limit: int = 200) -> str:
    """First line of an exception's message that does not end in a colon, as torch's do; else its class name."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    # TorchScript puts a traceback before what went wrong.
    lines = [line for line in lines if line.startswith("RuntimeError: ")] or lines
    return next((line for line in lines if not line.endswith(":")), "".join(lines[:1]))[:limit] or type(error).__name__


def reason_of(error: BaseException) -> str:
    """What an exception about a file says, without the file's address in memory, which differs between runs."""
    text = re.sub(r"(Error opening)? ?<[^>]* object at 0x[^>]*>:? ?", "", first_line(error)).strip()
    return text or type(error).__name__


@contextlib.contextmanager
def failing(problem: str, remedy: str) -> Iterator[None]:
    """Raise EncoderFailed("PROBLEM (reason). REMEDY") for any other exception; libraries raise many types."""
    try:
        yield
    except EncoderFailed:
        raise
    except Exception as error:
        raise EncoderFailed(f"{problem} ({type(error).__name__}: {first_line(error)}). {remedy}") from error


def nearest(name: str, known: Iterable[str], limit: int = 200) -> str:
    """A phrase naming the known name most like `name`, and all of them up to `limit`: a file can have 100,000."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names[:limit], n=1, cutoff=0.5)
    listed = ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
    return f"Did you mean {close[0]!r}? Known: {listed}." if close else f"Known: {listed or 'none'}."
