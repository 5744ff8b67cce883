"""The embedding cache: private, whole, verified, shared, resumed, and removed only where it is encsel's."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import lock_descriptor
from media_samples import write_set
from plugins import environment, write_plugin
from toy_encoders import ToyModel
from toy_encoders import toy as toy_encoder

from encsel.cli import cli
from encsel.data.calibration_set import CalibrationSet
from encsel.embedding.embed import embed
from encsel.embedding.model_run import BATCH_ON_CPU as BATCH
from encsel.embedding.model_run import N_CHECKED
from encsel.errors import UsageError
from encsel.loading.signoff import record_path
from encsel.progress import Silent
from encsel.storage import cache as caching
from encsel.storage.cache import NO_PLACE, EmbeddingCache, StageCache, cache_root, entries, purge
from encsel.storage.files import TEMPORARY_PREFIX
from encsel.storage.pseudonyms import without_folders

DIM = 4
DESCRIPTION = {"name": "toy", "version": 1}
N_PEOPLE, N_SAMPLES = 34, 2
N = N_PEOPLE * N_SAMPLES
CHECKED = N_CHECKED + 1  # samples embedded again by each run

HANGING_ENCODER = """
import os, time
import numpy as np
from encsel.core import EncoderFamily

n = 0

def embed(samples):
    global n
    with open(os.environ["HANGING_LOG"], "a") as log:
        for _ in samples:
            n += 1
            print(file=log, flush=True)
            if n == int(os.environ["HANGS_AT"]):
                time.sleep(60)
    return np.stack([[s.mean(), s.std(), s[0].mean(), s[-1].mean()] for s in samples]).astype(np.float32)

