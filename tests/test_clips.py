"""Decoding of clips: the part that is used, streams without a length, containers told by content, ffmpeg."""

from __future__ import annotations

import contextlib
import io
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from media_samples import audio, sine, write_set
from numpy.typing import NDArray

from encsel.core import PARTS, Runtime, SetOptions
from encsel.data import clips, ffmpeg, media
from encsel.data.calibration_set import CalibrationSet
from encsel.data.clips import decode_voice
from encsel.data.ffmpeg import Ffmpeg, find_ffmpeg
from encsel.data.memory import Memory
from encsel.embedding.embed import embed
from encsel.embedding.model_run import describe
from encsel.errors import UnusableSample, UsageError
from encsel.loading.registry import open_encoders
from encsel.loading.spec import parse

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on this machine")
NOISE = (0.1 * np.random.default_rng(0).standard_normal(24_000) * 32_767).astype(np.int16)


def zeros(seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    return np.zeros(round(seconds * rate), np.float32)


def flac_of_unknown_length(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[21] &= 0xF0  # 36 bits of "total samples"; 0 is unknown
    changed[22:26] = bytes(4)
    return bytes(changed)


def test_memory_for_five_seconds_is_reserved_while_a_clip_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    reserved = []

    class Watched(Memory):
        def reserved(self, n_bytes: int) -> contextlib.AbstractContextManager[None]:
            reserved.append(n_bytes)
            return super().reserved(n_bytes)

    monkeypatch.setattr(clips, "DECODING_MEMORY", Watched(1 << 30))
    decode_voice(audio(np.column_stack([sine(440, 6, 48_000)] * 2), 48_000))
    (n_bytes,) = reserved
    assert n_bytes > 5 * 48_000 * 2 * np.dtype(np.float32).itemsize


# Which part


@pytest.mark.parametrize("seconds", [0.1, 0.5, 4.9, 6, 61])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_leading_digital_silence_is_left_out(seconds: float, rate: int) -> None:
    sound = sine(440, 4, rate)[1:]  # a sine begins with a zero
    clip = decode_voice(audio(np.concatenate([zeros(seconds, rate), sound]), rate, "FLAC"))
    np.testing.assert_array_equal(clip, decode_voice(audio(sound, rate, "FLAC")))


def test_a_few_zeros_in_front_move_nothing() -> None:
    sound = np.concatenate([zeros(0.09), sine(440, 1, 16_000)])
    np.testing.assert_array_equal(decode_voice(audio(sound, subtype="FLOAT")), sound)


def test_blocks_do_not_move_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [audio(np.concatenate([zeros(s), sine(440, 6, 16_000)])) for s in (0, 0.05, 0.3, 7)]
    whole = list(map(decode_voice, contents))
    monkeypatch.setattr(clips, "_BLOCK", 100)
    for content, one in zip(contents, whole, strict=True):
        np.testing.assert_array_equal(decode_voice(content), one)


def test_too_little_sound_after_silence_is_said() -> None:
    with pytest.raises(UnusableSample, match=r"^too short: 0\.050 s after 6\.0 s of silence, at least 0\.1 s$"):
        decode_voice(audio(np.concatenate([zeros(6), np.full(800, 0.1, np.float32)])))


@pytest.mark.parametrize("part", PARTS)
def test_a_clip_of_zeros_is_silent(part: Any) -> None:
    with pytest.raises(UnusableSample, match=r"^silent: every value is zero$"):
        decode_voice(audio(zeros(3)), part=part)
    with pytest.raises(UnusableSample, match=r"^silent: the mean of its channels is zero$"):
        decode_voice(audio(np.stack([sine(440, 3, 16_000), -sine(440, 3, 16_000)], axis=1), subtype="FLOAT"), part=part)


def test_the_reason_says_how_far_the_search_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "_MAX_VALUES", 20 * 16_000)
    content = audio(np.concatenate([zeros(30), sine(440, 4, 16_000)]))
    for part in ("first", "loudest"):
        with pytest.raises(UnusableSample, match=r"^silent in its first 20 s: every value is zero$"):
            decode_voice(content, part=part)
    with pytest.raises(UnusableSample, match=r"^silent in its middle 5 s: every value is zero$"):
        decode_voice(content, part="middle")


@pytest.mark.parametrize("rate", [8000, 11_025])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "unknown length", "without seeking"])
def test_middle_and_loudest_are_where_they_should_be(rate: int, kind: str) -> None:
    parts = [0.3 * sine(200, 10, rate), 0.3 * sine(400, 10, rate), sine(800, 6, rate), 0.3 * sine(1600, 4, rate)]
    form, subtype = ("WAV", "GSM610") if kind == "without seeking" else ("WAV" if kind == "WAV" else "FLAC", None)
    content = audio(np.concatenate(parts), rate, form, subtype)
    if kind == "unknown length":
        content = flac_of_unknown_length(content)
    for part, hertz in (("first", 200), ("middle", 400), ("loudest", 800)):
        clip = decode_voice(content, part=part)
        assert len(clip) == 80_000
        spectrum = np.abs(np.fft.rfft(clip * np.hanning(len(clip))))
        assert spectrum.argmax() / 5 == pytest.approx(hertz, abs=1)


