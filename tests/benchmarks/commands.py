"""Rows that time whole commands, each run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .measure import Case, Command, Skipped, Yardstick
from .rows import Data

if TYPE_CHECKING:
    import numpy as np

OPTIONS = ("--no-cache", "--quiet")
PART = 5
"""One in so many eigenvalue problems of a ranking is solved to tell the time of all."""


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

    pairs: list[tuple[list[np.ndarray], list[np.ndarray]]] = []

    def prepare() -> None:
        from .people import read_pairs
        from .yardsticks import import_torch

        import_torch()
        pairs.append(read_pairs(folder))

    def train() -> None:
        from .yardsticks import heads

        heads(*pairs[0]).run()

    def solve() -> None:
        from .yardsticks import solve_eigenvalue_problems

        solve_eigenvalue_problems(*pairs[0], part=PART)

    yardsticks = [Yardstick("training a linear head a pair", train, prepare=prepare)]
    if command == "rank":
        yardsticks.append(Yardstick("its eigenvalue problems alone", solve, PART))
    return _case(name, Command(command, str(folder), *OPTIONS), *yardsticks, target=target)


def _case(name: str, command: Command, *yardsticks: Yardstick, target: str = "") -> Case:
    return Case(name, command, yardsticks, target=target, command=command)


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
    return _case("encsel --help", Command("--help"), _bare(), target="0.1 s")


def help_of_rank(data: Data) -> Case:
    return _case("encsel rank --help", Command("rank", "--help"), _bare(), target="0.2 s")


def _bare() -> Yardstick:
    return Yardstick("python -c pass", Command(module=("-c", "pass")))
