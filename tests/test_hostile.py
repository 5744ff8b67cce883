"""Hazards caused for real: bombs, files without an end, names that run or lead elsewhere, sets of 100,000 people."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
from media_samples import write_face, write_voice

from encsel.cli import settings as config
from encsel.core import SetOptions
from encsel.data import array_files, clips, image_repairs, listing
from encsel.data.calibration_set import CalibrationSet
from encsel.data.embedding_files import read_embeddings
from encsel.data.media import decode_face, decode_voice, read_bytes
from encsel.errors import BadCalibration, EncselError, UnusableSample, UsageError, printable
from encsel.gates import compare
from encsel.prediction.card import load_calibrated
from encsel.progress import OnStderr
from encsel.regression import pair_tables as pairs
from encsel.regression.card import load_geometric_card
from encsel.reports.tables import inert
from encsel.storage.documents import cards_folder
from encsel.storage.files import read_whole
from encsel.storage.signature import digest


@contextmanager
def within(seconds: float, mib: float) -> Iterator[None]:
    """The block takes no longer and, where Linux tells, no more memory on top of what there was."""
    start, before = time.monotonic(), peak_mib(reset=True)
    yield
    assert time.monotonic() - start < seconds
    assert peak_mib() - before < mib


def peak_mib(*, reset: bool = False) -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    if reset:
        Path("/proc/self/clear_refs").write_bytes(b"5")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def refused(path: Path, match: str, *, mib: float = 100) -> None:
    with within(5, mib), pytest.raises(BadCalibration, match=match):
        read_embeddings(path, "face")


# Archives


@pytest.mark.robust
def test_zeros_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    whole = zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9)
    with whole, whole.open("embeddings.npy", "w", force_zip64=True) as file:
        file.write(header((2048, 1 << 16)))
        for _ in range(512):
            file.write(bytes(1 << 20))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 20
    refused(tmp_path / "a.npz", r"is too large: arrays of 512 MiB in a file of 0.5 MiB, over 200 times as much")


@pytest.mark.slow
def test_zeros_that_numpy_compressed_to_a_thousandth_are_refused(tmp_path: Path) -> None:
    x = np.zeros((2_200_000, 1024), np.float32)
    np.savez_compressed(tmp_path / "a.npz", embeddings=x, labels=np.arange(len(x)))
    del x
    refused(tmp_path / "a.npz", r"is too large: arrays of 8\.\d+ GiB; at most 8 GiB are read", mib=200)


def test_arrays_that_compress_like_embeddings_are_read(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)
    np.savez_compressed(
        tmp_path / "a.npz", embeddings=x, labels=np.repeat([f"person {i}" * 20 for i in range(20)], 100)
    )
    assert len(read_embeddings(tmp_path / "a.npz", "face")[0].vectors) == 2000


def archive(path: Path, *members: tuple[str, bytes]) -> bytearray:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return bytearray(path.read_bytes())


def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"descr": kind, "fortran_order": False, "shape": shape})  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize(("stated", "match"), [
    (8 << 30, r"arrays of 8 GiB; at most 8 GiB are read|over 200 times"), (3 << 30, "over 200 times"),
    (16, "is damaged or not a .npz file"), (0, "is damaged or not a .npz file|the arrays are none"),
])  # fmt: skip
def test_a_directory_that_lies_is_not_believed(tmp_path: Path, stated: int, match: str) -> None:
    content = archive(tmp_path / "a.npz", ("embeddings.npy", header((500, 64)) + bytes(128_000)))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", min(stated, 2**32 - 2))
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz", match)


@pytest.mark.parametrize("shape", [(2**50, 16), (2**40,), (10**6, 10**6, 10**6), (2**62, 2**62), (200_000, 1000)])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_shapes_that_the_bytes_do_not_fill_are_refused_before_room_is_made(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        archive(path, ("embeddings.npy", header(shape) + bytes(400)))
    else:
        path.write_bytes(header(shape) + bytes(400))
    refused(path, "a header states shape")


@pytest.mark.parametrize("kind", ["|V0", "<U0", "<f4"])
def test_arrays_of_no_bytes_have_no_rows(tmp_path: Path, kind: str) -> None:
    archive(
        tmp_path / "a.npz", ("embeddings.npy", header((2, 2)) + bytes(16)), ("labels.npy", header((2**60, 0)[:1], kind))
    )
    refused(tmp_path / "a.npz", "a header states shape")


def test_an_archive_of_a_hundred_thousand_members_is_refused(tmp_path: Path) -> None:
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<HHHHHII", 6, 0, 0, 0, 0, 0, 0) + b"x.npy\0"
    n, end = 100_000, b"PK\x05\x06\0\0\0\0" + struct.pack("<HHIIH", 1, 1, 100_000 * len(entry), 4, 0)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04" + entry * n + end)
    refused(tmp_path / "a.npz", "a directory of over 4 MiB")


def test_members_that_are_no_arrays_are_not_unpacked(tmp_path: Path) -> None:
    x = np.eye(3, dtype=np.float32)
    np.savez(tmp_path / "a.npz", embeddings=x, labels=np.array(["a", "b", "c"]))
    with zipfile.ZipFile(tmp_path / "a.npz", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("README.txt", bytes(50 << 20))
    with within(5, 30):
        assert len(read_embeddings(tmp_path / "a.npz", "face")[0].vectors) == 3


@pytest.mark.parametrize("name", ["../../evil.npy", "/tmp/evil.npy", "..\\evil.npy", "\x1b[31m.npy", "a/b/../../x.npy"])
def test_names_of_members_lead_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    archive(tmp_path / "set" / "a.npz", (name, header((2, 2)) + bytes(16)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadCalibration, match="the arrays are") as caught:
        read_embeddings(tmp_path / "set" / "a.npz", "face")
    assert "\x1b" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/evil.npy").exists()


def test_one_long_text_among_many_short_ones_is_refused(tmp_path: Path) -> None:
    n = 100_000  # at 4 bytes a character numpy would make 48 GB of it
    np.save(tmp_path / "a.npy", np.ones((n, 1), np.int8))
    (tmp_path / "a.csv").write_text("identity\n" + "x" * 120_000 + "\n" + "a\n" * (n - 1))
    with (
        within(5, 400),
        pytest.raises(BadCalibration, match="has a cell of 120000 characters; at most 1024 are read"),
    ):
        read_embeddings(tmp_path / "a.npy", "face")


def test_a_header_of_tensors_of_many_megabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 5 << 20) + b" " * (6 << 20))
    refused(tmp_path / "a.safetensors", "a header of over 4 MiB")


# Images


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *before: bytes, depth: int = 8, after: bytes = b"") -> bytes:
    packer = zlib.compressobj(9)
    row = bytes(1 + width * depth // 8)
    data = b"".join(packer.compress(row) for _ in range(min(height, 8000))) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def saved(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def unusable(content: bytes, match: str, decode: Callable[..., Any] = decode_face, *, seconds: float = 5) -> None:
    with within(seconds, 250), pytest.raises(UnusableSample, match=match):
        decode(content)


def grey(side: int = 100) -> PIL.Image.Image:
    return PIL.Image.new("L", (side, side), 90)


ENORMOUS = {
    "PNG": lambda: png(40_000, 40_000, depth=1),
    "JPEG": lambda: saved(grey(), "JPEG").replace(struct.pack(">HH", 100, 100), struct.pack(">HH", 60_000, 65_500)),
    "GIF": lambda: b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + saved(grey(), "GIF")[10:],
    "WEBP": lambda: saved(PIL.Image.new("RGB", (16_000, 4_000)), "WEBP", lossless=True, quality=0, method=0),
    "TIFF": lambda: saved(PIL.Image.new("1", (40_000, 10_000)), "TIFF", compression="group4"),
    "BMP": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "PPM": lambda: b"P6 60000 60000 255\n",
}


SLOWLY_MADE = ("WEBP", "TIFF")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.robust) if kind in SLOWLY_MADE else kind for kind in ENORMOUS]
)
def test_a_small_file_of_many_megapixels_is_not_decoded(kind: str) -> None:
    content = ENORMOUS[kind]()
    assert len(content) < 1 << 20
    unusable(content, "too large")


BOMB = zlib.compress(bytes(100 << 20), 1)


@pytest.mark.parametrize(
    "hazard", [chunk(b"zTXt", b"k\0\0" + BOMB), chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB), chunk(b"iCCP", b"k\0\0" + BOMB),
               chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))) * 200],
    ids=["zTXt", "iTXt", "iCCP", "many"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["before", "after"])
def test_texts_in_a_png_do_not_unpack_to_much(hazard: bytes, where: str) -> None:
    content = png(32, 32, hazard) if where == "before" else png(32, 32, after=hazard)
    with within(5, 250), suppress(UnusableSample):
        assert decode_face(content).shape == (32, 32, 3)


def test_an_animation_of_a_million_frames_is_one_picture() -> None:
    whole = saved(PIL.Image.new("P", (16, 16)), "GIF")
    start = whole.index(b",")
    with within(5, 250):
        assert decode_face(whole[:-1] + whole[start:-1] * 1_000_000 + b";").shape == (16, 16, 3)


def tiff(*entries: tuple[int, int, int], data: bytes) -> bytes:
    content = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries))
    return content + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)


def test_a_tile_of_a_gigapixel_in_a_small_tiff_is_not_decoded() -> None:
    data = bytes(100)
    entries = ((256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1), (322, 4, 32_768),
               (323, 4, 32_768), (324, 4, 8), (325, 4, len(data)))  # fmt: skip
    unusable(tiff(*entries, data=data), "too large: a tile of 32768x32768 pixels")


def test_a_jpeg_of_ten_thousand_scans_is_not_decoded() -> None:
    whole = saved(grey(4000), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    unusable(whole[:-2] + scan * 10_000 + b"\xff\xd9", "too slow to decode: over 100 scans of 4000x4000 pixels")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xda" * 500}])
def test_ordinary_jpegs_have_few_scans(options: dict[str, Any]) -> None:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8))
    content = saved(noise, "JPEG", quality=98, **options)
    assert image_repairs.n_scans(content, 100) == (10 if options.get("progressive") else 1)
    film = bytes(np.random.default_rng(1).integers(0, 256, 1 << 24, dtype=np.uint8))  # as telephones put behind it
    assert decode_face(content + film).shape == (400, 400, 3)


def test_pictures_as_text_are_decoded_soon_or_not_at_all() -> None:
    with within(5, 250):
        assert decode_face(b"P1 100 100\n" + b"#a\n" * 1_000_000 + b"01" * 5000).shape == (100, 100, 3)
    unusable(b"P3 4000 4000 255\n" + b"1 " * 1000, "too slow to decode: 4000x4000 pixels in text")
    unusable(b"P6 4000 4000 99\n" + bytes(1000), "too slow to decode: 4000x4000 pixels")
    assert decode_face(b"P6 400 400 255\n" + bytes(480_000)).shape == (400, 400, 3)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "F"])
def test_the_largest_picture_takes_under_500_mib(mode: str) -> None:
    kind = "TIFF" if mode == "F" else "PNG"
    picture = PIL.Image.new(mode, (7000, 7000))
    content = saved(picture, kind, **({"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {}))
    del picture
    with within(30, 500):
        assert decode_face(content).shape == (7000, 7000, 3)


# Clips


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"), pytest.param("FLAC", "PCM_16", marks=pytest.mark.robust), ("AIFF", "PCM_16"),
        *(pytest.param(*kind, marks=pytest.mark.slow)
          for kind in (("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))),
    ],
)  # fmt: skip
def test_an_hour_is_cut_to_five_seconds_without_being_decoded(kind: str, subtype: str) -> None:
    if not soundfile.check_format(kind, subtype):
        pytest.skip(f"this libsndfile cannot write {kind} {subtype}")
    minute = 0.1 * np.random.default_rng(0).standard_normal(8000 * 60)
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 1, format=kind, subtype=subtype) as clip:
        for _ in range(60):
            clip.write(minute)
    content = file.getvalue()
    with within(0.5, 50):
        assert len(decode_voice(content)) == 80_000


def wav(rate: int, n_channels: int, n_bytes: int, bits: int = 16) -> bytes:
    step = n_channels * bits // 8
    form = struct.pack("<HHIIHH", 1, n_channels, rate, rate * step % 2**32, step % 2**16, bits)
    samples = np.random.default_rng(0).integers(1, 255, n_bytes, dtype=np.uint8).tobytes()
    parts = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", n_bytes) + samples
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


@pytest.mark.parametrize("rate", [1, 999, 768_001, 10**9, 2**31 - 1])
def test_rates_that_no_recorder_has_are_refused(rate: int) -> None:
    unusable(wav(rate, 1, 1 << 20), f"unsupported rate: {rate} Hz, must be 1000 to 768000", decode_voice)


@pytest.mark.parametrize("n_channels", [1025, 5000, 65_535])
def test_thousands_of_channels_are_refused(n_channels: int) -> None:
    unusable(wav(16_000, n_channels, 1 << 20), "unreadable audio", decode_voice)


def test_many_channels_are_decoded_in_little_memory() -> None:
    content = wav(16_000, 1024, 25 << 20, bits=8)  # as float32 100 MiB
    with within(5, 50):
        assert len(decode_voice(content)) == 25_600


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (wav(44_100, 2, 1 << 19), wav(16_000, 7, 1 << 19)):
        whole = decode_voice(content)
        monkeypatch.setattr(clips, "_BLOCK", 1000)
        np.testing.assert_array_equal(decode_voice(content), whole)
        monkeypatch.undo()


# Files that are none


def specials(folder: Path) -> Iterator[Path]:
    """Devices, pipes, sockets, folders, links in a circle: each under a name of its own."""
    for target in ("/dev/zero", "/dev/random", "/dev/tty", "/proc/self/mem", "/dev/stdin"):
        link = folder / target.replace("/", "_")
        link.symlink_to(target)
        yield link
    os.mkfifo(folder / "pipe")
    yield folder / "pipe"
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(folder)  # names of sockets are short
        try:
            one.bind("socket")
        finally:
            os.chdir(here)
        yield folder / "socket"
    (folder / "folder").mkdir()
    yield folder / "folder"
    (folder / "circle").symlink_to("circle")
    yield folder / "circle"
    yield folder / "nothing"


READERS: dict[str, tuple[Callable[[Path], Any], tuple[type[Exception], ...]]] = {
    "sample": (read_bytes, (UnusableSample,)),
    "manifest": (lambda path: CalibrationSet.from_path(path), (BadCalibration,)),
    "card": (lambda path: load_geometric_card(str(path)), (UsageError,)),
    "calibrated card": (load_calibrated, (UsageError,)),
    "result": (compare.read_result, (UsageError,)),
    "table of pairs": (lambda path: pairs.read_pairs([path]), (UsageError,)),
    "embeddings": (lambda path: read_embeddings(path, "face"), (BadCalibration,)),
}
NAMES = {"manifest": "manifest.csv", "embeddings": "a.npz", "table of pairs": "pairs.json"}


@pytest.mark.parametrize("what", READERS)
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, what: str) -> None:
    reader, errors = READERS[what]
    for i, special in enumerate(specials(tmp_path)):
        path = tmp_path / f"{i}-{NAMES.get(what, 'card.json')}"
        path.symlink_to(special)
        with within(5, 100), pytest.raises(errors):
            reader(path)


def test_settings_that_are_no_file_are_refused(tmp_path: Path) -> None:
    for special in specials(tmp_path):
        if special.name == "nothing":
            continue
        for name in (config.OWN, config.SHARED):
            (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / name).symlink_to(special)
        with within(5, 100), pytest.raises(UsageError, match="cannot be read"):
            config.settings(tmp_path)
        (tmp_path / config.OWN).unlink()
        # There may be gates in it.
        with within(5, 100), pytest.raises(UsageError, match="cannot be read"):
            config.settings(tmp_path)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    monkeypatch.setattr("encsel.storage.files._check", lambda *_: None)
    with pytest.raises(OSError, match="too large: over 2 MiB"):
        read_whole(tmp_path / "a", 2 << 20)
    assert len(read_whole(tmp_path / "a", 3 << 20)) == 3 << 20


@pytest.mark.parametrize("what", ["card", "calibrated card", "result", "table of pairs", "embeddings"])
def test_files_of_gigabytes_are_not_read(tmp_path: Path, what: str) -> None:
    reader, errors = READERS[what]
    path = tmp_path / NAMES.get(what, "card.json")
    most = array_files.MAX_MAPPED_BYTES if what == "embeddings" else array_files.MAX_BYTES
    with path.open("wb") as file:
        file.truncate(most + 1)  # sparse: takes no disk
    with within(5, 100), pytest.raises(errors, match=f"too large: {most >> 20} MiB"):
        reader(path)


# Trees


def person(root: Path, name: str = "ann") -> Path:
    for modality, suffix in (("faces", "png"), ("voices", "wav")):
        (root / modality / name).mkdir(parents=True)
        (root / modality / name / f"1.{suffix}").touch()
    return root


@contextmanager
def nested(folder: Path, name: str, depth: int) -> Iterator[None]:
    """A picture so many folders down; taken away again, since what tidies up after tests calls itself, too."""
    here = Path.cwd()
    os.chdir(folder)
    for _ in range(depth):
        Path(name).mkdir()
        os.chdir(name)
    Path("1.png").touch()
    os.chdir(here)
    try:
        yield
    finally:
        os.chdir(folder)
        for _ in range(depth):
            os.chdir(name)
        Path("1.png").unlink()
        for _ in range(depth):
            os.chdir("..")
            Path(name).rmdir()
        os.chdir(here)


LAYOUTS: dict[str, tuple[str, ...]] = {
    "by modality": ("faces/ann/1.png", "voices/ann/1.wav"),
    "by identity": ("ann/faces/1.png", "ann/voices/1.wav", "bob/faces/1.png", "bob/voices/1.wav"),
    "VoxCeleb1": ("wav/id10001/video/1.wav", "faces/id10001/1.png"),
    "MAV-Celeb": ("v1/faces/id1/English/v/1.png", "v1/voices/id1/English/v/1.wav"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_links_in_a_circle_end_in_every_layout(tmp_path: Path, name: str) -> None:
    for path in LAYOUTS[name]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    n = len(CalibrationSet.from_path(tmp_path).samples)
    for folder in [p for p in tmp_path.rglob("*") if p.is_dir()]:
        (folder / "self").symlink_to("self")
        (folder / "file.png").symlink_to("file.png")
        if folder.name in ("ann", "id1", "id10001", "English", "v", "video"):  # else it is another person's folder
            (folder / "up").symlink_to(folder)
    with within(5, 100):
        found = CalibrationSet.from_path(tmp_path)
    kept = [s for s in found.samples if "self" not in s.path.parts and s.path.name != "file.png"]
    assert len(kept) == n
    for sample in found.samples:
        if sample not in kept:
            with pytest.raises(UnusableSample, match="Too many levels of symbolic links"):
                read_bytes(sample.path)


def test_folders_nested_beyond_what_python_calls_itself_are_listed(tmp_path: Path) -> None:
    person(tmp_path)
    with nested(tmp_path / "faces" / "ann", "d", 1500), within(10, 100):
        assert len(CalibrationSet.from_path(tmp_path).samples) == 3


def test_a_folder_deeper_than_any_path_is_a_defined_error(tmp_path: Path) -> None:
    person(tmp_path)
    with nested(tmp_path / "faces" / "ann", "d" * 200, 25), pytest.raises(BadCalibration, match="File name too long"):
        CalibrationSet.from_path(tmp_path)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person(tmp_path)
    monkeypatch.setattr(listing, "MAX_SAMPLES", 1)
    with pytest.raises(BadCalibration, match="lists over 1 files"):
        CalibrationSet.from_path(tmp_path)
    (tmp_path / "m.csv").write_text("identity,modality,path\na,face,1.png\na,voice,1.wav\n")
    with pytest.raises(BadCalibration, match="lists over 1 files"):
        CalibrationSet.from_path(tmp_path / "m.csv")


@pytest.mark.parametrize("text", ["{0},face,1.png\n", "a,face,{0}\n", "a,{0},1.png\n"])
def test_cells_of_thousands_of_characters_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_text("identity,modality,path\n" + text.format("x" * 2000))
    with pytest.raises(BadCalibration, match="line 2 has a cell of 2000 characters; at most 1024 are read"):
        CalibrationSet.from_path(tmp_path / "m.csv")


def test_a_manifest_of_a_hundred_thousand_columns_is_refused(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(100_000))
    (tmp_path / "m.csv").write_text(f"identity,modality,path,{names}\n")
    with within(5, 200), pytest.raises(BadCalibration, match="has 100003 columns; at most 1000 are read"):
        CalibrationSet.from_path(tmp_path / "m.csv")


# Names


EVIL = "p\x1b[31m\n::error::\u202e\x9b2J\udcff"
SHOWN = r"p\x1b[31m\n::error::\u202e\x9b2J\xff"


def test_names_are_shown_with_escapes() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("Zoë, 李小龙, علی‌رضا") == "Zoë, 李小龙, علی‌رضا"
    assert str(BadCalibration(f"{EVIL} is wrong.", "Known:\n  a\n  b")) == f"{SHOWN} is wrong.\nKnown:\n  a\n  b"


@pytest.mark.parametrize("on_terminal", [False, True])
def test_notes_cannot_steer_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal, raising=False)
    progress = OnStderr()
    with progress.task("embedding", 2):
        progress.note(f"skipped face {EVIL}: empty file")
    said = capsys.readouterr().err
    assert f"skipped face {SHOWN}: empty file" in said
    assert EVIL not in said


def test_messages_about_a_set_cannot_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b'identity,modality,path\n"a\x1b[2J\n::error::b",face,1.png\nc,voice,1.wav\n')
    with pytest.raises(EncselError) as caught:
        CalibrationSet.from_path(tmp_path / "m.csv")
    assert r"a\x1b[2J\n::error::b" in str(caught.value)
    assert "\n" not in str(caught.value)


def odd_set(root: Path) -> Path:
    """Media of 6 people whose names are bytes that are no UTF-8, escapes and line ends."""
    for i in range(6):
        name = f"{i}{EVIL}".replace("/", "")
        for modality, write, suffix in (("faces", write_face, "png"), ("voices", write_voice, "wav")):
            folder = root / modality / name
            folder.mkdir(parents=True)
            for j in range(2):
                # Named so afterwards: libsndfile's reader of paths takes UTF-8 only.
                write(root.parent / f"1.{suffix}", 2 * i + j).rename(folder / f"{j}{EVIL}.{suffix}")
            (folder / f"bad{EVIL}.{suffix}").write_bytes(b"hello")
    return root


def odd_embeddings(root: Path) -> Path:
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    for modality in ("face", "voice"):
        (root / f"{modality}s").mkdir(parents=True)
        labels = np.repeat([f"{i}{EVIL}" for i in range(20)], 2)
        for name in (f"{modality}{EVIL}", "=cmd|' -C calc'!A0"):
            np.savez(root / f"{modality}s" / f"{name}.npz", embeddings=x, labels=labels)
    return root


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    try:
        odd_set(root / f"set{EVIL}")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    odd_embeddings(root / f"embedded{EVIL}")
    return root


ENVIRONMENTS = {"C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "UTF-8 mode": {"PYTHONUTF8": "1"},
                "C.UTF-8": {"LC_ALL": "C.UTF-8"}}  # fmt: skip


@pytest.mark.parametrize("environment", [
    "C", *(pytest.param(name, marks=pytest.mark.slow) for name in ("UTF-8 mode", "C.UTF-8"))])  # fmt: skip
@pytest.mark.parametrize(
    ("data", "form"),
    [
        ("set", "table"),
        *(pytest.param(data, form, marks=pytest.mark.slow) for data, form in (
            ("set", "json"), ("embedded", "csv"), ("embedded", "table"),
            *((data, form) for data in ("set", "embedded") for form in ("markdown", "github")))),
    ],
)  # fmt: skip
def test_a_set_of_odd_names_is_ranked_and_its_names_reach_nobody_raw(
    odd: Path, tmp_path: Path, environment: str, data: str, form: str
) -> None:
    encoders = ("--face", "pixels", "--voice", "ltas") if data == "set" else ()
    outputs = [tmp_path / f"o{EVIL}.{suffix}" for suffix in ("json", "csv", "md", "xml")]
    done = subprocess.run(
        [sys.executable, "-m", "encsel", "--no-config", "rank", os.fsencode(odd / f"{data}{EVIL}"), *encoders,
         "--min-identities", "2", "--max-skipped", "0.5", "--no-cache", "--format", form,
         *(word for path in outputs for word in ("-o", os.fsencode(path)))],
        capture_output=True, env={**os.environ, **ENVIRONMENTS[environment]}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr, *(path.read_bytes() for path in outputs)):
        assert not set(text) & {*range(10), *range(11, 32), 127, 0xFF}
        assert not [line for line in text.splitlines() if line.startswith(b"::error")]
    if form == "json":
        assert len(json.loads(done.stdout)["pairs"]) == 1
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
        assert {row["face"][:12] for row in rows} == {r"facep\x1b[31", "'=cmd|' -C c"}
        assert all(row["cka_debiased"].lstrip("-")[0].isdigit() for row in rows)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "a;=1", "-"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(cell: str) -> None:
    shown = str(inert(cell))
    assert shown.replace("'", "", 1) == cell
    assert all(part.startswith("'") or part == "a" for part in shown.split(";"))


@pytest.mark.parametrize("cell", [-1, -0.5, 1e-300, None, True, "clip@layer=3", "a-b", "a=b", "", "few; not above"])
def test_numbers_and_plain_text_are_left_alone(cell: object) -> None:
    assert inert(cell) is cell


# Found by fuzzing


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [">f8", "<f8", "<f2"])
def test_values_beyond_float32_are_skipped_without_a_warning(tmp_path: Path, kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(kind)
    x[1, 0], x[2, 2] = np.finfo(kind).max, -np.inf
    np.savez(tmp_path / "a.npz", embeddings=x, labels=np.arange(4))
    _, skipped = read_embeddings(tmp_path / "a.npz", "face")
    assert {one.reason for one in skipped} == {"non-finite values"}


@pytest.mark.filterwarnings("error")
def test_channels_of_opposite_infinity_are_not_finite() -> None:
    file = io.BytesIO()
    soundfile.write(file, [[np.inf, -np.inf]] * 4000, 16_000, "FLOAT", format="WAV")
    with pytest.raises(UnusableSample, match="non-finite audio"):
        decode_voice(file.getvalue())


def set_to(value: Any, *place: Any) -> Any:
    """A parameter: a function that puts the value in its place in a JSON value."""

    def change(content: Any) -> None:
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = value

    return pytest.param(change, id=f"{'.'.join(map(str, place))}={value!r:.20}")


@pytest.mark.parametrize("change", [
    set_to([[30.0, 1.0], [40.0]], "ranges", "root_cka"), set_to([], "ranges", "root_cka"), set_to(-1, "people", 0),
    set_to(-0.1, "shares", "pair"), set_to(1e300, "coefficients", 0, 0), set_to(1e300, "spread", 0),
    set_to(0.0, "tails", 0, 0), set_to([1.0], "from_cka", 1), set_to("a\x1b[2J", "name"),
])  # fmt: skip
def test_calibrated_cards_that_make_no_sense_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    content = json.loads((cards_folder() / "encsel-calibrated.json").read_bytes())
    del content["sha256"]
    change(content)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    (tmp_path / "card.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is malformed"):
        load_calibrated(tmp_path / "card.json")


RESULT: dict[str, Any] = {
    "schema": "encsel.rank/1", "scorer": "reference",
    "signature": {"encsel": "0.1.0", "data": {}, "encoders": {"face:a": 1, "voice:b": 1}, "regressions": {},
                  "metrics": {}, "options": {}, "libraries": {}},
    "pairs": [{"face": "a", "voice": "b", "predicted_eer": 0.3, "interval": [0.2, 0.4], "coverage": 0.9}],
}  # fmt: skip


RESULT["signature"]["id"] = digest(RESULT["signature"])


@pytest.mark.parametrize("change", [
    set_to(float("nan"), "pairs", 0, "predicted_eer"), set_to(10**400, "pairs", 0, "predicted_eer"),
    set_to(True, "pairs", 0, "predicted_eer"), set_to([0.1], "pairs", 0, "interval"), set_to(0, "pairs", 0, "coverage"),
    set_to(1, "pairs", 0, "coverage"), set_to([], "signature", "encoders"), set_to(None, "signature", "data"),
    set_to({}, "pairs"), set_to([3], "pairs"), set_to(["a"], "scorer"), set_to(3, "signature"),
])  # fmt: skip
def test_results_that_make_no_sense_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(json.dumps(RESULT))
    change(content)
    (tmp_path / "old.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is not a result of"):
        compare.read_result(tmp_path / "old.json")


def test_names_in_the_signature_of_a_result_are_shown_with_escapes(tmp_path: Path) -> None:
    found = []
    for i in range(2):
        content = json.loads(json.dumps(RESULT))
        content["pairs"][0]["face"] = EVIL
        content["signature"] |= {"encoders": {f"face:{EVIL}": i, "voice:b": 1}}
        content["signature"] |= {"metrics": {EVIL: i}, "options": {EVIL: i}}
        content["signature"]["id"] = digest({k: v for k, v in content["signature"].items() if k != "id"})
        (tmp_path / "a.json").write_text(json.dumps(content))
        found.append(compare.read_result(tmp_path / "a.json"))
    said = compare.compare_results(*found)
    assert said.changed_encoders == (f"face:{SHOWN}",)
    assert any(SHOWN in reason for reason in said.unlike)
    assert EVIL not in "".join(said.unlike)


@pytest.mark.parametrize("text", ["tool = 3\n", "[[tool]]\n"])
def test_tables_of_other_tools_are_no_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / config.SHARED).write_text(text)
    assert config.settings(tmp_path) is None


@pytest.mark.parametrize("name", [config.OWN, config.SHARED])
@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_settings_of_another_shape_are_no_bug(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="cannot be read"):
        config.settings(tmp_path)


# Many people


N_PEOPLE = 100_000
numbers_of_people = pytest.mark.parametrize(
    ("n_people", "seconds", "mib"),
    [(N_PEOPLE // 10, 10, 100), pytest.param(N_PEOPLE, 30, 600, marks=pytest.mark.slow)],
)


def manifest(path: Path, n_people: int) -> Path:
    lines = (f"id{i:06d},{m},{i}.{s}\n" for i in range(n_people) for m, s in (("face", "png"), ("voice", "wav")))
    path.write_text("identity,modality,path\n" + "".join(lines))
    return path


@numbers_of_people
def test_a_manifest_of_many_people_is_listed(tmp_path: Path, n_people: int, seconds: float, mib: float) -> None:
    path = manifest(tmp_path / "manifest.csv", n_people)
    with within(seconds, mib):
        found = CalibrationSet.from_path(path)
    assert (len(found.identities), len(found.samples)) == (n_people, 2 * n_people)


@pytest.mark.slow
def test_fifty_of_100_000_people_are_picked(tmp_path: Path) -> None:
    path = manifest(tmp_path / "manifest.csv", N_PEOPLE)
    with within(30, 600):
        few = CalibrationSet.from_path(path, SetOptions(identities=50, samples_per_identity=1))
    assert len(few.samples) == 100


@pytest.mark.slow
def test_folders_of_100_000_people_are_listed(tmp_path: Path) -> None:
    for modality, suffix in (("faces", "png"), ("voices", "wav")):
        for i in range(N_PEOPLE):
            folder = tmp_path / modality / f"id{i:06d}"
            folder.mkdir(parents=True)
            (folder / f"1.{suffix}").touch()
    with within(90, 800):
        assert len(CalibrationSet.from_path(tmp_path, SetOptions(identities=50)).identities) == 50
    shutil.rmtree(tmp_path)  # else a later run of the tests does, and takes minutes at its end


@numbers_of_people
def test_embeddings_of_many_people_are_read(tmp_path: Path, n_people: int, seconds: float, mib: float) -> None:
    x = np.random.default_rng(0).standard_normal((n_people, 4)).astype(np.float32)
    for side in ("face", "voice"):
        (tmp_path / f"{side}s").mkdir()
        np.savez(tmp_path / f"{side}s" / "a.npz", embeddings=x, labels=np.arange(n_people))
    with within(seconds, mib):
        assert len(CalibrationSet.from_path(tmp_path).identities) == n_people
    with within(seconds, mib):
        few = CalibrationSet.from_path(tmp_path, SetOptions(identities=50, samples_per_identity=1))
    assert len(few.identities) == 50
