"""Faults, each caused for real: runs end as documented, no cache holds anything wrong, and the next run finishes.

The default run has one short case of each kind, `-m robust` the others, `-m slow` the long ones.
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner
from faults import (
    ENCODERS,
    FORMULAS,
    IMPORTED,
    MAIN,
    OFTEN,
    READY,
    WAITING,
    Bench,
    contents,
    half_written,
    in_mounts_of_its_own,
    robust,
    slow,
)
from media_samples import write_face, write_set, write_voice
from plugins import environment, write_plugin
from toy import write_population

from encsel.cli import cli
from encsel.cli.interruption import GRACE_SECONDS

SOON = 30
"""Seconds within which an interrupted run ends by itself. The thread that ends a run that hangs waits for PATIENT."""
PATIENT = "sys.modules['encsel.cli.interruption'].GRACE_SECONDS = 60\n"


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


pytestmark = pytest.mark.usefixtures("interruptible")


# --- several processes


@pytest.mark.parametrize(
    ("n_processes", "sets", "n_rounds"),
    [
        robust(8, "one set", 1),
        slow(2, "sets that overlap", 10), slow(8, "sets that overlap", 10), slow(8, "one set", 10),
    ],
)  # fmt: skip
def test_processes_started_at_once_on_one_empty_cache_all_finish(bench, n_processes, sets, n_rounds):
    other = write_set(bench.folder / "other", n_identities=9, n_samples=4)  # the first 6 people are those of the other
    bench.learn(other)
    all_data = [bench.data, other] if sets == "sets that overlap" else [bench.data]
    expected = []
    for i, data in enumerate(all_data):
        output = bench.folder / f"expected{i}"
        assert bench.run([*bench.arguments(bench.folder / "unused", output, data), "--no-cache"]).returncode == 0
        expected.append(contents(output))
    for n in range(n_rounds):
        cache = bench.folder / f"cache{n}"
        outputs = [bench.folder / f"out{n}-{i}" for i in range(n_processes)]
        processes = [
            bench.start(bench.arguments(cache, output, all_data[i % len(all_data)]), IMPORTED + OFTEN + WAITING)
            for i, output in enumerate(outputs)
        ]
        start_at_once(processes)
        for i, process in enumerate(processes):
            _, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            assert "damaged" not in err
            assert "not cached" not in err
            assert contents(outputs[i]) == expected[i % len(all_data)]
        assert bench.cached(cache) == bench.of(*all_data)
        assert half_written(cache) == []


def start_at_once(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


# --- disks


def limited(n_bytes: int):
    """For a child: no file grows beyond that, which for its writes is a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


# What is written as the result is another matter.
FULL_WHILE_EMBEDDING = """
import resource
import encsel.data.embedding_files

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
write = encsel.data.embedding_files.write_embeddings

def unlimited(*arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write(*arguments)

encsel.data.embedding_files.write_embeddings = unlimited
"""


def test_cache_on_a_disk_that_is_full_costs_the_cache_alone(bench, tmp_path):
    cache, output = tmp_path / "cache", tmp_path / "out"
    # Long vectors: what says whose they are still fits.
    arguments = ["embed", str(bench.data), "--face", "pixels", "--voice", "tones", "--output", str(output)]
    assert bench.run([*arguments, "--no-cache"]).returncode == 0
    expected = contents(output)
    done = bench.run([*arguments, "--cache", str(cache)], FULL_WHILE_EMBEDDING)
    assert done.returncode == 0, done.stderr
    assert f"Embeddings of pixels were not cached: File too large ({cache}). Choose another --cache." in done.stderr
    assert contents(output) == expected
    assert half_written(cache) == []
    assert {name for name, found in bench.cached(cache).items() if found} <= {"tones"}