ENCODER = EncoderFamily("hanging", "face", 4, 1, "none", "a test", load=lambda: embed)
"""


def content_hash(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def vectors(numbers) -> dict[str, np.ndarray]:
    return {content_hash(i): np.random.default_rng(i).normal(size=DIM).astype(np.float32) for i in numbers}


def shelf(root) -> EmbeddingCache:
    return EmbeddingCache(root, DESCRIPTION, DIM)


def filled(root, numbers=range(3)) -> Path:
    """A cache with these vectors in one file; that file."""
    one = shelf(root)
    one.put(vectors(numbers))
    one.flush()
    return max(root.glob("*/*.npz"), key=lambda path: path.stat().st_mtime_ns)


def held(one: EmbeddingCache, numbers=range(3)) -> list[int]:
    """Those of the numbers whose vector is there, and is right."""
    found = {i: one.get(content_hash(i)) for i in numbers}
    for i, vector in found.items():
        assert vector is None or (vector == vectors([i])[content_hash(i)]).all()
    return [i for i, vector in found.items() if vector is not None]


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refuse(*_, **__):
    raise OSError(errno.EROFS, "Read-only file system")


class Notes(Silent):
    def __init__(self):
        self.texts = []

    def note(self, text, *, in_result=False):
        self.texts.append(text)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), n_identities=N_PEOPLE, n_samples=N_SAMPLES)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("few"), n_identities=4, n_samples=2)


@pytest.fixture
def toy():
    """An encoder, `toy.encoder`, that counts the samples it was given in `toy.n`."""

    def function(samples):
        function.n += len(samples)
        return np.array([[s.mean(), s.std(), s[0].mean(), s[-1].mean()] for s in samples], np.float32)

    function.n = 0
    function.encoder = toy_encoder(model=ToyModel(function), dim=DIM)
    return function


# --- what is on disk


def test_vectors_come_back_exactly(root):
    filled(root)
    again = shelf(root)
    assert held(again) == [0, 1, 2]
    assert again.get(content_hash(0)).dtype == np.float32
    assert again.get(content_hash(7)) is None


@pytest.mark.parametrize("mask", [0, 0o022])
def test_files_are_0600_in_0700_folders(tmp_path, mask):
    before = os.umask(mask)
    try:
        filled(tmp_path / "new" / "cache")
    finally:
        os.umask(before)
    root = tmp_path / "new" / "cache"
    made = [root, *root.rglob("*")]
    assert len(made) == 5
    assert {path.name: oct(mode(path)) for path in made} == {
        path.name: oct(0o700 if path.is_dir() else 0o600) for path in made
    }


def test_empty_folder_that_others_could_read_is_closed(root):
    root.mkdir()
    root.chmod(0o755)
    filled(root)
    assert mode(root) == 0o700


def test_cache_is_tagged_so_that_backups_leave_it_out(root):
    filled(root)
    assert (root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


def test_vectors_that_encsel_0_1_cached_are_found_again(root):
    assert filled(root).parent.name == "f6e7c4b4ca2493bad005dca5a39b7770"


def test_encoders_do_not_share_vectors(root):
    filled(root)
    assert not held(EmbeddingCache(root, {**DESCRIPTION, "version": 2}, DIM))


def test_cache_without_a_root_keeps_vectors_for_the_run_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = shelf(None)
    one.put(vectors(range(3)))
    one.flush()
    assert held(one) == [0, 1, 2]
    assert not list(tmp_path.iterdir())


def test_vectors_are_written_in_batches(root, monkeypatch):
    monkeypatch.setattr(caching, "FLUSH_SAMPLES", 10)
    one = shelf(root)
    one.put(vectors(range(9)))
    assert not list(root.glob("*/*.npz"))
    one.put(vectors(range(9, 12)))
    assert held(shelf(root), range(12)) == list(range(12))
    assert len(list(root.glob("*/*.npz"))) == 1


def test_vectors_of_a_slow_encoder_are_written_after_a_while(root, monkeypatch):
    now = 0.0
    monkeypatch.setattr(caching.time, "monotonic", lambda: now)
    one = shelf(root)
    one.put(vectors(range(3)))
    assert not root.exists()
    now = 1.5 * caching.FLUSH_SECONDS
    one.put(vectors(range(3, 6)))
    assert held(shelf(root), range(6)) == list(range(6))


# --- damage


def test_every_flipped_byte_is_noticed(root):
    path = filled(root, range(1))
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        again = shelf(root)
        assert (held(again), again.n_damaged, path.exists()) == ([], 1, False), position


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_truncated_file_is_noticed(root, length):
    path = filled(root)
    path.write_bytes(path.read_bytes()[:length])
    again = shelf(root)
    assert (held(again), again.n_damaged, path.exists()) == ([], 1, False)


def test_damage_costs_one_file_only(root):
    filled(root, range(3))
    path = filled(root, range(3, 6))
    path.write_bytes(b"")
    assert held(shelf(root), range(6)) == [0, 1, 2]


def test_file_under_another_batch_s_name_is_noticed(root):
    first, second = filled(root, range(3)), filled(root, range(3, 6))
    shutil.copy(first, second)
    again = shelf(root)
    assert held(again, range(6)) == [0, 1, 2]
    assert [e.n_samples for e in entries(root)] == [3]


def test_file_with_vectors_of_another_length_is_noticed(root):
    longer = EmbeddingCache(root, DESCRIPTION, DIM + 1)
    longer.put({content_hash(0): np.ones(DIM + 1, np.float32)})
    longer.flush()
    again = shelf(root)
    assert (again.get(content_hash(0)), again.n_damaged) == (None, 1)


def test_damaged_vectors_are_made_again_with_a_note(root, few, toy):
    calibration = CalibrationSet.from_path(few)
    before = embed(calibration, [toy.encoder], cache=root).embeddings[0]
    (path,) = root.glob("*/*.npz")
    content = path.read_bytes()
    path.write_bytes(content[:50] + b"\0" + content[51:])
    toy.n, notes = 0, Notes()
    after = embed(calibration, [toy.encoder], cache=root, progress=notes).embeddings[0]
    assert toy.n == 8 + CHECKED
    np.testing.assert_array_equal(after.vectors, before.vectors)
    assert notes.texts == ["1 damaged cache files of toy were removed and rebuilt."]
    toy.n, notes = 0, Notes()
    embed(calibration, [toy.encoder], cache=root, progress=notes)
    assert (toy.n, notes.texts) == (0, [])


def test_unknown_files_are_left_alone(root):
    folder = filled(root).parent
    for name in ("notes.txt", "mine.npz", "x.tmp"):
        (folder / name).write_bytes(b"somebody's")
    (folder / "folder.npz").mkdir()
    again = shelf(root)
    assert (held(again), again.n_damaged) == ([0, 1, 2], 0)
    assert {"notes.txt", "mine.npz", "x.tmp", "folder.npz"} <= names(folder)
    assert entries(root)[0].n_samples == 3


@pytest.mark.parametrize("years", [-30, 0, 30])
def test_temporary_files_of_a_killed_process_go_and_those_being_written_stay_whatever_the_clock_says(root, years):
    folder = filled(root).parent
    left, written = folder / f"{TEMPORARY_PREFIX}left", folder / f"{TEMPORARY_PREFIX}written"
    for path in (left, written):
        path.write_bytes(b"half")
        os.utime(path, (time.time() + years * 365 * 86400,) * 2)
    with written.open("r+b") as file:
        assert lock_descriptor(file.fileno(), blocking=False)
        again = shelf(root)
        assert (held(again), again.n_damaged) == ([0, 1, 2], 0)
        assert (left.exists(), written.exists()) == (False, True)
    shelf(root)
    assert not written.exists()


def test_file_moved_to_another_encoder_s_folder_is_noticed(root):
    path = filled(root)
    other = EmbeddingCache(root, {**DESCRIPTION, "version": 2}, DIM)
    other.put(vectors(range(3, 6)))
    other.flush()
    folder = next(p for p in root.iterdir() if p.is_dir() and p != path.parent)
    path.rename(folder / path.name)
    again = EmbeddingCache(root, {**DESCRIPTION, "version": 2}, DIM)
    assert (held(again, range(6)), again.n_damaged) == ([3, 4, 5], 1)


def test_damaged_description_is_made_whole_by_the_next_write(root):
    description = filled(root).parent / "encoder.json"
    whole = description.read_bytes()
    description.write_bytes(whole.replace(b"toy", b"tox"))
    assert [e.encoder for e in entries(root)] == ["unknown"]
    filled(root, range(3, 6))
    assert description.read_bytes() == whole
    assert [e.encoder for e in entries(root)] == ["toy"]


# --- a disk that refuses


def test_run_goes_on_with_a_note_when_the_disk_refuses_writing(root, few, toy, monkeypatch):
    monkeypatch.setattr(caching, "write_private", refuse)
    notes = Notes()
    (found,) = embed(CalibrationSet.from_path(few), [toy.encoder], cache=root, progress=notes).embeddings
    assert len(found.vectors) == 8
    (text,) = notes.texts
    assert text.startswith("Embeddings of toy were not cached: Read-only file system")
    assert str(root) in text
    assert text.endswith("Choose another --cache.")


@pytest.mark.parametrize("refused", ["read_bytes", "iterdir", "unlink"])
def test_run_goes_on_when_the_disk_refuses_reading_or_removing(root, monkeypatch, refused):
    path = filled(root)
    if refused == "unlink":
        path.write_bytes(b"damaged")
    monkeypatch.setattr(Path, refused, refuse)
    assert not held(shelf(root))


def test_file_in_place_of_the_cache_is_a_note(root, few, toy):
    root.write_text("a file")
    notes = Notes()
    embed(CalibrationSet.from_path(few), [toy.encoder], cache=root, progress=notes)
    assert root.read_text() == "a file"
    assert len(notes.texts) == 1
    assert notes.texts[0].startswith("Embeddings of toy were not cached: ")


@pytest.mark.parametrize("name", ["holiday.jpg", "CACHEDIR.TAG"])
def test_folder_with_other_files_is_not_made_a_cache(root, few, toy, name):
    root.mkdir()
    (root / name).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# Of another tool.\n")
    notes = Notes()
    embed(CalibrationSet.from_path(few), [toy.encoder], cache=root, progress=notes)
    assert names(root) == {name}
    assert "holds other files; the cache needs an empty or new folder" in notes.texts[0]


# --- several processes, and processes that end


def fill(root, first, barrier):
    one = shelf(root)
    barrier.wait()
    for start in range(first, first + 40, 5):
        one.put(vectors(range(start, start + 5)))
        one.flush()


@pytest.mark.parametrize("name", ["0" * 32, "a" * 32])
def test_folder_that_merely_looks_like_a_cache_is_neither_used_nor_purged(root, name):
    (root / name).mkdir(parents=True)
    (root / name / "precious").write_text("not encsel's")
    one = shelf(root)
    one.put(vectors(range(2)))
    one.flush()
    assert "holds other files" in one.write_error
    with pytest.raises(UsageError, match="not an encsel cache"):
        purge(root)
    assert (root / name / "precious").read_text() == "not encsel's"


def test_purge_leaves_a_folder_of_another_that_has_the_name_of_an_entry(root):
    filled(root)
    (root / ("b" * 32)).mkdir()
    (root / ("b" * 32) / "precious").touch()
    purge(root)
    assert [p.name for p in root.iterdir()] == ["b" * 32]


def test_cache_that_others_may_write_or_own_is_refused(root, monkeypatch):
    filled(root)
    assert cache_root(root) == root
    root.chmod(0o770)
    with pytest.raises(UsageError, match=r"can be written by other users.*--no-cache"):
        cache_root(root)
    root.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UsageError, match="belongs to another user"):
        cache_root(root)


def test_only_files_with_a_vector_that_is_needed_are_read(root, monkeypatch):
    for numbers in (range(3), range(3, 6), range(6, 9)):
        filled(root, numbers)
    read = []
    verified = caching._verified
    monkeypatch.setattr(caching, "_verified", lambda path, dim: read.append(path) or verified(path, dim))
    one = shelf(root)
    assert one.get(content_hash(99)) is None
    assert read == []
    np.testing.assert_array_equal(one.get(content_hash(4)), vectors([4])[content_hash(4)])
    assert len(read) == 1


def test_entries_under_keys_of_before_are_told_of_once(root):
    filled(root)
    mark = root / caching._MARK
    mark.write_text(mark.read_text().replace(caching._KEYS, ""))
    notes = []
    assert cache_root(root) == cache_root(root, notes.append) == cache_root(root, notes.append) == root
    assert len(notes) == 1
    assert "encsel cache purge" in notes[0]


@pytest.mark.robust
def test_two_processes_fill_one_cache_at_once(root):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=fill, args=(root, first, barrier)) for first in (0, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    again = shelf(root)
    assert (held(again, range(60)), again.n_damaged) == (list(range(60)), 0)
    assert not [path for path in root.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]


class Hanging:
    """Command lines in processes of their own, with an encoder that counts its samples and hangs at one of them."""

    def __init__(self, folder: Path):
        self.log = folder / "log"
        self.cache = folder / "cache"
        self.packages = write_plugin(folder / "packages", "hanging", HANGING_ENCODER)

    def start(self, *command: str | Path, at: int) -> subprocess.Popen[str]:
        variables = {"HANGING_LOG": str(self.log), "HANGS_AT": str(at), "ENCSEL_CACHE": str(self.cache)}
        return subprocess.Popen(
            [sys.executable, *command], env=environment(self.packages, **variables), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def n_embedded(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    @property
    def n_cached(self) -> int:
        return sum(e.n_samples for e in entries(self.cache) if e.encoder == "hanging")


@pytest.fixture
def hanging(tmp_path):
    return Hanging(tmp_path)


def wait_until(claim, process, seconds=30):
    deadline = time.monotonic() + seconds
    while not claim():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.robust
def test_killed_embedding_goes_on_where_it_was(hanging, media, tmp_path):
    run = "import encsel.storage.cache; encsel.storage.cache.FLUSH_SECONDS = 0; from encsel.cli import main; main()"
    command = ("-c", run, "embed", media, "--output", tmp_path / "out", "--face", "hanging", "--voice", "ltas")
    process = hanging.start(*command, at=BATCH + CHECKED + 5)
    wait_until(lambda: hanging.n_embedded == BATCH + CHECKED + 5, process)
    process.kill()
    process.communicate()
    assert hanging.n_cached == BATCH
    hanging.log.unlink()
    process = hanging.start(*command, at=-1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert hanging.n_embedded == N - BATCH + CHECKED
    assert f"{N} x 4, {N_PEOPLE} people" in out


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("options", [(), pytest.param(("--quiet",), marks=pytest.mark.robust)], ids=["", "quiet"])
def test_interrupt_is_one_message_and_keeps_what_was_done(hanging, media, options):
    command = ("-m", "encsel", "rank", media, "--face", "hanging", "--voice", "ltas", *options)
    process = hanging.start(*command, at=BATCH + CHECKED + 5)
    wait_until(lambda: hanging.n_embedded == BATCH + CHECKED + 5, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 5
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert lines[-1] == "encsel: Interrupted."
    if options:
        assert len(lines) == 1
    else:
        assert lines[-2] == "What was finished is in the cache; run the same command again to continue."
    assert hanging.n_cached == BATCH


# --- where it is, what it holds, how it goes


def test_default_root_is_encsel_cache_then_the_user_s_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ENCSEL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root("default") == tmp_path / ".cache" / "encsel"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root("default") == tmp_path / "xdg" / "encsel"
    monkeypatch.setenv("ENCSEL_CACHE", "~/own")
    assert cache_root("default") == tmp_path / "own"


@pytest.fixture
def _no_home(monkeypatch):
    """A user without $HOME and without an entry in the list of users."""

    def unknown(uid):
        raise KeyError(uid)

    for name in ("HOME", "ENCSEL_CACHE", "XDG_CACHE_HOME", "ENCSEL_WEIGHTS", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("_no_home")
def test_without_a_home_there_is_no_cache_and_one_note(tmp_path, monkeypatch):
    notes = []
    for cache in ("default", "~/cache"):
        assert cache_root(cache, notes.append) is None
    monkeypatch.setenv("ENCSEL_CACHE", "~/cache")
    assert cache_root("default", notes.append) is None
    assert notes == [NO_PLACE] * 3
    assert cache_root(None, notes.append) is None
    assert cache_root(tmp_path, notes.append) == tmp_path
    assert len(notes) == 3
    with pytest.raises(UsageError, match="There is no folder for the cache: give one with --cache"):
        CliRunner().invoke(cli, ["cache"], catch_exceptions=False, standalone_mode=False)
    assert record_path() is None
    assert without_folders("/home/ann/x.bin is damaged") == "x.bin is damaged"


@pytest.fixture
def _new_folders(tmp_path, monkeypatch):
    """A platform whose folders are not those of encsel 0.1, such as macOS."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ENCSEL_CACHE", "XDG_CACHE_HOME", "ENCSEL_WEIGHTS", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "Library" / "Caches" / "encsel")
    monkeypatch.setattr("platformdirs.user_state_path", lambda *_, **__: tmp_path / "Library" / "State" / "encsel")


