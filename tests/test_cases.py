"""Inputs of public bug reports, made by the scripts beside the checkout, through the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from encsel.data.embedding_files import read_embeddings
from encsel.data.media import decode_face, decode_voice

CASES = Path(__file__).parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the checkout")


def embed(root: Path, call, *options: object, data: Path | None = None) -> tuple[int, str]:
    """Exit code of `encsel embed` with the classical encoders, and what it said."""
    code, out, err = call(
        "embed", data or root, "--face", "pixels", "--voice", "ltas", "-o", root.parent / "embedded", *options
    )
    return code, out + err


def n_rows(root: Path, modality: str) -> int:
    name = {"face": "faces/pixels.npz", "voice": "voices/ltas.npz"}[modality]
    return len(read_embeddings(root.parent / "embedded" / name, modality)[0].vectors)


def case_01_flac_unknown_length(root: Path, call) -> None:
    code, said = embed(root, call)
    assert (code, n_rows(root, "voice")) == (0, 8), said
    for path in (root / "voices").rglob("*.flac"):
        content = bytearray(path.read_bytes())
        content[22:26] = (24_000).to_bytes(4, "big")
        np.testing.assert_array_equal(decode_voice(path.read_bytes()), decode_voice(bytes(content)))


def case_03_ogg_flac(root: Path, call) -> None:
    code, said = embed(root, call)
    assert code == 3
    assert "Ogg with FLAC inside needs converting: ffmpeg -i CLIP.ogg -ac 1 -ar 16000 CLIP.wav" in said
    assert embed(root, call, "--ffmpeg")[0] == 0
    assert n_rows(root, "voice") == 8


def case_05_media_under_another_name(root: Path, call) -> None:
    assert embed(root, call)[0] == 3
    kinds = ("MP4 (such as m4a)", "AAC (ADTS)", "WebM or Matroska", "ASF (such as wma)")
    reasons = []
    for path in sorted((root / "voices").rglob("*.*")):
        with pytest.raises(Exception, match=r"needs converting: ffmpeg -i CLIP") as caught:
            decode_voice(path.read_bytes(), path.suffix)
        reasons.append(str(caught.value).partition(" needs")[0])
    assert Counter(reasons) == dict.fromkeys(kinds, 2)
    assert embed(root, call, "--ffmpeg")[0] == 0
    assert n_rows(root, "voice") == 8


def case_08_silence_first(root: Path, call) -> None:
    code, said = embed(root, call)
    assert (code, n_rows(root, "voice")) == (0, 8), said
    assert {len(decode_voice(path.read_bytes())) for path in (root / "voices").rglob("0.wav")} == {64_000}


def case_09_png_large_profile(root: Path, call) -> None:
    code, said = embed(root, call)
    assert (code, n_rows(root, "face")) == (0, 8), said


def case_11_sixteen_bit_container(root: Path, call) -> None:
    code, said = embed(root, call)
    assert (code, n_rows(root, "face")) == (0, 8), said
    for path in (root / "faces").rglob("*.png"):
        np.testing.assert_array_equal(decode_face(path.read_bytes())[..., 0], np.asarray(PIL.Image.open(path)))


def case_12_jpeg_without_end_marker(root: Path, call) -> None:
    code, said = embed(root, call)
    assert (code, n_rows(root, "face")) == (0, 8), said
    for path in (root / "faces").rglob("*.jpg"):
        content = path.read_bytes()
        np.testing.assert_array_equal(decode_face(content), decode_face(content + b"\xff\xd9"))


def case_13_pointers_in_place_of_media(root: Path, call) -> None:
    code, said = embed(root, call)
    assert code == 3
    assert "a Git LFS pointer, not the file itself: run git lfs pull" in said


def case_14_suffixes_that_can_be_decoded(root: Path, call) -> None:
    assert embed(root, call)[0] == 0
    assert (n_rows(root, "face"), n_rows(root, "voice")) == (8, 8)
    assert embed(root, call, data=root / "manifest-of-the-same-files.csv")[0] == 0
    assert (n_rows(root, "face"), n_rows(root, "voice")) == (8, 8)


@pytest.mark.parametrize(
    "check", [f for name, f in sorted(globals().items()) if name.startswith("case_")], ids=lambda f: f.__name__[5:]
)
def test_case(check, tmp_path: Path, call) -> None:
    folder = next(CASES.glob(f"{check.__name__[5:7]}-*"))
    if "ffmpeg" in (folder / "make.py").read_text() and not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg on this machine")
    subprocess.run([sys.executable, folder / "make.py", tmp_path / "input"], check=True, capture_output=True)
    check(tmp_path / "input", call)
