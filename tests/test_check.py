"""`encsel encoders check`: what it finds in encoders that do what none may do."""

from __future__ import annotations

import pytest
from media_samples import write_set

SOURCE = """
import itertools
import numpy as np
from encsel.core import EncoderFamily
from encsel.errors import UnusableSample
import encsel

def describe(sample):
    x = np.asarray(sample, dtype=np.float64).ravel()
    return np.array([x.mean(), x.std() + 1, np.abs(x).max(), np.median(x)])

def good(samples):
    return np.stack([describe(s) for s in samples])

def batched(samples):
    return good(samples) - good(samples).mean(axis=0)

counter = itertools.count()
def unstable(samples):
    return good(samples) + next(counter)

def constant(samples):
    return np.ones((len(samples), 4))

def short(samples):
    return good(samples)[:, :3]

def infinite(samples):
    return good(samples) * np.inf

def fails(samples):
    if any(len(s) < 2000 and s.ndim == 1 for s in samples) or any(np.ptp(s) == 0 for s in samples):
        raise ValueError("no such planet")
    return good(samples)

def writes(samples):
    for s in samples:
        s *= 0
    return good(samples)

def fussy(sample):
    raise UnusableSample("not my style")

FUSSY = encsel.FunctionEncoder(good, dim=4, transform=fussy)
SHORT = encsel.FunctionEncoder(short, dim=4)
MISSING = encsel.FunctionEncoder(good, dim=4, libraries=("no-such-library",))
FAMILY = EncoderFamily("mine", "voice", 4, 1, "MIT", "a test", load=lambda: good)
BAD_FAMILY = EncoderFamily("mine", "speech", 4, 1, "MIT", "a test", load=lambda: good)
"""

FAULTS = {
    "batched": "ignores the other samples of a batch: a sample gives a different vector alone",
    "unstable": "gives the same vectors again: the same samples give different vectors the second time",
    "constant": "tells samples apart: two different samples give the same vector",
    "infinite": "makes finite vectors of the declared size: values of 6 of 6 ordinary samples are not finite",
    "SHORT": "makes finite vectors of the declared size: EncoderFailed: it returned float64 of shape (6, 3)",
    "fails": "embeds or refuses odd samples: a legal sample (",
    "writes": "leaves samples as they are",
    "MISSING": "describes itself: it names libraries that are not installed: no-such-library",
}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_encoder_without_a_fault_passes(file, call, modality):
    code, out, err = call("encoders", "check", f"py:{file}:good", "--modality", modality)
    assert code == 0, out + err
    assert f"{modality} encoder py:mine.py:good: 4 values; 6 samples" in out
    assert out.count("ok  ") == 9
    assert out.endswith("Nothing fails.\n")


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_and_named(file, call, name):
    code, out, err = call("encoders", "check", f"py:{file}:{name}", "--modality", "voice")
    assert code == 4, out + err
    assert f"FAILED  {FAULTS[name]}" in out
    assert "of these fail." in out


def test_encsel_s_own_are_checked_by_name(call):
    code, out, _ = call("encoders", "check", "hog")
    assert (code, "Nothing fails." in out) == (0, True)


def test_family_that_is_not_registered_yet_is_checked(file, call, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    code, out, _ = call("encoders", "check", "mine:FAMILY")
    assert (code, "voice encoder mine: 4 values" in out) == (0, True)
    code, _, err = call("encoders", "check", "mine:BAD_FAMILY")
    assert (code, "has the modality 'speech'" in err) == (4, True)


def test_function_needs_a_modality(file, call):
    code, _, err = call("encoders", "check", f"py:{file}:good")
    assert (code, "Say which, with --modality" in err) == (2, True)


def test_encoder_that_refuses_made_up_samples_is_tried_on_a_set(file, call, tmp_path):
    code, _, err = call("encoders", "check", f"py:{file}:FUSSY", "--modality", "face")
    assert (code, "uses 0 of 6 samples (not my style)" in err) == (4, True)
    data = write_set(tmp_path / "set", n_identities=4)
    code, out, _ = call("encoders", "check", f"py:{file}:good", "--modality", "face", "--data", data)
    assert (code, "4 samples" in out) == (0, True)