@pytest.mark.robust
def test_output_onto_a_disk_that_is_full_is_an_error_and_leaves_the_old_file(bench, tmp_path):
    old = tmp_path / "ranking.json"
    old.write_text("old")
    arguments = [
        "rank", str(bench.data), "--face", "moments", "--voice", "tones", "--min-identities", "3", "--no-cache", "-q",
        "--output", str(old),
    ]  # fmt: skip
    # Python does not notice that it wrote half of a compiled module.
    done = bench.run(arguments, preexec_fn=limited(1000), variables={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 2
    assert done.stderr == f"encsel: {old} cannot be written: File too large. Choose another place.\n"
    assert old.read_text() == "old"
    assert half_written(tmp_path) == []


@pytest.mark.robust
def test_a_small_disk_that_fills_up_costs_the_cache_and_not_the_result(bench, tmp_path):
    disk, output = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    arguments = bench.arguments(disk / "cache", output)
    whole = bench.run([*arguments, "--no-cache"])
    assert whole.returncode == 0
    expected = contents(output)
    script = """
        mount -t tmpfs -o size=48k,mode=700 none "$1" || exit 99
        echo old > "$1/old.json"
        out="$2" python="$3" disk="$1"; shift 3
        "$python" -c "$PRELUDE" "$@"; echo "code $?"
        dd if=/dev/zero of="$disk/rest" bs=1k 2> /dev/null
        "$python" -m encsel rank "$out" --face moments --voice tones --min-identities 3 -q -o "$disk/old.json"
        echo "code $?"
        cat "$disk/old.json"
        cp -a "$disk/cache" "$out/../kept"
    """
    done = in_mounts_of_its_own(
        script, disk, output, sys.executable, *arguments,
        env=environment(bench.packages, PRELUDE=IMPORTED + OFTEN + MAIN),
    )  # fmt: skip
    if done is None:
        pytest.skip("mounting is not allowed here")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("code")] == ["code 0", "code 2"], done.stderr
    assert lines[-1] == "old"
    assert "were not cached: No space left on device" in done.stderr
    assert f"encsel: {disk}/old.json cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(output) == expected
    assert bench.check(tmp_path / "kept")  # some fitted, and each is whole
    assert half_written(tmp_path / "kept") == []


def run_read_only(bench: Bench, folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """`encsel ARGUMENTS...` where nothing in a folder can be written."""
    if os.geteuid():
        places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for place in places:
            place.chmod(0o500)
        try:
            return bench.run(arguments)
        finally:
            for place in places:
                place.chmod(0o700)
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99; shift; exec "$@"'
    done = in_mounts_of_its_own(
        script, folder, sys.executable, "-m", "encsel", *arguments,
        env=environment(bench.packages),
    )  # fmt: skip
    if done is None:
        pytest.skip("root can write everywhere, and mounting is not allowed here")
    return done


@pytest.mark.robust
@pytest.mark.parametrize("held", ["nothing", "half", "everything"])
def test_read_only_cache_is_used_as_far_as_it_goes(bench, tmp_path, held):
    cache, output = tmp_path / "cache", tmp_path / "out"
    cache.mkdir(mode=0o700)
    arguments = bench.arguments(cache, output)
    if held != "nothing":
        assert bench.run(arguments if held == "everything" else [*arguments, "--identities", "3"]).returncode == 0
    whole = bench.run([*bench.arguments(cache, tmp_path / "whole"), "--no-cache"])
    assert whole.returncode == 0
    before = contents(cache)
    shutil.rmtree(output, ignore_errors=True)
    done = run_read_only(bench, cache, arguments)
    assert done.returncode == 0, done.stderr
    assert contents(output) == contents(tmp_path / "whole")
    assert contents(cache) == before
    assert half_written(cache) == []
    notes = [line for line in done.stderr.splitlines() if "not cached" in line]
    assert len(notes) == (0 if held == "everything" else len(ENCODERS))
    assert all("Read-only file system" in note or "Permission denied" in note for note in notes)


# --- a cache damaged on purpose


def damage(folder: Path, rng: random.Random) -> str:
    """Damage one file of a cache in one way; what was done."""
    path = rng.choice([p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "CACHEDIR.TAG"])
    content = path.read_bytes()
    ways = ["bit"] * 6 + ["cut", "zeros", "moved", "copied", "garbage", "folder"]
    way = rng.choice(ways)
    others = [p for p in sorted(folder.rglob("*")) if p.is_file() and p != path and p.suffix == path.suffix]
    if way == "bit" and content:
        position = rng.randrange(len(content))
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :]
        )
    elif way == "cut":
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif way == "zeros":
        start = rng.randrange(len(content) + 1)
        path.write_bytes(content[:start] + bytes(len(content) - start))
    elif way == "moved" and others:  # to another encoder's folder, or another's name
        target = rng.choice(others)
        path.replace(target if rng.random() < 0.5 else target.parent / path.name)
    elif way == "copied" and others:
        path.write_bytes(rng.choice(others).read_bytes())
    elif way == "garbage":
        path.write_bytes(rng.randbytes(rng.randrange(1000)))
    elif way == "folder":
        path.unlink()
        path.mkdir(mode=0o700)
    return f"{way} {path}"


