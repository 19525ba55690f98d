import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from datarax.sources import decode_image
from datarax.sources.decode_image import ImageDecoder
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
TURNS |= {6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}


@pytest.fixture(params=["simplejpeg", "pillow"])
def jpeg(request, monkeypatch):
    """Both decoders of JPEG, one of which is an extra."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    monkeypatch.setattr(decode_image, "HAS_SIMPLEJPEG", request.param == "simplejpeg")
    return request.param


def smooth(height, width, channels=3):
    """Waves of low frequency, other ones for each channel and axis."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [127 + 80 * np.sin((c + 2) * x + 3 * y) + 40 * y for c in range(channels)]
    return np.stack(waves, -1).clip(0, 255).astype(np.uint8)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def decode(data, size, mode="RGB", resample="bicubic", **limits):
    decoder = ImageDecoder(size=size, mode=mode, resample=resample)
    (made,) = decoder.decode(data, limits=Limits(**limits))
    (spec,) = decoder.spec()
    assert (made.shape, made.dtype) == (spec.shape, spec.dtype)
    rows = np.full((3, *spec.shape), 85, spec.dtype)  # whatever was there before
    decoder.row_writer([rows], limits=Limits(**limits))(1, data)
    np.testing.assert_array_equal(rows[1], made)
    assert (rows[::2] == 85).all()
    return made


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_lossless_images_come_back_in_each_mode(kind, mode):
    pixels = smooth(6, 9)
    made = decode(encoded(pixels, kind), (6, 9), mode)
    np.testing.assert_array_equal(made, np.asarray(Image.fromarray(pixels).convert(mode)))


def test_an_image_of_many_bytes_comes_back():
    pixels = smooth(150, 160)
    assert pixels.nbytes > decode_image.HELD_BYTES
    np.testing.assert_array_equal(decode(encoded(pixels), (150, 160)), pixels)


@pytest.mark.parametrize("resample", ["bicubic", "bilinear", "nearest"])
def test_images_are_resized_as_by_pillow(resample):
    pixels = smooth(40, 30)
    made = decode(encoded(pixels), (16, 24), resample=resample)
    filter_ = Image.Resampling[resample.upper()]
    np.testing.assert_array_equal(made, Image.fromarray(pixels).resize((24, 16), filter_))


