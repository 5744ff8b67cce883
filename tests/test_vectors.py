"""Files of embeddings: what is read, what is skipped, what is refused."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encsel.core import Embeddings
from encsel.data.arrays import keep_usable
from encsel.data.embedding_files import EMBEDDING_SUFFIXES, read_embeddings, write_embeddings
from encsel.errors import BadCalibration

LABELS = np.array(["ann", "bob", "ann", "cleo, jr", "Zoë", "bob"])
SAMPLES = np.array(["a/1", "b/1", "a/2", "c/1", "z/1", "b/2"])
VECTORS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def npz(path: Path, vectors: Any = VECTORS, labels: Any = LABELS, **arrays: Any) -> Path:
    np.savez(path, embeddings=vectors, labels=labels, **arrays)
    return path


def table(path: Path, **columns: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def npy(path: Path, vectors: Any = VECTORS, **columns: Any) -> Path:
    np.save(path, vectors)
    table(path.with_suffix(".csv"), **(columns or {"identity": LABELS}))
    return path


def same(one: Embeddings, other: Embeddings) -> bool:
    return (
        np.array_equal(one.vectors, other.vectors)
        and np.array_equal(one.labels, other.labels)
        and np.array_equal(one.samples, other.samples)
        and one.attributes.keys() == other.attributes.keys()
        and all(np.array_equal(one.attributes[k], other.attributes[k]) for k in one.attributes)
    )


def refused(path: Path, match: str) -> str:
    with pytest.raises(BadCalibration, match=match) as caught:
        read_embeddings(path, "face")
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert str(path.with_suffix("")) in str(caught.value)
    return str(caught.value)


# What is read


def test_npz_gives_its_rows(tmp_path: Path) -> None:
    embeddings, skipped = read_embeddings(npz(tmp_path / "toy.npz", samples=SAMPLES), "voice")
    assert (embeddings.name, embeddings.modality, embeddings.dim, skipped) == ("toy", "voice", 4, ())
    np.testing.assert_array_equal(embeddings.vectors, VECTORS)
    assert embeddings.labels.tolist() == LABELS.tolist()
    assert embeddings.samples.tolist() == SAMPLES.tolist()


def test_all_kinds_of_file_give_the_same_embeddings(tmp_path: Path) -> None:
    sex = np.array(["f", "m", "f", "", "f", "m"])
    from_npz, _ = read_embeddings(npz(tmp_path / "a.npz", samples=SAMPLES, sex=sex), "face")
    from_npy, _ = read_embeddings(npy(tmp_path / "b.npy", identity=LABELS, sample=SAMPLES, sex=sex), "face")
    safetensors.numpy.save_file({"embeddings": VECTORS}, tmp_path / "c.safetensors")
    table(tmp_path / "c.csv", labels=LABELS, samples=SAMPLES, sex=sex)
    from_safetensors, _ = read_embeddings(tmp_path / "c.safetensors", "face")
    assert from_npz.attributes["sex"].tolist() == sex.tolist()
    assert same(from_npz, from_npy)
    assert same(from_npz, from_safetensors)


def test_safetensors_may_hold_whole_number_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"embeddings": VECTORS, "labels": np.arange(6)}, path)
    embeddings, _ = read_embeddings(path, "face")
    assert embeddings.labels.tolist() == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("labels", [np.arange(6), np.arange(6, dtype=np.uint8), np.array(list("012345")),
                                    np.array([b"0", b"1", b"2", b"3", b"4", b"5"])])  # fmt: skip
def test_labels_of_every_type_become_the_same_text(tmp_path: Path, labels: NDArray[Any]) -> None:
    embeddings, _ = read_embeddings(npz(tmp_path / "a.npz", labels=labels), "face")
    assert embeddings.labels.tolist() == ["0", "1", "2", "3", "4", "5"]
    assert embeddings.labels.dtype.kind == "U"


@pytest.mark.parametrize("dtype", [np.float16, ">f4", ">f8", np.int16, np.float32, np.float64])
def test_every_type_of_number_is_read_as_a_native_float(tmp_path: Path, dtype: Any) -> None:
    vectors = np.arange(1, 25).reshape(6, 4)
    embeddings, _ = read_embeddings(npz(tmp_path / "a.npz", vectors.astype(dtype)), "face")
    np.testing.assert_array_equal(embeddings.vectors, vectors)
    assert embeddings.vectors.dtype == (np.float64 if dtype is np.float64 else np.float32)
    assert embeddings.vectors.dtype.isnative


def test_fortran_order_is_read(tmp_path: Path) -> None:
    embeddings, _ = read_embeddings(npz(tmp_path / "a.npz", np.asfortranarray(VECTORS)), "face")
    np.testing.assert_array_equal(embeddings.vectors, VECTORS)


def test_rows_without_names_are_numbered(tmp_path: Path) -> None:
    embeddings, _ = read_embeddings(npz(tmp_path / "a.npz"), "face")
    assert embeddings.samples.tolist() == ["0", "1", "2", "3", "4", "5"]


def test_arrays_that_are_no_columns_are_not_used(tmp_path: Path) -> None:
    extra = {"model": np.array("facenet"), "mean": np.zeros(4), "quality": np.zeros(6), "people": np.array(["x"])}
    embeddings, _ = read_embeddings(npz(tmp_path / "a.npz", year=np.arange(6), **extra), "face")
    assert list(embeddings.attributes) == ["year"]


def test_an_archive_may_hold_other_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(npz(tmp_path / "a.npz"), "a") as archive:
        archive.writestr("README.txt", "made by hand")
    assert len(read_embeddings(tmp_path / "a.npz", "face")[0].vectors) == 6


def test_table_with_byte_order_mark_and_windows_line_ends_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS)
    text = "\ufeff identity , sample\r\n" + "".join(
        f'"{name}", {s}\r\n' for name, s in zip(LABELS, SAMPLES, strict=True)
    )
    (tmp_path / "a.csv").write_bytes(text.encode())
    embeddings, _ = read_embeddings(tmp_path / "a.npy", "face")
    assert embeddings.labels.tolist() == LABELS.tolist()
    assert embeddings.samples.tolist() == SAMPLES.tolist()


def test_provenance_changes_with_the_content(tmp_path: Path) -> None:
    before, _ = read_embeddings(npz(tmp_path / "a.npz"), "face")
    after, _ = read_embeddings(npz(tmp_path / "a.npz", VECTORS + 1), "face")
    assert before.provenance["file"] == "a.npz"
    assert before.provenance["sha256"] != after.provenance["sha256"]


def test_suffixes_match_in_any_case(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz").rename(tmp_path / "a.NPZ")
    assert read_embeddings(tmp_path / "a.NPZ", "face")[0].name == "a"


# What is kept of it


def test_repeated_rows_are_kept_once_for_each_identity(tmp_path: Path) -> None:
    vectors = VECTORS[[0, 0, 0, 1, 0, 2]]
    labels = np.array(["ann", "ann", "bob", "bob", "ann", "bob"])
    embeddings, skipped = read_embeddings(npz(tmp_path / "a.npz", vectors, labels), "face")
    assert skipped == ()
    assert embeddings.samples.tolist() == ["0", "2", "3", "5"]


def test_which_repetition_is_kept_does_not_depend_on_order() -> None:
    order = np.random.default_rng(3).permutation(6)
    vectors, labels = VECTORS[[0, 0, 0, 1, 1, 2]], np.array(["ann"] * 6)
    kept = [
        keep_usable(Embeddings("toy", "face", vectors[rows], labels, SAMPLES[rows]))[0]
        for rows in (np.arange(6), order)
    ]
    assert set(kept[0].samples) == set(kept[1].samples)


def test_unusable_rows_are_skipped_and_named(tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[1], vectors[2, 3], vectors[3, 0] = 0, np.nan, -np.inf
    labels = LABELS.copy()
    labels[5] = ""
    embeddings, skipped = read_embeddings(npz(tmp_path / "toy.npz", vectors, labels, samples=SAMPLES), "face")
    assert embeddings.samples.tolist() == ["a/1", "z/1"]
    assert [(s.sample, s.reason) for s in skipped] == [
        ("bob/b/1", "all zeros"), ("ann/a/2", "non-finite values"), ("cleo, jr/c/1", "non-finite values"),
        ("/b/2", "no identity"),
    ]  # fmt: skip
    assert {(s.modality, s.encoder) for s in skipped} == {("face", "toy")}


def test_attributes_follow_their_rows(tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[0] = 0
    embeddings, _ = read_embeddings(npz(tmp_path / "a.npz", vectors, video=np.array(list("uvwxyz"))), "face")
    assert embeddings.attributes["video"].tolist() == list("vwxyz")


def test_no_rows_are_usable_rows() -> None:
    none = Embeddings("toy", "face", np.empty((0, 4), np.float32), np.array([], np.str_), np.array([], np.str_))
    embeddings, skipped = keep_usable(none)
    assert (embeddings.vectors.shape, skipped) == ((0, 4), ())


# What is refused


@pytest.mark.parametrize("vectors", [VECTORS[0], VECTORS[None], np.float32(1), np.zeros((0, 4)), np.zeros((6, 0))])
def test_arrays_that_are_not_rows_by_dim_are_refused(tmp_path: Path, vectors: Any) -> None:
    refused(
        npz(tmp_path / "a.npz", vectors), r"the embeddings have shape \(.*numbers of shape \(rows, dim\) are needed"
    )


@pytest.mark.parametrize("dtype", [np.complex64, bool, "U3", "datetime64[s]"])
def test_embeddings_that_are_no_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    refused(npz(tmp_path / "a.npz", np.ones((6, 4), int).astype(dtype)), "numbers of shape")


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", vectors=VECTORS, labels=LABELS)
    refused(tmp_path / "a.npz", r"the arrays are labels, vectors; 'embeddings' \(rows, dim\) is needed")
    np.savez(tmp_path / "b.npz", embeddings=VECTORS)
    refused(tmp_path / "b.npz", r"'labels' \(rows,\), .* is missing")
    safetensors.numpy.save_file({"embeddings": VECTORS}, tmp_path / "c.safetensors")
    refused(tmp_path / "c.safetensors", "'labels' .* is missing")
    np.savez(tmp_path / "d.npz")
    refused(tmp_path / "d.npz", "the arrays are none")


@pytest.mark.parametrize("labels", [LABELS[:5], LABELS[:, None], np.array("ann")])
def test_labels_of_another_length_are_refused(tmp_path: Path, labels: Any) -> None:
    refused(npz(tmp_path / "a.npz", labels=labels), r"'labels' has shape .* for 6 rows of embeddings; \(6,\) is needed")


def test_samples_and_tables_of_another_length_are_refused(tmp_path: Path) -> None:
    refused(npz(tmp_path / "a.npz", samples=SAMPLES[:5]), r"'samples' has shape \(5,\) for 6 rows")
    refused(npy(tmp_path / "b.npy", identity=LABELS[:4]), r"'labels' has shape \(4,\) for 6 rows")
    refused(npy(tmp_path / "c.npy", identity=[]), r"'labels' has shape \(0,\) for 6 rows")


@pytest.mark.parametrize("labels", [np.arange(6.0), np.arange(6) * 1j])
def test_labels_that_are_neither_text_nor_whole_numbers_are_refused(tmp_path: Path, labels: Any) -> None:
    refused(npz(tmp_path / "a.npz", labels=labels), "the type is .*; text or whole numbers are needed")


def test_labels_that_are_not_text_inside_are_refused(tmp_path: Path) -> None:
    refused(npz(tmp_path / "a.npz", labels=np.array([b"\xff"] * 6)), "'labels': some bytes are not text")
    impossible = np.full(6, 0x7FFFFFFF, "<u4").view("<U1")
    refused(npz(tmp_path / "b.npz", labels=impossible), "'labels': some bytes are not text")


class Bomb:
    """Removes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.remove, (self.path,)