def called(*arguments: object) -> tuple[int, str, str]:
    """`encsel ARGUMENTS...` in this process, for speed."""
    result = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("n_rounds", [10, robust(40), slow(3000)])
def test_damaged_embeddings_are_made_again_and_never_used(tmp_path, n_rounds, monkeypatch):
    monkeypatch.setattr("encsel.storage.cache.FLUSH_SAMPLES", 3)
    data, cache, output = write_set(tmp_path / "set", 4, 3), tmp_path / "cache", tmp_path / "out"
    choice = ("--face", "pixels", "--face", "hog", "--voice", "mfcc", "--voice", "ltas")
    command = ("embed", data, *choice, "--batch-size", 3, "--cache", cache, "--output", output)
    assert called(*command)[0] == 0
    expected, good = contents(output), tmp_path / "good"
    shutil.copytree(cache, good)
    rng, n_noticed = random.Random(0), 0
    gc.freeze()  # encsel collects after every model, here through all that the tests have imported
    for i in range(n_rounds):
        done = [damage(cache, rng) for _ in range(rng.choice([1, 1, 1, 5]))]
        code, _, err = called(*command)
        assert (code, contents(output)) == (0, expected), done
        n_noticed += "damaged cache files" in err
        if i % 10 == 9:  # folders in place of files are never removed, and pile up
            shutil.rmtree(cache)
            shutil.copytree(good, cache)
    gc.unfreeze()
    print(f"{n_noticed} of {n_rounds} rounds noticed damage")
    assert n_noticed >= 0.3 * n_rounds


@pytest.mark.parametrize("n_rounds", [1, robust(6), slow(300)])
def test_damaged_results_are_computed_again_and_never_used(tmp_path, n_rounds):
    data, cache = write_population(tmp_path / "set", 30), tmp_path / "cache"
    stages = "matching,gw,topology,spectral,geodesic"
    command = ("validate", data, "--cache", cache, "--only", stages, "--format", "json", "--jobs", 1, "-q")
    code, expected, _ = called(*command)
    assert code == 0
    good = tmp_path / "good"
    shutil.copytree(cache, good)
    rng = random.Random(0)
    for i in range(n_rounds):
        done = [damage(cache, rng) for _ in range(rng.choice([1, 1, 3]))]
        assert called(*command) == (0, expected, ""), done
        if i % 10 == 9:
            shutil.rmtree(cache)
            shutil.copytree(good, cache)


# --- files that vanish or change during the run

# A face encoder that does something to the set when it sees its first picture. The voices are not read by then.
MEDDLING = """
import os, pathlib, shutil
import numpy as np
from encsel.core import EncoderFamily

done = False

def embed(samples):
    global done
    if not done:
        done = True
        exec(os.environ["MEDDLE"], {{"data": pathlib.Path(os.environ["DATA"]), "os": os, "shutil": shutil}})
    return np.array([{formula} for s in samples], np.float32)

ENCODER = EncoderFamily("moments", "face", 4, 1, "none", "a test", load=lambda: embed)
"""

VANISHING = """
for i, path in enumerate(sorted((data / "voices").rglob("*.wav"))):
    new = data.parent / "new" / f"{i}.wav"
    if i == 1:
        path.unlink()
    elif i == 3:
        path.unlink()
        path.mkdir()
    elif i == 5:
        path.unlink()
        os.mkfifo(path)
    elif i == 7:
        path.unlink()
        path.symlink_to(path)
    elif i == 9:
        path.write_bytes(b"")
    elif i == 11:
        path.write_bytes(path.read_bytes()[:1000])
    elif i % 2 == 0:
        new.replace(path)
for path in (data / "faces").rglob("*.png"):
    path.unlink()
"""


def meddling(bench: Bench, data: Path, what: str) -> dict[str, str]:
    """The environment in which `moments` does something to a set."""
    source = MEDDLING.format(formula=FORMULAS["moments"])
    write_plugin(bench.folder / "meddling", "moments", source)
    for name in ("corners", "tones"):
        for path in bench.packages.glob(f"{name}*"):
            target = bench.folder / "meddling" / path.name
            shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)
    return {"PYTHONPATH": str(bench.folder / "meddling"), "DATA": str(data), "MEDDLE": what}


