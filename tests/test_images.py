"""Decoding of pictures that other programs show: depths, remarks, damage behind the picture, memory."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import PIL.Image
import pytest
from media_samples import image, png_chunk, png_of_16_bits
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from encsel.data import images
from encsel.data.images import decode_face
from encsel.data.memory import Memory
from encsel.errors import UnusableSample

RGB = np.asarray(
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(
        (60, 50), PIL.Image.Resampling.BICUBIC
    )
)
GREY = np.linspace(0, 255, 600).round().astype(np.uint8).reshape(20, 30)


def three(grey: NDArray[Any]) -> NDArray[Any]:
    return np.stack([grey] * 3, axis=-1)


# Depth


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_depth_is_that_of_the_pixels_not_of_the_container(kind: str, bits: int) -> None:
    values = np.round(GREY / 255 * (2**bits - 1)).astype(np.uint16)
    np.testing.assert_array_equal(decode_face(image(values, kind)), three(GREY))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32])
@pytest.mark.parametrize("bits", [8, 12])
def test_signed_and_wide_tiffs_keep_their_levels(dtype: type, bits: int) -> None:
    values = np.round(GREY / 255 * (2**bits - 1)).astype(dtype)
    np.testing.assert_array_equal(decode_face(tiff(values)), three(GREY))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float32])
def test_larger_values_are_scaled_by_the_largest(dtype: type) -> None:
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1e9
    np.testing.assert_allclose(decode_face(tiff((GREY / 255 * top).astype(dtype))), three(GREY), atol=1)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_negative_values_are_not_lost(dtype: type) -> None:
    np.testing.assert_allclose(decode_face(tiff(GREY.astype(dtype) * 10 - 1275)), three(GREY), atol=1)


def test_a_thermal_picture_keeps_its_contrast() -> None:
    values = (29_000 + GREY.astype(np.uint16) * 8).astype(np.uint16)  # hundredths of a kelvin
    np.testing.assert_array_equal(decode_face(image(values)), three(GREY))
    flat = np.full((20, 20), 30_000, np.uint16)
    assert np.unique(decode_face(image(flat))).tolist() == [117]


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("write", [png_of_16_bits, lambda values: tiff(values), lambda values: ppm(values)],
                         ids=["png", "tiff", "ppm"])  # fmt: skip
def test_colours_of_16_bits_are_not_nearly_black(bits: int, write: Any) -> None:
    values = np.round(RGB.astype(float) / RGB.max() * (2**bits - 1)).astype(np.uint16)
    wanted = np.round(RGB.astype(float) / RGB.max() * 255)
    np.testing.assert_allclose(decode_face(write(values)), wanted, atol=1)


@pytest.mark.parametrize("n", [2, 4])
def test_transparency_has_the_depth_of_the_colours(n: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 20, n))
    values[..., -1] = 255
    values[:10, :, -1] = 0
    decoded = decode_face(png_of_16_bits(values))
    assert (decoded[:10] == 255).all()
    np.testing.assert_allclose(decoded[10:], np.broadcast_to(values[10:, :, :-1], (10, 20, 3)), atol=1)


def test_bright_colours_of_16_bits_are_their_upper_bytes() -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (20, 20, 3))
    np.testing.assert_array_equal(decode_face(png_of_16_bits(values)), values >> 8)


def tiff(values: NDArray[Any]) -> bytes:
    """An uncompressed TIFF of one strip, as Pillow cannot write all of them."""
    height, width, n = (*values.shape, 1)[:3]
    data, bits = values.astype(values.dtype.newbyteorder("<")).tobytes(), 8 * values.dtype.itemsize
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    depths = np.full(n, bits, "<u2").tobytes()
    at = 8 + len(data)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, n, at if n > 2 else bits), (259, 3, 1, 1),
               (262, 3, 1, 2 if n > 2 else 1), (273, 4, 1, 8), (277, 3, 1, n), (278, 4, 1, height),
               (279, 4, 1, len(data)), (339, 3, 1, form)]  # fmt: skip
    ifd = b"".join(np.array(e[:2], "<u2").tobytes() + np.array(e[2:], "<u4").tobytes() for e in entries)
    start = at + len(depths) + len(depths) % 2
    content = b"II*\0" + start.to_bytes(4, "little") + data + depths
    return content.ljust(start, b"\0") + len(entries).to_bytes(2, "little") + ifd + bytes(4)


def ppm(values: NDArray[Any]) -> bytes:
    return b"P6 %d %d 65535\n" % values.shape[1::-1] + values.astype(">u2").tobytes()


# What stands beside the picture


def with_text(kind: str) -> dict[str, Any]:
    text = PngInfo()
    if kind == "iTXt":
        text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>" + "a" * 1_200_000, zip=True)
    else:
        text.add_text("comment", "a" * 1_200_000, zip=kind == "zTXt")
    return {"pnginfo": text}


LARGE_PROFILE = {"icc_profile": np.random.default_rng(0).bytes(1_500_000)}


@pytest.mark.parametrize("options", [LARGE_PROFILE, *map(with_text, ("iTXt", "zTXt", "tEXt"))],
                         ids=["iCCP", "iTXt", "zTXt", "tEXt"])  # fmt: skip
def test_profiles_and_texts_do_not_cost_the_picture(options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode_face(image(RGB, **options)), RGB)


@pytest.mark.parametrize("remark", [png_chunk(b"tEXt", b"a\0b")[:-1] + b"!", png_chunk(b"iCCP", b"no profile"),
                                    png_chunk(b"zTXt", b"k\0\0not compressed"), png_chunk(b"iTXt", b"")])  # fmt: skip
def test_damaged_remarks_do_not_cost_the_picture(remark: bytes) -> None:
    whole = image(RGB)
    np.testing.assert_array_equal(decode_face(whole[:33] + remark + whole[33:]), RGB)
    np.testing.assert_array_equal(decode_face(whole[:-12] + remark + whole[-12:]), RGB)


def test_orientation_in_small_texts_is_still_used() -> None:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    before = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(image(RGB, pnginfo=text)))))
    np.testing.assert_array_equal(decode_face(image(RGB, pnginfo=text)), before)


# What stands behind it or before it


@pytest.fixture(
    scope="module", params=[{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str
)
def jpeg(request: pytest.FixtureRequest) -> bytes:
    return image(RGB, "JPEG", quality=90, **request.param)


@pytest.mark.parametrize("junk", [b"", b"\xff", b"\0" * 3000, b"\xff" * 3000], ids=["nothing", "half", "zeros", "ones"])
def test_a_jpeg_without_its_end_marker_is_read(jpeg: bytes, junk: bytes) -> None:
    np.testing.assert_array_equal(decode_face(jpeg[:-2] + junk), decode_face(jpeg))


def test_a_jpeg_with_anything_behind_it_is_read(jpeg: bytes) -> None:
    for junk in (b"\0" * 3000, np.random.default_rng(0).bytes(3000), jpeg):
        np.testing.assert_array_equal(decode_face(jpeg + junk), decode_face(jpeg))


def test_a_jpeg_that_is_cut_is_refused(jpeg: bytes) -> None:
    for n in (3, 4, 6, 10, *np.linspace(20, len(jpeg) - 4, 20).astype(int)):
        for junk in (b"", b"\0" * 100):
            with pytest.raises(UnusableSample, match="unreadable image"):
                decode_face(jpeg[:-n] + junk)


def test_a_flat_jpeg_that_is_cut_is_refused() -> None:
    flat = image(np.full((400, 400, 3), 128, np.uint8), "JPEG")
    for n in (10, 50, 200):
        with pytest.raises(UnusableSample, match="unreadable image"):
            decode_face(flat[:-n])


def test_a_progressive_jpeg_that_lacks_a_scan_is_refused() -> None:
    whole = image(RGB, "JPEG", progressive=True)
    for at in [i for i in range(len(whole)) if whole[i : i + 2] == b"\xff\xda"][1:]:
        with pytest.raises(UnusableSample, match="unreadable image"):
            decode_face(whole[:at])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("text", [b"\r\n", b"\xef\xbb\xbf", b"\n\n\n", b"\0\0"])
def test_what_a_program_wrote_before_a_picture_is_passed_over(kind: str, text: bytes) -> None:
    content = image(RGB, kind)
    np.testing.assert_array_equal(decode_face(text + content), decode_face(content))


# Memory


def test_strips_and_orientation_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = np.dstack([RGB, np.arange(RGB[..., 0].size).reshape(50, 60).astype(np.uint8)])
    contents = [image(RGB, "JPEG"), image(alpha), image(PIL.Image.fromarray(RGB).quantize(9)), image(GREY), image(
        GREY.astype(np.uint16) * 11), png_of_16_bits(RGB)]  # fmt: skip
    for orientation in (1, 6, 7):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        contents += [image(alpha, exif=exif), image(GREY.astype(np.uint16), exif=exif)]
    whole = list(map(decode_face, contents))
    monkeypatch.setattr(images, "_STRIP", 200)
    for content, one in zip(contents, whole, strict=True):
        np.testing.assert_array_equal(decode_face(content), one)


def test_threads_decode_as_many_pictures_as_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    content = image(np.zeros((300, 400, 3), np.uint8))
    with PIL.Image.open(io.BytesIO(content)) as picture:
        needed = images._memory(picture)
    memory = Memory(2 * needed + 1)
    monkeypatch.setattr(images, "DECODING_MEMORY", memory)
    most, busy = [], threading.Barrier(2, timeout=60)

    def admit(n_bytes: int) -> None:
        assert n_bytes == 300 * 400 * 3
        most.append(memory.in_use)
        busy.wait()  # two at a time, no more and no less

    threads = [threading.Thread(target=decode_face, args=(content, admit)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 6
    assert max(most) == 2 * needed
    assert memory.in_use == 0


def test_a_picture_larger_than_the_memory_is_decoded_alone_and_a_failure_gives_back_its_share() -> None:
    memory = Memory(100)
    with memory.reserved(1000):
        assert memory.in_use == 100
    with pytest.raises(ZeroDivisionError), memory.reserved(50):
        _ = 1 / 0
    assert memory.in_use == 0
