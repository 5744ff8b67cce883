"""Systems and environments that the machine of the tests is not: Windows, Macs with a GPU, users without a home.

`windows/sitecustomize.py` takes from Python what it lacks on Windows. Which libraries are loaded still depends on
sys.platform, which nothing here changes.
"""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from media_samples import write_set
from plugins import ENCODER, write_plugin

import encsel
from encsel.core import Runtime
from encsel.embedding.embed import Embedded
from encsel.embedding.prepare import _geometry_device
from encsel.errors import UsageError
from encsel.loading.hub import torch_device
from encsel.loading.registry import encoder_family
from encsel.storage import files, streams
from encsel.storage.cache import cache_root
from encsel.storage.files import locked, write_private

WINDOWS = Path(__file__).parent / "windows"
NO_PLACE = Path("/proc/nobody")
"""Nobody can write here, root included."""
MAIN = "from encsel.cli import main\nmain()\n"


def run(*words: object, before: str = "", paths: tuple[Path, ...] = (), home: object = NO_PLACE, **options):
    """`encsel WORDS...` behind some lines of Python, in a process without the caller's folders: its result."""
    lacking = ("HOME", "ENCSEL_CACHE", "ENCSEL_WEIGHTS", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in lacking}
    variables = kept | {"PYTHONPATH": os.pathsep.join([*map(str, paths), str(Path(encsel.__file__).parents[1])])}
    variables |= {} if home is None else {"HOME": str(home)}
    variables |= options.pop("variables", {})
    command = [sys.executable, "-P", "-c", before + MAIN, *map(str, words)]
    done = subprocess.run(command, env=variables, capture_output=True, timeout=120, **options)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("media"), n_identities=30, n_samples=2)


# --- Windows


def test_every_kind_of_command_runs_without_posix(media, tmp_path):
    plugin = write_plugin(tmp_path / "packages", "moments", ENCODER.format(name="moments"))  # runs in a worker
    options = {"paths": (WINDOWS, plugin), "home": tmp_path, "variables": {"ENCSEL_CACHE": str(tmp_path / "cache")}}
    assert run("--version", **options).stdout.startswith(b"encsel ")
    assert b"REGRESSIONS" in run("study", **options).stdout
    rank = ("rank", media, "--face", "pixels", "--face", "moments", "--voice", "ltas", "--format", "json")
    results = [json.loads(done.stdout) for done in (run(*rank, **options), run(*rank, "--quiet", **options))]
    assert results[0]["signature"] == results[1]["signature"]
    assert {path.suffix for path in (tmp_path / "cache").glob("*/*")} >= {".npz", ".json"}
    assert b"Removed 180 vectors" in run("cache", "purge", "--yes", **options).stdout
    assert not (tmp_path / "cache").exists()


@pytest.mark.robust
@pytest.mark.parametrize("words", [
    ("validate", "SET", "--face", "pixels", "--voice", "ltas", "--report", "OUT", "--scores", "OUT/scores", "-q"),
    ("embed", "SET", "--face", "pixels", "--voice", "ltas", "-o", "OUT"), ("demo", "-o", "OUT"), ("plan",),
    ("encoders", "list"), ("encoders", "show", "clip"),
], ids=" ".join)  # fmt: skip
def test_other_commands_run_without_posix(media, tmp_path, words):
    places = {"SET": str(media), "OUT": str(tmp_path / "out")}
    words = [word.replace("OUT", places["OUT"]).replace("SET", places["SET"]) for word in words]
    assert run(*words, paths=(WINDOWS,), home=tmp_path).returncode == 0


HANGS = """
import encsel.cli.program, sys, time

def hang(interruption):
    while True:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass

encsel.cli.program.run = hang
"""