def test_files_that_vanish_or_change_are_read_once_or_skipped_with_the_reason(tmp_path):
    bench = Bench(tmp_path)
    data, cache, output = bench.data, tmp_path / "cache", tmp_path / "out"
    before = bench.of(data)
    for i in range(24):
        new = write_voice(tmp_path / "new" / f"{i}.wav", 1000 + i)
        bench.learn_content(new.read_bytes(), "voice")
    n_voices = len(list(data.rglob("*.wav")))
    done = bench.run(
        bench.arguments(cache, output, None, "--max-skipped", "0.9"), variables=meddling(bench, data, VANISHING)
    )
    assert done.returncode == 0, done.stderr
    skipped = [line.partition(": ")[2] for line in done.stderr.splitlines() if line.startswith("skipped voice")]
    assert len(skipped) == 6
    assert {"empty file", "not a file", "unreadable: No such file or directory"} <= set(skipped)
    assert [reason for reason in skipped if reason.startswith("too short")]
    kept = bench.cached(cache)  # each right for the content it is kept under
    assert len(kept["tones"]) == n_voices - 6
    assert len(kept["tones"] - before["tones"]) == 12
    assert kept["moments"] == kept["corners"]
    with np.load(output / "voices" / "tones.npz") as archive:
        assert len(archive["embeddings"]) == n_voices - 6
    with np.load(output / "faces" / "moments.npz") as one, np.load(output / "faces" / "corners.npz") as two:
        assert one["samples"].tolist() == two["samples"].tolist()


