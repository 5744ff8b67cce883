"""How fast every stage is, beside yardsticks measured in the same run. Run it from the root of a checkout.

    python -m tests.benchmarks                                      # one table: about a quarter of an hour
    python -m tests.benchmarks --only neighbours --rounds 5         # some rows
    python -m tests.benchmarks --check tests/benchmarks/ratios.json # exit code 1 if a ratio is 25 % worse
    python -m tests.benchmarks --page encsel/docs/speed.md          # rewrite the tables of the page and of README.md
    python -m tests.benchmarks growth --plot growth.png             # time and memory against people and encoders

Every row is measured in a process of its own. Needs the packages of `pip install '.[test]'`; rows that lack theirs are
skipped. Needs no network, GPU or pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .measure import ROOT, Skipped, measured
from .rows import FEW, MANY, ROWS, Data, case_of

SKIPPED = 75
"""Exit code of a row that cannot be measured here."""
REAL = ROOT.parent / "shared" / "data" / "mavceleb_v1_embeddings"
WITHOUT_PEOPLE = {
    "gemm", "neighbours-20000", "neighbours-sampled", "cka-20000", "embedding-face", "embedding-voice",
    "rank-real", "validate-real", "help", "help-rank",
}  # fmt: skip
"""Rows that need no population."""


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["growth"]:
        from . import growth

        return growth.main(arguments[1:])
    options = _parser().parse_args(arguments)
    if options.row is not None:
        return _measure_row(options)
    keys = [key for key in ROWS if re.search(options.only, key)]
    if options.list:
        print("\n".join(keys))
        return 0
    if not keys:
        print(f"No row matches {options.only!r}. --list names them.", file=sys.stderr)
        return 2
    if options.page and (options.quick or (len(keys) < len(ROWS) and options.from_ is None)):
        print("--page needs all rows at their full size.", file=sys.stderr)
        return 2
    if options.from_ is not None:
        document = json.loads(options.from_.read_text(encoding="utf-8"))
    else:
        document = _measure(keys, options)
    return _deliver(document, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="PATTERN", default="", help="measure the rows whose key has this pattern")
    parser.add_argument("--list", action="store_true", help="print the keys of the rows")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each row (3, or 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--real", type=Path, metavar="FOLDER", default=REAL, help="embeddings of 70 real people")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument(
        "--from", dest="from_", type=Path, metavar="FILE", help="show what --json wrote; measure nothing"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--page", type=Path, metavar="FILE", help="rewrite the tables in a page and in README.md")
    parser.add_argument("--update", type=Path, metavar="FILE", help="store the ratios")
    parser.add_argument("--check", type=Path, metavar="FILE", help="exit with 1 if a ratio is 25 %% worse than stored")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def _measure(keys: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Measure every row in a process of its own."""
    n_rounds = options.rounds or (1 if options.quick else 3)
    start = time.perf_counter()
    document: dict[str, Any] = {
        "machine": _machine(), "rounds": n_rounds, "quick": options.quick, "rows": [], "failures": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        data = Data(Path(folder), options.quick, options.real)
        if not set(keys) <= WITHOUT_PEOPLE:
            for where, n in ((data.people, MANY[data.quick]), (data.few, FEW[data.quick])):
                _python("tests.benchmarks.people", str(where), "--people", str(n)).check_returncode()
        for key in keys:
            print(f"{time.perf_counter() - start:6.1f} s  {key}", file=sys.stderr, flush=True)
            more = ["--quick"] if options.quick else []
            done = _python(
                "tests.benchmarks", "--row", key, "--folder", folder, "--real", str(options.real),
                "--rounds", str(n_rounds), *more,
            )  # fmt: skip
            lines = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()
            if done.returncode == SKIPPED:
                print(f"{'':8} skipped: {lines[-1]}", file=sys.stderr)
            elif done.returncode:
                document["failures"][key] = lines[-1]
                print("\n".join(lines), file=sys.stderr)
            else:
                document["rows"].append({"key": key, **json.loads(done.stdout)})
            if options.json is not None:  # after every row, so that a run that is stopped has measured something
                options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def _measure_row(options: argparse.Namespace) -> int:
    """Measure one row in this process and print it as JSON."""
    try:
        row = measured(case_of(options.row, Data(options.folder, options.quick, options.real)), options.rounds or 1)
    except Skipped as reason:
        print(reason, file=sys.stderr)
        return SKIPPED
    print(json.dumps(row))
    return 0


def _deliver(document: dict[str, Any], options: argparse.Namespace) -> int:
    """Print, write and judge what was measured; the exit code."""
    from . import table

    print(table.text_table(document), end="")
    if options.markdown is not None:
        options.markdown.write_text(table.markdown_table(document), encoding="utf-8")
    code = 0
    for key, reason in document["failures"].items():
        print(f"{key} failed: {reason}", file=sys.stderr)
        code = 1
    if options.page is not None:
        parts = {"table": table.markdown_table(document)}
        if (part := table.savings(document)) is not None:
            parts["savings"] = part
        for page in (options.page, ROOT / "README.md"):
            table.rewrite(page, parts)
    if options.check is not None:
        worse, missing = table.check(document, options.check)
        for line in (*missing, *worse):
            print(line, file=sys.stderr)
        code = 1 if worse else code
    if options.update is not None:
        table.store(document, options.update)
    return code


def _python(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=env, text=True, check=False, capture_output=True
    )


def _machine() -> str:
    import importlib.metadata

    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy", "scikit-learn"))
    return f"{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
