"""Results name nobody: skipped samples and people are hashes, unless the user asks for names."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from media_samples import write_set
from plugins import write_plugin
from toy import people

from encsel.loading.registry import encoder_families
from encsel.storage.pseudonyms import DIGITS

HASH = re.compile(f"[0-9a-f]{{{DIGITS}}}")


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """6 people; one image of p00 is empty."""
    root = write_set(tmp_path_factory.mktemp("set"), n_identities=6, n_samples=2)
    (root / "faces" / "p00" / "00.png").write_bytes(b"")
    return root


COMMON = ("--face", "pixels", "--voice", "ltas", "--format", "json", "--max-skipped", "0.5", "--min-identities", 5)


def rank(call, media, *options):
    code, out, err = call("rank", media, *COMMON, *options)
    assert code == 0, err
    assert "p00/00.png" in err
    return out, json.loads(out)["calibration"]["skipped"]["samples"]


def test_skipped_samples_are_hashes_in_json_and_the_same_ones_again(call, media, tmp_path):
    cache = ("--cache", tmp_path / "cache")
    first, samples = rank(call, media, *cache)
    assert "p00" not in first
    assert samples[0]["reason"] == "empty file"
    assert HASH.fullmatch(samples[0]["sample"])
    assert rank(call, media, *cache)[0] == first


def test_skipped_samples_have_names_on_request_in_files_that_others_cannot_read(call, media, tmp_path):
    output = tmp_path / "ranking.json"
    _, samples = rank(call, media, "--no-cache", "--show-names", "--output", output)
    assert samples[0]["sample"] == "p00/00.png"
    assert output.stat().st_mode & 0o777 == 0o600


def test_skipped_samples_are_counted_alone_without_a_cache(call, media, tmp_path):
    output = tmp_path / "ranking.json"
    _, samples = rank(call, media, "--no-cache", "--output", output)
    assert samples == [{"modality": "face", "sample": None, "encoder": None, "reason": "empty file"}]
    assert list(tmp_path.iterdir()) == [output]
    assert output.stat().st_mode & 0o077


def test_cache_that_cannot_hold_a_key_is_a_note(call, media, tmp_path):
    (tmp_path / "cache").write_text("a file")
    _, samples = rank(call, media, "--cache", tmp_path / "cache")
    assert samples[0]["sample"] is None


def test_encoder_that_cannot_use_samples_names_none_in_the_report(call, media, tmp_path, monkeypatch):
    source = """
import numpy as np
from encsel.core import EncoderFamily

def embed(samples):
    raise FileNotFoundError(2, "No such file", "/home/somebody/secret/weights.bin")

ENCODER = EncoderFamily("broken", "face", 2, 1, "none", "a test", load=lambda: embed)
"""
    monkeypatch.syspath_prepend(str(write_plugin(tmp_path / "packages", "broken_plugin", source)))
    encoder_families.cache_clear()
    code, out, err = call("rank", media, *COMMON, "--face", "broken", "--no-cache")
    encoder_families.cache_clear()
    assert code == 4
    assert "/home/somebody/secret/weights.bin" in err
    assert "somebody" not in out
    assert "weights.bin" in json.loads(out)["failures"][0]["reason"]


def test_score_files_hold_hashes_that_agree_over_encoders(call, ready, tmp_path):
    scores = tmp_path / "scores"
    shutil.copytree(ready, tmp_path / "set")
    shutil.copy(ready / "voices" / "voice0.npz", tmp_path / "set" / "voices" / "voice1.npz")
    code, _, err = call("validate", tmp_path / "set", "--only", "matching", "--scores", scores, "--quiet")
    assert code == 0, err
    files = sorted(scores.iterdir())
    names = [{word for line in path.read_text().splitlines() for word in line.split()[:2]} for path in files]
    assert len(files) > 3
    assert all(one == names[0] for one in names)
    assert len(names[0]) == 32
    assert all(HASH.fullmatch(name) for name in names[0])
    assert not names[0] & set(people(32))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
