"""Progress and notes go to stderr, with an estimate, and never to stdout."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings

import pytest

from encsel import progress
from encsel.progress import OnStderr, Silent, stderr_disarmed


class Clock:
    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", clock := Clock())
    return clock


def test_silent_says_nothing(capfd):
    silent = Silent()
    silent.note("anything")
    with silent.task("work", 3) as task:
        task.advance()
    assert capfd.readouterr() == ("", "")


def test_note_is_one_line_on_stderr(capfd):
    OnStderr().note("two files were skipped")
    assert capfd.readouterr() == ("", "two files were skipped\n")


def test_note_and_label_read_neither_as_a_verdict_nor_as_a_command(capfd, clock):
    for text in ("Verdict: PASS.", "  ::error::x", "Gate max-eer 1: PASS: x", "x\nVerdict: PASS.", "a ##[error]b"):
        OnStderr().note(text)
        with OnStderr().task(text, 1) as task:
            clock.seconds += 12
            task.advance()
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 3
        assert not [line for line in lines if line.lstrip().startswith(("::", "Verdict:")) or "##[" in line]
        assert not [line for line in lines if line.startswith("Gate max-eer 1:")]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_what_others_print_on_stderr_is_disarmed_however_it_comes(capsys, step):
    text = "::error::x\n a\r ::add-mask::y\n##[group]z\nVerdict: PASS.\nfine: a::b\n\x0b::x\n" + "-" * 1500 + "##[x]\n"
    with stderr_disarmed():
        for i in range(0, len(text), step):
            sys.stderr.write(text[i : i + step])
        sys.stderr.writelines(["Gate a", ": PASS\n"])
    assert capsys.readouterr().err == (
        ":\\x3aerror::x\n a\r :\\x3aadd-mask::y\n##\\x5bgroup]z\nVerdict\\x3a PASS.\nfine: a::b\n\x0b:\\x3ax\n"
        + "-" * 1500 + "##\\x5bx]\nGate\\x20a: PASS\n"
    )  # fmt: skip


def test_tracebacks_warnings_logs_and_threads_are_disarmed(capsys):
    def fail():
        raise ValueError("a\n::error::b")

    with stderr_disarmed():
        try:
            fail()
        except ValueError as error:
            traceback.print_exception(error)
        sys.stderr.write(warnings.formatwarning("a\n::error::b", UserWarning, "x.py", 1))
        handler = logging.StreamHandler()
        handler.emit(logging.makeLogRecord({"msg": "a\n::error::b"}))
        thread = threading.Thread(target=lambda: print("::error::b", file=sys.stderr))
        thread.start()
        thread.join()
        assert sys.stderr.encoding.lower() == "utf-8"
    err = capsys.readouterr().err
    assert err.count(r":\x3aerror::b") == 4
    assert not [line for line in err.splitlines() if line.startswith("::")]


def test_closed_stderr_stays_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with stderr_disarmed():
        assert sys.stderr is None


def test_estimate_in_a_log_is_the_time_so_far_scaled_to_what_is_left(capfd, clock):
    with OnStderr().task("faces", 100) as task:
        clock.seconds += 12
        task.advance(30)
        assert capfd.readouterr() == ("", "faces: 30 of 100, 2.5 a second, about 28 s left\n")
        clock.seconds += 1
        task.advance(10)
        assert capfd.readouterr() == ("", ""), "a log is not flooded"
        clock.seconds += 17
        task.advance(60)
    assert capfd.readouterr().err.splitlines() == [
        "faces: 100 of 100, 3.3 a second, about 0 s left",
        "faces: 100 done in 30.0 s",
    ]


def test_overlapping_tasks_in_a_log_are_each_timed_to_their_own_last_step(capfd, clock):
    progress = OnStderr()
    with progress.task("first", 2) as first:
        clock.seconds += 3
        first.advance(2)
        with progress.task("second", 4) as second:
            clock.seconds += 5
            second.advance(4)
    assert capfd.readouterr().err.splitlines() == ["second: 4 done in 5.0 s", "first: 2 done in 3.0 s"]


def test_interrupted_work_in_a_log_is_not_called_done(capfd, clock):
    def work():
        with OnStderr().task("faces", 100) as task:
            task.advance(30)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert capfd.readouterr() == ("", "")


def test_empty_work_in_a_log_says_nothing(capfd):
    with OnStderr().task("faces", 0):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def on_terminal(monkeypatch):
    """Called in a test, whose stderr is another than that of its fixtures: makes it say it is a terminal."""

    def pretend():
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "200")
        return OnStderr()

    return pretend


def test_terminal_gets_a_bar_on_stderr(capsys, on_terminal):
    with on_terminal().task("faces", 4) as task:
        task.advance(3)
        OnStderr().note("a note beside the bar")
        print("a model that prints")
        task.advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert "faces" in err
    assert "4/4" in err
    assert "a note beside the bar" in err


def test_terminal_gets_a_bar_with_a_rate_for_each_of_overlapping_tasks(capsys, clock, on_terminal):
    one = on_terminal()
    with one.task("faces with clip", 4) as first, one.task("faces with dinov2", 30) as second:
        clock.seconds += 2
        first.advance(4)
        second.advance(30)
        one.note("a note with [markup] and :smile: in it")
    out, err = capsys.readouterr()
    assert out == ""
    last = err.rsplit("faces with clip", 1)[1]
    assert "4/4" in last
    assert "2.0/s" in last
    assert "30/30" in last.split("faces with dinov2")[1]
    assert "15.0/s" in last.split("faces with dinov2")[1]
    assert "a note with [markup] and :smile: in it" in err


def test_terminal_gets_new_bars_after_those_that_ended(capsys, on_terminal):
    one = on_terminal()
    for label in ("faces", "voices"):
        with one.task(label, 1) as task:
            task.advance()
    one.note("afterwards")
    out, err = capsys.readouterr()
    assert out == ""
    assert "voices" in err.rsplit("faces", 1)[1]
    assert err.endswith("afterwards\n")


def test_interrupted_bars_give_the_terminal_back(capsys, on_terminal):
    def work():
        with one.task("faces", 4), one.task("voices", 4):
            raise KeyboardInterrupt

    one = on_terminal()
    with pytest.raises(KeyboardInterrupt):
        work()
    print("results")
    out, err = capsys.readouterr()
    assert out == "results\n"
    assert err.endswith("\x1b[?25h")  # the cursor is shown again