@pytest.mark.usefixtures("_new_folders")
def test_cache_of_0_1_is_moved_once_to_the_folder_of_the_platform(tmp_path):
    old, new, notes = tmp_path / ".cache" / "encsel", tmp_path / "Library" / "Caches" / "encsel", []
    filled(old)
    assert [cache_root("default", notes.append) for _ in range(2)] == [new, new]
    assert notes == [f"Moved {old}, which encsel 0.1 used, to {new}."]
    assert held(shelf(new)) == [0, 1, 2]
    filled(old, range(3, 6))  # by 0.1, once more
    assert cache_root("default", notes.append) == new
    assert len(notes) == 1
    assert old.exists()


@pytest.mark.usefixtures("_new_folders")
def test_folders_of_0_1_that_cannot_be_moved_remain_in_use(tmp_path, monkeypatch):
    old, notes = tmp_path / ".cache" / "encsel", []
    filled(old)
    record = tmp_path / ".local" / "state" / "encsel" / "weights.json"
    record.parent.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        assert (cache_root("default", notes.append), record_path(), notes) == (old, record, [])
    assert record_path() == tmp_path / "Library" / "State" / "encsel" / "weights.json"
    assert not record.parent.exists()


def test_commands_use_encsel_cache(root, few, tmp_path, monkeypatch):
    monkeypatch.setenv("ENCSEL_CACHE", str(root))
    command = ["embed", str(few), "--output", str(tmp_path / "out"), "--face", "pixels", "--voice", "ltas"]
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    assert sorted((e.encoder, e.n_samples) for e in entries(root)) == [("ltas", 8), ("pixels", 8)]
    shown = CliRunner().invoke(cli, ["cache"]).stdout
    assert shown.startswith(f"{root}: 16 vectors")
    assert "pixels" in shown
    assert CliRunner().invoke(cli, ["cache", "purge", "--yes"]).stdout.startswith("Removed 16 vectors")
    assert not root.exists()


