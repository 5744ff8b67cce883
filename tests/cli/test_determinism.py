"""The same data give the same ranking, in whatever order, in whatever batches, with however many threads."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from media_samples import write_set
from toy import people, population

from encsel.loading.registry import encoder_family

SEVENTY = Path(__file__).resolve().parents[3] / "shared" / "data" / "mavceleb_v1_embeddings"
TESTS = str(Path(__file__).resolve().parents[1])
N_PEOPLE = 34


def numbers(value: object) -> list[float]:
    """All numbers of a document, in the order of its sorted keys."""
    if isinstance(value, dict):
        return [x for key in sorted(value) for x in numbers(value[key])]
    if isinstance(value, list):
        return [x for one in value for x in numbers(one)]
    return [float(value)] if isinstance(value, int | float) else []


def ranked(call, data, *options) -> dict:
    code, out, err = call("rank", data, "--format", "json", "--quiet", "--no-cache", *options)
    assert code == 0, err
    return json.loads(out)


def groups(document: dict) -> list[tuple[str, str, int]]:
    return [(p["face"], p["voice"], p["places"]) for p in document["pairs"]]


def shuffled(source: Path, target: Path) -> Path:
    """A copy of a set of embeddings whose rows are in another order, another one in each file."""
    for i, path in enumerate(sorted(source.glob("*s/*.npz"))):
        with np.load(path) as archive:
            order = np.random.default_rng(i).permutation(len(archive["labels"]))
            arrays = {name: archive[name][order] for name in archive.files}
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        np.savez(target / path.parent.name / path.name, **arrays)
    return target


@pytest.fixture
def embedded(tmp_path) -> Path:
    n, rows = 32, 3
    for side, name in ((0, "face"), (1, "voice")):
        (tmp_path / "set" / f"{name}s").mkdir(parents=True)
        for i in range(2):
            x = population(n, rows=rows, shared=1 / (1 + i))[side]
            labels, samples = np.repeat(people(n), rows), np.tile([f"s{j}" for j in range(rows)], n)
            path = tmp_path / "set" / f"{name}s" / f"{name}{i}.npz"
            np.savez(path, embeddings=x.reshape(n * rows, -1), labels=labels, samples=samples)
    return tmp_path / "set"


@pytest.fixture
def real(embedded) -> Path:
    """Seventy real people, where their embeddings lie beside the checkout."""
    return SEVENTY if SEVENTY.is_dir() else embedded


def assert_alike(first: dict, second: dict) -> None:
    for part in ("pairs", "encoders"):
        np.testing.assert_allclose(numbers(second[part]), numbers(first[part]), atol=1e-6)
    assert groups(first) == groups(second)


@pytest.mark.robust
@pytest.mark.parametrize("data", ["embedded", "real"])
def test_order_of_rows_changes_no_value_by_a_millionth(call, request, data, tmp_path):
    data = request.getfixturevalue(data)
    assert_alike(ranked(call, data), ranked(call, shuffled(data, tmp_path / "shuffled")))


FEW_SHUFFLES = """
import pytest, toy
from encsel.cli import main
toy.few_shuffles(pytest.MonkeyPatch())
main()
"""


@pytest.mark.robust
def test_one_thread_and_several_give_the_same_ranking_to_a_millionth(real):
    found = []
    for threads in ("1", "2"):
        variables = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": TESTS}
        command = [sys.executable, "-c", FEW_SHUFFLES, "rank", str(real), "-q", "--no-cache", "--format", "json"]
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    assert_alike(*found)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), n_identities=N_PEOPLE, n_samples=3)


def test_order_of_a_manifest_s_lines_and_of_files_on_disk_changes_nothing(call, media, tmp_path):
    rows = [
        (path.parent.name, path.parts[-3].removesuffix("s"), path.relative_to(media).as_posix())
        for path in sorted(media.glob("*s/*/*"))
    ]
    found = []
    for i, order in enumerate((range(len(rows)), np.random.default_rng(0).permutation(len(rows)))):
        root = tmp_path / str(i)
        with_lines = [rows[k] for k in order]
        for _, _, name in with_lines:  # written in this order, too
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(media / name, root / name)
        with (root / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("identity", "modality", "path"), *with_lines])
        found.append(
            ranked(call, root, "--identities", 12, "--min-identities", 12, "--face", "pixels", "--voice", "ltas")
        )
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        pytest.param(("dinov2", "ecapa"), (16, 5), marks=pytest.mark.robust),
        pytest.param(("dinov2", "clip", "pixels", "wavlm", "ecapa", "mfcc"), (16, 1, 7, 64), marks=pytest.mark.slow),
    ],
)
def test_batches_of_other_sizes_give_the_same_eer_to_a_thousandth_and_the_same_groups(
    call, media, tmp_path, names, sizes
):
    options = []
    for name in names:
        family = encoder_family(name)
        (tmp_path / name).mkdir()
        spec = f"{family.write_tiny(tmp_path / name)}@name={name}" if family.write_tiny else name
        options += [f"--{family.modality}", spec]
    options += ["--samples-per-identity", "2"]
    first, *others = (ranked(call, media, *options, "--batch-size", size) for size in sizes)
    for other in others:
        assert groups(other) == groups(first)
        for a, b in zip(first["pairs"], other["pairs"], strict=True):
            assert b["predicted_eer"] == pytest.approx(a["predicted_eer"], abs=1e-3)
            measured = [[c["eer"] for c in (p["cross_validated"], *p["cross_validated"]["others"])] for p in (a, b)]
            assert measured[1] == pytest.approx(measured[0], abs=1e-3)
