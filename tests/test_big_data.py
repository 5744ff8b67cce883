"""Sets that do not fit into memory: mapped files, shards, blocks of rows, listings of millions of files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from benchmarks.populations import write_population
from toy import embeddings, few_shuffles, people, population
from toy import write_population as write_toys

import encsel
from encsel import progress as progress_of
from encsel import rows
from encsel.core import Embeddings, Runtime, SetOptions
from encsel.data import array_files
from encsel.data.arrays import keep_usable
from encsel.data.calibration_set import CalibrationSet
from encsel.data.embedding_files import read_embeddings, write_embeddings
from encsel.embedding import health
from encsel.embedding.prepare import Prepared, prepare
from encsel.errors import BadCalibration, UsageError
from encsel.metrics.linear_cka import gram
from encsel.metrics.silhouette import silhouette
from encsel.metrics.topology import topology
from encsel.progress import Silent

RNG = np.random.default_rng(0)
N = 23
VECTORS = RNG.standard_normal((N, 6)).astype(np.float32)
LABELS = np.array([f"id{i // 3}" for i in range(N)])
SAMPLES = np.array([f"s{i % 3}" for i in range(N)])


def use_files(patch: pytest.MonkeyPatch) -> None:
    """Treat every array as a large one, of many blocks."""
    patch.setattr(array_files, "MAPPED_BYTES", 1)
    patch.setattr(rows, "LARGE", 1)
    patch.setattr(rows, "BLOCK_ROWS", 5)


def same(one: Embeddings, other: Embeddings) -> bool:
    return (
        one.vectors.dtype == other.vectors.dtype
        and one.vectors.tobytes() == other.vectors.tobytes()
        and one.centroids.tobytes() == other.centroids.tobytes()
        and one.labels.tolist() == other.labels.tolist()
        and one.samples.tolist() == other.samples.tolist()
        and {k: v.tolist() for k, v in one.attributes.items()} == {k: v.tolist() for k, v in other.attributes.items()}
        and (one.listed is None) == (other.listed is None)
        and (one.listed is None or np.array_equal(one.listed, other.listed))
        and one.traits == other.traits
    )


def write(path: Path, vectors: Any, labels: Any = LABELS, samples: Any = SAMPLES) -> Path:
    """A file of any kind, with its table."""
    if path.suffix == ".npz":
        np.savez(path, embeddings=vectors, labels=labels, samples=samples)
        return path
    if path.suffix == ".npy":
        np.save(path, vectors)
    else:
        safetensors.numpy.save_file({"embeddings": np.ascontiguousarray(vectors)}, path)
    lines = [f"{label},{sample}" for label, sample in zip(labels, samples, strict=True)]
    path.with_suffix(".csv").write_text("\n".join(["identity,sample", *lines]))
    return path


# Files


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16])
def test_mapped_files_give_what_files_in_memory_give(tmp_path, monkeypatch, suffix, dtype):
    vectors = (100 * VECTORS).astype(dtype)
    path = write(tmp_path / f"a{suffix}", vectors)
    in_memory, _ = read_embeddings(path, "face")
    assert not rows.is_mapped(in_memory.vectors)
    use_files(monkeypatch)
    mapped, skipped = read_embeddings(path, "face")
    assert rows.is_mapped(mapped.vectors)
    assert same(mapped, in_memory)
    assert mapped.provenance == in_memory.provenance
    assert skipped == ()


def test_arrays_by_columns_and_of_other_byte_orders_are_mapped(tmp_path, monkeypatch):
    expected, _ = read_embeddings(write(tmp_path / "a.npy", VECTORS), "face")
    use_files(monkeypatch)
    for name, vectors in (("a", np.asfortranarray(VECTORS)), ("a", VECTORS.astype(">f4"))):
        found, _ = read_embeddings(write(tmp_path / f"{name}.npy", vectors), "face")
        assert same(found, expected)


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
def test_types_that_numpy_lacks_are_read_by_blocks(tmp_path, monkeypatch, kind):
    import torch
    from safetensors.torch import save_file

    path = write(tmp_path / "a.safetensors", VECTORS)
    save_file({"embeddings": torch.from_numpy(VECTORS).to(getattr(torch, kind))}, path)
    expected, _ = read_embeddings(path, "face")
    use_files(monkeypatch)
    found, _ = read_embeddings(path, "face")
    assert same(found, expected)
    np.testing.assert_array_equal(found.vectors, torch.from_numpy(VECTORS).to(getattr(torch, kind)).float().numpy())


def test_an_archive_of_arrays_that_numpy_compressed_is_read_into_memory(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", embeddings=VECTORS, labels=LABELS, samples=SAMPLES)
    use_files(monkeypatch)
    found, _ = read_embeddings(tmp_path / "a.npz", "face")
    np.testing.assert_array_equal(found.vectors, VECTORS)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_mapped_files_that_are_cut_or_damaged_are_refused_or_read_in_part(tmp_path, monkeypatch, suffix):
    content = write(tmp_path / f"a{suffix}", VECTORS).read_bytes()
    use_files(monkeypatch)
    for end in range(1, len(content), 7):
        (tmp_path / f"a{suffix}").write_bytes(content[:end])
        with pytest.raises(BadCalibration, match="damaged or not a"):
            read_embeddings(tmp_path / f"a{suffix}", "face")


def test_the_checksum_of_a_mapped_member_is_checked(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz", VECTORS)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        content[archive.getinfo("embeddings.npy").header_offset + 300] ^= 1
    path.write_bytes(content)
    use_files(monkeypatch)
    with pytest.raises(BadCalibration, match="Bad CRC-32"):
        read_embeddings(path, "face")


def test_unusable_and_repeated_rows_of_mapped_files_are_left_out(tmp_path, monkeypatch):
    vectors, labels = VECTORS.copy(), LABELS.copy()
    vectors[1], vectors[7, 2], labels[4], vectors[13], vectors[3] = 0, np.inf, " ", vectors[14], vectors[9]
    path = write(tmp_path / "a.npz", vectors, labels)
    expected = read_embeddings(path, "face")
    assert len(expected[1]) == 3
    assert expected[0].listed is not None
    use_files(monkeypatch)
    found = read_embeddings(path, "face")
    assert rows.is_mapped(found[0].vectors)
    assert same(found[0], expected[0])
    assert found[1] == expected[1]


def test_values_whose_squares_leave_the_range_of_floats_are_usable():
    vectors = VECTORS.copy()
    vectors[0], vectors[1] = 1e30, 1e-30
    assert keep_usable(Embeddings("toy", "face", vectors, LABELS, SAMPLES))[1] == ()


def test_arrays_in_memory_are_copied_and_mapped_ones_are_not(tmp_path):
    np.save(tmp_path / "a.npy", VECTORS)
    mapped, given = np.load(tmp_path / "a.npy", mmap_mode="r"), VECTORS.copy()
    made = CalibrationSet.from_arrays(faces={"a": (mapped, LABELS)}, voices={"b": (given, LABELS)})
    assert np.shares_memory(made.embeddings[0].vectors, mapped)
    given[:] = 0
    assert made.embeddings[1].vectors.all()


# Shards


def shards(root: Path, suffix: str, n: int = 3, *, name: str = "enc-{:05d}-of-{:05d}", vectors: Any = VECTORS) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(np.array_split(np.arange(N), n), start=1):
        write(root / (name.format(i, n) + suffix), vectors[part], LABELS[part], SAMPLES[part])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("in_files", [False, True])
def test_shards_are_one_encoder(tmp_path, monkeypatch, suffix, in_files):
    expected, _ = read_embeddings(write(tmp_path / f"enc{suffix}", VECTORS), "face")
    shards(tmp_path / "numbered", suffix)
    shards(tmp_path / "inside" / "enc", suffix, name="part{}")
    if in_files:
        use_files(monkeypatch)
    for path in (tmp_path / "numbered" / f"enc-00001-of-00003{suffix}", tmp_path / "inside" / "enc"):
        found, _ = read_embeddings(path, "face")
        assert found.name == "enc"
        assert same(found, expected)


def test_a_set_may_hold_encoders_in_shards(tmp_path):
    shards(tmp_path / "faces", ".npy")
    shards(tmp_path / "faces" / "folder", ".safetensors", name="part{}")
    shards(tmp_path / "voices", ".npz", 2, name="voice-{:05d}-of-{:05d}")
    opened = CalibrationSet.from_path(tmp_path)
    assert [(e.modality, e.name, len(e.vectors)) for e in opened.embeddings] == [
        ("face", "enc", N), ("face", "folder", N), ("voice", "voice", N)
    ]  # fmt: skip
    assert opened.layout == "embeddings"
    assert opened.details == ()


def test_a_folder_of_shards_and_a_first_shard_are_named_on_the_command_line(tmp_path, call, monkeypatch):
    rng = np.random.default_rng(0)
    people = np.repeat([f"person {i:02}" for i in range(12)], 2)
    for modality in ("faces", "voices"):
        (tmp_path / modality).mkdir()
        np.savez(tmp_path / modality / "whole.npz", embeddings=rng.normal(size=(24, 8)), labels=people)
    (tmp_path / "face").mkdir()
    for i, part in enumerate(np.array_split(np.arange(24), 3), start=1):
        for path in (tmp_path / "face" / f"{i}.npz", tmp_path / f"voice-{i:05d}-of-00003.npz"):
            np.savez(path, embeddings=rng.normal(size=(len(part), 8)), labels=people[part])
    monkeypatch.chdir(tmp_path)
    named = ("--face", "./face", "--voice", "voice-00001-of-00003.npz")
    code, out, err = call("rank", ".", *named, "--min-identities", 10, "--format", "json")
    assert code == 0, err
    assert [(p["face"], p["voice"]) for p in json.loads(out)["pairs"]] == [("face", "voice")]
    assert "no voice encoder 'whole'. Known: voice." in call("rank", ".", *named, "--expect-best", "face/whole")[2]
    for folder in ("face", "."):
        code, _, err = call("embed", ".", *named, "--output", folder)
        assert (code, "is an input of this run" in err) == (2, True)


def test_media_beside_folders_of_people_are_still_media(tmp_path):
    for path in ("faces/ann/1.png", "voices/ann/1.wav", "faces/ann/embedding.npy"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert CalibrationSet.from_path(tmp_path).layout == "faces/ID + voices/ID"


def test_rows_of_shards_without_names_are_numbered_through(tmp_path):
    for i in (1, 2):
        np.savez(tmp_path / f"a-{i:05d}-of-00002.npz", embeddings=VECTORS[i : i + 3], labels=LABELS[:3])
    assert read_embeddings(tmp_path / "a-00002-of-00002.npz", "face")[0].samples.tolist() == ["0", "1", "2", "5"]


def test_repetitions_that_encsel_wrote_into_shards_are_read(tmp_path):
    whole, _ = keep_usable(Embeddings("enc", "face", VECTORS[[2, 0, 2, 1]], np.array(["ann"] * 4), SAMPLES[:4]))
    write_embeddings(whole, tmp_path / "enc-00001-of-00002.npz")
    write_embeddings(
        Embeddings("enc", "face", VECTORS[5:7], LABELS[5:7], SAMPLES[5:7]), tmp_path / "enc-00002-of-00002.npz"
    )
    found, _ = read_embeddings(tmp_path / "enc-00001-of-00002.npz", "face")
    np.testing.assert_array_equal(found.as_listed().vectors, VECTORS[[2, 0, 2, 1, 5, 6]])


def test_a_missing_shard_is_named(tmp_path):
    shards(tmp_path / "faces", ".npy")
    (tmp_path / "faces" / "enc-00002-of-00003.npy").unlink()
    with pytest.raises(BadCalibration, match=r"enc-00002-of-00003\.npy is missing in .*; 3 shards are needed"):
        read_embeddings(tmp_path / "faces" / "enc-00001-of-00003.npy", "face")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"embeddings": VECTORS[:3, :4]}, r"dimensions \(6 and 4\)"),
        ({"sex": np.array(["f", "f", "m"])}, r"columns \(\[\] and \['sex'\]\)"),
        ({"samples": SAMPLES[:3]}, "names of samples"),
        ({"space": np.array("clip")}, r"spaces \(None and clip\)"),
    ],
)
def test_shards_that_do_not_fit_together_are_refused(tmp_path, arrays, words):
    first = {"embeddings": VECTORS[:3], "labels": LABELS[:3]}
    np.savez(tmp_path / "a-00001-of-00002.npz", **first)
    np.savez(tmp_path / "a-00002-of-00002.npz", **(first | arrays))
    with pytest.raises(BadCalibration, match=f"differ in {words}.*must be alike"):
        read_embeddings(tmp_path / "a-00001-of-00002.npz", "face")


# Rows


def test_blocks_are_all_rows_in_order():
    x = np.arange(20).reshape(10, 2)
    assert [(start, len(block)) for start, block in rows.blocks(x, 4)] == [(0, 4), (4, 4), (8, 2)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in rows.blocks(x, 3)]), x)
    assert [*rows.blocks(x[:0])] == []


def test_changes_of_a_copy_on_write_map_are_not_dropped(tmp_path):
    np.save(tmp_path / "a.npy", VECTORS)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="c")
    mapped[0] = 7
    rows.release(mapped)
    assert not rows.is_mapped(mapped)
    assert (np.asarray(mapped)[0] == 7).all()
    assert rows.is_mapped(np.load(tmp_path / "a.npy", mmap_mode="r")[2:])


def test_temporary_files_have_no_name_and_are_gone_with_their_array(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "LARGE", 1)
    monkeypatch.setattr(rows.tempfile, "tempdir", str(tmp_path))
    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0  # noqa: PTH208
    x = rows.scratch((5, 2), np.float32)
    x[...] = 3
    rows.release(x)
    assert (x == 3).all()
    assert rows.is_mapped(x)
    assert list(tmp_path.iterdir()) == []
    del x
    if opened:
        assert len(os.listdir("/proc/self/fd")) == opened  # noqa: PTH208


def test_a_disk_without_room_is_named(tmp_path, monkeypatch):
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("room on a disk cannot be reserved here")
    monkeypatch.setattr(rows.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UsageError, match=r"A temporary file of .* GiB cannot be made in .*set TMPDIR"):
        rows.scratch((1 << 40, 1 << 10), np.float32)


@pytest.mark.parametrize("sizes", [[1], [3, 1, 8, 2], [8, 8, 8], [1, 1, 1], [9, 1, 40], [2, 300]])
@pytest.mark.parametrize("in_order", [True, False])
def test_sums_of_groups_are_those_of_numpy_to_the_last_bit(sizes, in_order):
    group = np.repeat(np.arange(len(sizes)), sizes)
    x = RNG.standard_normal((len(group), 3)).astype(np.float32)
    order = np.arange(len(group)) if in_order else RNG.permutation(len(group))
    starts = np.cumsum(sizes) - np.array(sizes)
    expected = np.add.reduceat(x[order][np.argsort(group[order], kind="stable")].astype(np.float64), starts, axis=0)
    assert rows.sums_of_groups(x[order], group[order], np.array(sizes)).tobytes() == expected.tobytes()
    added, wanted = np.zeros((2, len(sizes), 3))
    rows.add_rows(added, group[order], x[order].astype(np.float64))
    np.add.at(wanted, group[order], x[order].astype(np.float64))
    assert added.tobytes() == wanted.tobytes()


def test_means_and_groups_are_those_of_numpy(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 7)
    x = RNG.standard_normal((40, 5)).astype(np.float32)
    np.testing.assert_array_equal(rows.mean_of_rows(x), x.astype(np.float64).mean(axis=0))
    for labels in (np.repeat(["b", "a", "c"], 5), RNG.choice(["x", "yy", "z"], 30), np.array([], np.str_)):
        found, wanted = rows.grouped(labels), np.unique(labels, return_inverse=True, return_counts=True)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dim", [1, 2, 3, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_equal_rows_are_found_even_if_all_hashes_collide(dim, dtype):
    x = RNG.integers(0, 3, (60, dim)).astype(dtype)
    wanted: dict[bytes, list[int]] = {}
    for i, row in enumerate(x):
        wanted.setdefault(row.tobytes(), []).append(i)
    groups = [where for where in wanted.values() if len(where) > 1]
    assert rows.equal_rows(x, rows.row_hashes(x)) == groups
    assert rows.equal_rows(x, np.zeros(60, np.uint64)) == groups


def test_hashes_of_rows_tell_values_of_few_digits_apart():
    codes = np.unpackbits(np.arange(1 << 12, dtype=">u2").view(np.uint8).reshape(-1, 2), axis=1).astype(np.float32)
    assert len(np.unique(rows.row_hashes(codes))) == 1 << 12


def test_topology_and_silhouette_by_blocks_are_the_same(monkeypatch):
    x = RNG.standard_normal((60, 4)).astype(np.float32)
    labels = RNG.choice(["a", "b", "c", "d"], 60)
    expected = topology(x, labels), topology(x, labels, reference=True), silhouette(x, labels)
    use_files(monkeypatch)
    assert (topology(x, labels), topology(x, labels, reference=True), silhouette(x, labels)) == expected


# Preparation


def prepared(data: Path, **options: Any) -> Prepared:
    return prepare(
        data, (), (), options=SetOptions(**options), runtime=Runtime(cache=None), expect_best=None, progress=Silent()
    )


@pytest.mark.parametrize("options", [{}, {"identities": 35}, {"samples_per_identity": 3}])
def test_preparation_by_blocks_of_files_is_the_same(tmp_path, monkeypatch, options):
    data = write_toys(tmp_path, 40)
    shared = np.load(data / "faces" / "face0.npz")
    vectors = shared["embeddings"]
    vectors[5], vectors[9], vectors[20] = vectors[30], 0, vectors[21]
    np.savez(data / "faces" / "face0.npz", embeddings=vectors, labels=shared["labels"])
    expected = prepared(data, **options)
    use_files(monkeypatch)
    found = prepared(data, **options)
    assert any(rows.is_mapped(e.vectors) for e in found.embeddings)
    assert all(same(a, b) for a, b in zip(found.embeddings, expected.embeddings, strict=True))
    for name in ("people", "healths", "doubts_of_encoders", "doubts_of_pairs", "device"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.calibration.notes == expected.calibration.notes
    assert found.embedded.data_sha256 == expected.embedded.data_sha256


def test_a_ranking_of_shards_is_that_of_whole_files(tmp_path, monkeypatch):
    few_shuffles(monkeypatch)
    sizes = {"people": 40, "rows": 4, "dim": 16, "faces": 2, "voices": 1}
    whole = encsel.rank(write_population(tmp_path / "whole", **sizes), cache=None)
    sharded = encsel.rank(write_population(tmp_path / "sharded", **sizes, shards=3), cache=None)
    for one, other in zip(whole.pairs, sharded.pairs, strict=True):
        assert (one.face, one.voice) == (other.face, other.voice)
        assert one.cka.matched == pytest.approx(
            other.cka.matched, abs=1e-9
        )  # people are named, and so summed, otherwise


def test_more_than_6000_people_are_prepared(tmp_path):
    data = write_population(tmp_path, people=6100, rows=1, dim=16, faces=1, voices=1)
    assert len(prepared(data).people) == 6100


def test_some_people_stand_for_all_when_it_is_tried_whether_an_encoder_can_be_measured(monkeypatch):
    tried = []
    monkeypatch.setattr(health, "gram", lambda x: tried.append(len(x)) or gram(x))
    whole = embeddings("toy", "face", population(40)[0])
    assert health.unmeasurable(whole, seed=0) is None
    monkeypatch.setattr(health, "MAX_MEASURED", 20)
    assert health.unmeasurable(whole, seed=0) is None
    assert tried == [40, 20]


PEAK = """
import resource, sys
from pathlib import Path
from encsel.core import Runtime, SetOptions
from encsel.embedding.prepare import prepare
from encsel.progress import Silent
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
def prepared(root):
    prepare(Path(root), (), (), options=SetOptions(), runtime=Runtime(cache=None), expect_best=None, progress=Silent())
