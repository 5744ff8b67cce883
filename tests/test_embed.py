"""Embedding a set of media: decoded once, cached by content, and every failure named."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter

import numpy as np
import pytest
from media_samples import write_face, write_set

from encsel import embed as embedding
from encsel.calibration import open_calibration
from encsel.core import EncoderFamily
from encsel.embed import describe, embed
from encsel.errors import BadCalibration, EncoderFailed
from encsel.media import decode
from encsel.signature import digest

N_PEOPLE, N_SAMPLES = 6, 2
N = N_PEOPLE * N_SAMPLES


def moments(samples):
    flat = [np.asarray(sample, dtype=np.float64) for sample in samples]
    return np.array([[x.mean(), x.std(), np.abs(x).max()] for x in flat])


def toy(name="toy", modality="face", *, function=moments, **changes) -> EncoderFamily:
    return dataclasses.replace(
        EncoderFamily(name, modality, 3, 1, "none", "a test", load=lambda: function), **changes
    )  # fmt: skip


def failing(error):
    def fail(*_):
        raise error

    return fail


def spoiling(value, n):
    """`moments`, but the first n samples it meets become rows of `value`."""
    left = n

    def function(samples):
        nonlocal left
        rows = moments(samples)
        rows[:left] = value
        left = max(0, left - len(samples))
        return rows

    return function


def files(root, modality="face"):
    return sorted(p for p in (root / f"{modality}s").rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), n_identities=N_PEOPLE, n_samples=N_SAMPLES)


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "set")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch) -> Counter:
    """How many files of each modality were decoded."""
    counts = Counter()

    def counting(content, modality, suffix=""):
        counts[modality] += 1
        return decode(content, modality, suffix)

    monkeypatch.setattr(embedding, "decode", counting)
    return counts


def test_every_file_is_decoded_once_for_all_encoders(root, cache, decoded):
    families = [toy(f"{m}{i}", m) for m in ("face", "voice") for i in range(3)]
    found = embed(open_calibration(root), families, cache=cache)
    assert decoded == {"face": N, "voice": N}
    assert [e.name for e in found.embeddings] == ["face0", "face1", "face2", "voice0", "voice1", "voice2"]


def test_rows_are_the_encoder_s_vectors_under_their_own_names(root):
    (found,) = embed(open_calibration(root), [toy()]).embeddings
    assert len(found.vectors) == N
    assert found.vectors.dtype == np.float32
    for vector, identity, sample in zip(found.vectors, found.labels, found.samples, strict=True):
        (path,) = (p for p in files(root) if p.parent.name == identity and p.stem in sample)
        np.testing.assert_allclose(vector, moments([decode(path.read_bytes(), "face")])[0], rtol=1e-6)
    assert found.provenance == describe(toy())


def test_batch_size_does_not_change_the_result(root, monkeypatch):
    whole = embed(open_calibration(root), [toy()])
    monkeypatch.setattr(embedding, "BATCH", 5)
    parts = embed(open_calibration(root), [toy()])
    np.testing.assert_array_equal(parts.embeddings[0].vectors, whole.embeddings[0].vectors)
    assert parts.data_sha256 == whole.data_sha256


def test_modality_without_an_encoder_is_not_read(root, decoded):
    for path in files(root, "voice"):
        path.unlink()
        path.touch()
    found = embed(open_calibration(root), [toy()])
    assert (len(found.embeddings), found.skipped, decoded["voice"]) == (1, (), 0)


def test_second_run_decodes_nothing_and_loads_no_model(root, cache, decoded):
    first = embed(open_calibration(root), [toy()], cache=cache)
    decoded.clear()
    second = embed(open_calibration(root), [toy(load=failing(RuntimeError()))], cache=cache)
    assert not decoded
    np.testing.assert_array_equal(second.embeddings[0].vectors, first.embeddings[0].vectors)
    assert second.data_sha256 == first.data_sha256


def test_moved_and_renamed_set_is_not_embedded_again(root, cache, decoded, tmp_path):
    embed(open_calibration(root), [toy()], cache=cache)
    decoded.clear()
    moved = root.rename(tmp_path / "elsewhere")
    for path in files(moved):
        path.rename(path.with_name(f"renamed-{path.name}"))
    embed(open_calibration(moved), [toy()], cache=cache)
    assert not decoded


def test_changed_file_is_embedded_again_and_no_other(root, cache, decoded):
    first = embed(open_calibration(root), [toy()], cache=cache)
    decoded.clear()
    write_face(files(root)[3], 999)
    second = embed(open_calibration(root), [toy()], cache=cache)
    assert decoded == {"face": 1}
    changed = (first.embeddings[0].vectors != second.embeddings[0].vectors).any(axis=1)
    assert changed.sum() == 1
    assert first.data_sha256 != second.data_sha256


def test_file_listed_twice_is_embedded_once(root, decoded):
    first, second, *_ = files(root)
    shutil.copy(first, files(root)[-1])
    shutil.copy(first, second)
    n_embedded = []

    def counting(samples):
        n_embedded.append(len(samples))
        return moments(samples)

    embed(open_calibration(root), [toy(function=counting)])
    assert (decoded["face"], sum(n_embedded)) == (N - 2, N - 2)


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"preprocessing": {"side": 64}}, {"name": "other"}, {"dim": 4}, {"modality": "voice"}],
    ids=lambda change: next(iter(change)),
)
def test_key_of_the_cache_changes_with(change):
    assert digest(describe(toy(**change))) != digest(describe(toy()))


def test_key_of_the_cache_changes_with_the_decoding(monkeypatch):
    before = digest(describe(toy()))
    monkeypatch.setitem(embedding.DECODING, "face", {"version": 2})
    assert digest(describe(toy())) != before


def test_new_version_of_an_encoder_is_run_and_the_old_one_still_cached(root, cache, decoded):
    embed(open_calibration(root), [toy()], cache=cache)
    embed(open_calibration(root), [toy(version=2)], cache=cache)
    assert decoded == {"face": 2 * N}
    embed(open_calibration(root), [toy(), toy(version=2)], cache=cache)
    assert decoded == {"face": 2 * N}


def test_encoder_added_later_is_the_only_one_that_runs(root, cache):
    embed(open_calibration(root), [toy()], cache=cache)
    found = embed(open_calibration(root), [toy(load=failing(RuntimeError())), toy("new")], cache=cache)
    assert [len(e.vectors) for e in found.embeddings] == [N, N]


def test_nothing_is_written_without_a_cache(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENCSEL_CACHE", str(tmp_path / "cache"))
    before = sorted(tmp_path.rglob("*"))
    embed(open_calibration(root), [toy()])
    assert sorted(tmp_path.rglob("*")) == before


def test_hash_of_the_data_ignores_the_order_of_files(root):
    calibration = open_calibration(root)
    other = dataclasses.replace(calibration, samples=calibration.samples[::-1])
    assert embed(calibration, [toy()]).data_sha256 == embed(other, [toy()]).data_sha256


def test_hash_of_the_data_changes_with_whose_file_it_is(root):
    before = embed(open_calibration(root), [toy()]).data_sha256
    paths = files(root)
    one, other = paths[0], paths[-1]
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert embed(open_calibration(root), [toy()]).data_sha256 != before


def test_unreadable_file_is_skipped_for_every_encoder_and_named(root):
    path = files(root)[0]
    path.write_bytes(b"no image")
    found = embed(open_calibration(root), [toy("a"), toy("b")], max_skipped=0.1)
    (one,) = found.skipped
    assert (one.modality, one.encoder) == ("face", None)
    assert one.sample.startswith(f"{path.parent.name}/")
    assert [len(e.vectors) for e in found.embeddings] == [N - 1, N - 1]


def test_too_many_unreadable_files_are_an_error_with_the_names(root):
    paths = files(root)[:2]
    for path in paths:
        path.write_bytes(b"no image")
    with pytest.raises(BadCalibration, match=rf"2 of {N} face samples.*{paths[0].parent.name}/") as caught:
        embed(open_calibration(root), [toy()], max_skipped=0.1)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e300])
def test_sample_an_encoder_cannot_use_counts_against_that_encoder_alone(root, value):
    families = [toy("fine"), toy("picky", function=spoiling(value, 1))]
    found = embed(open_calibration(root), families, max_skipped=0.1)
    assert [len(e.vectors) for e in found.embeddings] == [N, N - 1]
    (one,) = found.skipped
    assert (one.encoder, one.modality) == ("picky", "face")


def test_samples_two_encoders_cannot_use_are_not_added_up(root):
    families = [toy("one", function=spoiling(np.nan, 1)), toy("two", function=spoiling(np.nan, 1))]
    assert len(embed(open_calibration(root), families, max_skipped=0.1).skipped) == 2


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_too_many_samples_an_encoder_cannot_use_are_an_error(root, value):
    with pytest.raises(BadCalibration, match=f"2 of {N} face samples"):
        embed(open_calibration(root), [toy(function=spoiling(value, 2))], max_skipped=0.1)


def test_sample_an_encoder_could_not_use_is_tried_again_in_the_next_run(root, cache):
    embed(open_calibration(root), [toy(function=spoiling(np.nan, 1))], cache=cache, max_skipped=0.1)
    (found,) = embed(open_calibration(root), [toy()], cache=cache).embeddings
    assert len(found.vectors) == N


@pytest.mark.parametrize(
    "function",
    [
        lambda samples: moments(samples)[:, :2],
        lambda samples: moments(samples)[:-1],
        lambda samples: moments(samples).ravel(),
        lambda samples: moments(samples).astype(int),
        lambda samples: moments(samples).astype(complex),
        lambda samples: None,
    ],
    ids=["narrow", "short", "flat", "whole numbers", "complex", "nothing"],
)
def test_encoder_that_returns_another_shape_or_type_fails_by_name(root, function):
    with pytest.raises(EncoderFailed, match=rf"The encoder toy returned .*\({N}, 3\) were declared"):
        embed(open_calibration(root), [toy(function=function)])


@pytest.mark.parametrize(
    "family",
    [toy(function=failing(RuntimeError("out of memory"))), toy(load=failing(RuntimeError("out of memory")))],
    ids=["running", "loading"],
)
def test_exception_in_an_encoder_is_a_failure_of_that_encoder(root, family):
    with pytest.raises(EncoderFailed, match="The encoder toy failed: RuntimeError: out of memory") as caught:
        embed(open_calibration(root), [family])
    assert caught.value.exit_code == 4
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_encoder_s_own_message_is_kept(root):
    with pytest.raises(EncoderFailed, match=r"^Run: encsel encoders fetch toy$"):
        embed(open_calibration(root), [toy(load=failing(EncoderFailed("Run: encsel encoders fetch toy")))])


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_what_was_done_before_a_failure_is_cached(root, cache, decoded, monkeypatch, error):
    def second_batch_fails(samples):
        if decoded["face"] > 5:
            raise error
        return moments(samples)

    monkeypatch.setattr(embedding, "BATCH", 5)
    with pytest.raises((EncoderFailed, KeyboardInterrupt)):
        embed(open_calibration(root), [toy("first"), toy(function=second_batch_fails)], cache=cache)
    decoded.clear()
    embed(open_calibration(root), [toy()], cache=cache)
    assert decoded == {"face": N - 5}
    decoded.clear()
    embed(open_calibration(root), [toy("first")], cache=cache)
    assert decoded == {"face": N - 10}


def test_what_an_encoder_prints_stays_off_stdout(root, capsys):
    def load():
        print("loading weights")
        return lambda samples: (print("running"), moments(samples))[1]

    embed(open_calibration(root), [toy(load=load)])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["loading weights", "running"]