def test_entries_count_each_vector_once(root):
    filled(root, range(3))
    filled(root, range(1, 5))
    (entry,) = entries(root)
    assert (entry.encoder, entry.n_samples) == ("toy", 5)
    assert entry.n_bytes == sum(path.stat().st_size for path in (root / entry.key).iterdir())


def test_entry_whose_description_is_damaged_is_still_listed(root):
    (filled(root).parent / "encoder.json").write_bytes(b"\xff{")
    assert [(e.encoder, e.n_samples) for e in entries(root)] == [("unknown", 3)]


def test_missing_cache_holds_nothing_and_is_not_made(root):
    assert (entries(root), purge(root)) == ([], [])
    assert not root.exists()


def test_results_of_0_1_are_counted_and_purged_but_not_read(root):
    key, old, results = {"stage": "gw"}, StageCache(root), StageCache(root)
    old._description = {"name": StageCache.NAME}
    old._folder = root / "07f24be2788fa83a6330c50a3e0cc146"
    old.put(key, "old")
    assert old.get(key) == "old"
    assert results.get(key) is None
    results.put(key, "new")
    assert StageCache(root).get(key) == "new"
    assert [(e.encoder, e.n_samples) for e in entries(root)] == [(StageCache.NAME, 0)] * 2
    assert len(purge(root, StageCache.NAME)) == 2
    assert entries(root) == []


