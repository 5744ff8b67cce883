"""Embedding a set of media: decoded once, cached by content, and every failure named."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
import weakref
from collections import Counter

import numpy as np
import pytest
from media_samples import write_face, write_set, write_voice
from toy_encoders import DIM, ToyModel, moments, toy

import encsel
from encsel.core import SAMPLING_RATE, EncoderFamily, SetOptions
from encsel.data import media
from encsel.data.calibration_set import CalibrationSet
from encsel.data.media import decode
from encsel.embedding import model_run, one_pass, worker
from encsel.embedding.embed import Failure, embed
from encsel.embedding.model_run import BATCH_ON_CPU, LENGTH_STEP, describe
from encsel.errors import BadCalibration, EncoderFailed, UnusableSample
from encsel.loading import registry
from encsel.progress import Silent
from encsel.storage.signature import digest, library_versions

N_PEOPLE, N_SAMPLES = 6, 2
N = N_PEOPLE * N_SAMPLES


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


def by_sample(embeddings):
    """Vectors by whose sample they are."""
    keys = zip(embeddings.labels, embeddings.samples, strict=True)
    return dict(zip(keys, embeddings.vectors, strict=True))


class Watched(ToyModel):
    """A toy that keeps the shapes of the batches it was given."""

    def __init__(self, embed=moments, prepare=lambda sample: sample):
        super().__init__(embed, prepare)
        self.batches = []

    def embed(self, batch):
        self.batches.append([np.shape(one) for one in batch])
        return super().embed(batch)

    @property
    def sizes(self):
        return [len(batch) for batch in self.batches]


class Steps(Silent):
    """Totals and steps of every task by its label, and the notes."""

    def __init__(self):
        self.totals, self.done, self.texts = {}, Counter(), []

    def note(self, text, *, in_result=False):
        self.texts.append(text)

    @contextlib.contextmanager
    def task(self, label, total):
        self.totals[label] = total
        yield self._Task(self.done, label)

    class _Task:
        def __init__(self, done, label):
            self.done, self.label = done, label

        def advance(self, n=1):
            self.done[self.label] += n


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), n_identities=N_PEOPLE, n_samples=N_SAMPLES)


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "set")


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch):
    """Embed every sample once, so that calls can be counted; the check is in test_workers.py."""
    monkeypatch.setattr(model_run, "N_CHECKED", 0)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch) -> Counter:
    """How many files of each modality were decoded."""
    counts = Counter()

    lock = threading.Lock()

    def counting(content, modality, *options):
        with lock:
            counts[modality] += 1
        return decode(content, modality, *options)

    monkeypatch.setattr(one_pass, "decode", counting)
    return counts


def test_every_file_is_decoded_once_for_all_encoders(root, cache, decoded):
    encoders = [toy(f"{m}{i}", m) for m in ("face", "voice") for i in range(3)]
    found = embed(CalibrationSet.from_path(root), encoders, cache=cache)
    assert decoded == {"face": N, "voice": N}
    assert [e.name for e in found.embeddings] == ["face0", "face1", "face2", "voice0", "voice1", "voice2"]


def test_rows_are_the_encoder_s_vectors_under_their_own_names(root):
    (found,) = embed(CalibrationSet.from_path(root), [toy()]).embeddings
    assert len(found.vectors) == N
    assert found.vectors.dtype == np.float32
    for vector, identity, sample in zip(found.vectors, found.labels, found.samples, strict=True):
        (path,) = (p for p in files(root) if p.parent.name == identity and p.stem in sample)
        np.testing.assert_allclose(vector, moments([decode(path.read_bytes(), "face")])[0], rtol=1e-6)
    assert found.provenance == describe(toy())


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_batch_size_does_not_change_the_result(root, batch_size):
    whole = embed(CalibrationSet.from_path(root), [toy()])
    parts = embed(CalibrationSet.from_path(root), [toy()], batch_size=batch_size)
    np.testing.assert_array_equal(parts.embeddings[0].vectors, whole.embeddings[0].vectors)
    assert parts.data_sha256 == whole.data_sha256


@pytest.mark.parametrize("equal_lengths", [False, True])
def test_order_of_files_does_not_change_a_vector(lengths, equal_lengths):
    encoder = toy(modality="voice", equal_lengths=equal_lengths)
    calibration = CalibrationSet.from_path(lengths)
    samples = calibration.samples
    expected = by_sample(embed(calibration, [encoder], batch_size=5).embeddings[0])
    for order in (samples[::-1], samples[1::2] + samples[::2]):
        found = by_sample(embed(dataclasses.replace(calibration, samples=order), [encoder]).embeddings[0])
        assert found.keys() == expected.keys()
        for key, vector in found.items():
            np.testing.assert_array_equal(vector, expected[key])


def test_modality_without_an_encoder_is_not_read(root, decoded):
    for path in files(root, "voice"):
        path.unlink()
        path.touch()
    found = embed(CalibrationSet.from_path(root), [toy()])
    assert (len(found.embeddings), found.skipped, decoded["voice"]) == (1, (), 0)


def test_second_run_decodes_nothing_and_loads_no_model(root, cache, decoded):
    first = embed(CalibrationSet.from_path(root), [toy()], cache=cache)
    decoded.clear()
    second = embed(CalibrationSet.from_path(root), [toy(load=failing(RuntimeError()))], cache=cache)
    assert not decoded
    np.testing.assert_array_equal(second.embeddings[0].vectors, first.embeddings[0].vectors)
    assert second.data_sha256 == first.data_sha256


def test_moved_and_renamed_set_is_not_embedded_again(root, cache, decoded, tmp_path):
    embed(CalibrationSet.from_path(root), [toy()], cache=cache)
    decoded.clear()
    moved = root.rename(tmp_path / "elsewhere")
    for path in files(moved):
        path.rename(path.with_name(f"renamed-{path.name}"))
    embed(CalibrationSet.from_path(moved), [toy()], cache=cache)
    assert not decoded


def test_changed_file_is_embedded_again_and_no_other(root, cache, decoded):
    first = embed(CalibrationSet.from_path(root), [toy()], cache=cache)
    decoded.clear()
    write_face(files(root)[3], 999)
    second = embed(CalibrationSet.from_path(root), [toy()], cache=cache)
    assert decoded == {"face": 1}
    changed = (first.embeddings[0].vectors != second.embeddings[0].vectors).any(axis=1)
    assert changed.sum() == 1
    assert first.data_sha256 != second.data_sha256


def test_content_of_several_files_is_embedded_once(root):
    first, second, *_, last = files(root)
    shutil.copy(first, last)
    shutil.copy(first, second)
    model = Watched()
    (found,) = embed(CalibrationSet.from_path(root), [toy(model=model)]).embeddings
    assert sum(model.sizes) == N - 2
    # Two of the three are of one person, where a repeated row is left out.
    assert len(found.vectors) == N - 1
    (own,), (other,) = (
        found.vectors[found.labels == path.parent.name][i : i + 1] for path, i in ((first, 0), (last, 1))
    )
    np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"preprocessing": {"side": 64}},
        {"family": "other"},
        {"dim": 4},
        {"modality": "voice"},
        {"revision": "0123abc"},
        {"weights": {"model.safetensors": "0123abc"}},
        {"files": {"config.json": "0123abc"}},
        {"code": {"sha256": "0123abc"}},
        {"libraries": ("scipy",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_key_of_the_cache_changes_with(change):
    assert digest(describe(toy(**change))) != digest(describe(toy()))


@pytest.mark.parametrize(
    "change",
    [{"name": "mine"}, {"spec": "toy:/elsewhere"}, {"trained_on": "faces"}, {"flags": ("one of 25 layers",)}],
    ids=lambda change: next(iter(change)),
)
def test_key_of_the_cache_does_not_change_with(change):
    assert digest(describe(dataclasses.replace(toy(), **change))) == digest(describe(toy()))


def test_key_of_the_cache_changes_with_the_version_of_a_library(monkeypatch):
    before = digest(describe(toy(libraries=("scipy",))))
    monkeypatch.setattr(model_run, "library_versions", lambda names: dict.fromkeys(names, "0.0"))
    assert digest(describe(toy(libraries=("scipy",)))) != before


def test_embeddings_say_what_made_them(root):
    encoder = toy(
        weights={"model.safetensors": "f00d"}, revision="0123abc", libraries=("scipy",), preprocessing={"side": 64},
        trained_on="faces", space="joint", flags=("one of 25 layers",), licence="MIT",
    )  # fmt: skip
    (found,) = embed(CalibrationSet.from_path(root), [encoder]).embeddings
    assert found.provenance == {
        "name": "toy", "modality": "face", "version": 1, "dim": DIM, "revision": "0123abc",
        "weights": {"model.safetensors": "f00d"}, "preprocessing": {"side": 64}, "decoding": media.DECODING["face"],
        "libraries": library_versions(["Pillow", "scipy"]),
    }  # fmt: skip
    assert None not in found.provenance["libraries"].values()
    assert dataclasses.astuple(found.traits) == ("faces", "joint", ("one of 25 layers",), "MIT")


def test_key_of_the_cache_changes_with_the_decoding(monkeypatch):
    before = digest(describe(toy()))
    monkeypatch.setitem(media.DECODING, "face", {"version": 0})
    assert digest(describe(toy())) != before


def test_new_version_of_an_encoder_is_run_and_the_old_one_still_cached(root, cache, decoded):
    embed(CalibrationSet.from_path(root), [toy()], cache=cache)
    embed(CalibrationSet.from_path(root), [toy(version=2)], cache=cache)
    assert decoded == {"face": 2 * N}
    embed(CalibrationSet.from_path(root), [toy(), toy(version=2)], cache=cache)
    assert decoded == {"face": 2 * N}


def test_encoder_added_later_is_the_only_one_that_runs(root, cache):
    embed(CalibrationSet.from_path(root), [toy()], cache=cache)
    found = embed(CalibrationSet.from_path(root), [toy(load=failing(RuntimeError())), toy("new")], cache=cache)
    assert [len(e.vectors) for e in found.embeddings] == [N, N]


def test_nothing_is_written_without_a_cache(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENCSEL_CACHE", str(tmp_path / "cache"))
    before = sorted(tmp_path.rglob("*"))
    embed(CalibrationSet.from_path(root), [toy()])
    assert sorted(tmp_path.rglob("*")) == before


def test_hash_of_the_data_ignores_the_order_of_files(root):
    calibration = CalibrationSet.from_path(root)
    other = dataclasses.replace(calibration, samples=calibration.samples[::-1])
    assert embed(calibration, [toy()]).data_sha256 == embed(other, [toy()]).data_sha256


def test_hash_of_the_data_changes_with_whose_file_it_is(root):
    before = embed(CalibrationSet.from_path(root), [toy()]).data_sha256
    paths = files(root)
    one, other = paths[0], paths[-1]
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert embed(CalibrationSet.from_path(root), [toy()]).data_sha256 != before


def test_unreadable_file_is_skipped_for_every_encoder_and_named(root):
    path = files(root)[0]
    path.write_bytes(b"no image")
    found = embed(CalibrationSet.from_path(root), [toy("a"), toy("b")], max_skipped=0.1)
    (one,) = found.skipped
    assert (one.modality, one.encoder) == ("face", None)
    assert one.sample.startswith(f"{path.parent.name}/")
    assert [len(e.vectors) for e in found.embeddings] == [N - 1, N - 1]


def test_too_many_unreadable_files_are_an_error_with_the_names(root):
    paths = files(root)[:2]
    for path in paths:
        path.write_bytes(b"no image")
    with pytest.raises(BadCalibration, match=rf"2 of {N} face samples.*{paths[0].parent.name}/") as caught:
        embed(CalibrationSet.from_path(root), [toy()], max_skipped=0.1)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e300])
def test_sample_an_encoder_cannot_use_counts_against_that_encoder_alone(root, value):
    encoders = [toy("fine"), toy("picky", function=spoiling(value, 1))]
    found = embed(CalibrationSet.from_path(root), encoders, max_skipped=0.1)
    assert [len(e.vectors) for e in found.embeddings] == [N, N - 1]
    (one,) = found.skipped
    assert (one.encoder, one.modality) == ("picky", "face")


def test_samples_two_encoders_cannot_use_are_not_added_up(root):
    encoders = [toy("one", function=spoiling(np.nan, 1)), toy("two", function=spoiling(np.nan, 1))]
    found = embed(CalibrationSet.from_path(root), encoders, max_skipped=0.1)
    assert (len(found.skipped), len(found.embeddings), found.failures) == (2, 2, ())


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_too_many_samples_an_encoder_cannot_use_are_its_failure_that_names_none(root, value):
    encoders = [toy("picky", function=spoiling(value, 2)), toy("fine")]
    found = embed(CalibrationSet.from_path(root), encoders, max_skipped=0.1)
    assert [e.name for e in found.embeddings] == ["fine"]
    (failure,) = found.failures
    assert (failure.modality, failure.encoder) == ("face", "picky")
    assert f"could not use 2 of {N} samples (2 " in failure.reason
    assert files(root)[0].parent.name not in failure.reason
    assert {s.sample for s in found.skipped} == {f"{path.parent.name}/{path.name}" for path in files(root)[:2]}
    assert "at most 10% may be skipped" in failure.reason
    assert {s.encoder for s in found.skipped} == {"picky"}


def test_reason_an_encoder_gives_is_kept_and_counts_against_it_alone(root):
    first = decode(files(root)[0].read_bytes(), "face")

    def prepare(sample):
        if np.array_equal(sample, first):
            raise UnusableSample("no face found")
        return sample

    encoders = [toy("fine"), toy("picky", model=ToyModel(prepare=prepare))]
    found = embed(CalibrationSet.from_path(root), encoders, max_skipped=0.1)
    assert [len(e.vectors) for e in found.embeddings] == [N, N - 1]
    assert [(s.encoder, s.reason) for s in found.skipped] == [("picky", "no face found")]


def test_sample_an_encoder_could_not_use_is_tried_again_in_the_next_run(root, cache):
    embed(CalibrationSet.from_path(root), [toy(function=spoiling(np.nan, 1))], cache=cache, max_skipped=0.1)
    (found,) = embed(CalibrationSet.from_path(root), [toy()], cache=cache).embeddings
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
    (failure,) = embed(CalibrationSet.from_path(root), [toy(function=function)]).failures
    assert failure.encoder == "toy"
    assert failure.reason.startswith("it returned ")
    assert f"floats of shape ({N}, 3) were declared" in failure.reason


def test_an_encoder_of_media_that_gives_everything_one_vector_fails_and_the_others_go_on(root, monkeypatch):
    families = (
        EncoderFamily("constant", "face", 3, 1, "none", "", load=lambda: lambda x: np.ones((len(x), 3))),
        EncoderFamily("usual", "face", 3, 1, "none", "", load=lambda: moments),
        EncoderFamily("heard", "voice", 3, 1, "none", "", load=lambda: moments),
    )
    monkeypatch.setattr(registry, "encoder_families", lambda: families)
    ranking = encsel.rank(root, faces=["constant", "usual"], voices="heard", min_identities=5, cache=None)
    assert [f.encoder for f in ranking.failures] == ["constant"]
    assert [(p.face, p.voice) for p in ranking.pairs] == [("usual", "heard")]
    assert ranking.exit_code == 4


def test_model_without_the_tap_of_an_encoder_fails(root):
    (failure,) = embed(CalibrationSet.from_path(root), [toy(tap=1)]).failures
    assert "it returned float64 of shape" in failure.reason


BROKEN = {
    "loading": {"load": failing(RuntimeError("broken"))},
    "preparing": {"model": ToyModel(prepare=failing(RuntimeError("broken")))},
    "running": {"function": failing(RuntimeError("broken"))},
    "ending the process": {"function": failing(SystemExit("broken"))},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("position", [0, 1, 2])
def test_encoder_that_fails_does_not_cost_the_others(root, cache, broken, position):
    encoders = [toy("one"), toy("two")]
    encoders.insert(position, toy("broken", **broken))
    steps = Steps()
    found = embed(CalibrationSet.from_path(root), [*encoders, toy("voice", "voice")], cache=cache, progress=steps)
    ((_, _, reason),) = (dataclasses.astuple(failure) for failure in found.failures)
    assert found.failures == (Failure("face", "broken", reason),)
    assert reason in ("RuntimeError: broken", "SystemExit: broken")
    assert [(e.name, len(e.vectors)) for e in found.embeddings] == [("one", N), ("two", N), ("voice", N)]
    assert found.skipped == ()
    assert steps.texts == [f"broken failed: {reason}"]


def test_encoder_that_prepares_nothing_fails_and_no_other(root):
    encoders = [toy("broken", "voice", model=ToyModel(prepare=lambda sample: None)), toy("fine", "voice")]
    found = embed(CalibrationSet.from_path(root), encoders)
    assert [e.name for e in found.embeddings] == ["fine"]
    assert [f.encoder for f in found.failures] == ["broken"]


@pytest.mark.parametrize("broken", ["load", "prepare", "embed"])
def test_encoder_s_own_message_is_kept(root, broken):
    fail = failing(EncoderFailed("Run: encsel encoders fetch toy"))
    encoder = toy(load=fail) if broken == "load" else toy(model=ToyModel(**{broken: fail}))
    (failure,) = embed(CalibrationSet.from_path(root), [encoder]).failures
    assert failure.reason == "Run: encsel encoders fetch toy"


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_what_was_done_before_a_failure_is_cached(root, cache, decoded, error):
    n_batches = 0

    def second_batch_fails(samples):
        nonlocal n_batches
        n_batches += 1
        if n_batches == 2:
            raise error
        return moments(samples)

    encoders = [toy("first"), toy(function=second_batch_fails)]
    with contextlib.suppress(KeyboardInterrupt):
        found = embed(CalibrationSet.from_path(root), encoders, cache=cache, batch_size=5)
        assert [f.encoder for f in found.failures] == ["toy"]
    decoded.clear()
    embed(CalibrationSet.from_path(root), [toy()], cache=cache)
    assert decoded == {"face": N - 5}
    decoded.clear()
    embed(CalibrationSet.from_path(root), [toy("first")], cache=cache)
    assert not decoded


@pytest.mark.parametrize("where", ["decode", "prepare"])
def test_interrupt_inside_a_worker_ends_the_run_and_keeps_what_was_done(root, cache, decoded, monkeypatch, where):
    last = decode(files(root)[-1].read_bytes(), "face")

    def interrupted(*arguments):
        sample = decode(*arguments) if where == "decode" else arguments[0]
        if np.array_equal(sample, last):
            raise KeyboardInterrupt
        return sample

    encoder = toy(model=ToyModel(prepare=interrupted)) if where == "prepare" else toy()
    with monkeypatch.context() as patch:
        if where == "decode":
            patch.setattr(one_pass, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(CalibrationSet.from_path(root), [encoder], cache=cache, batch_size=1)
    decoded.clear()
    embed(CalibrationSet.from_path(root), [toy()], cache=cache)
    assert 0 < decoded["face"] < N


def test_what_an_encoder_prints_stays_off_stdout(root, capsys):
    def load():
        print("loading weights")
        return ToyModel(lambda batch: (print("running"), moments(batch))[1], lambda one: (print("preparing"), one)[1])

    embed(CalibrationSet.from_path(root), [toy(load=load), toy("other", load=load)])
    print("results")
    out, err = capsys.readouterr()
    assert out == "results\n"
    assert Counter(err.splitlines()) == {"loading weights": 2, "running": 2, "preparing": 2 * N}


# --- what runs beside what


def test_files_are_decoded_by_several_threads(root, monkeypatch):
    monkeypatch.setattr(one_pass, "N_THREADS", 4)
    two = threading.Barrier(2, timeout=120)

    def together(*arguments):
        two.wait()  # nobody goes on alone
        return decode(*arguments)

    monkeypatch.setattr(one_pass, "decode", together)
    (found,) = embed(CalibrationSet.from_path(root), [toy()]).embeddings
    assert len(found.vectors) == N


def test_next_batch_is_prepared_while_the_model_runs(root, monkeypatch):
    monkeypatch.setattr(one_pass, "N_THREADS", 1)
    monkeypatch.setattr(model_run, "AHEAD", 1)
    monkeypatch.setattr(model_run, "N_THREADS", 1)
    size = 4
    prepared = threading.Semaphore(0)
    batches = []

    def prepare(sample):
        prepared.release()
        return sample

    def run(batch):
        batches.append(len(batch))
        if len(batches) == 1:
            # Its own samples and those of the next batch; without work beside the model this would never end.
            for _ in range(2 * size):
                assert prepared.acquire(timeout=20)
        return moments(batch)

    found = embed(CalibrationSet.from_path(root), [toy(model=ToyModel(run, prepare))], batch_size=size)
    assert (found.failures, batches) == ((), [size] * 3)


@pytest.mark.parametrize("n_encoders", [1, 3])
def test_every_encoder_sees_every_sample_decoded_once_however_small_the_chunks(root, monkeypatch, decoded, n_encoders):
    whole = embed(CalibrationSet.from_path(root), [toy()]).embeddings[0].vectors
    decoded.clear()
    monkeypatch.setattr(one_pass, "CHUNK_BYTES", 2 * 48 * 48 * 3 + 1)  # three of the pictures
    models = [Watched() for _ in range(n_encoders)]
    found = embed(CalibrationSet.from_path(root), [toy(f"toy{i}", model=m) for i, m in enumerate(models)])
    assert decoded == {"face": N}
    assert [model.sizes for model in models] == ([[N]] if n_encoders == 1 else [[3, 3, 3, 3]] * 3)
    for embeddings in found.embeddings:
        np.testing.assert_array_equal(embeddings.vectors, whole)


def test_images_that_wait_for_the_model_take_little_memory(root, monkeypatch):
    whole = embed(CalibrationSet.from_path(root), [toy()]).embeddings[0].vectors
    for module in (one_pass, model_run):
        monkeypatch.setattr(module, "N_THREADS", 4)
        monkeypatch.setattr(module, "AHEAD_BYTES", 2 * 48 * 48 * 3)  # two of the pictures
    waiting, most = set(), []

    def decoding(content, modality, suffix, part, ffmpeg, admit):
        admit(48 * 48 * 3)
        sample = decode(content, modality, suffix)
        waiting.add(id(sample))
        weakref.finalize(sample, waiting.discard, id(sample))
        most.append(len(waiting))
        return sample

    monkeypatch.setattr(one_pass, "decode", decoding)
    model = ToyModel(moments, lambda sample: sample.copy())
    (found,) = embed(CalibrationSet.from_path(root), [toy(model=model)]).embeddings
    np.testing.assert_array_equal(found.vectors, whole)
    assert len(most) == N
    assert max(most) <= 6  # two read ahead, two to be prepared and one in hand, and one decoded in its turn


@pytest.fixture
def alive(monkeypatch) -> set:
    """The decoded samples that are in memory at the moment."""
    found = set()

    def decoding(*arguments):
        sample = decode(*arguments)
        found.add(id(sample))
        weakref.finalize(sample, found.discard, id(sample))
        return sample

    monkeypatch.setattr(one_pass, "decode", decoding)
    monkeypatch.setattr(one_pass, "N_THREADS", 1)
    monkeypatch.setattr(model_run, "AHEAD", 1)
    monkeypatch.setattr(model_run, "N_THREADS", 1)
    return found


def test_set_is_never_in_memory_as_a_whole(root, alive):
    most = []
    model = ToyModel(lambda batch: (most.append(len(alive)), moments(batch))[1])
    cached = [toy("one", model=model), toy("two")]
    embed(CalibrationSet.from_path(root), cached[:1], batch_size=1)
    assert len(most) == N
    # One in the model, and in each of the two queues what the threads are at.
    assert max(most) <= 6


def test_model_is_freed_before_the_next_is_loaded(root):
    loaded = []

    def load():
        assert [model for model in loaded if model() is not None] == []
        model = ToyModel()
        model.itself = model
        loaded.append(weakref.ref(model))
        return model

    found = embed(CalibrationSet.from_path(root), [toy(f"toy{i}", load=load) for i in range(3)])
    assert (len(loaded), found.failures) == (3, ())


# --- batches


@pytest.fixture(scope="module")
def lengths(tmp_path_factory):
    """Voices of four lengths, in turn: 12 of 0.5 s, and 4 each of 0.55, 0.9 and 0.95 s."""
    root = write_set(tmp_path_factory.mktemp("lengths"), n_identities=6, n_samples=4)
    seconds = [0.5, 0.55, 0.5, 0.9, 0.5, 0.95]
    for i, path in enumerate(files(root, "voice")):
        write_voice(path, 100 + i, seconds[i % 6])
    return root


def test_batches_of_equal_lengths_hold_one_shape_and_are_full(lengths):
    model = Watched()
    embed(CalibrationSet.from_path(lengths), [toy(modality="voice", model=model, equal_lengths=True)], batch_size=4)
    assert all(len(set(batch)) == 1 for batch in model.batches)
    assert Counter(batch[0][0] / SAMPLING_RATE for batch in model.batches) == {0.5: 3, 0.55: 1, 0.9: 1, 0.95: 1}
    assert model.sizes == [4] * 6


def test_batches_of_pictures_of_equal_lengths_hold_one_shape(root):
    model = Watched(prepare=lambda sample: sample[: 40 + 8 * (sample[0, 0, 0] % 2)])
    (found,) = embed(CalibrationSet.from_path(root), [toy(model=model, equal_lengths=True)], batch_size=4).embeddings
    assert all(len(set(batch)) == 1 for batch in model.batches)
    assert (sum(model.sizes), len(found.vectors)) == (N, N)


def test_batches_to_be_padded_hold_clips_of_about_one_length_and_are_full(lengths):
    model = Watched()
    embed(CalibrationSet.from_path(lengths), [toy(modality="voice", model=model)], batch_size=8)
    for batch in model.batches:
        frames = [shape[0] for shape in batch]
        assert max(frames) - min(frames) < LENGTH_STEP
    # 0.5 s is the end of one step of a quarter of a second, 0.55 s in the next, 0.9 and 0.95 s in the one after.
    assert sorted(model.sizes) == [4, 4, 8, 8]


def test_batch_on_the_cpu_holds_16_samples_unless_told_otherwise(lengths):
    model = Watched()
    embed(CalibrationSet.from_path(lengths), [toy(model=model)])
    assert model.sizes == [BATCH_ON_CPU, 24 - BATCH_ON_CPU] == [16, 8]


MESSAGES = {
    "CUDA": RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "torch on the CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "onnxruntime": RuntimeError("Failed to allocate memory for requested buffer of size 9"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "Python": MemoryError(),
}


def with_memory_for(limit, error):
    def function(samples):
        if len(samples) > limit:
            raise error
        return moments(samples)

    return function


@pytest.mark.parametrize("error", MESSAGES.values(), ids=MESSAGES.keys())
def test_batch_is_halved_while_memory_runs_out_and_stays_so(root, error):
    whole = embed(CalibrationSet.from_path(root), [toy()]).embeddings[0].vectors
    model = Watched(with_memory_for(2, error))
    found = embed(CalibrationSet.from_path(root), [toy("large", model=model), toy("small")], batch_size=8)
    assert found.failures == ()
    np.testing.assert_array_equal(found.embeddings[0].vectors, whole)
    assert model.sizes == [8, 4, 2, 2, 2, 2, 2, 2]


def test_encoder_without_memory_for_one_sample_fails_and_no_other(root):
    model = Watched(with_memory_for(0, RuntimeError("CUDA out of memory.")))
    found = embed(CalibrationSet.from_path(root), [toy("large", model=model), toy("small")], batch_size=8)
    assert found.failures == (Failure("face", "large", "RuntimeError: CUDA out of memory."),)
    assert model.sizes == [8, 4, 2, 1]
    assert [e.name for e in found.embeddings] == ["small"]


def test_torch_says_out_of_memory_in_words_that_are_known():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55)
    assert worker.out_of_memory(caught.value)


# --- several encoders from one pass


def layered(n_layers=2, function=moments):
    """A model of several taps, the k-th k + 1 times the first."""
    return Watched(lambda batch: np.stack([(k + 1) * function(batch) for k in range(n_layers)], axis=1))


def layer(k, model):
    return toy(f"layer{k}", model=model, family="layered", preprocessing={"layer": k}, tap=k, shares="layered")


def test_encoders_of_one_pass_run_their_model_once(root):
    model = layered()
    first, second = embed(CalibrationSet.from_path(root), [layer(0, model), layer(1, model)]).embeddings
    assert model.sizes == [N]
    assert (first.name, second.name) == ("layer0", "layer1")
    np.testing.assert_array_equal(second.vectors, 2 * first.vectors)


def test_encoder_of_a_pass_that_is_not_cached_is_made_and_the_others_not_written_again(root, cache):
    model = layered()
    (first,) = embed(CalibrationSet.from_path(root), [layer(0, model)], cache=cache).embeddings
    written = set(cache.glob("*/*.npz"))
    again = embed(CalibrationSet.from_path(root), [layer(0, model), layer(1, model)], cache=cache).embeddings
    assert model.sizes == [N, N]
    np.testing.assert_array_equal(again[0].vectors, first.vectors)
    np.testing.assert_array_equal(again[1].vectors, 2 * first.vectors)
    assert len(set(cache.glob("*/*.npz")) - written) == 1
    embed(CalibrationSet.from_path(root), [layer(1, model), layer(0, model)], cache=cache)
    assert model.sizes == [N, N]


def test_cached_sample_is_not_also_skipped_where_another_encoder_of_the_pass_cannot_use_it(root, cache):
    model = layered()
    embed(CalibrationSet.from_path(root), [layer(0, model)], cache=cache)

    def last_is_spoilt(batch):
        vectors = np.stack([moments(batch)] * 2, axis=1)
        vectors[-1, 1] = np.nan
        return vectors

    model = ToyModel(last_is_spoilt)
    found = embed(CalibrationSet.from_path(root), [layer(0, model), layer(1, model)], cache=cache, max_skipped=0.1)
    assert [len(e.vectors) for e in found.embeddings] == [N, N - 1]
    assert [s.encoder for s in found.skipped] == ["layer1"]


def test_failure_of_a_pass_is_that_of_all_its_encoders(root):
    model = ToyModel(failing(RuntimeError("broken")))
    found = embed(CalibrationSet.from_path(root), [layer(0, model), layer(1, model), toy("fine")])
    assert [f.encoder for f in found.failures] == ["layer0", "layer1"]
    assert [e.name for e in found.embeddings] == ["fine"]


# --- progress


@pytest.mark.parametrize("chunk", [100_000, 1 << 30])
def test_progress_of_every_encoder_adds_up_to_all_samples(root, cache, monkeypatch, chunk):
    monkeypatch.setattr(one_pass, "CHUNK_BYTES", chunk)
    embed(CalibrationSet.from_path(root, SetOptions(identities=3)), [toy("cached")], cache=cache)
    paths = files(root)
    paths[0].write_bytes(b"no image")
    shutil.copy(paths[-1], paths[-3])
    refused = decode(paths[4].read_bytes(), "face")

    def prepare(sample):
        if np.array_equal(sample, refused):
            raise UnusableSample("no face found")
        return sample

    encoders = [
        toy("cached"), toy("spoilt", function=spoiling(np.nan, 1)), toy("picky", model=ToyModel(prepare=prepare)),
        layer(0, model := layered()), layer(1, model), toy("new"),
    ]  # fmt: skip
    for order in (encoders, encoders[::-1]):
        steps = Steps()
        found = embed(CalibrationSet.from_path(root), order, cache=cache, max_skipped=0.2, progress=steps)
        assert found.failures == ()
        names = ["cached", "spoilt", "picky", "layered x2", "new"]
        assert steps.totals == {f"faces with {name}": N for name in names}
        assert steps.done == steps.totals


def test_progress_of_an_encoder_that_is_cached_adds_up_too(root, cache):
    embed(CalibrationSet.from_path(root), [toy("one"), toy("two")], cache=cache)
    steps = Steps()
    embed(CalibrationSet.from_path(root), [toy("one"), toy("two")], cache=cache, progress=steps)
    assert steps.done == {"faces with one": N, "faces with two": N}