@pytest.mark.parametrize("part", ["middle", "loudest"])
@pytest.mark.parametrize("seconds", [0.15, 2, 5])
def test_clips_of_5_seconds_are_whole_in_every_part(part: Any, seconds: float) -> None:
    content = audio(sine(440, seconds, 16_000))
    np.testing.assert_array_equal(decode_voice(content, part=part), decode_voice(content))


def test_a_length_that_the_header_overstates_does_not_move_the_middle_behind_the_end() -> None:
    content = audio(sine(440, 40, 16_000), kind="FLAC")
    cut = content[: len(content) // 4]
    with pytest.raises(UnusableSample, match=r"unreadable audio|too short"):
        decode_voice(cut, part="middle")
    assert len(decode_voice(cut)) == 80_000


@pytest.mark.parametrize("part", ["first", "middle"])
def test_an_hour_is_not_decoded_for_5_seconds(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 1, "PCM_16", format="FLAC") as clip:
        for _ in range(60):
            clip.write(np.tile(NOISE, 20))
    n_read = 0
    read = clips._Sound.readinto

    def counting(self: Any, buffer: Any) -> int:
        nonlocal n_read
        n = read(self, buffer)
        n_read += n
        return n

    monkeypatch.setattr(clips._Sound, "readinto", counting)
    assert len(decode_voice(file.getvalue(), part=part)) == 80_000
    assert n_read < len(file.getvalue()) / 20


# Streams whose length stands nowhere


def without_length(kind: str) -> tuple[bytes, bytes]:
    """A file, and the same one as a program writes it that cannot go back to the header."""
    whole = bytearray(audio(NOISE, kind=kind.split()[0], subtype="PCM_16"))
    piped = bytearray(whole)
    at = whole.find(b"data")
    if kind == "FLAC":
        return bytes(whole), flac_of_unknown_length(bytes(whole))
    if kind in ("WAV 0", "WAVEX 0"):
        piped[4:8] = piped[at + 4 : at + 8] = bytes(4)
    elif kind in ("WAV -1", "WAVEX -1"):
        piped[4:8] = piped[at + 4 : at + 8] = b"\xff" * 4
    elif kind == "WAV sox":
        piped[4:8], piped[at + 4 : at + 8] = struct.pack("<I", 0x7FFFF024), struct.pack("<I", 0x7FFFF000)
    elif kind == "RF64":
        piped[20:44] = bytes(24)
        piped[at + 4 : at + 8] = b"\xff" * 4
    elif kind == "W64":
        piped[16:24], piped[at + 16 : at + 24] = b"\xff" * 8, b"\xff" * 7 + b"\x7f"
    elif kind == "CAF":
        piped[at + 4 : at + 12] = b"\xff" * 8
    elif kind == "AU":
        piped[8:12] = b"\xff" * 4
    elif kind == "AIFF":
        sound = whole.find(b"SSND")
        piped[4:8] = piped[22:26] = piped[sound + 4 : sound + 8] = bytes(4)
    elif kind == "NIST":
        piped[:1024] = piped[:1024].replace(b"sample_count -i 24000", b"sample_count -i 0    ")
    return bytes(whole), bytes(piped)


KINDS = ("FLAC", "WAV 0", "WAV -1", "WAV sox", "WAVEX 0", "WAVEX -1", "RF64", "W64", "CAF", "AU", "AIFF", "NIST")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_without_a_length_is_read_to_its_end(kind: str) -> None:
    whole, piped = without_length(kind)
    assert whole != piped
    clip = decode_voice(piped)
    np.testing.assert_array_equal(clip, NOISE / np.float32(32_768))
    for part in PARTS:
        np.testing.assert_array_equal(decode_voice(piped, part=part), decode_voice(whole, part=part))


def test_an_empty_wav_with_a_remark_behind_it_is_empty() -> None:
    empty = bytearray(audio(np.zeros(0, np.int16)))
    remark = b"LIST" + struct.pack("<I", 26) + b"INFOISFT\x0e\0\0\0Lavf59.27.100\0"
    with pytest.raises(UnusableSample, match=r"too short: 0\.000 s"):
        decode_voice(bytes(empty) + remark * 1000)


@needs_ffmpeg
@pytest.mark.parametrize("form", ["wav", "flac", "w64", "opus", "wav -rf64 always"])
def test_what_ffmpeg_writes_to_a_pipe_is_what_it_writes_to_a_file(form: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(audio(NOISE))
    options = [*("-c:a libvorbis" if form == "ogg" else "").split(), "-bitexact", "-f", *form.split()]
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", tmp_path / "a.wav", *options]
    piped = subprocess.run([*command, "pipe:1"], capture_output=True, check=True).stdout
    subprocess.run([*command, tmp_path / "made"], check=True)
    np.testing.assert_array_equal(decode_voice(piped), decode_voice((tmp_path / "made").read_bytes()))


# What a file is


SIGNATURES = {
    "MP4": b"\0\0\0\x20ftypM4A \0\0\0\0", "WebM": b"\x1aE\xdf\xa3\x9f\x42\x86\x81\x01", "ADTS": b"\xff\xf1\x50\x80",
    "ASF": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "AVI": b"RIFF\0\0\0\0AVI LIST", "AMR": b"#!AMR\n",
    "WavPack": b"wvpk\0\0\0\0", "FLV": b"FLV\x01\x05", "Ogg with FLAC": b"OggS" + bytes(22) + b"\x01\x33\x7fFLAC",
    "Ogg with Speex": b"OggS" + bytes(22) + b"\x01\x50Speex   1.2",
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".ogg", ".m4a", ""])
def test_containers_are_told_by_their_content(name: str, suffix: str) -> None:
    made = "CLIP2.wav" if suffix == ".wav" else "CLIP.wav"
    with pytest.raises(UnusableSample, match=rf"^.*{name}.* needs converting: ffmpeg -i CLIP{suffix} -ac 1 .* {made}"):
        decode_voice(SIGNATURES[name] + bytes(500), suffix)


def test_aac_behind_a_tag_is_told() -> None:
    with pytest.raises(UnusableSample, match="ADTS"):
        decode_voice(b"ID3\x04\0\0\0\0\x02\0" + bytes(256) + SIGNATURES["ADTS"], ".mp3")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_what_is_named_m4a_and_is_something_else_is_read(kind: str) -> None:
    content = audio(sine(440, 1, 16_000), kind=kind)
    np.testing.assert_array_equal(decode_voice(content, ".m4a"), decode_voice(content, f".{kind.lower()}"))


def test_a_suffix_that_is_part_of_a_name_is_not_repeated() -> None:
    with pytest.raises(UnusableSample) as caught:
        decode_voice(SIGNATURES["MP4"], ".Smith, John")
    assert "Smith" not in str(caught.value)


# Suffixes


NOT_ALONE = {"RAW", "SD2", "MAT4", "MAT5", "HTK", "XI", "MPC2K"}
"""Formats whose files do not say what they are, or whose suffix other data have."""
SUFFIXES = {
    "SVX": {".svx", ".8svx", ".iff"}, "OGG": {".ogg", ".oga", ".opus"}, "NIST": {".sph", ".nist"},
    "AIFF": {".aif", ".aiff", ".aifc"}, "AU": {".au", ".snd"}, "WAV": {".wav", ".wave"}, "WAVEX": {".wav"},
    "IRCAM": {".sf", ".ircam"}, "MP3": {".mp1", ".mp2", ".mp3"}, "PAF": {".paf", ".fap"},
}  # fmt: skip


def test_folders_take_every_suffix_of_a_format_that_libsndfile_reads() -> None:
    wanted = {}
    for form in set(soundfile.available_formats()) - NOT_ALONE:
        wanted[form] = SUFFIXES.get(form, {f".{form.lower()}"})
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(clips, "MIN_RATE", 1)
            assert len(decode_voice(audio(NOISE, kind=form))) >= 16_000, form
    assert set().union(*wanted.values()) == clips.AUDIO_SUFFIXES


def test_folders_take_every_suffix_of_a_format_that_pillow_reads() -> None:
    import PIL.Image

    from encsel.data import images

    known = PIL.Image.registered_extensions()
    wanted = {suffix for suffix, form in known.items() if form in (*images._IMAGE_FORMATS, "MPO")}
    assert wanted == images.IMAGE_SUFFIXES


# ffmpeg


OPTIONS = {
    "m4a": "-c:a aac -f ipod", "ogg": "-c:a flac -f ogg", "aac": "-c:a aac -f adts", "webm": "-c:a libopus -f webm",
    "wma": "-c:a wmav2 -f asf", "wav": "-c:a wmav2 -f wav", "mkv": "-c:a pcm_s16le -f matroska",
    "wv": "-c:a wavpack -f wv",
}  # fmt: skip
"""How ffmpeg makes files that libsndfile does not read, by suffix."""


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], bytes]:
    """A file of a kind that libsndfile does not read."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg on this machine")

    def make(kind: str) -> bytes:
        sound = np.concatenate([0.2 * sine(300, 8, 16_000), sine(600, 6, 16_000)])
        (tmp_path / "source.wav").write_bytes(audio(sound))
        command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", tmp_path / "source.wav", *OPTIONS[kind].split()]
        subprocess.run([*command, tmp_path / f"CLIP.{kind}"], check=True)
        return (tmp_path / f"CLIP.{kind}").read_bytes()

    return make


@pytest.mark.parametrize(
    "kind", [kind if kind in ("m4a", "ogg") else pytest.param(kind, marks=pytest.mark.robust) for kind in OPTIONS]
)
def test_ffmpeg_gives_what_the_command_in_the_reason_gives(
    made: Callable[[str], bytes], kind: str, tmp_path: Path
) -> None:
    content, tool = made(kind), find_ffmpeg()
    with pytest.raises(UnusableSample) as caught:
        decode_voice(content, f".{kind}")
    command, _, option = str(caught.value).partition("converting: ")[2].partition(", or pass ")
    assert option == "--ffmpeg"
    subprocess.run([*command.split(), "-nostdin", "-loglevel", "error"], cwd=tmp_path, check=True)
    by_hand = (tmp_path / command.split()[-1]).read_bytes()
    for part in PARTS:
        clip = decode_voice(content, ".odd", part, tool)
        np.testing.assert_array_equal(clip, decode_voice(by_hand, part=part))


def test_ffmpeg_reads_large_files_where_they_are(
    made: Callable[[str], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_IN_MEMORY", 1000)
    whole, tool = made("m4a"), find_ffmpeg()
    for open_files in (ffmpeg._OPEN_FILES, tmp_path / "none"):  # by number, or copied where files have none
        monkeypatch.setattr(ffmpeg, "_OPEN_FILES", open_files)
        with media.opened(tmp_path / "CLIP.m4a") as (content, _):
            assert not isinstance(content, bytes)
            clip = media.decode(content, "voice", ".m4a", "first", tool)
        np.testing.assert_array_equal(clip, decode_voice(whole, ffmpeg=tool))


@needs_ffmpeg
@pytest.mark.parametrize("content", [SIGNATURES["MP4"] + bytes(500), SIGNATURES["ASF"] + bytes(5000)])
def test_what_ffmpeg_cannot_read_is_unusable(content: bytes) -> None:
    with pytest.raises(UnusableSample, match=r"^unreadable audio: ffmpeg .* failed with exit code"):
        decode_voice(content, ".m4a", ffmpeg=find_ffmpeg())


@needs_ffmpeg
@pytest.mark.parametrize("text", [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile a.wav\n"])
def test_playlists_are_not_given_to_ffmpeg(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = find_ffmpeg()
    monkeypatch.setattr(ffmpeg.subprocess, "Popen", lambda *_, **__: pytest.fail("ffmpeg was run"))
    with pytest.raises(UnusableSample, match="unreadable audio"):
        decode_voice(text, ".m4a", ffmpeg=tool)


def fake_ffmpeg(folder: Path, body: str) -> Ffmpeg:
    """A program that takes ffmpeg's place, for what a real one does not do on request."""
    program = folder / "ffmpeg"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    program.chmod(0o700)
    return Ffmpeg(str(program), "0")


