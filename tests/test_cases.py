"""Inputs from public bug reports of people who do this job, and what is right for each."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from encsel.data.embedding_files import read_embeddings
from encsel.data.media import decode_face, decode_voice

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
pytestmark = [
    pytest.mark.robust,
    pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the checkout"),
]

# The cases name a module by its place in encsel 0.1.
SHIM = """
import sys, types
from encsel.loading.registry import encoder_families
sys.modules['encsel.registry'] = old = types.ModuleType('encsel.registry')
old.encoder_families = lambda: {family.name: family for family in encoder_families()}
"""


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


def case_13_pointers(root: Path, call) -> None:
    pointer = "a Git LFS pointer, not the file itself: run git lfs pull"
    code, _, err = call("rank", root / "emb")
    assert (code, pointer in err) == (3, True)
    code, said = embed(root, call)
    assert (code, pointer in said) == (3, True)


def case_14_suffixes_that_can_be_decoded(root: Path, call) -> None:
    assert embed(root, call)[0] == 0
    assert (n_rows(root, "face"), n_rows(root, "voice")) == (8, 8)
    assert embed(root, call, data=root / "manifest-of-the-same-files.csv")[0] == 0
    assert (n_rows(root, "face"), n_rows(root, "voice")) == (8, 8)


def case_15_vox1_face_recordings(root: Path, call) -> None:
    encoders = "--face", "pixels", "--voice", "ltas"
    code, out, _ = call("validate", root, *encoders, "--only", "recordings", "--format", "json")
    assert code == 0
    assert json.loads(out)["pairs"][0]["recordings"]["n_people"] == 32
    made = root.parent / "embedded"
    assert call("embed", root, *encoders, "-o", made)[0] == 0
    sessions = [set(np.load(path)["attribute.session"].tolist()) for path in sorted(made.glob("*s/*.npz"))]
    assert sessions[0] == sessions[1]
    assert len(sessions[0]) == 64


def case_16_vox1_names_decomposed(root: Path, call) -> None:
    code, out, err = call("rank", root, "--face", "pixels", "--voice", "ltas", "--format", "json")
    assert code == 0
    assert json.loads(out)["calibration"]["n_identities"] == 32
    assert "left out" not in err


def case_18_nas_thumbnails(root: Path, call) -> None:
    code, out, _ = call("embed", root, "--face", "hog", "--voice", "ltas", "-o", root.parent / "embedded")
    assert code == 0
    assert "hog.npz: 8 x" in out


def case_20_voxceleb2_as_downloaded(root: Path, call) -> None:
    code, _, err = call("rank", root)
    assert code == 3
    for words in ("looks like VoxCeleb2", "dev/aac/ID/VIDEO/*.m4a", "ffmpeg -i", "ROOT/voices/ID", "manifest"):
        assert words in err


def case_21_manifest_backslashes(root: Path, call) -> None:
    code, out, _ = call("embed", root, "--face", "pixels", "--voice", "ltas", "-o", root.parent / "embedded")
    assert code == 0
    assert "ltas.npz: 8 x" in out


def case_23_ids_that_became_floats(root: Path, call) -> None:
    code, _, err = call("rank", root, "--format", "csv")
    assert code == 3
    assert "35 of them differ only in a trailing .0 (numbers read as decimals)" in err


def case_24_embeddings_of_another_kind_beside(root: Path, call) -> None:
    code, out, err = call("rank", root, "--format", "csv")
    assert code == 0
    assert "clip,ecapa" in out
    assert "Other files and folders are not used: voices/wavlm.pt; save arrays embeddings and labels" in err
    for path in (root / "voices/ecapa.npz", root / "faces/clip.npz"):
        path.rename(path.with_suffix(".pt"))
        code, _, err = call("rank", root)
        assert (code, "voices/wavlm.pt" in err) == (3, True)
    assert "faces/clip.pt" in err


def case_25_safetensors_bfloat16(root: Path, call) -> None:
    from safetensors.torch import load_file

    path = root / "faces/x.safetensors"
    assert call("rank", root)[0] == 0
    rows, stored = read_embeddings(path, "face")[0], load_file(path)["embeddings"].float().numpy()
    assert {row.tobytes() for row in rows.vectors} == {row.tobytes() for row in stored}


def case_26_labels_as_objects(root: Path, call) -> None:
    code, _, err = call("rank", root)
    assert code == 3
    assert "'labels' is an array of Python objects" in err
    assert "labels.astype(str)" in err


def case_28_no_home(root: Path, call) -> None:
    lacking = ("HOME", "ENCSEL_CACHE", "ENCSEL_WEIGHTS", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in lacking}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "nobody.py", *words]
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)

    rank = ("rank", ".", "--face", "pixels", "--voice", "ltas", "--format", "csv")
    no_place = "There is no folder for the cache: give one with --cache or $ENCSEL_CACHE."
    done = run(*rank, "--face", "arcface:nowhere.onnx", "--no-cache")
    assert (done.returncode, "pixels,ltas" in done.stdout) == (4, True)
    assert "arcface:nowhere.onnx failed" in done.stderr
    done = run(*rank)
    assert (done.returncode, "pixels,ltas" in done.stdout) == (0, True)
    assert no_place in done.stderr
    done = run("cache")
    assert (done.returncode, done.stderr) == (2, f"encsel: {no_place}\n")


def case_30_terminal_without_utf8(root: Path, call) -> None:
    for encoding in ("latin-1", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-m", "encsel", "study"], env=environment, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "-----" in done.stdout.decode("ascii")


def case_32_windows_without_fcntl(root: Path, call) -> None:
    command = [sys.executable, "windows.py", "rank", ".", "--face", "pixels", "--voice", "ltas", "--format", "csv"]
    environment = {**os.environ, "ENCSEL_CACHE": str(root.parent / "cache")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert (done.returncode, "pixels,ltas" in done.stdout) == (0, True), done.stderr


def case_33_lora_adapter_ignored(root: Path, call) -> None:
    faces = ("--face", f"clip:{root / 'base'}", "--face", f"clip:{root / 'tuned'}")
    code, _, err = call("embed", root, *faces, "--voice", "ltas", "--offline", "-o", f"{root}-embedded")
    assert code == 4
    assert "adapter_config.json" in err
    assert "merge_and_unload" in err
    assert [p.stem for p in Path(f"{root}-embedded", "faces").iterdir()] == ["clip-base"]


def embedded_with(face: str, root: Path, call) -> tuple[int, str, np.ndarray | None]:
    """Exit code of `encsel embed` with that face encoder, what it said, and the vectors."""
    made = root.parent / "embedded" / face.partition(":")[0]
    code, out, err = call("embed", root, "--face", f"{face}@name=x", "--voice", "ltas", "-o", made)
    path = made / "faces" / "x.npz"
    return code, out + err, read_embeddings(path, "face")[0].vectors if path.exists() else None


def case_35_voice_checkpoint_without_extractor(root: Path, call) -> None:
    code, said = embed(root, call, "--voice", f"wav2vec2:{root / 'checkpoint-500'}", "--offline")
    assert code == 4
    words = "checkpoint-500 has no preprocessor_config.json, which defines how samples are prepared. Copy that of the"
    assert words in said
    assert "Fetch the checkpoint again" not in said


def case_37_gated_checkpoint(root: Path, call) -> None:
    hub = subprocess.Popen([sys.executable, root / "hub.py"])
    try:
        wait_for(18497)
        command = [sys.executable, "-m", "encsel", "embed", root, "--face", "clip:acme/face", "--voice", "ltas"]
        environment = {**os.environ, "HF_HOME": str(root / "hf"), "HF_ENDPOINT": "http://127.0.0.1:18497"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        done = subprocess.run([*command, "-o", f"{root}-embedded"], env=environment, capture_output=True, text=True)
    finally:
        hub.kill()
        hub.wait()
    assert done.returncode == 4
    assert "acme/face is gated: accept its terms at http://127.0.0.1:18497/acme/face, then log in" in done.stderr


def wait_for(port: int) -> None:
    """Return when something listens on a port of this machine."""
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def case_40_onnx_output_of_four_axes(root: Path, call) -> None:
    for family in ("arcface", "onnx"):
        code, said, vectors = embedded_with(f"{family}:{root}/four.onnx", root, call)
        assert (code, vectors.shape) == (0, (8, 16)), said


def case_41_onnx_in_half_precision(root: Path, call) -> None:
    code, said, vectors = embedded_with(f"arcface:{root}/half.onnx", root, call)
    assert (code, vectors) == (4, None)
    assert "half.onnx takes float16; float32 input is needed. Convert it with keep_io_types=True" in said
    code, said, vectors = embedded_with(f"onnx:{root}/half.onnx", root, call)
    assert (code, vectors.shape) == (0, (8, 16)), said


def case_42_gw_at_250_people(root: Path, call) -> None:
    source = (root / "gw.py").read_text().replace("encsel.metrics.gromov_wasserstein", "encsel.metrics.transport")
    found = {}
    exec(source, {"print": lambda n, distance: found.update({n: distance.value})})
    assert found[250] == pytest.approx(0.0767, abs=2e-4)
    assert found[251] == pytest.approx(found[250], rel=0.02)


@pytest.mark.parametrize(
    "check", [f for name, f in sorted(globals().items()) if name.startswith("case_")], ids=lambda f: f.__name__[5:]
)
def test_case(check, tmp_path, call):
    (folder,) = CASES.glob(f"{check.__name__[5:7]}-*")
    program = (folder / "make.py").read_text()
    if "ffmpeg" in program and not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg on this machine")
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "sitecustomize.py").write_text(SHIM if "encsel.registry" in program else "")
    paths = os.pathsep.join([str(tmp_path / "shim"), str(Path(__file__).parents[1])])
    command = [sys.executable, str(folder / "make.py"), str(tmp_path / "input")]
    made = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    check(tmp_path / "input", call)