@pytest.mark.parametrize(
    "place", ["npz embeddings", "npz labels", "npz other", "npy", "npz is a pickle", "npy is a pickle"]
)
def test_pickles_are_refused_and_never_run(tmp_path: Path, place: str) -> None:
    witness = tmp_path / "witness"
    witness.touch()
    objects = np.array([Bomb(witness)] * 6, dtype=object)
    path = tmp_path / f"a.{place[:3]}"
    match place:
        case "npz embeddings":
            npz(path, objects)
        case "npz labels":
            npz(path, labels=objects)
        case "npz other":
            npz(path, other=objects)
        case "npy":
            npy(path, objects)
        case _:
            path.write_bytes(pickle.dumps(Bomb(witness)))
    refused(path, "contains pickled objects, which are never loaded")
    assert witness.exists()


@pytest.mark.parametrize("suffix", EMBEDDING_SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"hello", b"<html></html>", b"PK\x03\x04", b"\x93NUMPY\x01\0"])
def test_files_of_another_kind_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert "pickle" not in refused(path, f"is damaged or not a {suffix} file: ")


def test_an_array_is_no_archive_and_an_archive_no_array(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy").rename(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", "is damaged or not a .npz file")
    npz(tmp_path / "b.npz").rename(tmp_path / "b.npy")
    refused(tmp_path / "b.npy", "is damaged or not a .npy file")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "a.npz", "cannot be read: No such file")