@pytest.mark.robust
@pytest.mark.parametrize("what", ["shutil.rmtree(data / 'voices')", "shutil.rmtree(data)"])
def test_a_set_that_vanishes_is_insufficient_data(tmp_path, what):
    bench = Bench(tmp_path)
    arguments = bench.arguments(tmp_path / "cache", tmp_path / "out")
    done = bench.run(arguments, variables=meddling(bench, bench.data, what))
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("encsel: ")
    assert bench.cached(tmp_path / "cache")["moments"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n_rounds", [robust(2), slow(50)])
def test_files_that_are_swapped_all_the_time_never_give_a_wrong_vector(tmp_path, n_rounds):
    bench = Bench(tmp_path)
    for i in range(20):
        bench.learn_content(write_voice(tmp_path / "pool" / f"{i}.wav", 500 + i).read_bytes(), "voice")
        bench.learn_content(write_face(tmp_path / "pool" / f"{i}.png", 500 + i).read_bytes(), "face")
    pool = sorted((tmp_path / "pool").iterdir())
    files = sorted(path for path in bench.data.rglob("*.*") if path.is_file())
    rng, codes, cache = random.Random(0), [], tmp_path / "cache"
    for _ in range(n_rounds):
        arguments = bench.arguments(cache, tmp_path / "out", None, "--max-skipped", "0.5")
        process = bench.start(arguments, IMPORTED + OFTEN + READY)
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        while process.poll() is None:
            meddle(rng.choice(files), pool, rng, tmp_path / "next")
        _, err = process.communicate()
        codes.append(process.returncode)
        assert process.returncode in (0, 3), err
        assert "Traceback" not in err
        bench.check(cache)
    print(f"{codes.count(0)} of {n_rounds} runs ended with 0, the others with 3")
    assert half_written(cache) == []


def meddle(path: Path, pool: list[Path], rng: random.Random, beside: Path) -> None:
    """Put another sample in place of one, or something that is none, or nothing."""
    kind = rng.random()
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    if kind < 0.9:
        shutil.copy(rng.choice([p for p in pool if p.suffix == path.suffix]), beside)
        beside.replace(path)
        return
    path.unlink(missing_ok=True)
    if kind < 0.93:
        os.mkfifo(path)
    elif kind < 0.96:
        path.mkdir()


# --- encoders that fail

FAULTY = """
import sys
import numpy as np
from encsel.core import EncoderFamily

fault, n = {fault!r}, 0

def load():
    if fault == "load":
        raise RuntimeError("no weights")
    return embed

def embed(samples):
    global n
    n += 1
    if fault == "third batch" and n == 3 + 2:
        raise ValueError("broken")
    if fault == "exit" and n == 2:
        sys.exit(0)
    if fault == "memory":
        raise MemoryError
    if fault == "nothing":
        return None
    rows = np.array([[s.mean(), s.std(), s[0].mean(), s[-1].mean()] for s in samples], np.float32)
    return {{
        "nan": np.full_like(rows, np.nan), "a row": rows[1:], "a column": rows[:, 1:], "flat": rows.ravel(),
        "words": rows.astype(str), "objects": rows.astype(object), "whole numbers": rows.astype(int),
        "complex": rows + 0j, "huge": rows.astype(np.float64) * 1e300,
    }}.get(fault, rows)

def open_(spec, runtime):
    if fault == "open":
        raise OSError("no such checkpoint")
    sys.exit(3)

how = {{"open": open_, "checkpoint": "default"}} if fault.startswith("open") else {{"load": load}}
ENCODER = EncoderFamily({name!r}, "face", 4, 1, "none", "a test", **how)
"""
FAULTS = {
    "open": "The encoder open: OSError: no such checkpoint",
    "open and exit": "The encoder open-and-exit: SystemExit: 3",
    "load": "RuntimeError: no weights",
    "third batch": "ValueError: broken",
    "exit": "SystemExit: 0",
    "memory": "MemoryError",
    "nothing": "it returned object",
    "nan": "it could not use 24 of 24 samples",
    "huge": "it could not use 24 of 24 samples",
    "a row": "it returned float32 of shape (3, 4) for 4 samples",
    "a column": "it returned float32 of shape (4, 3) for 4 samples",
    "flat": "it returned float32 of shape (16,) for 4 samples",
    "words": "it returned <U32 of shape (4, 4) for 4 samples",
    "objects": "it returned object of shape (4, 4) for 4 samples",
    "whole numbers": "it returned int64 of shape (4, 4) for 4 samples",
    "complex": "it returned complex64 of shape (4, 4) for 4 samples",
}


@pytest.mark.robust
def test_encoders_that_fail_in_every_way_leave_the_ranking_of_the_others(bench, tmp_path):
    names = [fault.replace(" ", "-") for fault in FAULTS]
    for name, fault in zip(names, FAULTS, strict=True):
        write_plugin(bench.packages, name.replace("-", "_"), FAULTY.format(fault=fault, name=name))
    arguments = ["rank", str(bench.data), "--voice", "tones", "--min-identities", "3", "--batch-size", "4"]
    arguments += ["--cache", str(tmp_path / "cache"), "--format", "json"]
    alone = bench.run([*arguments, "--face", "moments"])
    assert alone.returncode == 0, alone.stderr
    faces = [word for name in (*names[:7], "moments", *names[7:]) for word in ("--face", name)]
    done = bench.run([*arguments, *faces])
    assert done.returncode == 4, done.stderr
    report, expected = json.loads(done.stdout), json.loads(alone.stdout)
    assert [(p["face"], p["voice"], p["rank"]) for p in report["pairs"]] == [("moments", "tones", 1)]
    assert report["pairs"][0]["predictions"] == expected["pairs"][0]["predictions"]
    reasons = {one["encoder"]: one["reason"] for one in report["failures"]}
    assert {name: reasons[name][: len(text)] for name, text in zip(names, FAULTS.values(), strict=True)} == dict(
        zip(names, FAULTS.values(), strict=True)
    )


DYING = """
import ctypes, os, signal
import numpy as np
from encsel.core import EncoderFamily

n = 0

def embed(samples):
    global n
    n += len(samples)
    if n > 10 + 2 and os.environ.get("DIES") == "segfault":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)
    if n > 10 + 2 and os.environ.get("DIES") == "abort":
        os.abort()
    return np.array([{formula} for s in samples], np.float32)

ENCODER = EncoderFamily("moments", "face", 4, 1, "none", "a test", load=lambda: embed)
"""


@pytest.mark.robust
@pytest.mark.parametrize("how", ["segfault", "abort"])
def test_an_encoder_that_crashes_costs_its_last_batch_and_the_others_go_on(tmp_path, how):
    bench = Bench(tmp_path)
    (bench.packages / "moments.py").write_text(DYING.format(formula=FORMULAS["moments"]))
    cache, output = tmp_path / "cache", tmp_path / "out"
    nothing_dumped = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))}
    done = bench.run(bench.arguments(cache, output), IMPORTED + OFTEN, variables={"DIES": how}, **nothing_dumped)
    assert done.returncode == 4
    assert f"moments failed: its process was ended by {'SIGSEGV' if how == 'segfault' else 'SIGABRT'}" in done.stderr
    kept = bench.cached(cache)
    assert len(kept.pop("moments")) == 10
    assert all(len(samples) == 24 for samples in kept.values())
    again = bench.run(bench.arguments(cache, output), IMPORTED + OFTEN)
    assert again.returncode == 0, again.stderr
    assert bench.cached(cache) == bench.of(bench.data)


