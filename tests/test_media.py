"""Decoding of face images and voice clips: kinds, damage, limits."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from media_samples import audio, image, sine, write_face, write_voice
from numpy.typing import NDArray

from encsel.core import MODALITIES, Modality
from encsel.data import media
from encsel.data.media import decode, decode_face, decode_voice, read_bytes
from encsel.errors import UnusableSample
from encsel.storage.files import stand_in

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def loudest_hertz(clip: NDArray[Any]) -> float:
    spectrum = np.abs(np.fft.rfft(clip * np.hanning(len(clip))))
    return float(spectrum.argmax() * 16_000 / len(clip))


def damaged(content: bytes) -> list[bytes]:
    """The content cut at many places, and with bytes turned over."""
    random = np.random.default_rng(0)
    cuts = [content[:n] for n in np.linspace(0, len(content) - 1, 40).astype(int)]
    flips = []
    for _ in range(60):
        changed = bytearray(content)
        for at in random.integers(0, min(len(content), random.choice((64, len(content)))), 4):
            changed[at] = random.integers(256)
        flips.append(bytes(changed))
    return cuts + flips


# Reading


def test_read_bytes_returns_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bytes(tmp_path / "a") == b"abc"


def test_an_empty_file_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UnusableSample, match="empty file"):
        read_bytes(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["missing.png", "a\0b.png", "x" * 300])
def test_a_file_that_is_not_there_is_unusable(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnusableSample, match="unreadable"):
        read_bytes(tmp_path / name)


def test_a_folder_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(UnusableSample, match="not a file"):
        read_bytes(tmp_path)


def test_a_pipe_is_unusable_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(UnusableSample, match="not a file"):
        read_bytes(tmp_path / "a.wav")


def test_a_huge_file_is_unusable_and_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.wav").open("wb") as file:
        file.truncate(media.MAX_FILE_BYTES + 1)  # sparse: takes no disk
    with pytest.raises(UnusableSample, match="too large: 1024 MiB, at most 1024"):
        read_bytes(tmp_path / "a.wav")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 598641023\n"
ANNEXED = b"../../.git/annex/objects/Kx/9Z/SHA256E-s1--ab.wav/SHA256E-s1--ab.wav"
STAND_INS = {
    "a Git LFS pointer, not the file itself: run git lfs pull": (
        POINTER, POINTER.replace(b"\n", b"\r\n"), b"version https://hawser.github.com/spec/v1\noid sha256:00\n",
        POINTER.replace(b"oid", b"ext-0-foo sha256:" + b"b" * 64 + b"\noid"),
    ),
    "a git-annex pointer, not the file itself: run git annex get": (
        b"/annex/objects/SHA256E-s123--abc.png\n", ANNEXED,
    ),
    "an HTML page, not the file itself: download it again": (
        b"<!DOCTYPE html>\n<html><head>", b"<html lang='en'>", b"\xef\xbb\xbf \n<!-- a --><!-- b -->\n<HTML>",
        b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">', b"<head><title>404",
    ),
    "an error message of a file server, not the file itself: download it again": (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "content"), [(reason, c) for reason, all_ in STAND_INS.items() for c in all_])
def test_text_in_place_of_a_sample_is_told(reason: str, content: bytes) -> None:
    for modality in MODALITIES:
        with pytest.raises(UnusableSample, match=f"^{reason}$"):
            decode(content, modality, ".m4a")


@pytest.mark.parametrize(
    "content",
    [b"", b"version 1\n", b"P1 16 16\n# annex/objects/a\n", b"<svg>", b"<htm", b"RIFF....WAVE",
     b"\x80\x02annex/objects/a", b"<!--" * 300, b"<!--a-->" * 120 + b"x"],
)  # fmt: skip
def test_other_content_stands_for_itself(content: bytes) -> None:
    assert stand_in(content) is None


def test_a_link_to_what_git_annex_has_not_fetched_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(".git/annex/objects/Kx/9Z/SHA256E-s1--ab.png/SHA256E-s1--ab.png")
    with pytest.raises(UnusableSample, match="run git annex get"):
        read_bytes(tmp_path / "a.png")


@pytest.mark.parametrize("modality", MODALITIES)
def test_large_files_are_decoded_as_small_ones(
    modality: Modality, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_face(tmp_path / "a.png", 0) if modality == "face" else write_voice(tmp_path / "a.wav", 0)
    content, wanted = path.read_bytes(), decode(path.read_bytes(), modality)
    for limit, block in ((len(content), 10), (len(content) - 1, 10_000), (100, 1000)):
        monkeypatch.setattr(media, "_IN_MEMORY", limit)
        monkeypatch.setattr(media, "_BLOCK", block)
        with media.opened(path) as (source, sha256):
            assert isinstance(source, bytes) == (limit == len(content))
            assert sha256 == hashlib.sha256(content).hexdigest()
            np.testing.assert_array_equal(decode(source, modality), wanted)
        assert read_bytes(path) == content


@pytest.mark.parametrize("change", [lambda path: os.utime(path, (0, 0)), lambda path: os.truncate(path, 200)])
def test_a_large_file_that_changes_while_it_is_decoded_is_unusable(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_IN_MEMORY", 100)
    path = write_voice(tmp_path / "a.wav", 0)
    with pytest.raises(UnusableSample, match="changed while it was read"), media.opened(path):
        change(path)


def test_decode_serves_both_modalities(tmp_path: Path) -> None:
    face = decode(read_bytes(write_face(tmp_path / "a.png", 0)), "face", ".png")
    voice = decode(read_bytes(write_voice(tmp_path / "a.wav", 0)), "voice", ".wav")
    assert (face.shape, face.dtype) == ((48, 48, 3), np.uint8)
    assert (voice.shape, voice.dtype) == ((8000,), np.float32)


# Images


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}),
                                               ("WEBP", {"lossless": True})])  # fmt: skip
def test_lossless_images_keep_their_pixels(kind: str, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode_face(image(RGB, kind, **options)), RGB)


def test_jpeg_is_decoded_close_to_its_pixels() -> None:
    smooth = np.asarray(PIL.Image.fromarray(RGB[:4, :4]).resize((64, 64), PIL.Image.Resampling.BICUBIC))
    decoded = decode_face(image(smooth, "JPEG", quality=95, subsampling=0))
    assert np.abs(decoded.astype(int) - smooth).mean() < 3


# What brings an image of each orientation tag upright, by the EXIF standard.
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, RGB), (2, RGB[:, ::-1]), (3, RGB[::-1, ::-1]), (4, RGB[::-1]), (5, RGB.transpose(1, 0, 2)),
        (6, np.rot90(RGB, -1)), (7, RGB[::-1, ::-1].transpose(1, 0, 2)), (8, np.rot90(RGB, 1)),
    ],
)  # fmt: skip
def test_exif_orientation_is_applied(orientation: int, upright: NDArray[np.uint8]) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_face(image(RGB, exif=exif)), upright)


def test_jpeg_exif_orientation_turns_the_shape() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    assert decode_face(image(RGB, "JPEG", exif=exif)).shape == (30, 20, 3)


def test_damaged_exif_does_not_cost_the_image() -> None:
    assert decode_face(image(RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")).shape == RGB.shape


def test_grey_has_three_equal_channels() -> None:
    np.testing.assert_array_equal(decode_face(image(GREY)), np.stack([GREY] * 3, axis=-1))


def test_one_bit_images_are_black_and_white() -> None:
    bits = GREY > 127
    np.testing.assert_array_equal(decode_face(image(PIL.Image.fromarray(bits)))[..., 1], bits * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 600).round().astype(np.uint16).reshape(20, 30)
    np.testing.assert_array_equal(decode_face(image(ramp, kind))[..., 0], np.round(ramp / 257))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_grey_is_scaled_by_its_range(top: float) -> None:
    ramp = np.linspace(0, top, 600, dtype=np.float32).reshape(20, 30)
    decoded = decode_face(image(ramp, "TIFF"))[..., 0]
    np.testing.assert_allclose(decoded, ramp * (255 / top), atol=0.51)


def test_float_image_with_nan_is_unusable() -> None:
    with pytest.raises(UnusableSample, match="non-finite pixels"):
        decode_face(image(np.full((20, 20), np.nan, np.float32), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparent_pixels_are_laid_over_white(mode: str, kind: str) -> None:
    picture = PIL.Image.fromarray(RGB).convert("L" if mode == "LA" else "RGB").convert(mode)
    alpha = np.zeros(RGB.shape[:2], np.uint8)
    alpha[:, 15:] = 255
    picture.putalpha(PIL.Image.fromarray(alpha))
    decoded = decode_face(image(picture, kind))
    assert (decoded[:, :15] == 255).all()
    np.testing.assert_array_equal(decoded[:, 15:], np.asarray(picture.convert("RGB"))[:, 15:])


def test_half_transparent_black_is_mid_grey() -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[..., 3] = 128
    assert np.unique(decode_face(image(pixels))).tolist() == [127]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_becomes_white(kind: str) -> None:
    picture = PIL.Image.new("P", (20, 20), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (0, 0, 20, 10))
    decoded = decode_face(image(picture, kind, transparency=0))
    assert decoded[5, 5].tolist() == [200, 100, 50]
    assert decoded[15, 5].tolist() == [255, 255, 255]


def test_transparent_grey_level_becomes_white() -> None:
    pixels = np.full((20, 20), 40, np.uint8)
    pixels[:10] = 90
    decoded = decode_face(image(pixels, transparency=40))
    assert (decoded[5, 5, 0], decoded[15, 5, 0]) == (90, 255)


def test_cmyk_jpeg_becomes_rgb() -> None:
    red = PIL.Image.new("RGB", (32, 32), (200, 30, 30)).convert("CMYK")
    decoded = decode_face(image(red, "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - (200, 30, 30)).max() < 12


def test_first_frame_of_an_animation_is_used() -> None:
    frames = [PIL.Image.new("L", (20, 20), level) for level in (60, 200)]
    assert decode_face(image(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0, 0] == 60


def test_tiny_images_are_unusable() -> None:
    with pytest.raises(UnusableSample, match="too small: 15x16 pixels, at least 16 a side"):
        decode_face(image(np.zeros((16, 15), np.uint8)))
    assert decode_face(image(np.zeros((16, 16), np.uint8))).shape == (16, 16, 3)


@pytest.mark.parametrize(("side", "reason"), [(8000, "too large: 8000x8000 pixels"), (60_000, "too large")])
def test_huge_images_are_unusable_and_not_decoded(side: int, reason: str) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(UnusableSample, match=reason):
        decode_face(bomb)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_text_named_as_an_image_is_unusable(content: bytes) -> None:
    with pytest.raises(UnusableSample, match=r"^unreadable image: cannot identify image file$"):
        decode_face(content)


def test_postscript_is_not_run() -> None:
    with pytest.raises(UnusableSample, match="cannot identify"):
        decode_face(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n")


def test_truncated_png_is_unusable() -> None:
    content = image(RGB)
    with pytest.raises(UnusableSample, match="unreadable image"):
        decode_face(content[: len(content) // 2])


@pytest.mark.filterwarnings("error")  # of Pillow, and of errors inside the callbacks of libsndfile below
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF"])
def test_damaged_images_decode_or_are_unusable(kind: str) -> None:
    for content in damaged(image(RGB, kind)):
        with contextlib.suppress(UnusableSample):
            decoded = decode_face(content)
            assert decoded.dtype == np.uint8
            assert decoded.shape[2:] == (3,)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_no_bytes_break_the_decoders(content: bytes) -> None:
    for decoder in (decode_face, decode_voice):
        with pytest.raises(UnusableSample) as caught:
            decoder(content)
        assert "0x" not in str(caught.value)  # the address of the file in memory


# Clips


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_becomes_16_khz_with_the_same_length_and_pitch(rate: int) -> None:
    clip = decode_voice(audio(sine(1000, 1.5, rate), rate))
    assert clip.dtype == np.float32
    assert abs(len(clip) - 24_000) <= 1
    assert loudest_hertz(clip) == pytest.approx(1000, abs=1)
    middle = clip[4000:-4000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_resampling_removes_what_16_khz_cannot_hold() -> None:
    clip = decode_voice(audio(sine(12_000, 1.0, 48_000), 48_000))
    # Aliased it would be a full-scale 4 kHz tone; the resampler leaves less than -60 dB away from the edges.
    assert np.abs(clip[1000:-1000]).max() < 0.5e-3


def test_16_khz_is_not_touched() -> None:
    frames = sine(440, 0.5, 16_000)
    np.testing.assert_array_equal(decode_voice(audio(frames, subtype="FLOAT")), frames)


def test_stereo_becomes_the_mean_of_its_channels() -> None:
    left, right = sine(300, 0.5, 16_000), sine(500, 0.5, 16_000)
    clip = decode_voice(audio(np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(clip, (left + right) / 2, atol=1e-7)


# Tolerance: the quantisation step of the subtype, or what a lossy codec does to a plain tone.
@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 2**-7), ("WAV", "PCM_16", 2**-15), ("WAV", "PCM_24", 2**-23), ("WAV", "PCM_32", 2**-23),
        ("WAV", "FLOAT", 0), ("WAV", "DOUBLE", 0), ("FLAC", "PCM_16", 2**-15), ("FLAC", "PCM_24", 2**-23),
        ("AIFF", "PCM_16", 2**-15), ("OGG", "VORBIS", 0.05),
    ],
)  # fmt: skip
def test_every_kind_of_file_gives_the_same_clip(kind: str, subtype: str, tolerance: float) -> None:
    frames = sine(440, 1.0, 16_000)
    clip = decode_voice(audio(frames, kind=kind, subtype=subtype))
    np.testing.assert_allclose(clip[800:-800], frames[800:-800], atol=tolerance)


@pytest.mark.parametrize(("kind", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS")])
def test_lossy_kinds_keep_the_pitch(kind: str, subtype: str) -> None:
    if not soundfile.check_format(kind, subtype):
        pytest.skip(f"this libsndfile cannot write {kind} {subtype}")
    clip = decode_voice(audio(sine(440, 1.0, 16_000), kind=kind, subtype=subtype))
    assert loudest_hertz(clip) == pytest.approx(440, abs=2)
    assert len(clip) == pytest.approx(16_000, abs=2400)  # codec padding


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_only_the_first_five_seconds_are_used(rate: int) -> None:
    frames = np.concatenate([sine(440, 5, rate), sine(2000, 2, rate)])
    clip = decode_voice(audio(frames, rate))
    assert len(clip) == 80_000
    assert loudest_hertz(clip[-8000:]) == pytest.approx(440, abs=3)


def test_short_clips_are_unusable() -> None:
    with pytest.raises(UnusableSample, match=r"too short: 0\.099 s, at least 0\.1 s"):
        decode_voice(audio(sine(440, 0.099, 8000), 8000))
    assert len(decode_voice(audio(sine(440, 0.1, 8000), 8000))) == 1600


def test_a_clip_without_frames_is_unusable() -> None:
    with pytest.raises(UnusableSample, match="too short"):
        decode_voice(audio(np.zeros(0, np.float32)))


def test_silence_is_unusable() -> None:
    with pytest.raises(UnusableSample, match="silent"):
        decode_voice(audio(np.zeros(8000, np.float32)))


def test_channels_that_cancel_are_silence() -> None:
    left = sine(440, 0.5, 16_000)
    with pytest.raises(UnusableSample, match="silent"):
        decode_voice(audio(np.stack([left, -left], axis=1), subtype="FLOAT"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_non_finite_audio_is_unusable(value: float, rate: int) -> None:
    frames = sine(440, 0.5, rate)
    frames[700] = value
    with pytest.raises(UnusableSample, match="non-finite audio"):
        decode_voice(audio(frames, rate, subtype="FLOAT"))


def test_truncated_header_is_unusable() -> None:
    with pytest.raises(UnusableSample, match="unreadable audio"):
        decode_voice(audio(sine(440, 0.5, 16_000))[:30])


def test_truncated_wav_gives_what_is_there() -> None:
    content = audio(sine(440, 1.0, 16_000), subtype="PCM_16")
    assert len(decode_voice(content[: 44 + 2 * 5000])) == 5000


@pytest.mark.parametrize("content", [b"", b"hello", b"RIFF"])
def test_text_named_as_audio_is_unusable(content: bytes) -> None:
    with pytest.raises(UnusableSample, match=r"^unreadable audio: Format not recognised\.$"):
        decode_voice(content)


@pytest.mark.parametrize("suffix", [".m4a", ".MP4", ".webm"])
def test_video_and_m4a_get_the_ffmpeg_command(suffix: str) -> None:
    with pytest.raises(UnusableSample, match=rf"ffmpeg -i CLIP{suffix} -ac 1 -ar 16000 CLIP\.wav"):
        decode_voice(b"whatever", suffix)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("AIFF", "PCM_16")],
)
def test_damaged_clips_decode_or_are_unusable(kind: str, subtype: str) -> None:
    for content in damaged(audio(sine(440, 0.3, 16_000), kind=kind, subtype=subtype)):
        with contextlib.suppress(UnusableSample):
            clip = decode_voice(content)
            assert 1 <= len(clip) <= 80_000
            assert np.isfinite(clip).all()


@pytest.mark.parametrize("rate", [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1])
def test_senseless_rates_decode_or_are_unusable(rate: int) -> None:
    content = bytearray(audio(sine(440, 0.5, 16_000)))
    content[24:28] = struct.pack("<I", rate)
    with contextlib.suppress(UnusableSample):
        assert len(decode_voice(bytes(content))) <= 80_000


def test_suffixes_of_the_modalities_are_apart_and_lower_case() -> None:
    faces, voices = (media.MEDIA_SUFFIXES[m] for m in ("face", "voice"))
    assert not faces & voices
    assert all(s == s.lower() and s.startswith(".") for s in faces | voices)