def test_npy_without_a_table_says_which_is_needed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS)
    refused(tmp_path / "a.npy", "has no labels; put a.csv with a column 'identity' beside it")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "has the columns none; a column 'identity' is needed"),
        (b"who,sample\nann,1\n", "has the columns who, sample; a column 'identity' is needed"),
        (b"identity,sex\nann,f\nbob\n", "every row must have one cell per column"),
        (b"identity\nann,f\n", "every row must have one cell per column"),
        (b"identity\n\xff\n", "is not a UTF-8 CSV file"),
        (b'identity\n"ann\n', "is not a UTF-8 CSV file"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, text: bytes, match: str) -> None:
    np.save(tmp_path / "a.npy", VECTORS)
    (tmp_path / "a.csv").write_bytes(text)
    refused(tmp_path / "a.npy", match)


def test_an_array_too_large_for_memory_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**10)}
    np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("embeddings.npy", file.getvalue())
    refused(tmp_path / "a.npz", "is damaged or not a .npz file")


@pytest.mark.parametrize("suffix", EMBEDDING_SUFFIXES)
def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        npz(path)
    elif suffix == ".npy":
        npy(path)
    else:
        safetensors.numpy.save_file({"embeddings": VECTORS, "labels": np.arange(6)}, path)
    content = path.read_bytes()
    for end in range(0, len(content), max(1, len(content) // 120)):
        path.write_bytes(content[:end])
        refused(path, "is damaged or not a")


@pytest.mark.parametrize("suffix", EMBEDDING_SUFFIXES)
def test_turned_bytes_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        npz(path)
    elif suffix == ".npy":
        npy(path)
    else:
        safetensors.numpy.save_file({"embeddings": VECTORS, "labels": np.arange(6)}, path)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(content)
        for at in random.integers(0, random.choice((128, len(content))), 3):
            changed[at] = random.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(BadCalibration):
            assert np.isfinite(read_embeddings(path, "face")[0].vectors).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    content=st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda b: b"\x93NUMPY\x01\0" + b)),
    suffix=st.sampled_from(EMBEDDING_SUFFIXES),
    rows=st.binary(max_size=60),
)
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, rows: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / f"a{suffix}"
    path.write_bytes(content)
    path.with_suffix(".csv").write_bytes(rows)
    with pytest.raises(BadCalibration):
        read_embeddings(path, "face")


