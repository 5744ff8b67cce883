"""What tests of the command line share."""

from __future__ import annotations

import sys

import pytest

from encsel import cli


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run `encsel ARGS...` in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("ENCSEL_CACHE", str(tmp_path / "cache"))

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["encsel", *map(str, args)])
        code = cli.run()
        out, err = capsys.readouterr()
        return code, out, err

    return run