@pytest.mark.skipif(sys.platform == "win32", reason="starts a script by its first line")
def test_an_ffmpeg_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "MAX_RUN_SECONDS", 0.5)
    tool = fake_ffmpeg(tmp_path, "time.sleep(60)")
    start = time.monotonic()
    with pytest.raises(UnusableSample, match=r"took over 0\.5 s"):
        decode_voice(SIGNATURES["MP4"], ffmpeg=tool)
    assert time.monotonic() - start < 20


@pytest.mark.skipif(sys.platform == "win32", reason="starts a script by its first line")
def test_an_ffmpeg_without_an_end_is_cut_and_gets_no_input(tmp_path: Path) -> None:
    tool = fake_ffmpeg(tmp_path, "assert not sys.stdin.read()\nwhile True: sys.stdout.buffer.write(b'\\1\\1' * 9999)")
    assert len(decode_voice(SIGNATURES["MP4"], ffmpeg=tool)) == 80_000


def test_no_ffmpeg_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="none is on PATH"):
        find_ffmpeg()


# Options


def test_part_and_ffmpeg_are_in_the_key_of_voices_alone() -> None:
    runtime = Runtime()
    (voice,), (face,) = (open_encoders(parse(name), runtime) for name in ("ltas", "pixels"))
    tools = (None, Ffmpeg("ffmpeg", "5.1"), Ffmpeg("elsewhere/ffmpeg", "5.1"), Ffmpeg("ffmpeg", "6.0"))
    keys = [str(describe(voice, part, tool)) for part in ("first", "middle", "loudest") for tool in tools]
    assert len(set(keys)) == 9  # the place of the program changes nothing
    assert describe(face, "middle", tools[1]) == describe(face)


