"""Python functions and torch modules as encoders: from Python, and named py:FILE.py:NAME or py:MODULE:NAME."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from media_samples import write_set

import encsel
from encsel import FunctionEncoder
from encsel.core import Runtime
from encsel.embedding.model_run import describe
from encsel.errors import EncoderFailed, UnusableSample, UsageError
from encsel.loading.registry import checked_spec, open_encoders

SOURCE = """
import numpy as np
import encsel

def embed(samples):
    return np.stack([[s.mean(), s.std(), s.max(), s.min()] for s in samples])

def broken(samples):
    raise ValueError("no such planet")

def flat(samples):
    return np.zeros(len(samples))

MINE = encsel.FunctionEncoder(embed, dim=4, space="joint", version="3", libraries=("numpy",))
NUMBER = 3
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("media"), n_identities=12, n_samples=3)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


def moments(samples):
    return np.stack([[s.mean(), s.std(), s.max(), s.min()] for s in samples]).astype(np.float32)


def opened(text, modality="face", **runtime):
    return open_encoders(checked_spec(text, modality), Runtime(**runtime))


def rank(media, **options):
    return encsel.rank(media, min_identities=5, **{"voices": "ltas", "cache": None, **options})


def test_function_in_a_file_is_an_encoder(file):
    (encoder,) = opened(f"py:{file}:embed")
    assert (encoder.name, encoder.dim, encoder.modality) == ("py:mine.py:embed", 4, "face")
    assert (encoder.licence, encoder.source) == ("not stated", "a Python function")
    model, image = encoder.load(), np.full((20, 20, 3), 7, np.uint8)
    np.testing.assert_array_equal(model.embed([model.prepare(image)]), [[[7, 0, 7, 7]]])


def test_function_in_a_module_is_found_from_the_current_folder(file, monkeypatch, tmp_path):
    (tmp_path / "my_functions_here.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    (encoder,) = opened("py:my_functions_here:embed", "voice")
    assert encoder.code["module"] == "my_functions_here"
    assert len(encoder.code["sha256"]) == 64
    assert "" not in sys.path[1:]
    del sys.modules["my_functions_here"]


def test_its_code_version_and_files_are_in_the_key(file, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"one")
    source = SOURCE.replace('version="3"', f'version="3", files=[{str(tmp_path / "weights.bin")!r}]')

    def key(text):
        file.write_text(text)
        return describe(opened(f"py:{file}:MINE")[0])

    first = key(source)
    assert first["code"]["version"] == "3"
    assert first["libraries"]["numpy"]
    assert str(tmp_path) not in str(first)
    assert key(source + "\n# another remark\n")["code"] != first["code"]
    (tmp_path / "weights.bin").write_bytes(b"two")
    assert key(source)["weights"] != first["weights"]
    assert key(source)["code"] == first["code"]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("nothing", EncoderFailed, "has no 'nothing'. Known: .*embed"),
        ("embedd", EncoderFailed, "Did you mean 'embed'"),
        ("broken", EncoderFailed, r"fails on a made-up sample \(ValueError: no such planet\)"),
        ("flat", EncoderFailed, r"returned shape \(1,\) for one sample; \(1, dim\) is needed"),
        ("NUMBER", UsageError, "is a int; a function or an encsel.FunctionEncoder is needed"),
        ("not a name", UsageError, "names no function. Syntax: py:FILE.py:NAME"),
    ],
)
def test_what_is_no_encoder_is_blamed(file, name, error, words):
    with pytest.raises(error, match=words):
        opened(f"py:{file}:{name}")


def test_file_or_module_that_is_not_there_or_does_not_import_is_blamed(tmp_path):
    with pytest.raises(EncoderFailed, match="there is no file"):
        opened(f"py:{tmp_path / 'none.py'}:embed")
    with pytest.raises(EncoderFailed, match="no_such_module does not import"):
        opened("py:no_such_module:embed")
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(EncoderFailed, match=r"bad.py does not import \(ZeroDivisionError"):
        opened(f"py:{tmp_path / 'bad.py'}:embed")