# --- memory

GREEDY = """
import sys
import numpy as np
from encsel.core import EncoderFamily

def embed(samples):
    print({name!r}, "takes", len(samples), file=sys.stderr)
    room = np.empty((len(samples), {mega} << 17))
    return np.array([{formula} for s in samples], np.float32)

ENCODER = EncoderFamily({name!r}, "face", 4, 1, "none", "a test", load=lambda: embed)
"""
# Room beyond what the process has by now, of which each of its threads reserves some for itself.
TIGHT = """
import os, resource
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * os.sysconf("SC_PAGE_SIZE") + ({mega} << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
"""


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@pytest.mark.robust
@needs_proc
def test_memory_that_runs_out_halves_batches_and_fails_what_does_not_fit_at_all(tmp_path):
    bench = Bench(tmp_path)
    for name, mega in (("moments", 100), ("corners", 4000)):
        source = GREEDY.format(name=name, mega=mega, formula=FORMULAS[name])
        (bench.packages / f"{name}.py").write_text(source)
    cache, output = tmp_path / "cache", tmp_path / "out"
    arguments = bench.arguments(cache, output)
    arguments[arguments.index("--batch-size") + 1] = "24"
    done = bench.run(arguments, IMPORTED + TIGHT.format(mega=1500))
    assert done.returncode == 4, done.stderr
    sizes = {name: [int(n) for n in re.findall(f"{name} takes (.*)", done.stderr)] for name in ("moments", "corners")}
    assert sizes["moments"][:2] == [24, 12]
    assert sizes["corners"] == [24, 12, 6, 3, 1]
    assert re.search("corners failed: .*MemoryError: Unable to allocate 3.91 GiB", done.stderr)
    kept = bench.cached(cache)
    assert {name: len(found) for name, found in kept.items()} == {"moments": 24, "corners": 0, "tones": 24}
    assert not (output / "faces" / "corners.npz").exists()


@needs_proc
def test_memory_that_is_used_up_is_no_bug_and_leaves_the_cache_whole(bench, tmp_path):
    arguments = bench.arguments(tmp_path / "cache", tmp_path / "out", None, "--quiet")
    done = bench.run(arguments, IMPORTED + OFTEN + TIGHT.format(mega=10))
    assert (done.returncode, done.stderr.partition(". ")[0]) == (2, "encsel: Out of memory")
    bench.check(tmp_path / "cache")


@pytest.mark.robust
@needs_proc
def test_picture_that_does_not_fit_into_memory_is_not_skipped_as_a_damaged_one(tmp_path):
    bench = Bench(tmp_path)
    (first, *_) = sorted(bench.data.rglob("*.png"))
    PIL.Image.new("RGB", (6500, 6500), "red").save(first)
    done = bench.run(bench.arguments(tmp_path / "cache", tmp_path / "out"), IMPORTED + TIGHT.format(mega=250))
    assert (done.returncode, done.stderr.splitlines()[-1].partition(". ")[0]) == (2, "encsel: Out of memory")


# --- clocks


@pytest.mark.robust
@pytest.mark.parametrize("years", [-50, 80])
def test_a_cache_is_used_however_old_its_files_say_they_are(bench, tmp_path, years):
    cache = tmp_path / "cache"
    arguments = bench.arguments(cache, tmp_path / "out")
    assert bench.run([*arguments, "--identities", "3"]).returncode == 0
    some = bench.check(cache)
    moment = max(int(time.time()) + 86400 * 365 * years, 1)
    for path in (cache, *cache.rglob("*")):
        os.utime(path, (moment, moment))
    done = bench.run(arguments)
    assert done.returncode == 0
    assert "damaged" not in done.stderr
    assert some < bench.check(cache)
    assert {path.stat().st_mtime for path in some} == {moment}, "what was there is not written again"
    assert bench.cached(cache) == bench.of(bench.data)
    assert half_written(cache) == []


