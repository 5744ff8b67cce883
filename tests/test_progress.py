"""Progress and notes go to stderr, with an estimate, and never to stdout."""

from __future__ import annotations

import sys

import pytest

from encsel import progress
from encsel.progress import OnStderr, Silent


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


def test_estimate_in_a_log_is_the_time_so_far_scaled_to_what_is_left(capfd, clock):
    with OnStderr().task("faces", 100) as task:
        clock.seconds += 12
        task.advance(30)
        assert capfd.readouterr() == ("", "faces: 30 of 100, about 28 s left\n")
        clock.seconds += 1
        task.advance(10)
        assert capfd.readouterr() == ("", ""), "a log is not flooded"
        clock.seconds += 17
        task.advance(60)
    assert capfd.readouterr().err.splitlines() == ["faces: 100 of 100, about 0 s left", "faces: 100 done in 30.0 s"]


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


def test_terminal_gets_a_bar_on_stderr(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with OnStderr().task("faces", 4) as task:
        task.advance(3)
        OnStderr().note("a note beside the bar")
        print("a model that prints")
        task.advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert "faces" in err
    assert "4/4" in err
    assert "a note beside the bar" in err
