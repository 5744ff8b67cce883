"""Whatever a file holds, encsel reads it or refuses it with a defined error, soon and in little memory.

One property per target, over damaged and invented inputs. The default run tries 20 inputs per target, `-m robust` 100,
always the same ones; `tests/fuzz.py` runs the same properties on inputs chosen by code coverage.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import json
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from encsel.cli import settings as config
from encsel.cli.rank import rank as rank_command
from encsel.core import SetOptions
from encsel.data.calibration_set import CalibrationSet
from encsel.data.embedding_files import read_embeddings
from encsel.data.media import decode_face, decode_voice
from encsel.errors import BadCalibration, UnusableSample, UsageError, printable
from encsel.gates import compare
from encsel.loading.spec import parse
from encsel.prediction.card import Estimate, estimate, load_calibrated
from encsel.prediction.evidence import FEATURES, Evidence
from encsel.regression import pair_tables as pairs
from encsel.regression.card import Prediction, load_geometric_card
from encsel.reports.comparison import section
from encsel.reports.tables import render_sections
from encsel.storage import documents as cardfile
from encsel.storage.documents import cards_folder
from encsel.storage.signature import digest

MAX_SECONDS, MAX_MIB = 5.0, 512
"""For one input: generous, for machines that do other work, and far under what any hazard of test_hostile.py takes."""

FOLDER = Path(tempfile.mkdtemp(prefix="encsel-fuzz-"))
"""Inputs that are read by path lie here, one at a time."""
tried = 0
"""Inputs that reached an examination, in this process."""
TARGETS: dict[str, tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]] = {}


def target(name: str, *inputs: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register an examination and the strategies of its arguments."""

    def register(examine: Callable[..., None]) -> Callable[..., None]:
        TARGETS[name] = examine, inputs
        return examine

    return register


@pytest.fixture(scope="module", autouse=True)
def _no_inputs_left() -> Iterator[None]:
    yield
    for path in sorted(FOLDER.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


@pytest.fixture(autouse=True)
def _peak_forgotten() -> None:
    # Not before every input: Linux goes over all memory to forget the peak.
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_bytes(b"5")


@contextmanager
def bounded() -> Iterator[None]:
    """Fail if the block warns, prints to stderr, or takes long or much memory."""
    global tried
    tried += 1
    shown, before, start = io.StringIO(), _peak_mib(), time.monotonic()
    stderr, sys.stderr = sys.stderr, shown
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
    finally:
        sys.stderr = stderr
    seconds, mib = time.monotonic() - start, _peak_mib() - before
    # Said in full: under atheris nothing rewrites assertions.
    assert not shown.getvalue(), shown.getvalue()
    assert not warned, [str(one) for one in warned]
    assert seconds < MAX_SECONDS, seconds
    assert mib < MAX_MIB, mib


def _peak_mib() -> float:
    """Most memory so far, where Linux tells it; else 0."""
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        return 0.0
    at = status.index(b"VmHWM:")
    return int(status[at + 6 : status.index(b"kB", at)]) / 1024


def put(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


@contextmanager
def shipped_cards_listed_once() -> Iterator[None]:
    """To list them, every shipped card is read: nine tenths of the time of an input."""
    with mock.patch.object(cardfile, "shipped", _listed_once):
        yield


_listed_once = functools.cache(cardfile.shipped)


# Inputs


WORDS = st.sampled_from(
    [
        "",
        "a",
        "é",
        "\x1b[31m",
        "\n",
        "\0",
        "'",
        '"',
        ",",
        ";",
        "=1+1",
        "../..",
        "~/x",
        "/",
        "\udcff",
        "‮",
        "9" * 400,
        "-0",
    ]
)
TEXTS = st.one_of(WORDS, st.text(max_size=12), WORDS.map(lambda w: (w * 1100)[:1100]))
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 255, 2**31 - 1, 2**31, 2**53 + 1, 2**63, 10**30, 10**400, 0.5, -0.5, 1e-320, 1e308]),
    st.integers(-3, 70_000), st.floats(),
)  # fmt: skip
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)), max_leaves=6,
)  # fmt: skip
FIELDS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
LIMITS = (0, 1, -1, 2**7, 2**15 - 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


@st.composite
def damaged(draw: Any, valid: tuple[bytes, ...], head: int = 256) -> bytes:
    """One of the contents with bytes changed, put in, taken out, doubled, or cut off; mostly near the beginning."""
    content = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 5))):
        if not content:
            break
        reach = len(content) if draw(st.booleans()) else min(len(content), head)
        at = draw(st.integers(0, reach - 1))
        match draw(st.sampled_from(("byte", "field", "field", "insert", "remove", "repeat", "cut"))):
            case "byte":
                content[at] = draw(st.integers(0, 255))
            case "field":
                form = draw(st.sampled_from(FIELDS))
                size = struct.calcsize(form)
                value = draw(st.sampled_from(LIMITS)) % (1 << 8 * size)
                content[at : at + size] = struct.pack(form, value)
            case "insert":
                content[at:at] = draw(st.binary(max_size=24))
            case "remove":
                del content[at : at + draw(st.integers(1, 64))]
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 200))] * draw(st.sampled_from((1, 2, 30)))
            case "cut":
                del content[at:]
    return bytes(content)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@st.composite
