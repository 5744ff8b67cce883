"""Readers that go away, streams that are closed or full, and encodings that lack characters: no work, no file and no
verdict depends on them.

Commands run for real, each in a fork of one process that has imported what they need.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from faults import contents, robust, slow
from toy import few_shuffles

from encsel.cli import COMMANDS
from encsel.storage import streams

CHOICE = ("--face", "pixels", "--voice", "ltas", "--no-cache")
GATE = ("--max-eer", "0.001")


def command_lines(ready: Path, media: Path, old: Path) -> dict[str, list[str]]:
    """A quick call of every command that has a result, with files in `out` where it writes some."""
    table = Path("pretrained_regression") / "pairs_voxceleb1.csv"
    return {
        "demo": ["demo", "--output", "out/set", "--format", "json"],
        "rank": ["rank", str(ready), *GATE, "-o", "out/r.json", "-o", "out/r.md", "--no-cache"],
        "validate": [
            "validate", str(ready), *GATE, "--gate-on", "point", "--only", "matching", "-o", "out/v.json", "--no-cache",
            "--jobs", "1",
        ],
        "embed": ["embed", str(media), *CHOICE, "--output", "out/set"],
        "plan": ["plan", "--width", "0.08", "--difference", "0.03"],
        "compare": ["compare", str(old), str(old)],
        "schema": ["schema", "validate"],
        "fit": ["fit", str(Path(__file__).parents[2] / table), "-o", "out/card.json"],
        "study": ["study"],
        "calibrate": ["calibrate", "-o", "out/cards", "--quick"],
        "encoders": ["encoders", "list"],
        "cache": ["cache"],
        "help": ["help", "data"],
    }  # fmt: skip


def prepare(names: Iterable[str]) -> None:
    """Import what these commands need, and shorten what takes long."""
    # Libraries that encsel imports where it uses them: once here, not in every fork.
    for library in ("joblib", "pydantic", "rich.table", "scipy.stats", "sklearn.metrics"):
        importlib.import_module(library)
    import encsel.ranking.rank
    import encsel.reports.ranking

    patch = pytest.MonkeyPatch()
    few_shuffles(patch)
    if "validate" in names:
        import encsel.reports.validation
        import encsel.validation.validate  # noqa: F401
    if "calibrate" in names:  # all of it but the simulation
        from encsel.prediction.card import load_calibrated

        card = load_calibrated("encsel-calibrated")
        patch.setattr("encsel.simulation.trials.resumed", lambda _, work, **__: work.mkdir(parents=True) or ())
        patch.setattr("encsel.simulation.fit.fit_levels", lambda *_, **__: (card, {(999, 20): card}))


def forked(line: list[str], folder: Path, set_up: Callable[[], None]) -> int:
    """Process id of a fork that runs a command line in a folder, its streams set up as an interpreter finds them."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "out").mkdir(parents=True)
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.chdir(folder)
        os.environ["ENCSEL_CACHE"] = str(folder / "cache")
        set_up()
        for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
            try:
                os.fstat(number)
                stream = os.fdopen(number, mode, encoding=os.environ.get("ENCODING"), closefd=False)
            except OSError:
                stream = None
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        sys.argv = ["encsel", *line]
        from encsel.cli import main

        main()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def to_files(folder: Path) -> None:
    """Send what is printed to files."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder.with_name(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)


def printed(folder: Path) -> tuple[str, str]:
    return folder.with_name("stdout").read_text("latin-1"), folder.with_name("stderr").read_text("latin-1")


def plain_run(line: list[str], folder: Path) -> tuple[int, dict[str, bytes], list[int]]:
    """Exit code, files, and the sizes of what is printed to stdout and stderr."""
    code = ended(forked(line, folder, lambda: to_files(folder)))
    return code, contents(folder / "out"), [len(text) for text in printed(folder)]


def read_in_rounds(lines: dict[str, list[str]], root: Path, n_rounds: int) -> None:
    """Run each command again and again, while somebody reads some of what it prints and goes away."""
    prepare(lines)
    rng, folder = random.Random(0), root / "run"
    for name, line in lines.items():
        code, files, sizes = plain_run(line, folder)
        assert code == (1 if "--max-eer" in line else 0), (name, printed(folder))
        assert ("-o" in line or "--output" in line) == bool(files)
        for i in range(n_rounds):
            gone = ((1,), (2,), (1, 2))[i % 3] if n_rounds > 1 else (1, 2)
            n_read = rng.choice([0, 1, rng.randrange(sum(sizes[k - 1] for k in gone) + 1)])
            reading, writing = os.pipe()

            def set_up(gone=gone, reading=reading, writing=writing) -> None:
                to_files(folder)
                os.close(reading)
                for number in gone:
                    os.dup2(writing, number)
                os.close(writing)

            child = forked(line, folder, set_up)
            os.close(writing)
            with os.fdopen(reading, "rb", buffering=0) as pipe:
                while n_read > 0 and (part := pipe.read(n_read)):
                    n_read -= len(part)
            told = f"{name}, round {i}, reader of {gone} gone: {printed(folder)}"
            assert ended(child) == code, told
            assert contents(folder / "out") == files, told
            assert "Traceback" not in "".join(printed(folder)), told
            assert len(printed(folder)[0]) in (0, sizes[0]), told


def in_a_process_of_its_own(function: Callable[..., None], *arguments: Any, seconds: float = 120) -> None:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join(seconds)
    assert process.exitcode == 0


@pytest.fixture
def lines(ready, media, ranking, tmp_path) -> dict[str, list[str]]:
    ranking.save(tmp_path / "old.json")
    found = command_lines(ready, media, tmp_path / "old.json")
    assert set(found) == set(COMMANDS)
    return found


@pytest.mark.parametrize(("names", "n_rounds"), [robust(tuple(COMMANDS), 1), slow(tuple(COMMANDS), 200)])
def test_a_reader_that_goes_away_changes_no_exit_code_and_no_file(lines, tmp_path, names, n_rounds):
    some = {name: lines[name] for name in names}
    in_a_process_of_its_own(read_in_rounds, some, tmp_path, n_rounds, seconds=60 + 60 * n_rounds)


# --- streams that are closed or full


def closed(*numbers: int) -> None:
    for number in numbers:
        os.close(number)


def full(*numbers: int) -> None:
    for number in numbers:
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)


WAYS = [(spoil, numbers) for spoil in (closed, full) for numbers in ((1,), (2,), (1, 2), (0, 1, 2))]


def unwritable(lines: dict[str, list[str]], root: Path, names: tuple[str, ...], ways: list[Any]) -> None:
    prepare(names)
    folder = root / "run"
    for name in names:
        code, files, _ = plain_run(lines[name], folder)
        lost = code or 2
        for spoil, numbers in ways:

            def set_up(spoil=spoil, numbers=numbers) -> None:
                to_files(folder)
                spoil(*numbers)

            told = f"{name} {spoil.__name__} {numbers}"
            assert ended(forked(lines[name], folder, set_up)) == (lost if 1 in numbers else code), told
            assert contents(folder / "out") == files, told
            _, err = printed(folder)
            assert "Traceback" not in err, told
            if numbers == (1,):
                assert err.splitlines()[-1].startswith("encsel: The result cannot be written to stdout: "), told


@pytest.mark.parametrize(
    ("names", "ways"),
    [
        robust(("encoders",), WAYS), robust(("rank", "validate", "embed", "fit"), [WAYS[-1]]),
        slow(tuple(COMMANDS), WAYS),
    ],
)  # fmt: skip
def test_a_result_that_cannot_be_printed_is_2_unless_a_gate_failed(lines, tmp_path, names, ways):
    in_a_process_of_its_own(unwritable, lines, tmp_path, names, ways, seconds=600)


def one_reader_and_one_way(lines: dict[str, list[str]], root: Path) -> None:
    read_in_rounds(lines, root, 1)
    unwritable(lines, root, tuple(lines), [WAYS[0]])


def test_rank_is_judged_when_its_reader_goes_away_and_when_stdout_is_closed(lines, tmp_path):
    in_a_process_of_its_own(one_reader_and_one_way, {"rank": lines["rank"]}, tmp_path, seconds=300)


def without_stdin(line: list[str], root: Path) -> None:
    folder = root / "run"

    def set_up() -> None:
        to_files(folder)
        os.close(0)

    assert ended(forked(line, folder, set_up)) == 2
    assert "Not confirmed" in printed(folder)[1]


def test_a_question_to_a_closed_stdin_is_answered_by_nobody(call, media, tmp_path):
    assert call("embed", media, "--face", "pixels", "--voice", "ltas", "-q", "-o", tmp_path / "made")[0] == 0
    line = ["cache", "--cache", str(tmp_path / "cache"), "purge"]
    in_a_process_of_its_own(without_stdin, line, tmp_path)


def test_a_file_that_cannot_be_written_keeps_nothing_else_back(call, ready, tmp_path, monkeypatch):
    summary = tmp_path / "no" / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    command = ("rank", ready, "-q", "--format", "github", "-o", tmp_path / "r.json")
    code, out, err = call(*command)
    assert (code, "::notice" in out) == (2, True)
    assert str(summary) in err
    assert (tmp_path / "r.json").exists()
    assert call(*command, *GATE)[0] == 1


# --- encodings


def encoded(lines: dict[str, list[str]], root: Path) -> None:
    prepare(lines)
    folder = root / "run"
    for name, line in lines.items():
        code, files, _ = plain_run(line, folder)
        for encoding in ("ascii", "latin-1", "cp1252"):

            def set_up(encoding=encoding) -> None:
                to_files(folder)
                os.environ["ENCODING"] = encoding

            assert ended(forked(line, folder, set_up)) == code, (name, encoding, printed(folder))
            assert contents(folder / "out") == files
            assert printed(folder)[0].isascii()


@pytest.mark.parametrize("names", [robust(("rank", "encoders")), slow(tuple(COMMANDS))])
def test_every_command_prints_in_every_encoding(lines, tmp_path, names):
    in_a_process_of_its_own(encoded, {name: lines[name] for name in names}, tmp_path, seconds=600)


class Pipe:
    """A stream as an interpreter makes it, over a pipe."""

    def __init__(self, encoding: str) -> None:
        self.reading, writing = os.pipe()
        self.stream = streams._guarded(os.fdopen(writing, "w", encoding=encoding), 1)

    def text(self) -> bytes:
        self.stream.flush()
        return os.read(self.reading, 1 << 16)


@pytest.fixture(autouse=True)
def _handlers() -> None:
    import codecs

    codecs.register(streams._ascii)
    codecs.register_error(streams._ESCAPED, streams._escaped)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", rb"--- Zo\u00eb \ud83d\ude00 \udc80"), ("latin-1", b"--- Zo\xeb \\ud83d\\ude00 \\udc80"),
        ("cp1252", b"--- Zo\xeb \\ud83d\\ude00 \\udc80"), ("utf-8", "─── Zoë 😀 \\udc80".encode()),
    ],
)  # fmt: skip
def test_what_an_encoding_lacks_is_escaped(encoding, expected):
    import click

    text = "─── Zoë 😀 \udc80"
    for write in (lambda s: s.write(text), lambda s: click.echo(text, file=s, nl=False), lambda s: print(text, file=s)):
        pipe = Pipe(encoding)
        write(pipe.stream)
        assert pipe.text().rstrip() == expected


def test_click_writes_no_utf_8_to_an_ascii_stream(monkeypatch):
    import click

    pipe = Pipe("ascii")
    monkeypatch.setattr(sys, "stdout", pipe.stream)
    click.echo("Zoë")
    assert pipe.text() == rb"Zo\u00eb" + b"\n"


def test_escapes_keep_json_json():
    value = {"ë": '😀 \\ "'}
    pipe = Pipe("ascii")
    json.dump(value, pipe.stream, ensure_ascii=False)
    assert json.loads(pipe.text()) == value


def test_a_stream_in_memory_is_left_alone():
    for stream in (io.StringIO(), io.TextIOWrapper(io.BytesIO())):
        assert streams._guarded(stream, 1) is stream


def test_a_stream_without_a_buffer_is_guarded_too():
    reading, writing = os.pipe()
    os.close(reading)
    raw = os.fdopen(writing, "wb", buffering=0)
    stream = streams._guarded(io.TextIOWrapper(raw, write_through=True), 1)
    print("text", file=stream)
    assert stream.buffer.raw.error is None


def test_a_terminal_that_is_gone_is_a_reader_that_went_away():
    import pty

    terminal, end = pty.openpty()
    os.close(terminal)
    device = os.open("/dev/full", os.O_WRONLY)
    errors = []
    for number in (end, device):
        stream = streams._guarded(os.fdopen(number, "w"), 1)
        print("text", file=stream, flush=True)
        errors.append(stream.buffer.raw.error)
    assert [error and error.errno for error in errors] == [None, errno.ENOSPC]


def test_a_stream_that_does_not_block_is_waited_for():
    import threading

    pipe = Pipe("ascii")
    os.set_blocking(pipe.stream.fileno(), False)
    text = "x" * (1 << 20)
    writer = threading.Thread(target=lambda: (pipe.stream.write(text), pipe.stream.flush()))
    writer.start()
    n_read = 0
    while n_read < len(text):
        n_read += len(os.read(pipe.reading, 1 << 16))
    writer.join()
    assert pipe.stream.buffer.raw.error is None


def test_a_stream_is_not_closed_by_a_library():
    pipe = Pipe("ascii")
    pipe.stream.close()
    print("text", file=pipe.stream)
    assert pipe.text() == b"text\n"


@pytest.mark.robust
def test_a_locale_without_utf_8_gets_the_whole_table(tmp_path):
    made = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")]
    if shutil.which("localedef") is None or subprocess.run(made, capture_output=True).returncode:
        pytest.skip("no localedef, or no locale to define")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    environment |= {"LOCPATH": str(tmp_path), "LC_ALL": "de_DE.ISO-8859-1"}
    done = subprocess.run([sys.executable, "-m", "encsel", "study"], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"-----" in done.stdout
    done.stdout.decode("ascii")


# --- the end of the process


def end_of(text: str, *words: object) -> subprocess.CompletedProcess[str]:
    """`encsel WORDS...` behind some lines of Python."""
    code = (
        f"import sys\nsys.argv = ['encsel', *{list(map(str, words))!r}]\n{text}\nfrom encsel.cli import main\nmain()\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


ENDS = {
    "an exit handler that raises": "import atexit\natexit.register(lambda: 1 / 0)",
    "an exit handler that exits": "import atexit\natexit.register(sys.exit, 0)",
    "a thread left behind": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
    "a crash of the interpreter as it shuts down": """