# --- Ctrl-C and SIGTERM

# Tells when encsel begins: at its first import, where Ctrl-C is heard, or at the next, where SIGTERM is, too.
STARTED = """
import sys
import encsel.cli

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "encsel.cli.program":
            {patient}
        if name == "encsel.cli.{part}":
            print("ready", file=sys.stderr, flush=True)

sys.meta_path.insert(0, Watch())
"""
FIRST, NEXT = (STARTED.format(part=part, patient=PATIENT) for part in ("interruption", "program"))


def interrupted(process: subprocess.Popen[str], *signals: tuple[float, int]) -> tuple[int, list[str], str, float]:
    """Wait, send, wait, send, ...: the exit code, the lines on stderr, stdout, and the seconds since the first."""
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    first = None
    for seconds, number in signals:
        time.sleep(seconds)
        first = first or time.monotonic()
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert first is not None
    return process.returncode, [line for line in err.splitlines() if line], out, time.monotonic() - first


@pytest.mark.parametrize(
    ("times", "n_rounds"), [(1, 1), robust(1, 6), robust(2, 6), slow(1, 200), slow(2, 200)], ids=lambda n: str(n)
)
def test_an_interrupt_at_a_random_moment_is_one_line_and_code_5(bench, tmp_path, times, n_rounds):
    arguments = bench.arguments(tmp_path / "whole", tmp_path / "out", None, "--quiet")
    process = bench.start(arguments, FIRST)
    assert process.stderr is not None
    process.stderr.readline()
    started = time.monotonic()
    whole, _ = process.communicate()
    seconds = time.monotonic() - started
    assert process.returncode == 0
    expected, rng, codes, output = contents(tmp_path / "out"), random.Random(times), [], tmp_path / "again"
    for i in range(n_rounds):
        cache = tmp_path / f"cache{i // 4}"
        arguments = bench.arguments(cache, output, None, "--quiet")
        numbers = rng.choices([signal.SIGINT, signal.SIGTERM], k=times)
        prelude = ("import encsel.storage.cache\n" + OFTEN if i % 2 else "") + (
            NEXT if signal.SIGTERM in numbers else FIRST
        )
        moment = rng.uniform(0.0, 1.1) * seconds if i % 10 else 0.0
        moment = 0.3 * seconds if n_rounds == 1 else moment
        signals = [(moment, numbers[0]), *((rng.choice([0.0, 0.001, 0.01, 0.05]), number) for number in numbers[1:])]
        code, lines, out, took = interrupted(bench.start(arguments, prelude), *signals)
        codes.append(code)
        assert (code, lines) in [(5, ["encsel: Interrupted."]), (0, [])], (code, lines, signals)
        if code == 0:
            assert out.replace(str(output), "") == whole.replace(str(tmp_path / "out"), "")
        assert took < SOON
        bench.check(cache)
        done = contents(output)
        assert done == {name: expected[name] for name in done}
        if i % 4 == 3 or i == n_rounds - 1:
            finished = bench.run(bench.arguments(cache, output))
            assert finished.returncode == 0, finished.stderr
            assert "damaged" not in finished.stderr
            assert contents(output) == expected
            assert half_written(cache) + half_written(output) == []
            assert bench.cached(cache) == bench.of(bench.data)
            shutil.rmtree(output)
    print(f"exit codes { ({code: codes.count(code) for code in set(codes)}) }")
    assert codes.count(5) >= n_rounds // 3


HANGING = """
import ctypes, os, time
import numpy as np
from encsel.core import Encoder, EncoderFamily

class Model:
    n = 0

    def prepare(self, sample):
        hang("prepare")
        return sample

    def embed(self, batch):
        self.n += len(batch)
        if self.n > 5 + 2:  # of the first sample alone two more vectors are made, to compare them
            hang("embed")
        return np.array([[{formula}] for s in batch], np.float32)

def hang(where):
    if os.environ["HANGS"].startswith(where):
        print("ready", file=open(2, "w", closefd=False), flush=True)
        if os.environ["HANGS"].endswith("native"):
            libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)  # no signal ends this
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                if not os.environ["HANGS"].endswith("deaf"):
                    raise

def load():
    hang("load")
    return Model()

def open_(spec, runtime):
    return (Encoder(name=spec.name, modality="face", dim=4, spec=str(spec), family="moments", version=1,
                    licence="none", source="a test", load=load, shares=str(spec)),)

ENCODER = EncoderFamily("moments", "face", 4, 1, "none", "a test", open=open_, checkpoint="default")
"""