def test_antialiasing_averages_what_lies_between():
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    assert np.ptp(decode(encoded(board.astype(np.uint8)), (8, 8), "L")) < 20


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(80, 112), (40, 56), (20, 28), (7, 5), (90, 60)])
def test_jpeg_is_close_to_a_whole_decode(jpeg, size, grey, mode):
    pixels = smooth(80, 112, 1)[..., 0] if grey else smooth(80, 112)
    data = encoded(pixels, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        meant = image.convert(mode).resize(size[::-1], Image.Resampling.BICUBIC)
    made = decode(data, size, mode)
    assert np.abs(made.astype(int) - np.asarray(meant)).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_images_are_turned_upright(jpeg, kind, turn):
    pixels = smooth(24, 40)
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    made = decode(encoded(pixels, kind, exif=exif, **options), (24, 40))
    upright = Image.fromarray(pixels)
    if turn > 1:
        upright = upright.transpose(Image.Transpose[TURNS[turn]])
    meant = upright.resize((40, 24), Image.Resampling.BICUBIC)
    assert np.abs(made.astype(int) - np.asarray(meant)).max() <= 12


def test_labels_are_not_scaled_while_decoding(jpeg):
    pixels = smooth(64, 64)
    data = encoded(pixels, "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        meant = np.asarray(image.resize((8, 8), Image.Resampling.NEAREST)).astype(int)
    assert np.abs(decode(data, (8, 8), resample="nearest") - meant).max() <= 3


@pytest.mark.parametrize("mode", ["P", "1", "LA", "CMYK", "I;16"])
def test_other_kinds_of_pixels_are_converted(jpeg, mode):
    pixels = Image.fromarray(smooth(8, 8))
    if mode == "I;16":
        wide = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
        made = decode(encoded(wide), (8, 8), "L")
        np.testing.assert_array_equal(made, wide >> 8)
        return
    image = pixels.convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    with Image.open(io.BytesIO(data)) as again:
        np.testing.assert_array_equal(decode(data, (8, 8)), np.asarray(again.convert("RGB")))


def test_transparency_is_kept_if_asked_for():
    pixels = smooth(5, 5, 4)
    np.testing.assert_array_equal(decode(encoded(pixels), (5, 5), "RGBA"), pixels)
    np.testing.assert_array_equal(decode(encoded(pixels), (5, 5), "RGB"), pixels[..., :3])


def test_the_first_frame_of_a_moving_image_is_taken():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, (4, 4))[0, 0].tolist() == [255, 0, 0]


def png_header(width, height):
    """A PNG that declares a size, and has a little of it."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_exif_behind_the_pixels_turns_a_png():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = smooth(8, 5)
    data = encoded(pixels, "PNG", exif=exif)
    start = data.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
    assert start < data.index(b"IDAT")
    moved = data[:start] + data[stop:-12] + data[start:stop] + data[-12:]  # before the IEND
    np.testing.assert_array_equal(decode(moved, (5, 8)), np.rot90(pixels, -1))


def test_a_limit_of_pillow_is_kept(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DecodeError, match="exceeds limit of 40 pixels"):
        decode(encoded(smooth(8, 8)), (8, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(encoded(smooth(8, 8)), (8, 8)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    "column", [np.zeros((2, 4, 8, 3), np.uint8)[:, :, ::2], np.zeros((2, 4, 4))]
)
def test_arrays_that_cannot_be_written_in_place_are_refused(column):
    with pytest.raises(ValueError, match="expected a C-contiguous array of uint8 or bool"):
        ImageDecoder(size=(4, 4)).row_writer([column], limits=Limits())


def test_too_many_pixels_are_refused_by_the_header(jpeg):
    pixels = smooth(10, 11)
    for kind, options in [
        ("PNG", {}), ("JPEG", {}), ("GIF", {}), ("TIFF", {}),
        ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": Image.Exif()}),
    ]:  # fmt: skip
        data = encoded(pixels, kind, **options)
        assert decode(data, (2, 2), pixels=110).shape == (2, 2, 3)
        with pytest.raises(DecodeError, match=r"11 x 10 pixels, at most 109 \(Limits\.pixels\)"):
            decode(data, (2, 2), pixels=109)
    with pytest.raises(DecodeError, match=r"9000 x 9000 pixels"):
        decode(png_header(9000, 9000), (2, 2))
    with pytest.raises(DecodeError, match="exceeds limit"):  # Pillow's own, beyond any of ours
        decode(png_header(60_000, 60_000), (2, 2), pixels=2**40)


def test_a_bomb_in_webp_is_refused_before_its_canvas_is_made():
    size = (16383 - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(4) + size + size
    data = b"RIFF" + len(body).to_bytes(4, "little") + body
    with pytest.raises(DecodeError, match="16383 x 16383 pixels"):
        decode(data, (2, 2))


def test_a_bomb_in_the_tiles_of_tiff_is_refused():
    side = 2**15
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 200, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(100)
    with pytest.raises(DecodeError, match="32768 x 32768 pixels"):
        decode(data, (2, 2))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_images_are_refused_in_one_line(jpeg, kind):
    data = encoded(smooth(32, 32), kind)
    for end in (0, 1, 5, 20, len(data) // 4, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(DecodeError) as caught:
            decode(data[:end], (8, 8))
        assert "\n" not in str(caught.value)
        assert "0x" not in str(caught.value)


def test_jpeg_with_bytes_that_belong_nowhere_is_read(jpeg):
    data = encoded(smooth(16, 16), "JPEG", quality=95)
    scan = data.index(b"\xff\xda")
    strange = data[:scan] + bytes(3) + data[scan:]
    apart = decode(strange, (16, 16)).astype(int) - decode(data, (16, 16))
    assert np.abs(apart).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_any_changed_byte_gives_an_image_or_a_reason(jpeg, kind):
    data = encoded(smooth(12, 12), kind)
    for place in range(0, len(data), max(1, len(data) // 150)):
        changed = data[:place] + bytes([data[place] ^ 0xA5]) + data[place + 1 :]
        with contextlib.suppress(DecodeError):
            assert decode(changed, (4, 4)).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"hello", "expected one of PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "expected one of"),
        (b"", "expected one of"),
        ("path.png", "expected the bytes of an image, got str"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "32 bits each"),
    ],
)
def test_what_is_no_image_is_refused(part, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(part, (2, 2))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_cost_the_image(jpeg, kind):
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = smooth(16, 16)
    data = encoded(pixels, kind, exif=exif)
    damaged = data.replace(b"MM\0*", b"XX\0*")
    start = damaged.find(b"eXIf")
    if kind == "PNG":  # its chunks have checksums
        end = start + 4 + int.from_bytes(damaged[start - 4 : start], "big")
        crc = zlib.crc32(damaged[start:end]).to_bytes(4, "big")
        damaged = damaged[:end] + crc + damaged[end + 4 :]
    assert damaged != data
    made = decode(damaged, (16, 16)).astype(int)
    assert np.abs(made - pixels).max() < 40


def test_turned_jpeg_is_scaled_for_the_size_that_it_is_turned_to(jpeg):
    bars = np.where(np.arange(128) % 8 < 4, 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.ascontiguousarray(np.broadcast_to(bars[::-1, None], (128, 1024)))
    made = decode(encoded(lying, "JPEG", quality=95, exif=exif), (8, 128), "L").astype(int)
    assert min(np.abs(made - bars).max(), np.abs(made - bars[::-1]).max()) < 40


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": (2,)}, r"size must be \[height, width\], got \(2,\)"),
        ({"size": (0, 2)}, "size must be"),
        ({"size": 64}, "size must be"),
        ({"size": (2.0, 2)}, "size must be"),
        ({"size": (2, 2), "mode": "HSV"}, "mode must be one of .*, got 'HSV'"),
        ({"size": (2, 2), "resample": "box"}, "resample must be one of .*, got 'box'"),
    ],
)
def test_options_are_checked(options, reason):
    with pytest.raises(ValueError, match=reason):
        ImageDecoder(**options)


def test_a_default_is_a_brightness():
    (made,) = ImageDecoder(size=(2, 3)).default(9)
    assert made.shape == (2, 3, 3)
    assert made.dtype == np.uint8
    assert (made == 9).all()
    for value in (256, -1, 0.5, "red"):
        with pytest.raises(DecodeError, match="expected a brightness"):
            ImageDecoder(size=(2, 3)).default(value)
