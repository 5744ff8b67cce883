"""Rows that time whole commands, each run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .measure import Case, Command, Skipped, Yardstick
from .rows import Data

OPTIONS = ("--no-cache", "--quiet")


def whole(data: Data, command: str, target: str) -> Case:
    name = f"{command}, 7 encoders x {data.n_many:,} people"
    return _beside_heads(name, command, data.people, "" if data.quick else target)


def few(data: Data, command: str) -> Case:
    return _beside_heads(f"{command}, 7 encoders x {data.n_few} people", command, data.few)


def real(data: Data, command: str, target: str = "") -> Case:
    if data.real is None or not data.real.is_dir():
        raise Skipped("the real people are not beside this checkout; --real FOLDER names them")
    return _beside_heads(f"{command}, 70 real people", command, data.real, target)


def _beside_heads(name: str, command: str, folder: Path, target: str = "") -> Case:
    """A command, and training one linear head of every pair; numpy is not loaded before that, for it takes memory."""

    def prepare() -> None:
        from .yardsticks import import_torch

        import_torch()

    def run() -> None:
        from .people import read_pairs
        from .yardsticks import heads

        heads(*read_pairs(folder)).run()

    yardstick = Yardstick("training a linear head a pair", run, prepare=prepare)
    return _case(name, Command(command, str(folder), *OPTIONS), yardstick, target)


def _case(name: str, command: Command, yardstick: Yardstick, target: str = "") -> Case:
    return Case(name, command, (yardstick,), target=target, command=command)


def rank_beside(data: Data) -> Case:
    command = Command("rank", str(data.few), *OPTIONS)
    # Never waited for: the CPU time of those that are counts as that of the stage.
    busy: list[subprocess.Popen[bytes]] = []

    def beside() -> None:
        busy.append(subprocess.Popen([sys.executable, "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"]))
        try:
            command()
        finally:
            busy[-1].kill()

    name = f"rank, 7 encoders x {data.n_few} people, beside a busy process"
    alone = Yardstick("alone (wall)", command, by_wall=True)
    return Case(name, beside, (alone,), target="ratio 2", command=command)


def help_(data: Data) -> Case:
    return _case("encsel --help", Command("--help"), _bare(), "0.1 s")


def help_of_rank(data: Data) -> Case:
    return _case("encsel rank --help", Command("rank", "--help"), _bare(), "0.2 s")


def _bare() -> Yardstick:
    return Yardstick("python -c pass", Command(module=("-c", "pass")))