ONE_CASE = ("embed native", (), 2, True)
CASES = [
    ("embed in Python", (), 1, True), ("load in Python", (), 1, True), ("prepare native", (), 1, True),
    ("embed native", ("--timeout", "600"), 1, True), ("embed deaf", (), 2, True), ("embed native", (), 1, False),
]  # fmt: skip
MORE_CASES = [
    ("embed in Python", (), 2, True), ("prepare in Python", (), 1, True), ("prepare native", (), 2, True),
    ("load native", (), 1, False), ("embed deaf", (), 1, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("hangs", "options", "times", "by_itself", "number"),
    [
        (*ONE_CASE, signal.SIGINT),
        *(robust(*case, signal.SIGINT) for case in CASES),
        *(slow(*case, signal.SIGINT) for case in MORE_CASES),
        *(slow(*case, signal.SIGTERM) for case in (ONE_CASE, *CASES, *MORE_CASES)),
    ],
)
def test_an_interrupt_ends_an_encoder_that_hangs(tmp_path, hangs, options, times, by_itself, number):
    bench = Bench(tmp_path)
    (bench.packages / "moments.py").write_text(HANGING.format(formula=FORMULAS["moments"]))
    arguments = bench.arguments(tmp_path / "cache", tmp_path / "out", None, "--quiet", *options)
    prelude = "import sys, encsel.storage.cache, encsel.cli.interruption\n" + OFTEN + (PATIENT if by_itself else "")
    process = bench.start(arguments, prelude, variables={"HANGS": hangs})
    code, lines, out, took = interrupted(process, *([(0.1, number)] * times))
    lines = [line for line in lines if line != "ready"]  # from each of several threads
    assert (code, lines, out) == (5, ["encsel: Interrupted."], "")
    assert took < (SOON if by_itself else GRACE_SECONDS + 3)
    if hangs.startswith("embed"):
        assert len(bench.cached(tmp_path / "cache")["moments"]) == 5
    variables = {"HANGS": "never"}
    again = bench.run(bench.arguments(tmp_path / "cache", tmp_path / "out"), variables=variables)
    assert again.returncode == 0, again.stderr
    assert bench.cached(tmp_path / "cache") == bench.of(bench.data)


@pytest.mark.robust
def test_an_interrupt_while_pairs_are_ranked_is_one_line_and_code_5(bench, tmp_path):
    arguments = ["rank", str(bench.data), "--face", "moments", "--face", "corners", "--voice", "tones", "-q"]
    arguments += ["--min-identities", "3", "--cache", str(tmp_path / "cache")]
    assert bench.run(arguments).returncode == 0
    rng = random.Random(0)
    for seconds in (0.0, *(rng.uniform(0, 1.5) for _ in range(2))):
        code, lines, out, took = interrupted(bench.start(arguments, FIRST), (seconds, signal.SIGINT))
        assert (code, lines) in [(5, ["encsel: Interrupted."]), (0, [])], (seconds, lines)
        assert code == 5 or out
        assert took < SOON


@pytest.mark.robust
def test_a_signal_that_is_ignored_stays_ignored(bench, tmp_path):
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as `&` in a script does
    process = bench.start(bench.arguments(tmp_path / "cache", tmp_path / "out", None, "-q"), FIRST, **ignore)
    code, lines, _, _ = interrupted(process, (0.2, signal.SIGINT), (0.0, signal.SIGINT))
    assert (code, lines) == (0, [])


FORKING = """
import os, signal, time
import numpy as np
from encsel.core import EncoderFamily

def embed(samples):
    child = os.fork()
    if child == 0:
        time.sleep(600)
    time.sleep(0.01)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    return np.array([{formula} for s in samples], np.float32)

ENCODER = EncoderFamily("moments", "face", 4, 1, "none", "a test", load=lambda: embed)
"""


@pytest.mark.robust
def test_signals_to_the_children_of_an_encoder_are_their_own(tmp_path):
    bench = Bench(tmp_path)
    (bench.packages / "moments.py").write_text(FORKING.format(formula=FORMULAS["moments"]))
    done = bench.run(bench.arguments(tmp_path / "cache", tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert bench.cached(tmp_path / "cache") == bench.of(bench.data)