# What is written


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    sex = np.array(["f", "m", "f", "", "f", "m"])
    made = Embeddings("toy", "voice", VECTORS, LABELS, SAMPLES, {"sex": sex, "labels": sex, "file": sex}, {"by": "us"})
    write_embeddings(made, tmp_path / "toy.npz")
    read, skipped = read_embeddings(tmp_path / "toy.npz", "voice")
    assert same(made, read)
    assert (read.name, read.vectors.dtype, skipped) == ("toy", np.float32, ())


def test_repeated_rows_that_are_written_are_read_again(tmp_path: Path) -> None:
    made, _ = keep_usable(Embeddings("toy", "face", VECTORS[[2, 0, 2, 1]], np.array(["ann"] * 4), SAMPLES[:4]))
    write_embeddings(made, tmp_path / "toy.npz")
    read, _ = read_embeddings(tmp_path / "toy.npz", "face")
    assert same(read, made)
    np.testing.assert_array_equal(read.as_listed().vectors, VECTORS[[2, 0, 2, 1]])
    for listed in ([0, 1], [0, 1, 2, 3], [0.0, 1.0, 2.0], [[0, 1, 2]]):
        write_embeddings(replace(made, listed=np.array(listed)), tmp_path / "toy.npz")
        refused(tmp_path / "toy.npz", "'encsel.listed' is damaged")