@pytest.mark.usefixtures("interruptible")
def test_interrupts_end_a_run_that_hangs_where_only_sockets_can_be_waited_for():
    paths = os.pathsep.join([str(WINDOWS), str(Path(encsel.__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS + MAIN], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(2):
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "encsel: Interrupted.\n"
    assert process.returncode == 5


def on_windows(monkeypatch, module) -> None:
    """Let a module take this system for Windows; pathlib cannot."""
    monkeypatch.setattr(module, "os", SimpleNamespace(**{**vars(os), "name": "nt"}))


def test_a_file_that_another_process_reads_is_replaced_when_it_has_been_read(monkeypatch, tmp_path):
    on_windows(monkeypatch, files)
    replace, n_tries = Path.replace, iter(range(9))

    def busy(temporary: Path, path: Path) -> Path:
        assert not any(p.resolve() == temporary for p in Path("/proc/self/fd").iterdir()), "renamed while open"
        if next(n_tries) < 2:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        return replace(temporary, path)

    monkeypatch.setattr(Path, "replace", busy)
    with locked(tmp_path):
        write_private(tmp_path / "a", b"content")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {".encsel-lock": b"", "a": b"content"}


def test_a_pipe_without_a_reader_is_an_invalid_argument_on_windows(monkeypatch, tmp_path):
    class Gone(io.RawIOBase):
        def write(self, data: object) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

    errors = []
    for name in ("posix", "nt"):
        monkeypatch.setattr(streams, "os", SimpleNamespace(**{**vars(os), "name": name}))
        with (tmp_path / "file").open("wb") as file:
            gone = Gone()
            gone.fileno = file.fileno
            raw = streams._Raw(sys.stdout, gone)
            assert raw.write(b"text") == 4
            errors.append(raw.error and raw.error.errno)
    assert errors == [errno.EINVAL, None]


def test_text_is_read_and_written_in_a_stated_encoding():
    takes_text = {"open", "fdopen", "read_text", "write_text", "TextIOWrapper", "NamedTemporaryFile"}
    binary = {"os.open", "PIL.Image.open", "archive.open"}
    for path in Path(encsel.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and (name := ast.unparse(call.func)) not in binary:
                stated = [a.value for a in call.args if isinstance(a, ast.Constant)]
                stated += [keyword.arg for keyword in call.keywords]
                is_stated = {"encoding", "rb", "wb", "ascii", "utf-8", "utf-8-sig"} & {*map(str, stated)}
                assert name.split(".")[-1] not in takes_text or is_stated, f"{path}:{call.lineno}"


# --- devices


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "device"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_cuda_else_mps_else_the_cpu(monkeypatch, has_cuda, has_mps, device):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert torch_device("auto") == torch.device(device)


def test_geometry_is_in_float64_which_only_cuda_and_the_cpu_have():
    pytest.importorskip("torch")

    def of(device: str, on_gpu: bool = False) -> str:
        return _geometry_device(Runtime(device=device), Embedded((), (), "", (), on_gpu))

    assert [of("mps"), of("mps:0"), of("xpu"), of("cpu")] == ["cpu"] * 4
    assert [of("auto"), of("auto", on_gpu=True), of("cuda:1")] == ["cpu", "cuda", "cuda:1"]


@pytest.mark.parametrize("device", ["gpu", "CUDA", "cuda:x", "cuda:", "cuda1", "meta", ""])
def test_a_device_of_no_such_name_is_a_usage_error_that_names_the_others(call, monkeypatch, tmp_path, device):
    monkeypatch.setitem(sys.modules, "torch", None)
    for words in (("rank",), ("validate",), ("embed", "-o", tmp_path / "out")):
        code, _, err = call(*words, tmp_path / "absent", "--device", device)
        assert code == 2
        assert f"Unknown device {device!r}. Choose auto, cpu, cuda, mps, xpu" in err
    with pytest.raises(UsageError, match="Unknown device"):
        encsel.rank(tmp_path / "absent", device=device)


def test_a_device_that_is_not_there_is_refused_before_the_set_is_read(call, tmp_path):
    for words in (("rank",), ("validate",), ("embed", "-o", tmp_path / "out")):
        code, _, err = call(*words, tmp_path / "absent", "--device", "cuda:99")
        assert code == 4
        assert "The device 'cuda:99' cannot be used" in err or "torch does not load" in err


# --- environments

NOTHING = """
import os, pwd, sys, tempfile

def nobody(uid):
    raise KeyError(uid)

pwd.getpwuid = nobody  # as for a uid that is not in /etc/passwd
tempfile._candidate_tempdir_list = lambda: []
os.rmdir(os.getcwd())
"""
CHOICE = ("SET", "--face", "pixels", "--voice", "ltas")
ENDS = {
    ("--version",): (0, ""),
    ("rank", "--help"): (0, ""),
    ("study",): (0, ""),
    ("plan",): (0, ""),
    ("encoders", "list"): (0, ""),
    ("encoders", "show", "arcface"): (0, ""),
    ("cache",): (2, "There is no folder for the cache"),
    ("cache", "purge", "--yes"): (2, "There is no folder for the cache"),
    ("rank", *CHOICE, "--format", "csv"): (0, "There is no folder for the cache"),
    ("validate", *CHOICE, "--only", "matching"): (0, "There is no folder for the cache"),
    ("validate", *CHOICE, "--only", "matching", "--report", "OUT"): (2, "set the MPLCONFIGDIR environment variable"),
    ("embed", *CHOICE, "-o", "OUT"): (0, "There is no folder for the cache"),
    ("embed", *CHOICE, "-o", "relative"): (2, "relative/faces/pixels.npz cannot be written"),
    ("rank", *CHOICE, "-o", "r.csv"): (2, "r.csv cannot be written"),
    ("demo", "-o", "OUT", "-q"): (2, "set the MPLCONFIGDIR environment variable"),
    ("demo",): (2, "The set cannot be written"),
    ("demo", "-o", "relative"): (2, "The set cannot be written"),
}  # fmt: skip
SHORT = [("encoders", "list"), ("cache",), ("rank", *CHOICE, "--format", "csv")]


@pytest.mark.parametrize(
    "words", [w if w in SHORT else pytest.param(w, marks=pytest.mark.robust) for w in ENDS], ids=" ".join
)
def test_no_home_no_user_no_temporary_folder_no_current_folder_and_ascii(media, tmp_path, words):
    (tmp_path / "gone").mkdir()
    line = [w.replace("OUT", str(tmp_path / "out")).replace("SET", str(media)) for w in words]
    lacking = {"PYTHONIOENCODING": "ascii", "MPLCONFIGDIR": str(NO_PLACE)}
    done = run(*line, before=NOTHING, home=None, cwd=tmp_path / "gone", variables=lacking)
    code, text = ENDS[words]
    assert done.returncode == code, done.stderr.decode()
    assert text in done.stderr.decode("ascii")
    assert done.stdout.decode("ascii") or code


@pytest.mark.robust
def test_torch_ends_no_process_whose_current_folder_was_removed(media, tmp_path):
    pytest.importorskip("speechbrain")
    text = encoder_family("ecapa").write_tiny(tmp_path)
    (tmp_path / "gone").mkdir()
    before = "import os\nos.rmdir(os.getcwd())\n"
    done = run("rank", media, "--voice", text, "--face", "pixels", before=before, cwd=tmp_path / "gone")
    assert done.returncode == 4
    assert b"Change to a folder that exists" in done.stderr


@pytest.mark.robust
@pytest.mark.parametrize("variable", ["HOME", "ENCSEL_CACHE"])
@pytest.mark.parametrize("place", [NO_PLACE, "/etc/passwd", "/etc/passwd/below"])
def test_what_cannot_be_cached_is_said_and_changes_nothing_else(media, variable, place):
    done = run("rank", *CHOICE[1:], media, "--format", "csv", variables={variable: str(place)})
    assert done.returncode == 0
    assert b"were not cached" in done.stderr


@pytest.mark.robust
def test_a_user_that_the_system_does_not_know(media):
    may_read = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    user = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", *may_read]
    if not shutil.which("setpriv") or subprocess.run([*user, "true"], capture_output=True).returncode:
        pytest.skip("no setpriv, or no right to use it")
    code = f"import os, sys\nos.execvp({user[0]!r}, [*{user!r}, sys.executable, '-m', 'encsel', *sys.argv[1:]])\n"
    with tempfile.TemporaryDirectory() as place:
        data = shutil.copytree(media, Path(place) / "set")
        another = Path(place) / "home"
        another.mkdir()
        for folder in (Path(place), data, another):
            folder.chmod(0o755)
        for home, note in ((None, "There is no folder for the cache"), (str(another), f"{another}/.cache/encsel")):
            done = run("rank", *CHOICE[1:], data, "--format", "csv", before=code, home=home)
            assert (done.returncode, note in done.stderr.decode()) == (0, True), done.stderr.decode()


def test_a_default_cache_of_another_user_is_left_alone_with_a_note(monkeypatch, tmp_path):
    for name in ("ENCSEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    notes: list[str] = []
    assert cache_root("default", notes.append) is None
    assert "belongs to another user" in notes[0]
    with pytest.raises(UsageError, match="belongs to another user"):
        cache_root(tmp_path)