import os
class Crash:
    def __del__(self, abort=os.abort):
        abort()
sys.modules["crash"] = Crash()
""",
}


@pytest.mark.parametrize("how", [*list(ENDS)[-2:], *map(robust, list(ENDS)[:-2])])
def test_what_happens_after_the_verdict_changes_no_exit_code(how):
    for words, code in ((("plan", "--width", "0.08"), 0), (("plan", "--width", "nonsense"), 2)):
        done = end_of(ENDS[how], *words)
        assert done.returncode == code, done.stderr
        assert ("people" in done.stdout) == (code == 0)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "BrokenPipeError"), (EOFError("no more"), "EOFError: no more"),
        (SystemExit(0), "Something called sys.exit(0)"),
    ],
)  # fmt: skip
def test_work_that_breaks_off_is_no_success(call, ready, monkeypatch, error, says):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("encsel.ranking.rank.rank", fail)
    monkeypatch.setenv("_ENCSEL_COMPLETE", "")
    code, out, err = call("rank", ready, *GATE)
    assert (code, out) == (70, "")
    assert says in err


def test_a_damaged_installation_is_no_failed_gate():
    done = end_of("sys.modules['click'] = None", "plan")
    assert done.returncode == 70
    assert "ModuleNotFoundError" in done.stderr
