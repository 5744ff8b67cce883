"""Runs the properties of test_fuzz.py under atheris: inputs are chosen by which code of encsel they reach.

    pip install atheris
    python tests/fuzz.py                        # every target
    python tests/fuzz.py npz image --inputs 100000 --seconds 600

Each target runs in its own process, which stops at the first failure: an error, 20 s for one input, or over 2 GiB.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

N_INPUTS = 20_000
"""Inputs per target: half an hour for all targets on one idle core."""
LIMITS = ("-timeout=20", "-rss_limit_mb=2048", "-max_len=16384", "-seed=1", "-print_final_stats=0", "-verbosity=0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--inputs", type=int, default=N_INPUTS, help="Inputs per target. Default: %(default)s.")
    parser.add_argument("--seconds", type=float, default=3600, help="Time limit per target.")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    if given.child is not None:
        run_here(given.targets[0], given.inputs, given.seconds, Path(given.child))
    from test_fuzz import TARGETS

    if unknown := [name for name in given.targets if name not in TARGETS]:
        print(f"No target {unknown[0]!r}. Known: {', '.join(TARGETS)}.", file=sys.stderr)
        return 2
    failed = 0
    print(f"{'target':<16}{'inputs':>10}{'seconds':>9}{'failures':>10}")
    for name in given.targets or TARGETS:
        found = run_in_a_process(name, given.inputs, given.seconds)
        print(
            f"{name:<16}{found['inputs']:>10}{found['seconds']:>9.0f}{int(found['failure'] is not None):>10}",
            flush=True,
        )
        if found["failure"] is not None:
            failed += 1
            print(found["failure"], file=sys.stderr, flush=True)
    return 1 if failed else 0


def run_in_a_process(name: str, n_inputs: int, seconds: float) -> dict[str, Any]:
    """Inputs tried, seconds, and the failure if there was one."""
    with tempfile.TemporaryDirectory(prefix="encsel-fuzz-") as folder:
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, name, f"--inputs={n_inputs}", f"--seconds={seconds}", "--child", folder],
            capture_output=True, text=True, errors="replace", env={**os.environ, "TMPDIR": folder}, check=False,
        )  # fmt: skip
        report = Path(folder) / "report.json"
        found = json.loads(report.read_text()) if report.exists() else {"inputs": 0, "failure": "no report was written"}
        if done.returncode and found["failure"] is None:  # libFuzzer ended the process
            found["failure"] = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        return {**found, "seconds": time.monotonic() - start}


def run_here(name: str, n_inputs: int, seconds: float, folder: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    end = time.monotonic() + seconds

    with atheris.instrument_imports(include=["encsel"], enable_loader_override=False):
        import test_fuzz
    one_input = test_fuzz.property_of(name).hypothesis.fuzz_one_input  # type: ignore[attr-defined]

    def tell(failure: str | None) -> None:
        (folder / "report.json").write_text(json.dumps({"inputs": test_fuzz.tried, "failure": failure}))

    def examine(data: bytes) -> None:
        try:
            one_input(data)
        except BaseException:
            tell(traceback.format_exc())
            raise
        if test_fuzz.tried >= n_inputs or time.monotonic() > end:
            tell(None)
            os._exit(0)
        if not test_fuzz.tried % 1000:  # should libFuzzer end the process
            tell(None)

    corpus = folder / "corpus"
    corpus.mkdir()
    drawn = random.Random(0)
    for i in range(100):  # choices of hypothesis are read from these bytes: short ones end before an input is whole
        (corpus / str(i)).write_bytes(drawn.randbytes(200 * (1 + i % 20)))
    atheris.Setup([sys.argv[0], *LIMITS, f"-artifact_prefix={folder}/", str(corpus)], examine)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
