"""What leaves the machine names nobody: hashes keyed with a secret of the cache, counts, or names on request."""

from __future__ import annotations

import hashlib
import multiprocessing
import re

import pytest

from encsel.core import Skipped
from encsel.storage.cache import entries, purge, secret
from encsel.storage.pseudonyms import DIGITS, Pseudonyms, pseudonyms, without_folders

HASH = re.compile(f"[0-9a-f]{{{DIGITS}}}")
SKIPPED = Skipped("face", "Ann/smile.png", "empty file")


# --- hashes


def test_a_name_has_one_hash_for_each_key_and_kind():
    first, second = Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)
    assert HASH.fullmatch(first.person("Ann"))
    assert first.person("Ann") == first.person("Ann") != second.person("Ann")
    assert first.person("Ann") != first.person("Anna")
    assert first.skipped([SKIPPED])[0].sample != first.skipped([Skipped("voice", "Ann/smile.png", "")])[0].sample


def test_hash_is_hmac_sha256_of_kind_and_name():
    key = b"k" * 32
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key.ljust(64, b"\0")) + b"person\0Ann").digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in key.ljust(64, b"\0")) + inner).hexdigest()
    assert Pseudonyms(key).person("Ann") == outer[:DIGITS]


def test_names_that_are_not_text_are_hashed():
    for code in (0xDCFF, 0xD800):
        assert HASH.fullmatch(Pseudonyms(b"1" * 32).person(chr(code)))


def test_home_is_cut_whatever_it_is_called(monkeypatch):
    monkeypatch.setenv("HOME", "/home/Ann Smith")
    assert without_folders("/home/Ann Smith/models/x.bin is damaged") == "x.bin is damaged"


def test_names_are_shown_on_request_and_numbers_or_nothing_without_a_key():
    assert Pseudonyms(None, show=True).people(["Ann", "Bob"]) == ["Ann", "Bob"]
    assert Pseudonyms(None).people(["Ann", "Bob"]) == ["p00001", "p00002"]
    assert Pseudonyms(None).skipped([SKIPPED])[0] == Skipped("face", None, "empty file")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/models/x.onnx cannot be read", "x.onnx cannot be read"),
        ("the file '/a/b/c' and ~/d/e.f, (/g/h)", "the file 'c' and e.f, (h)"),
        ("arcface:/a/b/face.onnx: no", "arcface:face.onnx: no"),
        ("file:///a/b/c", "c"),
        ('No such file: "/home/Ann Smith/x y.bin"', 'No such file: "x y.bin"'),
        (r"C:\Users\ann\x.onnx and arcface:D:/a/b.onnx: no", "x.onnx and arcface:b.onnx: no"),
        (r"No such file: 'C:\\Users\\Ann Smith\\x y.bin', ~\a\b", "No such file: 'x y.bin', b"),
        (r"\\host\share\ann\x.npz is damaged", "x.npz is damaged"),
        ("models/mine and https://host.example/a/b and 3/4", "models/mine and https://host.example/a/b and 3/4"),
    ],
)
def test_folders_are_cut_from_messages(text, expected):
    assert without_folders(text) == expected


# --- the key


def test_key_is_private_stays_and_goes_with_the_cache(tmp_path):
    root = tmp_path / "cache"
    key = secret(root)
    assert len(key) == 32
    assert secret(root) == key
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*")} == {0o600, 0o700}
    assert [e.encoder for e in entries(root)] == ["key of hashed names"]
    purge(root)
    assert not root.exists()
    assert secret(root) != key


@pytest.mark.parametrize("damage", [lambda _: b"short", lambda key: bytes([key[0] ^ 1]) + key[1:]], ids=["cut", "bit"])
def test_damaged_key_is_made_anew(tmp_path, damage):
    key = secret(tmp_path)
    (path,) = tmp_path.glob("*/key")
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    new = secret(tmp_path)
    assert len(new) == 32
    assert new not in (key, damaged[:32])
    assert secret(tmp_path) == new


def first_key(root, barrier, found):
    barrier.wait()
    found.put(secret(root))


def test_processes_that_make_the_key_at_once_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(8), context.Queue()
    workers = [context.Process(target=first_key, args=(tmp_path, barrier, found)) for _ in range(8)]
    for worker in workers:
        worker.start()
    keys = {found.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert keys == {secret(tmp_path)}
    assert [path.name for path in next(iter(tmp_path.glob("*/key"))).parent.glob("key*")] == ["key"]


def test_without_a_cache_there_is_no_key():
    assert pseudonyms(None, show=False) == Pseudonyms(None)