def test_purge_removes_everything_or_one_encoder(root):
    filled(root)
    other = EmbeddingCache(root, {"name": "other"}, DIM)
    other.put(vectors(range(5)))
    other.flush()
    assert [(e.encoder, e.n_samples) for e in purge(root, "toy")] == [("toy", 3)]
    assert [e.encoder for e in entries(root)] == ["other"]
    assert [(e.encoder, e.n_samples) for e in purge(root)] == [("other", 5)]
    assert not root.exists()


@pytest.mark.parametrize("name", ["holiday.jpg", "CACHEDIR.TAG"])
def test_purge_refuses_a_folder_that_is_not_encsel_s(tmp_path, name):
    key = "0" * 32
    (tmp_path / key).mkdir()
    (tmp_path / name).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# Of another tool.\n")
    with pytest.raises(UsageError, match="not an encsel cache and was left unchanged"):
        purge(tmp_path)
    assert names(tmp_path) == {key, name}


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_cache_whose_mark_is_damaged_is_used_mended_and_purged(root, damage):
    filled(root)
    mark = root / "CACHEDIR.TAG"
    text = mark.read_text()

    def spoil():
        if damage == "missing":
            mark.unlink()
        else:
            mark.write_text(text.replace("Made by encsel", "Made by encseL"))

    spoil()
    filled(root, range(3, 6))
    assert held(shelf(root), range(6)) == list(range(6))
    assert mark.read_text() == text
    spoil()
    assert [entry.n_samples for entry in purge(root)] == [6]
    assert not root.exists()


def test_purge_leaves_what_somebody_else_put_into_the_cache(root):
    filled(root)
    (root / "photos").mkdir()
    (root / "photos" / "holiday.jpg").write_bytes(b"x")
    purge(root)
    assert [path.name for path in root.rglob("*")] == ["photos", "holiday.jpg"]


def test_purge_of_an_empty_folder_is_no_error(root):
    root.mkdir()
    assert purge(root) == []


def test_cache_that_cannot_be_read_or_removed_is_an_error_that_says_so(root, monkeypatch):
    filled(root)
    with monkeypatch.context() as patch:
        patch.setattr(caching.shutil, "rmtree", refuse)
        with pytest.raises(UsageError, match="Read-only file system"):
            purge(root)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError, match=f"{root} cannot be read"):
        entries(root)


def test_cache_whose_place_is_a_file_is_an_error_that_says_so(root):
    root.write_text("a file")
    for command in (entries, purge):
        with pytest.raises(UsageError, match="cannot be read"):
            command(root)