prepared(sys.argv[1])
before = peak()
prepared(sys.argv[2])
print(peak() - before)
"""


def test_preparing_embeddings_of_files_takes_a_part_of_their_size(tmp_path):
    pytest.importorskip("resource")
    few = write_population(tmp_path / "few", people=600, rows=8, dim=256, faces=1, voices=1)
    many = write_population(tmp_path / "many", people=6000, rows=8, dim=256, faces=2, voices=1)
    n_bytes = sum(path.stat().st_size for path in many.rglob("*.npy"))
    done = subprocess.run([sys.executable, "-c", PEAK, few, many], check=True, capture_output=True, text=True)
    # 147 MB of embeddings. Centroids of 12 MB each, names, sorted hashes and blocks are in memory.
    assert n_bytes > 140e6
    assert int(done.stdout) < 0.5 * n_bytes, int(done.stdout) / n_bytes


def test_simulated_people_are_the_same_in_every_number_of_shards(tmp_path):
    sizes = {"people": 50, "rows": 3, "dim": 8, "faces": 1, "voices": 1}
    whole = CalibrationSet.from_path(write_population(tmp_path / "a", **sizes)).embeddings
    sharded = CalibrationSet.from_path(write_population(tmp_path / "b", **sizes, shards=4)).embeddings
    for one, other in zip(whole, sharded, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.vectors, other.vectors)
    again = write_population(tmp_path / "c", **sizes)
    for path in again.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "a" / path.relative_to(again)).read_bytes()


# Listings


def media(root: Path, n_people: int = 12, n_files: int = 6) -> Path:
    for i, person in enumerate(people(n_people)):
        for folder, suffix in (("faces", ".png"), ("voices", ".wav")):
            if (i, folder) in ((3, "faces"), (5, "voices")):
                continue
            (root / folder / person / "v").mkdir(parents=True)
            for j in range(n_files):
                (root / folder / person / "v" / f"{j}{suffix}").touch()
            (root / folder / person / "notes.txt").touch()
    return root


@pytest.mark.parametrize(
    "options",
    [
        SetOptions(identities=4), SetOptions(samples_per_identity=2, seed=5), SetOptions(identities=99),
        SetOptions(identities=4, samples_per_identity=3, seed=1), SetOptions(identities=10), SetOptions(identities=0),
    ],
)  # fmt: skip
def test_listing_only_what_is_chosen_changes_nothing(tmp_path, options):
    media(tmp_path)
    whole = CalibrationSet.from_path(tmp_path)

    def outcome(of: Any) -> Any:
        try:
            return of()
        except (BadCalibration, UsageError) as error:
            return str(error)

    found = outcome(lambda: CalibrationSet.from_path(tmp_path, options))
    expected = outcome(lambda: whole.restricted(options))
    assert found == (expected if isinstance(expected, str) else replace(expected, options=options))


def test_a_sample_takes_little_memory_and_has_its_path(tmp_path):
    opened = CalibrationSet.from_path(media(tmp_path))
    first, second = opened.samples[:2]
    assert not hasattr(first, "__dict__")
    assert first.place == second.place
    assert first.path == tmp_path / "faces" / people(1)[0] / "v" / "0.png"
    assert all(sample.path.is_file() for sample in opened.samples)


def test_progress_is_shown_of_what_takes_long_alone(monkeypatch):
    class Told(Silent):
        def __init__(self) -> None:
            self.tasks: list[tuple[str, int]] = []

        def task(self, label: str, total: int) -> Any:
            self.tasks.append((label, total))
            return super().task(label, total)

    told = Told()
    assert [*progress_of.watched(told, "quick", "abc", 3)] == ["a", "b", "c"]
    assert told.tasks == []
    monkeypatch.setattr(progress_of, "PATIENCE", -1)
    assert progress_of.each(str.upper, told, "slow", "abc") == ["A", "B", "C"]
    assert told.tasks == [("slow", 3)]


def test_temporary_files_are_private(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "LARGE", 1)
    kinds = []
    make = rows.FileMap

    def noted(handle: int, size: int) -> rows.FileMap:
        kinds.append(stat.S_IMODE(os.fstat(handle).st_mode))
        return make(handle, size)

    monkeypatch.setattr(rows, "FileMap", noted)
    rows.scratch((2, 2), np.float32)
    assert kinds == [0o600]


def test_content_of_a_mapped_file_is_hashed_as_a_whole(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz", VECTORS)
    use_files(monkeypatch)
    monkeypatch.setattr(array_files, "_HASHED", 100)
    found, _ = read_embeddings(path, "face")
    assert found.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