def altered(draw: Any, content: Any) -> Any:
    """The JSON value with some values inside replaced, taken out or renamed."""
    changed = copy.deepcopy(content)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.sampled_from(_places_of(content)))
        holder = changed
        try:
            for key in place[:-1]:
                holder = holder[key]
            old = holder[place[-1]]
        except (LookupError, TypeError):  # an alteration before has taken it away
            continue
        if not isinstance(holder, dict | list):
            continue
        match draw(st.sampled_from(("replace", "replace", "number", "remove", "rename", "repeat"))):
            case "replace":
                holder[place[-1]] = draw(JSON_VALUES)
            case "number":
                holder[place[-1]] = draw(NUMBERS)
            case "remove":
                del holder[place[-1]]
            case "rename" if isinstance(holder, dict):
                holder[draw(TEXTS)] = holder.pop(place[-1])
            case _:
                holder[place[-1]] = [old, old]
    return changed


_known_places: dict[int, list[tuple[Any, ...]]] = {}


def _places_of(content: Any) -> list[tuple[Any, ...]]:
    return _known_places.setdefault(id(content), list(places(content)))


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def json_files(*contents: Any) -> st.SearchStrategy[bytes]:
    whole = tuple(as_json(content) for content in contents)
    return st.one_of(
        st.one_of(*map(altered, contents)).map(as_json), damaged(whole, head=4096), JSON_VALUES.map(as_json),
        st.binary(max_size=64), st.sampled_from((b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"\xff\xfe{\0}\0")),
    )  # fmt: skip


# Manifests


CELLS = st.one_of(
    TEXTS,
    st.sampled_from(["ann", "bob", "face", "voice", "audio", "1.png", "a/../1.wav", "~/1.wav", "/etc/passwd", "."]),
)


@st.composite
def tables(draw: Any, header: tuple[str, ...], row: st.SearchStrategy[list[str]]) -> bytes:
    """A CSV of mostly the right shape."""
    names = list(header)
    if draw(st.booleans()):
        names.insert(draw(st.integers(0, len(names))), draw(TEXTS))
    lines = [names, *draw(st.lists(row, max_size=6))]
    quote = draw(st.booleans())
    text = "\n".join(",".join(f'"{c}"' if quote else c for c in line) for line in lines)
    return text.encode(draw(st.sampled_from(("utf-8", "utf-8", "utf-16", "latin-1"))), "replace")


MANIFEST = (
    b"\xef\xbb\xbfidentity,modality,path,sex\nann,face,a/1.png,f\nann,voice,1.wav,f\n"
    b"bob,image,2.png,\nbob,audio,2.wav,m\n"
)


@target("manifest",
    st.one_of(
        damaged((MANIFEST,)), st.binary(max_size=100),
        tables(("identity", "modality", "path", "sample"), st.lists(CELLS, min_size=3, max_size=5)),
        tables(("identity", "modality", "path"), st.tuples(CELLS, st.sampled_from(("face", "voice")), CELLS).map(list)),
    ),
    st.booleans(),
)  # fmt: skip
def examine_manifests(content: bytes, allow_outside: bool) -> None:
    path = put("manifest.csv", content)
    with bounded(), suppress(BadCalibration):
        found = CalibrationSet.from_path(path, SetOptions(allow_outside=allow_outside))
        assert all(s.identity and s.name for s in found.samples)
        if not allow_outside:
            assert all(".." not in s.path.parts and s.path.is_relative_to(FOLDER) for s in found.samples)