def test_py_alone_asks_for_a_function():
    with pytest.raises(UsageError, match=r"py has no default\. Name a checkpoint"):
        checked_spec("py", "face")


def test_callable_given_from_python_is_ranked_and_not_cached(media, tmp_path):
    calls = []

    def counted(samples):
        calls.append(len(samples))
        return moments(samples)

    ranking = rank(media, faces=[counted, "pixels"], cache=tmp_path / "cache")
    assert [e.name for e in ranking.encoders if e.modality == "face"] == ["counted", "pixels"]
    n = len(calls)
    again = rank(media, faces=[counted, "pixels"], cache=tmp_path / "cache")
    assert len(calls) == 2 * n
    assert again.signature["id"] == ranking.signature["id"]


def test_callable_with_a_version_is_cached_until_it_changes(media, tmp_path):
    calls = []

    def counted(samples):
        calls.append(len(samples))
        return moments(samples)

    for version in ("1", "1", "2"):
        rank(media, faces=FunctionEncoder(counted, "mine", dim=4, version=version), cache=tmp_path / "cache")
    n = sum(calls)
    rank(media, faces=FunctionEncoder(counted, "mine", dim=4, version="2"), cache=tmp_path / "cache")
    assert sum(calls) == n


def test_signature_follows_the_vectors_of_a_function_without_a_version(media):
    factors = iter([1, 1, 2])

    def once():
        factor = next(factors)
        return FunctionEncoder(lambda samples: factor * moments(samples) ** factor, "mine", dim=4)

    ids = [rank(media, faces=once()).signature["id"] for _ in range(3)]
    assert ids[0] == ids[1] != ids[2]


def test_two_functions_of_one_space_are_compared_by_cosine(media):
    face, voice = (FunctionEncoder(moments, name, space="joint") for name in ("f", "v"))
    validation = encsel.validate(media, faces=face, voices=voice, min_identities=10, cache=None, only=["joint"])
    assert any("joint" in str(pair) for pair in validation.pairs)


def test_transform_may_refuse_a_sample_and_a_row_of_nan_refuses_it_too(media):
    def fussy(sample):
        raise UnusableSample("not my style")

    ranking = rank(media, faces=["pixels", FunctionEncoder(moments, "fussy", transform=fussy, dim=4)])
    assert [(f.encoder, "not my style" in f.reason) for f in ranking.failures] == [("fussy", True)]


def test_torch_module_with_a_transform_is_an_encoder(media):
    import torch

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))

    def small(image):
        return image[:8, :8].astype(np.float32).transpose(2, 0, 1) / 255

    ranking = rank(media, faces=FunctionEncoder(module, "linear", transform=small))
    assert [e.dim for e in ranking.encoders if e.modality == "face"] == [5]
    with pytest.raises(UsageError, match="is a torch module, which needs a transform"):
        rank(media, faces=module)


def test_function_that_fails_does_not_stop_the_others(media):
    def broken(samples):
        raise ValueError("no such planet")

    ranking = rank(media, faces=["pixels", broken, FunctionEncoder(broken, "late", dim=3)])
    assert sorted(f.encoder for f in ranking.failures) == ["function", "late"]
    assert ranking.exit_code == 4


@pytest.mark.workers
def test_function_of_a_file_runs_in_a_process_of_its_own(media, file, call):
    file.write_text(SOURCE.replace("def embed(samples):", "def embed(samples):\n    print('loud')"))
    options = ("--voice", "ltas", "--min-identities", "5", "--format", "csv", "--no-cache")
    code, out, err = call("rank", media, "--face", f"py:{file}:embed", "--face", "pixels", *options)
    assert code == 0, err
    assert "py:mine.py:embed,ltas" in out
    assert "loud" not in out
