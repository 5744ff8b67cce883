"""The demo set: what is on disk, that it repeats itself, and that faces and voices share traits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.signal
import soundfile

from encsel.data import demo_set, demo_voices
from encsel.data.demo_faces import draw_face
from encsel.data.demo_set import Person, imagine_person, write_demo_set
from encsel.data.demo_voices import synthesise_voice
from encsel.errors import UsageError

N_IDENTITIES, N_SAMPLES = 3, 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "set"
    write_demo_set(root, n_identities=N_IDENTITIES, samples_per_identity=N_SAMPLES)
    return root


def hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def people(count: int) -> list[Person]:
    return [imagine_person(np.random.default_rng([0, number])) for number in range(1, count + 1)]


def pitch(clip: np.ndarray) -> float:
    """Hz at the largest peak of the autocorrelation between 70 and 300 Hz."""
    power = np.abs(np.fft.rfft(clip - clip.mean(), 2 * clip.size)) ** 2
    shortest, longest = 16_000 // 300, 16_000 // 70
    return float(16_000 / (shortest + np.argmax(np.fft.irfft(power)[shortest:longest])))


def chin_darkness(image: np.ndarray) -> float:
    """How much darker the chin is than the cheeks: stubble, whatever the skin and the light."""
    grey = image.mean(axis=2)
    cheeks = np.concatenate([grey[50:56, 33:37], grey[50:56, 59:63]])
    return float(np.log(cheeks.mean() / grey[67:71, 43:53].mean()))


def test_layout_has_one_folder_per_person_and_one_file_per_sample(root: Path) -> None:
    expected = {
        f"{folder}/person{person:02d}/{sample:02d}.{ending}"
        for folder, ending in (("faces", "png"), ("voices", "wav"))
        for person in range(1, N_IDENTITIES + 1)
        for sample in range(1, N_SAMPLES + 1)
    }
    assert set(hashes(root)) == expected


def test_the_new_folder_is_for_its_owner_only(root: Path) -> None:
    assert root.stat().st_mode & 0o777 == 0o700


def test_every_image_is_96_pixels_rgb_and_none_repeats(root: Path) -> None:
    for path in (root / "faces").rglob("*.png"):
        with PIL.Image.open(path) as image:
            assert (image.size, image.mode) == ((96, 96), "RGB")
    assert len(set(hashes(root).values())) == 2 * N_IDENTITIES * N_SAMPLES


def test_every_clip_is_a_second_or_more_of_16_khz_mono_speech_without_clipping(root: Path) -> None:
    for path in (root / "voices").rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        clip, _ = soundfile.read(path)
        # A clip is whole frames, so it may be one frame short of the second.
        assert 16_000 - demo_voices.FRAME <= clip.size <= 24_000
        assert np.abs(clip).max() < 0.95
        assert np.sqrt(np.mean(clip**2)) > 0.02


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(root: Path, tmp_path: Path) -> None:
    write_demo_set(tmp_path / "again", n_identities=N_IDENTITIES, samples_per_identity=N_SAMPLES)
    write_demo_set(tmp_path / "other", n_identities=1, samples_per_identity=1, seed=1)
    assert hashes(tmp_path / "again") == hashes(root)
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(root).values())


def test_more_people_and_samples_leave_the_others_as_they_were(root: Path, tmp_path: Path) -> None:
    write_demo_set(tmp_path / "less", n_identities=2, samples_per_identity=1)
    less = hashes(tmp_path / "less")
    assert len(less) == 4
    assert less.items() <= hashes(root).items()


def test_progress_counts_people(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_demo_set(
        tmp_path, n_identities=2, samples_per_identity=1, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("wrong", [{"n_identities": 0}, {"samples_per_identity": 0}, {"seed": -1}])
def test_a_count_below_one_is_refused_before_anything_is_written(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1 identity"):
        write_demo_set(tmp_path / "set", **wrong)
    assert not (tmp_path / "set").exists()


def test_somebody_elses_faces_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    with pytest.raises(UsageError, match="already contains faces"):
        write_demo_set(tmp_path, n_identities=1)
    assert not (tmp_path / "voices").exists()


def test_a_file_in_place_of_the_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Choose a writable folder"):
        write_demo_set(tmp_path / "file", n_identities=1)


def test_both_copies_of_a_shared_trait_agree_as_the_constants_say() -> None:
    everyone = people(2000)
    for trait, agreement in (
        ("sex", demo_set.SEX_AGREEMENT), ("build", demo_set.BUILD_AGREEMENT), ("age", demo_set.AGE_AGREEMENT),
    ):  # fmt: skip
        copies = np.array([(getattr(person.face, trait), getattr(person.voice, trait)) for person in everyone])
        # 0.05: above three standard errors of a correlation, or of a variance's root, at 2000 people.
        np.testing.assert_allclose(np.corrcoef(copies.T)[0, 1], agreement**2, atol=0.05)
        np.testing.assert_allclose(copies.std(axis=0), 1, atol=0.05)


def test_traits_of_one_modality_say_nothing_about_the_other() -> None:
    pairs = np.array([(person.face.skin_shade, person.face.nose, person.voice.nasality) for person in people(2000)])
    assert np.abs(np.corrcoef(pairs.T)[2, :2]).max() < 0.07


def test_dark_chins_go_with_low_voices() -> None:
    chins, pitches = [], []
    for number, person in enumerate(people(64), start=1):
        drawn = [draw_face(person.face, np.random.default_rng([number, sample])) for sample in range(2)]
        chins.append(np.mean([chin_darkness(image) for image in drawn]))
        pitches.append(np.log(pitch(synthesise_voice(person.voice, np.random.default_rng(number)))))
    # -0.35 here; chance is below -0.25 once in 40 draws of 64 people.
    assert np.corrcoef(chins, pitches)[0, 1] < -0.25


def test_filter_that_stands_still_is_an_ordinary_filter() -> None:
    sections = scipy.signal.butter(4, 0.2, output="sos")
    noise = np.random.default_rng(0).standard_normal(20 * demo_voices.FRAME)
    shaped = demo_voices._filter_by_frame(noise, np.repeat(sections[None], 20, axis=0))
    np.testing.assert_allclose(shaped, scipy.signal.sosfilt(sections, noise), atol=1e-12)


def test_gliding_formant_does_not_click() -> None:
    poles = demo_voices._second_order(np.linspace(2500, 900, 60), np.array(90.0))
    tract = np.zeros((60, 1, 6))
    tract[:, 0, 0], tract[:, 0, 3:] = poles.sum(axis=-1), poles
    tone = np.sin(2 * np.pi * 230 * np.arange(60 * demo_voices.FRAME) / 16_000)
    frequency, power = scipy.signal.welch(demo_voices._filter_by_frame(tone, tract), fs=16_000, nperseg=1024)
    # -113 dB; with sosfilt's state carried over as it is, -74.
    assert power[frequency > 5000].sum() < 1e-10 * power.sum()