def test_written_files_and_new_folders_are_for_the_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_embeddings(Embeddings("toy", "face", VECTORS, LABELS, SAMPLES), tmp_path / "faces" / "toy.npz")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "faces" / "toy.npz").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "faces").stat().st_mode) == 0o700
    assert [p.name for p in (tmp_path / "faces").iterdir()] == ["toy.npz"]


def test_writing_replaces_what_was_there(tmp_path: Path) -> None:
    write_embeddings(Embeddings("toy", "face", VECTORS + 1, LABELS, SAMPLES), tmp_path / "toy.npz")
    made = Embeddings("toy", "face", VECTORS, LABELS, SAMPLES)
    write_embeddings(made, tmp_path / "toy.npz")
    assert same(made, read_embeddings(tmp_path / "toy.npz", "face")[0])


def test_memory_that_is_used_up_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", embeddings=np.eye(3, dtype=np.float32), labels=np.arange(3))

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np.lib.format, "read_array", refuse)
    with pytest.raises(MemoryError):
        read_embeddings(tmp_path / "a.npz", "face")


# What is there instead of a file, and types that numpy lacks


@pytest.mark.parametrize("suffix", EMBEDDING_SUFFIXES)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n", "a Git LFS pointer.*run git lfs pull"),
        (b"/annex/objects/SHA256E-s9--aa.npz\n", "a git-annex pointer.*run git annex get"),
        (b"\n<!DOCTYPE html><title>404</title>", "an HTML page.*download it again"),
    ],
)
def test_what_stands_in_for_a_file_is_named(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    refused(tmp_path / f"a{suffix}", words)


def test_a_pointer_in_place_of_a_table_and_a_link_into_an_annex_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS)
    (tmp_path / "a.csv").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(tmp_path / "a.npy", "a.csv is .*a Git LFS pointer")
    (tmp_path / "b.npz").symlink_to("../.git/annex/objects/x/y/z")
    refused(tmp_path / "b.npz", "No such file or directory; it is a git-annex pointer.*run git annex get")


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
def test_types_that_numpy_lacks_are_read_as_torch_reads_them(tmp_path: Path, name: str) -> None:
    import torch
    from safetensors.torch import save_file

    codes = torch.arange(256, dtype=torch.uint8) if "8_" in name else torch.arange(0, 1 << 16, 7).to(torch.uint16)
    values = codes.view(getattr(torch, name))[:, None].repeat(1, 2)
    values = values[torch.isfinite(values.float()).all(1)]
    labels = [str(i) for i in range(len(values))]
    save_file({"embeddings": values.contiguous()}, tmp_path / "a.safetensors")
    table(tmp_path / "a.csv", identity=labels, sample=labels)
    embeddings, skipped = read_embeddings(tmp_path / "a.safetensors", "face")
    expected = {label: row for label, row in zip(labels, values.float().numpy(), strict=True) if row.any()}
    assert len(skipped) == len(values) - len(expected)  # zeros
    assert {p: row.tolist() for p, row in zip(embeddings.labels, embeddings.vectors, strict=True)} == {
        p: row.tolist() for p, row in expected.items()
    }


def test_another_type_is_named_and_not_called_damaged(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    scales = torch.ones(6, 4).to(torch.float8_e8m0fnu)
    table(tmp_path / "a.csv", identity=LABELS)
    save_file({"embeddings": torch.from_numpy(VECTORS), "scales": scales}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read_embeddings(tmp_path / "a.safetensors", "face")[0].vectors, VECTORS)
    save_file({"embeddings": scales}, tmp_path / "a.safetensors")
    assert "damaged" not in refused(tmp_path / "a.safetensors", "'embeddings' is of type F8_E8M0.*Save it as float32")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": LABELS.astype(object)}, r"'labels' is an array of Python objects\. Save labels\.astype\(str\)"),
        ({"vectors": VECTORS.astype(object)}, r"'embeddings' is an array of.*embeddings\.astype\('float32'\)"),
        ({"paths": SAMPLES.astype(object)}, "'paths' is an array of Python objects"),
        ({"labels": np.arange(6.0)}, r"'labels': the type is float64.*\.astype\(int\)"),
        ({"vectors": VECTORS[:, :2].view("V2")}, "numpy has no bfloat16"),
    ],
)
def test_a_refusal_names_the_array_and_the_cure(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    refused(npz(tmp_path / "a.npz", **arrays), words)
