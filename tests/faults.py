"""Real runs of `encsel` to be disturbed: a small set, encoders that start at once, and what must hold afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_samples import write_set
from plugins import environment, write_plugin

from encsel.data.media import decode
from encsel.storage.files import TEMPORARY_PREFIX

ENCODERS = {"moments": "face", "corners": "face", "tones": "voice"}
FORMULAS = {
    "moments": "[s.mean(), s.std(), s[0].mean(), s[-1].mean()]",
    "corners": "[s[0, 0].mean(), s[0, -1].mean(), s[-1, 0].mean(), s[-1, -1].mean()]",
    "tones": "[s.std(), abs(s).mean(), abs(np.diff(s)).mean(), s.max()]",
}
DIM = 4

ENCODER = """
import numpy as np
from encsel.core import EncoderFamily

def embed(samples):
    return np.array([{formula} for s in samples], np.float32)

ENCODER = EncoderFamily({name!r}, {modality!r}, 4, 1, "none", "a test", load=lambda: embed)
"""

# Nearly all the time of a run is then spent embedding and writing.
IMPORTED = """
import sys
import numpy, PIL.Image, soundfile, soxr
import filelock
import encsel.cli.embed, encsel.ranking.rank, encsel.data.embedding_files, encsel.storage.cache
"""
OFTEN = "encsel.storage.cache.FLUSH_SAMPLES = 1\n"
READY = "print('ready', file=sys.stderr, flush=True)\n"
WAITING = READY + "sys.stdin.readline()\n"
MAIN = "from encsel.cli import main\nmain()\n"


def robust(*values: object) -> Any:
    """Parameters of a case that `-m robust` runs."""
    return pytest.param(*values, marks=pytest.mark.robust)


def slow(*values: object) -> Any:
    """Parameters of a case that `-m slow` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


class Bench:
    """A set, encoders and caches in a folder, and the `encsel` processes that use them."""

    def __init__(self, folder: Path, n_people: int = 6, n_samples: int = 4) -> None:
        self.folder = folder
        self.data = write_set(folder / "set", n_people, n_samples)
        self.packages = folder / "packages"
        for name, modality in ENCODERS.items():
            write_plugin(self.packages, name, ENCODER.format(name=name, modality=modality, formula=FORMULAS[name]))
        self.known: dict[str, dict[str, np.ndarray]] = {name: {} for name in ENCODERS}
        self.learn(self.data)

    def learn(self, data: Path) -> None:
        """Remember which vectors are right for the files of a set."""
        for path in sorted(data.rglob("*.*")):
            if path.is_file():
                self.learn_content(path.read_bytes(), "face" if path.suffix == ".png" else "voice")

    def learn_content(self, content: bytes, modality: str) -> None:
        for name, formula in FORMULAS.items():
            if ENCODERS[name] == modality:
                sample = decode(content, modality)
                vector = np.array([eval(formula, {"np": np, "s": sample})], np.float32)[0]
                self.known[name][hashlib.sha256(content).hexdigest()] = vector

    def arguments(self, cache: Path, output: Path, data: Path | None = None, *more: str) -> list[str]:
        chosen = [word for name, modality in ENCODERS.items() for word in (f"--{modality}", name)]
        places = ("--output", str(output), "--cache", str(cache))
        return ["embed", str(data or self.data), *chosen, *places, "--batch-size", "1", *more]

    def start(self, arguments: list[str], prelude: str = "import sys\n", **options) -> subprocess.Popen[str]:
        """`encsel ARGUMENTS...` behind some lines of Python."""
        return subprocess.Popen(
            [sys.executable, "-c", prelude + MAIN, *arguments],
            env=environment(self.packages, **options.pop("variables", {})), text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def run(self, arguments: list[str], prelude: str = "import sys\n", **options) -> subprocess.CompletedProcess[str]:
        process = self.start(arguments, prelude, **options)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def check(self, cache: Path) -> set[Path]:
        """The batches of a cache, when every one is whole, right and private; what was left half written is apart."""
        found = set()
        for path in [cache, *cache.rglob("*")] if cache.exists() else []:
            assert path.stat().st_mode & 0o077 == 0, f"{path} is not private"
            if path.suffix == ".npz":
                content = path.read_bytes()
                assert hashlib.sha256(path.parent.name.encode() + content).hexdigest() == path.stem
                name = json.loads((path.parent / "encoder.json").read_bytes())["name"]
                with np.load(io.BytesIO(content)) as archive:
                    for key, vector in zip(archive["keys"], archive["vectors"], strict=True):
                        right = self.known[name][bytes(key).hex()]
                        assert vector.dtype == np.float32
                        assert vector.tobytes() == right.tobytes(), f"{path} holds a wrong vector"
                found.add(path)
        return found

    def of(self, *all_data: Path) -> dict[str, set[str]]:
        """The samples of some sets, for each encoder that takes them."""
        paths = [path for data in all_data for path in data.rglob("*.*") if path.is_file()]
        hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        return {name: hashes & set(vectors) for name, vectors in self.known.items()}

    def cached(self, cache: Path) -> dict[str, set[str]]:
        """The samples of each encoder in a cache."""
        found: dict[str, set[str]] = {name: set() for name in ENCODERS}
        for path in self.check(cache):
            name = json.loads((path.parent / "encoder.json").read_bytes())["name"]
            with np.load(path) as archive:
                found[name] |= {bytes(key).hex() for key in archive["keys"]}
        return found


def half_written(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"{TEMPORARY_PREFIX}*"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what was left half written."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX)
    }


def in_mounts_of_its_own(script: str, *words: str | Path, **options) -> subprocess.CompletedProcess[str] | None:
    """A shell script run where what it mounts is seen by nobody else; None where that is not allowed."""
    if shutil.which("unshare") is None:
        return None
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    trial = subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    if trial.returncode:
        return None
    command = [*unshare, "sh", "-c", script, "sh", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