# Files of embeddings


VECTORS = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
LABELS = np.array(["ann", "bob", "ann", "Zoë", "cy", "bob"])


def file_of(write: Callable[[Any], Any]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def npy_bytes(array: Any) -> bytes:
    return file_of(lambda file: np.save(file, array, allow_pickle=True))


@st.composite
def headers(draw: Any) -> bytes:
    """An .npy whose header states any shape and type, with some bytes behind it."""
    shape = tuple(draw(st.lists(st.one_of(st.integers(-1, 7), st.sampled_from((2**31, 2**62, 2**70))), max_size=3)))
    kinds = ["<f4", ">f8", "<f2", "|i1", "<U3", "<U0", "|S2", "|V0", "|O", "<M8[s]", "<c8", [("a", "<f4"), ("b", "|O")],
             ("<f4", (1000, 1000)), "<U99999999", "nonsense", "|b1"]  # fmt: skip
    text = repr({"descr": draw(st.sampled_from(kinds)), "fortran_order": draw(st.booleans()), "shape": shape})
    version = draw(st.sampled_from(((1, 0), (2, 0), (3, 0), (9, 9))))
    form = "<H" if version == (1, 0) else "<I"
    head = text.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack(form, len(head)) + head + draw(st.binary(max_size=96))


NPZ = (
    file_of(lambda f: np.savez(f, embeddings=VECTORS, labels=LABELS)),
    file_of(lambda f: np.savez_compressed(f, embeddings=VECTORS, labels=np.arange(6), sex=np.array(list("fmfmfm")))),
    file_of(lambda f: np.savez(f, embeddings=np.array([{}]), labels=LABELS, encsel=np.array("{}"))),
)


@st.composite
def archives(draw: Any) -> bytes:
    """An .npz of any members, some larger or smaller than its directory states."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name given twice
        for name in draw(st.lists(st.sampled_from(("embeddings", "labels", "samples", "encsel", "x")), max_size=4)):
            inner = draw(
                st.one_of(
                    headers(), st.just(npy_bytes(VECTORS)), st.just(npy_bytes(LABELS)), damaged((npy_bytes(LABELS),)),
                    JSON_VALUES.map(lambda value: npy_bytes(np.array(json.dumps(value)))),
                )
            )  # fmt: skip
            kind = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
            archive.writestr(draw(st.sampled_from((name + ".npy", name, "../" + name + ".npy"))), inner, kind)
    content = bytearray(file.getvalue())
    if draw(st.booleans()) and (at := content.find(b"PK\x01\x02")) >= 0:
        where = at + draw(st.sampled_from((8, 10, 16, 20, 24, 28, 42)))
        content[where : where + 4] = struct.pack("<I", draw(st.sampled_from(LIMITS)) % 2**32)
    return bytes(content)


def examine_embeddings(path: Path) -> None:
    with bounded(), suppress(BadCalibration):
        found, _ = read_embeddings(path, "face")
        assert np.isfinite(found.vectors).all()
        assert len(found.vectors) == len(found.labels) == len(found.samples)
        assert "" not in found.labels


@target(
    "npz",
    st.one_of(damaged(NPZ), archives(), archives(), st.binary(max_size=64).map(lambda tail: b"PK\x03\x04" + tail)),
)
def examine_npz(content: bytes) -> None:
    examine_embeddings(put("a.npz", content))


NPY = (npy_bytes(VECTORS), npy_bytes(VECTORS.astype(">f8")), npy_bytes(np.asfortranarray(VECTORS)))
TABLE = b"identity,sample,sex\nann,1,f\nbob,1,m\nann,2,f\n\xc3\xa9,1,\ncy,1,\nbob,2,m\n"


@target(
    "npy",
    st.one_of(damaged(NPY), headers()),
    st.one_of(
        st.just(TABLE), damaged((TABLE,)), tables(("identity", "sample"), st.lists(CELLS, min_size=2, max_size=2))
    ),
)
def examine_npy(content: bytes, table: bytes) -> None:
    put("a.csv", table)
    examine_embeddings(put("a.npy", content))


SAFETENSORS = (
    safetensors.numpy.save({"embeddings": VECTORS, "labels": np.arange(6)}),
    safetensors.numpy.save({"embeddings": VECTORS.astype(np.float16), "labels": np.arange(6, dtype=np.uint8)}),
)


@st.composite
def tensors(draw: Any) -> bytes:
    """A .safetensors whose header states anything."""
    header = draw(altered(json.loads(SAFETENSORS[0][8 : 8 + struct.unpack("<Q", SAFETENSORS[0][:8])[0]])))
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + VECTORS.tobytes() + np.arange(6).tobytes()


@target("safetensors", st.one_of(damaged(SAFETENSORS), tensors()))
def examine_safetensors(content: bytes) -> None:
    (FOLDER / "b.csv").unlink(missing_ok=True)
    examine_embeddings(put("b.safetensors", content))


# Cards


def sealed(content: Any) -> bytes:
    """The card with a checksum that fits, whatever it holds."""
    if not isinstance(content, dict):
        return as_json(content)
    content = {key: value for key, value in content.items() if key != "sha256"}
    with suppress(ValueError):
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        content["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    return as_json(content)


CARD = json.loads((cards_folder() / "upadhyay2026.json").read_bytes())
CALIBRATED = json.loads((cards_folder() / "encsel-calibrated.json").read_bytes())
for _many in ("held_out", "gaps", "p_best"):
    CALIBRATED[_many] = CALIBRATED[_many][:1]
CALIBRATED["ranges"] = {name: CALIBRATED["ranges"][name][:2] for name in CALIBRATED["ranges"]}


@target("card", st.one_of(altered(CARD).map(sealed), altered(CARD).map(sealed), json_files(CARD)))
def examine_regression_cards(content: bytes) -> None:
    path = put("card.json", content)
    with shipped_cards_listed_once(), bounded(), suppress(UsageError):
        card = load_geometric_card(str(path))
        assert printable(card.name) == card.name
        found = card.apply({feature.name: 0.1 for feature in card.features})
        assert isinstance(found, Prediction)
        json.dumps((found.eer, found.raw, found.interval), allow_nan=False)


@target(
    "calibrated-card",
    st.one_of(altered(CALIBRATED).map(sealed), altered(CALIBRATED).map(sealed), json_files(CALIBRATED)),
)
def examine_calibrated_cards(content: bytes) -> None:
    path = put("card.json", content)
    errors = dict.fromkeys(("reference", "cca", "likelihood"), 0.1)
    evidence = Evidence(dict.fromkeys(FEATURES, 0.5), errors, cross_validated=None)  # type: ignore[arg-type]
    with shipped_cards_listed_once(), bounded(), suppress(UsageError):
        card = load_calibrated(path)
        found = estimate(card, evidence, 50, 8.0)
        assert isinstance(found, Estimate)
        json.dumps((found.eer, found.interval, found.distance, found.sd), allow_nan=False)


# Settings


OPTIONS = config.options_of(rank_command)
TOML_VALUES = st.one_of(
    st.sampled_from(["true", "0.35", "nan", "inf", "1e999", "9" * 30, "9" * 5000, "1979-05-27", '"a"', '"\\u0000"',
                     "[]", '["a", "b"]', '["a", 1]', "{a = 1}", "'../x'", '"\\u001b[31m"', "[" * 3000, "[[[[1]]]]"]),
    TEXTS.map(json.dumps),
)  # fmt: skip
TOML_LINES = st.one_of(
    st.tuples(st.sampled_from([*OPTIONS, *(name.replace("-", "_") for name in OPTIONS), "rank", "gates", "validate"]),
              TOML_VALUES).map(" = ".join),
    st.tuples(TEXTS.map(json.dumps), TOML_VALUES).map(" = ".join),
    st.sampled_from(["[gates]", "[rank]", "[[rank]]", "[validate]", "[tool]", "[tool.encsel]", "tool = 3", "tool = [1]",
                     "[tool.encsel.gates]", "a.b.c = 1", "#"]),
)  # fmt: skip
SETTINGS = (
    b'data = "calibration"\nface = ["clip", "hog"]\noffline = true\n[gates]\nmax-eer = 0.35\n[rank]\nseed = 1\n',
    b"[tool.encsel]\ndata = 'x'\n[tool.encsel.gates]\nmax-eer = 0.3\n",
)


@target(
    "settings",
    st.one_of(st.lists(TOML_LINES, max_size=6).map(lambda lines: "\n".join(lines).encode()), damaged(SETTINGS)),
    st.sampled_from((config.OWN, config.SHARED)),
)
def examine_settings(content: bytes, name: str) -> None:
    for other in (config.OWN, config.SHARED):
        (FOLDER / other).unlink(missing_ok=True)
    put(name, content)
    with bounded(), suppress(UsageError):
        found = config.settings(FOLDER)
        if found is not None:
            values = config.defaults(*found, rank_command)
            assert set(values) <= {option.name for option in OPTIONS.values()}


# Results and tables of pairs


SIGNATURE = {
    "encsel": "0.1.0", "data": {"layout": "embeddings", "sha256": "a" * 64},
    "regressions": {"encsel-calibrated": "c" * 64}, "metrics": {"cka_biased": 1},
    "options": {"seed": 0, "identities": None}, "libraries": {"numpy": "2.0"},
}  # fmt: skip


def signature_of(*encoders: str) -> dict[str, Any]:
    signature = {**SIGNATURE, "encoders": {name: {"sha256": name} for name in encoders}}
    return {**signature, "id": digest(signature)}


RANKED = {
    "schema": "encsel.rank/1", "scorer": "reference", "signature": signature_of("face:a", "voice:b", "voice:c"),
    "pairs": [{"face": "a", "voice": "b", "predicted_eer": 0.3, "interval": [0.2, 0.4], "coverage": 0.9},
              {"face": "a", "voice": "c", "predicted_eer": None, "interval": None, "coverage": 0.9}],
}  # fmt: skip
VALIDATED = {
    "schema": "encsel.validate/1", "scorer": "likelihood", "signature": signature_of("face:a", "face:c", "voice:b"),
    "calibration": {"n_identities": 50},
    "pairs": [
        {"face": face, "voice": "b", "rows_per_identity": 8, "columns": {"cka": 0.1, "id_mismatch": None},
         "measured": {"n_train": 40, "n_test": 10, "levels": {"identity": {
             name: {"eer": 0.31, "interval": [0.2, 0.4]} for name in ("reference", "likelihood")}}}}
        for face in ("a", "c")
    ],
}  # fmt: skip


@target("result", json_files(RANKED, VALIDATED), st.sampled_from((RANKED, VALIDATED)))
def examine_results(content: bytes, other: Any) -> None:
    old, new = put("old.json", content), put("new.json", as_json(other))
    with shipped_cards_listed_once(), bounded(), suppress(UsageError):
        before, after = compare.read_result(old), compare.read_result(new)
        for one, two in ((before, after), (after, before)):
            found = compare.compare_results(one, two, compare.card_of(two))
            json.dumps([(c.old, c.new, c.change, c.interval) for c in found.changes], allow_nan=False)
            text = render_sections([section(found)], "markdown")
            assert "\x1b" not in text, text


PAIRS = (
    (cards_folder() / "pairs_voxceleb1.csv").read_bytes(),
    b"face_encoder,voice_encoder,n_identities,eer,cka\na,b,50,0.3,0.1\na,c,50,0.2,0.2\nd,b,50,0.4,0.05\n",
)
PAIR_CELLS = st.one_of(st.sampled_from(["a", "b", "50", "0.3", "nan", "1e999", "-1", "1_0"]), TEXTS)


@target("pairs",
    st.one_of(
        st.tuples(st.just("pairs.csv"), st.one_of(
            damaged(PAIRS), tables(pairs.REQUIRED_COLUMNS, st.lists(PAIR_CELLS, min_size=4, max_size=5)))),
        st.tuples(st.just("pairs.json"), json_files(VALIDATED)),
    )
)  # fmt: skip
def examine_tables_of_pairs(file: tuple[str, bytes]) -> None:
    path = put(*file)
    with bounded(), suppress(UsageError):
        table = pairs.read_pairs([path])
        assert ((table.eer >= 0) & (table.eer <= 1)).all()
        assert all(np.isfinite(column).all() for column in table.columns.values())


# Media


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (18, 20, 3), dtype=np.uint8)
    return file_of(lambda file: PIL.Image.fromarray(pixels).convert(mode).save(file, kind, **options))


IMAGES = (
    picture("PNG"), picture("PNG", "P", transparency=3), picture("PNG", "LA"), picture("PNG", "I;16"),
    picture("JPEG"), picture("JPEG", progressive=True), picture("JPEG", "CMYK"), picture("BMP"), picture("BMP", "P"),
    picture("WEBP"), picture("WEBP", "RGBA", lossless=True), picture("TIFF"), picture("TIFF", "F"),
    picture("TIFF", compression="tiff_lzw"), picture("TIFF", compression="tiff_adobe_deflate"),
    picture("TIFF", "1", compression="group4"), picture("GIF"), picture("PPM"), picture("PPM", "L"),
    b"P3 16 16 255\n" + b"1 2 3 " * 256, b"P1 16 16\n" + b"01" * 128, b"P6 16 16 99\n" + bytes(768),
    picture("PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
)  # fmt: skip


@target("image", st.one_of(damaged(IMAGES, head=64), st.binary(max_size=64)))
def examine_images(content: bytes) -> None:
    with bounded(), suppress(UnusableSample):
        found = decode_face(content)
        assert (found.dtype, found.shape[2:]) == (np.uint8, (3,))


def sound(kind: str, subtype: str | None = None, rate: int = 16_000, n_channels: int = 1) -> bytes:
    frames = 0.1 * np.random.default_rng(0).standard_normal((rate // 8, n_channels))
    return file_of(lambda file: soundfile.write(file, frames, rate, format=kind, subtype=subtype))


@functools.cache
def sounds() -> tuple[bytes, ...]:
    kinds = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_24"), ("FLAC", "PCM_16"),
             ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"),
             ("AIFF", "FLOAT"))  # fmt: skip
    stereo, three = sound("WAV", "PCM_U8", 8000, 2), sound("FLAC", "PCM_24", 48_000, 3)
    return *(sound(*kind) for kind in kinds if soundfile.check_format(*kind)), stereo, three


@target("audio", st.one_of(damaged(sounds(), head=64), st.binary(max_size=64)))
@example(file_of(lambda file: soundfile.write(file, [[np.inf, -np.inf]] * 4000, 16_000, "FLOAT", format="WAV")))
def examine_sounds(content: bytes) -> None:
    with bounded(), suppress(UnusableSample):
        found = decode_voice(content)
        assert (found.dtype, found.ndim) == (np.float32, 1)
        assert len(found) <= 80_000
        assert np.isfinite(found).all()


# Names of encoders


SPEC_PARTS = st.sampled_from(
    ["clip", ":", "@", "=", ",", "name", "layer", "dtype", "float32", "all", "last", "3", "a/b", "revision", "..", "/",
     "\\", " ", "\0", "\x1b", "\n", "=cmd|", "9" * 30, "é", "\udcff"]
)  # fmt: skip


@target("encoder-name", st.one_of(st.lists(SPEC_PARTS, max_size=10).map("".join), st.text(max_size=30)))
@example("clip@layer=" + "9" * 5000)
@example("clip@name=" + "é" * 150)
def examine_names_of_encoders(text: str) -> None:
    with bounded(), suppress(UsageError):
        found = parse(text)
        assert parse(str(found)) == found
        assert "/" not in found.name
        assert printable(found.name) == found.name


# Run


def property_of(name: str, n_inputs: int = 1) -> Callable[[], None]:
    """The examination of a target as a test of Hypothesis over so many inputs, always the same."""
    examine, inputs = TARGETS[name]
    few = settings(
        max_examples=n_inputs, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    return few(given(*inputs)(examine))


@pytest.mark.parametrize("n_inputs", [20, pytest.param(100, marks=pytest.mark.robust)])
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_and_invented_inputs_give_a_result_or_a_defined_error(name: str, n_inputs: int) -> None:
    property_of(name, n_inputs)()
