"""Third parties' encoders: found through their entry point, used like encsel's own, and blamed by name when broken."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from media_samples import write_set
from plugins import ENCODER, ENCODER_WITH_WEIGHTS, write_plugin

from encsel.core import Runtime
from encsel.data.calibration_set import CalibrationSet
from encsel.embedding.embed import embed
from encsel.embedding.model_run import describe
from encsel.errors import EncoderFailed, UsageError
from encsel.loading.registry import checked_spec, encoder_families, open_encoders

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "face-moments"
version = "1.0"

[project.entry-points."encsel.encoders"]
moments = "face_moments.encoder:ENCODER"
"""


def run(*command, **options):
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which pip installed a package with one encoder."""
    source, target = tmp_path_factory.mktemp("face-moments"), tmp_path_factory.mktemp("packages")
    (source / "face_moments").mkdir()
    (source / "face_moments" / "__init__.py").touch()
    (source / "face_moments" / "encoder.py").write_text(ENCODER.format(name="moments"))
    (source / "pyproject.toml").write_text(PYPROJECT)
    quietly = ("--quiet", "--disable-pip-version-check", "--root-user-action", "ignore")
    alone = ("--no-deps", "--no-index", "--no-build-isolation")
    result = run("pip", "install", *quietly, *alone, "--target", str(target), str(source))
    assert result.returncode == 0, result.stderr
    return target


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Makes a plug-in visible to this process until the test ends."""

    def add(module, source):
        monkeypatch.syspath_prepend(write_plugin(tmp_path / module, module, source))
        importlib.invalidate_caches()

    encoder_families.cache_clear()
    before = set(sys.modules)
    yield add
    encoder_families.cache_clear()
    for module in set(sys.modules) - before:
        if module.startswith("plug_"):
            del sys.modules[module]