def test_the_part_reaches_the_encoder(tmp_path: Path) -> None:
    root = write_set(tmp_path, 2, 1)
    for i, path in enumerate(sorted((root / "voices").rglob("*.wav"))):
        soundfile.write(path, np.concatenate([sine(200 + i, 9, 16_000), 2 * sine(800, 6, 16_000)]), 16_000)
    encoders = [open_encoders(parse(name), Runtime())[0] for name in ("pixels", "ltas")]
    made = {}
    for part in ("first", "loudest"):
        calibration = CalibrationSet.from_path(root, SetOptions(clip=part))
        made[part] = {e.name: e for e in embed(calibration, encoders, cache=tmp_path / "cache").embeddings}
        assert made[part]["ltas"].provenance["decoding"]["clip"] == part
    np.testing.assert_array_equal(made["first"]["pixels"].vectors, made["loudest"]["pixels"].vectors)
    assert not np.allclose(made["first"]["ltas"].vectors, made["loudest"]["ltas"].vectors)


def test_an_unknown_part_is_a_usage_error(tmp_path: Path) -> None:
    root = write_set(tmp_path, 2, 1)
    with pytest.raises(UsageError, match=r"No part of a clip is named 'midle'\. Did you mean 'middle'"):
        CalibrationSet.from_path(root, SetOptions(clip="midle"))
