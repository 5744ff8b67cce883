"""A metric, or a stage, is one new file: nothing else is edited, and older results stay comparable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plugins import environment
from toy import write_population

import encsel
from encsel.storage.documents import cards_folder

SPREAD = """
import numpy as np
from encsel.core import Metric

METRICS = (
    Metric("toy_spread", 1, "rows", "larger: wider", (0.0, np.inf), "a test", np.std, label="ToySpread",
           combine="difference"),
)
"""
OVERLAP = """
import numpy as np
from encsel.core import Metric

METRICS = (
    Metric("toy_overlap", 1, "pair", "larger: more alike", (0.0, np.inf), "a test",
           lambda x, y: np.abs(x).mean() / np.abs(y).mean(), label="ToyOverlap"),
)
"""
STAGE = """
import numpy as np
from encsel.storage.sections import Section, number
from encsel.validation.stage import Stage

def compute(work):
    return work.of_pairs(STAGE, "toy", lambda pair, _: float(np.ptp(work.centroids(pair[0]))))

def sections(validation):
    rows = tuple((p.face, p.voice, number(p["toy"])) for p in validation.pairs)
    return [Section("Toy stage", ("Face", "Voice", "Toy"), rows, n_names=2)]

STAGE = Stage(
    name="toy", about="pair", order=80, fields={"toy": float}, compute=compute,
    columns=lambda pair, face, voice: {"toy_width": pair["toy"]}, labels={"toy_width": ("ToyWidth", "")},
    sections=sections,
)
"""
pytestmark = pytest.mark.robust
PROGRAM = """
import pytest, toy
from encsel.cli import main
from encsel.reports import figures
toy.few_shuffles(pytest.MonkeyPatch())
figures.FIGURES = []  # they take seconds, and show nothing of a new metric
main()
"""
NEW = ("toy_spread", "toy_overlap", "toy_width")


def run(packages: Path, *arguments: object) -> str:
    """Output of `encsel ARGUMENTS...` by the package in a folder; it must succeed."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    paths = (packages, Path(__file__).parent)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(*paths), cwd=packages, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """What a copy of the package wrote before three files were added to it (`old`), and after."""
    root = tmp_path_factory.mktemp("copy")
    data = write_population(root / "set", 30, faces=3, voices=3)  # correlations need nine pairs
    packages = root / "packages"
    copy = shutil.copytree(Path(encsel.__file__).parent, packages / "encsel")
    if cards_folder().parent != Path(encsel.__file__).parent:
        shutil.copytree(cards_folder(), packages / "pretrained_regression")
    validate = ("validate", data, "--no-cache", "--quiet", "--only")
    run(packages, *validate, "matching,geodesic", "-o", root / "old.json")
    (copy / "metrics" / "toy_spread.py").write_text(SPREAD)
    (copy / "metrics" / "toy_overlap.py").write_text(OVERLAP)
    (copy / "validation" / "stages" / "toy_stage.py").write_text(STAGE)
    table = run(
        packages, *validate, "matching,geodesic,toy", "-o", root / "new.json", "--report", root / "report",
        "--format", "table", "--wide", "--baseline", root / "old.json", "--max-regression", "0.5",
    )  # fmt: skip
    (root / "table.txt").write_text(table)
    return {
        "data": data, "packages": packages, "old": root / "old.json", "new": root / "new.json",
        "table": root / "table.txt", "page": root / "report" / "index.html",
    }  # fmt: skip


def test_values_are_in_the_document_of_encoders_and_pairs(made):
    document = json.loads(made["new"].read_text())
    spread = {}
    for one in document["encoders"]:
        with np.load(made["data"] / f"{one['modality']}s" / f"{one['name']}.npz") as file:
            spread[one["name"]] = one["metrics"]["toy_spread"]
            assert spread[one["name"]] == pytest.approx(float(np.std(file["embeddings"])))
    for pair in document["pairs"]:
        assert pair["columns"]["toy_spread"] == pytest.approx(abs(spread[pair["face"]] - spread[pair["voice"]]))
        assert pair["columns"]["toy_overlap"] > 0
        assert pair["columns"]["toy_width"] == pair["toy"] > 0


def test_values_go_with_the_eer(made):
    columns = json.loads(made["new"].read_text())["analysis"]["columns"]
    assert {*NEW} <= set(columns)
    assert all(columns[name]["rank"]["spearman"] is not None for name in NEW)


def test_values_are_shown_in_the_tables_and_on_the_page(made):
    text = made["table"].read_text()
    encoders, _, rest = text.partition("\nENCODERS\n")[2].partition("\nGEOMETRY OF THE PAIRS\n")
    pairs, _, rest = rest.partition("\nTOY STAGE\n")
    analysis = rest.partition("\nCORRELATIONS WITH THE EER\n")[2]
    assert "ToySpread" in encoders
    assert "ToySpread" in pairs
    assert "ToyOverlap" in pairs
    assert all(label in analysis for label in ("ToySpread", "ToyOverlap", "ToyWidth"))
    page = made["page"].read_text()
    assert '<details id="toy-stage">' in page
    assert all(f">{label}</th>" in page for label in ("ToySpread", "ToyOverlap", "ToyWidth"))


def test_result_from_before_still_gates(made):
    verdict = json.loads(made["new"].read_text())["verdict"]
    assert verdict["status"] == "pass"
    assert [gate["gate"] for gate in verdict["gates"]] == ["max-regression 0.5"]


def test_result_from_before_is_compared(made):
    text = run(made["packages"], "compare", made["old"], made["new"], "--format", "json")
    assert {change["change"] for change in json.loads(text)["changes"]} == {0}


def test_what_was_measured_before_is_the_same(made):
    old, new = (json.loads(made[name].read_text()) for name in ("old", "new"))
    assert not {*NEW} & {*old["pairs"][0]["columns"]}
    for before, after in zip(old["pairs"], new["pairs"], strict=True):
        assert after.pop("toy")
        assert {name: value for name, value in after.pop("columns").items() if name not in NEW} == before.pop("columns")
        assert after == before