def test_installed_plugin_ranks_beside_the_encoders_of_encsel(installed, plug_in, call, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(installed)
    data = write_set(tmp_path / "set", n_identities=6, n_samples=2)
    options = ("--voice", "ltas", "--min-identities", "5", "--no-cache", "--quiet", "--format", "json")
    code, out, err = call("rank", data, *options)
    assert code == 0, err
    report = json.loads(out)
    assert {(e["name"], e["dim"]) for e in report["encoders"]} >= {("moments", 4), ("pixels", 1024), ("ltas", 257)}
    assert {p["face"] for p in report["pairs"]} >= {"moments", "pixels", "hog"}


def test_plugin_is_listed_and_shown_while_it_is_installed(plug_in, call):
    assert call("encoders", "show", "moments")[0] == 2
    encoder_families.cache_clear()
    plug_in("plug_moments", ENCODER.format(name="moments"))
    (mine,) = (e for e in json.loads(call("encoders", "list", "--format", "json")[1]) if e["name"] == "moments")
    assert (mine["modality"], mine["dim"], mine["licence"], mine["source"]) == ("face", 4, "MIT", "a test")
    assert "licence: MIT" in call("encoders", "show", "moments")[1]


BROKEN = {
    "does not import": (
        "import no_such_module",
        "does not import.*No module named 'no_such_module'",
    ),
    "fails on import": ("1 / 0", "does not import.*division by zero"),
    "ends the process on import": ("raise SystemExit(3)", "does not import.*3"),
    "lacks its encoder": ("OTHER = 1", "does not import.*has no attribute 'ENCODER'"),
    "is no encoder": ("ENCODER = 'face'", "is a str; it must be an encsel.core.EncoderFamily"),
    "takes a name of encsel": (ENCODER.format(name="pixels"), "has the name 'pixels', which is in use"),
    "has another modality": (ENCODER.format(name="odd").replace('"face"', '"speech"'), "has the modality 'speech'"),
    "has no dim": (ENCODER.format(name="odd").replace("dim=4", "dim=None"), "has dim None"),
    "has neither load nor open": (
        ENCODER.format(name="odd").replace(", load=lambda: embed", ""),
        "must give either load or open",
    ),
    "has both load and open": (
        ENCODER.format(name="odd").replace("load=", "open=lambda spec, runtime: (), load="),
        "must give either load or open",
    ),
    "has odd preprocessing": (
        ENCODER.format(name="odd").replace("version=1", "version=1, preprocessing={'size': (8, 8)}"),
        "describes its preprocessing 'size' by a tuple",
    ),
}


@pytest.mark.parametrize(("source", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_plugin_is_blamed_by_name(plug_in, source, message):
    plug_in("plug_broken", source)
    with pytest.raises(EncoderFailed, match=rf"^The encoder plug-in 'plug_broken' \(plug_broken:ENCODER\) {message}"):
        encoder_families()


def test_two_plugins_of_one_name_are_an_error(plug_in):
    plug_in("plug_one", ENCODER.format(name="moments"))
    plug_in("plug_two", ENCODER.format(name="moments"))
    with pytest.raises(EncoderFailed, match="has the name 'moments', which is in use"):
        encoder_families()


def test_what_a_plugin_prints_on_import_stays_off_stdout(plug_in, capsys):
    plug_in("plug_loud", f"print('hello')\n{ENCODER.format(name='loud')}")
    assert "loud" in [family.name for family in encoder_families()]
    assert capsys.readouterr() == ("", "hello\n")


@pytest.fixture
def projector(plug_in, tmp_path):
    """A plug-in whose weights, the text that names them opens."""
    plug_in("plug_projector", ENCODER_WITH_WEIGHTS)
    (tmp_path / "weights.npy").write_bytes(b"\x03")
    return f"projector:{tmp_path / 'weights.npy'}"


def test_plugin_with_weights_and_several_encoders_is_opened_and_run(projector, tmp_path):
    encoders = open_encoders(checked_spec(f"{projector}@layer=all", "face"), Runtime())
    found = embed(CalibrationSet.from_path(write_set(tmp_path / "set", n_identities=3)), encoders)
    assert found.failures == ()
    one, two = found.embeddings
    assert (one.name, two.name) == ("projector:weights.npy@layer=0", "projector:weights.npy@layer=1")
    assert two.vectors == pytest.approx(3 * one.vectors)
    assert two.provenance["weights"] == {"weights.npy": "03"}


def test_dtype_of_the_spec_goes_before_that_of_the_run(projector):
    def dtype(spec, **runtime):
        (encoder,) = open_encoders(checked_spec(spec, "face"), Runtime(**runtime))
        return describe(encoder)["preprocessing"]["dtype"]

    assert dtype(projector) == "float32"
    assert dtype(projector, dtype="bfloat16") == "bfloat16"
    assert dtype(f"{projector}@dtype=float16", dtype="bfloat16") == "float16"


def test_what_a_plugin_prints_while_it_opens_stays_off_stdout(projector, capsys):
    open_encoders(checked_spec(projector, "face"), Runtime())
    assert capsys.readouterr() == ("", "reading weights\n")


def test_weights_that_are_not_there_are_blamed_on_their_spec(projector):
    with pytest.raises(EncoderFailed, match=r"^The encoder projector:nowhere@layer=0: nowhere is not there\.$"):
        open_encoders(checked_spec("projector:nowhere@layer=0", "face"), Runtime())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("moments:some/model", "moments has no checkpoints. Leave out ':some/model'"),
        ("moments@layer=3", "moments takes no 'layer'. It takes: name"),
        ("moment", "No face encoder is named 'moment'. Did you mean 'moments'"),
    ],
)
def test_spec_that_does_not_fit_its_family_is_a_usage_error_before_anything_is_opened(plug_in, spec, message):
    plug_in("plug_moments", ENCODER.format(name="moments"))
    with pytest.raises(UsageError) as caught:
        checked_spec(spec, "face")
    assert message in str(caught.value)


def test_command_with_a_broken_plugin_exits_4_with_one_message(plug_in, call):
    plug_in("plug_broken", "1 / 0")
    code, out, err = call("encoders", "list")
    assert (code, out) == (4, "")
    (line,) = err.splitlines()
    assert line.startswith("encsel: The encoder plug-in 'plug_broken' (plug_broken:ENCODER) does not import")
    assert "division by zero" in line
    assert line.endswith(". Fix or uninstall it.")


def test_default_encoder_that_raises_is_a_failure_and_not_left_out(plug_in, call, tmp_path):
    source = ENCODER_WITH_WEIGHTS.replace(
        "    path = Path(spec.checkpoint)\n", "    raise ValueError('no such planet')\n", 1
    )
    plug_in("plug_projector", source)
    data = write_set(tmp_path / "set", n_identities=4)
    code, _, err = call("embed", data, "--output", tmp_path / "out", "--voice", "ltas", "--no-cache", "--offline")
    assert code == 4
    assert "The encoder projector: ValueError: no such planet" in err
    assert (tmp_path / "out" / "faces" / "pixels.npz").exists()
