import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from hf_detr_ft.data.images import decode_cell_with_size, decode_rgb, upright_size
from hf_detr_ft.errors import DataError

UPRIGHT = np.zeros((24, 40, 3), np.uint8)
UPRIGHT[:8, :16], UPRIGHT[:8, 16:], UPRIGHT[8:, :16], UPRIGHT[8:, 16:] = (
    (250, 10, 10),
    (10, 240, 20),
    (20, 10, 230),
    128,
)

CACHED_FEATURES = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}
"""Photos of a camera by EXIF orientation: where row 0 and column 0 are, per the EXIF standard."""


def encode(image: Image.Image, suffix: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, suffix, **options)
    return stream.getvalue()


def decode(image: Image.Image, suffix: str, **options: object) -> np.ndarray:
    decoded = decode_rgb(encode(image, suffix, **options))
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int, suffix: str):
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(suffix, {})
    data = encode(Image.fromarray(CACHED_FEATURES[orientation]), suffix, exif=exif(orientation), **options)
    decoded = decode_rgb(data)
    np.testing.assert_allclose(np.asarray(decoded), UPRIGHT, atol=12 if suffix == "JPEG" else 0)
    assert not decoded.getexif()
    assert not decoded.info
    assert upright_size(data) == (24, 40)
    reduced, size = decode_cell_with_size({"bytes": data, "path": "a"}, least_side=1)
    assert size == (24, 40)
    assert reduced.size == ((5, 3) if suffix == "JPEG" else (40, 24))


def test_an_orientation_that_exif_does_not_know_changes_nothing():
    np.testing.assert_array_equal(decode(Image.fromarray(UPRIGHT), "PNG", exif=exif(11)), UPRIGHT)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


XMP = b'<x:xmpmeta xmlns:tiff="a"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
ORIENTATIONS = {
    "eXIf": chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "raw profile": chunk(
        b"zTXt",
        b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      34\n" + exif(6).tobytes().hex().encode() + b"\n"),
    ),
}
"""Places in which programs keep the orientation of a PNG."""


def insert(png: bytes, content: bytes, behind_pixels: bool) -> bytes:
    place = png.index(b"IEND" if behind_pixels else b"IDAT") - 4
    return png[:place] + content + png[place:]


@pytest.mark.parametrize("kind", ORIENTATIONS)
@pytest.mark.parametrize("behind_pixels", [False, True])
def test_a_png_is_upright_wherever_its_orientation_stands(kind: str, behind_pixels: bool):
    png = insert(encode(Image.fromarray(CACHED_FEATURES[6]), "PNG"), ORIENTATIONS[kind], behind_pixels)
    np.testing.assert_array_equal(np.asarray(decode_rgb(png)), UPRIGHT)
    assert upright_size(png) == (24, 40)


def test_an_animated_png_is_its_first_frame():
    frames = [Image.fromarray(CACHED_FEATURES[6]), Image.new("RGB", (24, 40))]
    png = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    for behind_pixels in (False, True):
        turned = insert(png, ORIENTATIONS["eXIf"], behind_pixels)
        assert upright_size(turned) == decode_rgb(turned).size[::-1]


class CountingFile(io.BytesIO):
    """Counts the bytes that are read from it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_a_size_is_read_without_the_pixels(suffix: str, monkeypatch: pytest.MonkeyPatch):
    noise = np.random.default_rng(0).integers(0, 256, (500, 400, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), suffix, exif=exif(6))
    if suffix == "PNG":
        data = insert(encode(Image.fromarray(noise), suffix), ORIENTATIONS["eXIf"], behind_pixels=True)

    def refuse(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    stream = CountingFile(data)
    assert upright_size(stream) == ((500, 400) if suffix in ("BMP", "GIF") else (400, 500))
    assert stream.count < min(20_000, len(data) / 5)


@pytest.mark.parametrize("length", [0, 20, 40, 60, -30, -8])
def test_a_png_that_is_cut_off_has_the_size_of_its_head_or_none(length: int):
    whole = insert(encode(Image.fromarray(UPRIGHT), "PNG"), ORIENTATIONS["eXIf"], behind_pixels=True)
    try:
        assert upright_size(whole[:length]) in ((24, 40), (40, 24))
    except DataError:
        assert 0 <= length <= 40


def test_opaque_modes():
    rgb = Image.fromarray(UPRIGHT)
    grey = np.asarray(rgb.convert("L"))
    np.testing.assert_array_equal(decode(rgb, "PNG"), UPRIGHT)
    np.testing.assert_array_equal(decode(rgb.convert("L"), "PNG"), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(decode(rgb.quantize(8), "PNG"), UPRIGHT)
    np.testing.assert_array_equal(decode(Image.fromarray(grey > 100), "PNG")[..., 1], np.where(grey > 100, 255, 0))
    red, green, blue = decode(Image.new("LAB", (2, 2), (128, 200, 200)), "TIFF")[0, 0]
    assert red > 200
    assert max(green, blue) < 60


def test_cmyk_and_adobe_s_inverted_jpegs():
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for data in (encode(cyan, "TIFF"), encode(cyan, "JPEG", quality=95)):
        assert Image.open(io.BytesIO(data)).mode == "CMYK"
        np.testing.assert_allclose(np.asarray(decode_rgb(data))[8, 8], (0, 255, 255), atol=3)
    jpeg = encode(cyan, "JPEG", quality=95)
    assert b"Adobe" in jpeg  # Pillow writes the marker that says: inverted
    marker = jpeg.index(b"Adobe")
    ycck = jpeg[: marker + 11] + b"\x02" + jpeg[marker + 12 :]
    # The same bytes, now said to be YCCK (Y 0, Cb 255, Cr 255 inverted): another colour, decoded without complaint.
    assert decode_rgb(ycck).getpixel((8, 8)) != decode_rgb(jpeg).getpixel((8, 8))


@pytest.mark.parametrize(
    ("image", "suffix", "options", "expected"),
    [
        (Image.new("RGBA", (2, 2), (200, 0, 0, 0)), "PNG", {}, (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 255)), "PNG", {}, (200, 0, 0)),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), "WEBP", {"lossless": True}, (204, 204, 204)),
        (Image.new("LA", (2, 2), (10, 0)), "PNG", {}, (255, 255, 255)),
        (Image.new("LA", (2, 2), (10, 255)), "PNG", {}, (10, 10, 10)),
        (Image.new("L", (2, 2), 7), "PNG", {"transparency": 7}, (255, 255, 255)),
        (Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}, (255, 255, 255)),
        (Image.new("RGB", (2, 2), (1, 2, 4)), "PNG", {"transparency": (1, 2, 3)}, (1, 2, 4)),
        (Image.new("1", (2, 2), 0), "PNG", {"transparency": 0}, (255, 255, 255)),
        (Image.new("P", (2, 2), 0), "PNG", {"transparency": 0}, (255, 255, 255)),
        (Image.new("P", (2, 2), 0), "GIF", {"transparency": 0}, (255, 255, 255)),
    ],
)
def test_what_is_transparent_lies_on_white(image: Image.Image, suffix: str, options: dict, expected: tuple):
    if image.mode == "P":
        image.putpalette([0, 0, 200, 0, 200, 0])
    assert tuple(decode(image, suffix, **options)[0, 0]) == expected


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(suffix: str):
    values = np.array([[0, 128, 257], [255, 32768, 65535]], np.uint16)
    grey = decode(Image.fromarray(values), suffix)
    np.testing.assert_array_equal(grey[..., 0], [[0, 0, 1], [1, 128, 255]])
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_a_dark_image_of_16_bits_stays_dark():
    assert decode(Image.fromarray(np.array([[0, 200]], np.uint16)), "PNG")[0, :, 0].tolist() == [0, 1]


def test_16_bits_with_the_high_byte_first():
    image = Image.frombytes("I;16B", (2, 1), np.array([257 * 5, 65535], ">u2").tobytes())
    np.testing.assert_array_equal(decode(image, "TIFF")[0, :, 0], [5, 255])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 100, 255], np.int32), [0, 100, 255]),
        (np.array([0, 257 * 9, 65535], np.int32), [0, 9, 255]),
        (np.array([-1000, 0, 1000], np.int32), [0, 128, 255]),
        (np.array([0, 100_000, 1_000_000], np.int32), [0, 26, 255]),
        (np.array([-5, -5, -5], np.int32), [0, 0, 0]),
        (np.array([0, 0.5, 1], np.float32), [0, 128, 255]),
        (np.array([0, 7.4, 255], np.float32), [0, 7, 255]),
        (np.array([-1, 0, 1], np.float32), [0, 128, 255]),
        (np.array([0, np.nan, 1], np.float32), [0, 0, 255]),
        (np.array([0, 1, np.inf], np.float32), [0, 255, 255]),
        (np.array([np.nan, np.nan, np.nan], np.float32), [0, 0, 0]),
        (np.array([0.25, np.inf, -np.inf], np.float32), [64, 64, 64]),
    ],
)
def test_integers_of_32_bits_and_floats(values: np.ndarray, expected: list[int]):
    np.testing.assert_array_equal(decode(Image.fromarray(values[None]), "TIFF")[0, :, 1], expected)


def test_the_first_frame_is_taken():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert tuple(decode(frames[0], "TIFF", save_all=True, append_images=frames[1:])[0, 0]) == (255, 0, 0)


def test_path_bytes_and_open_file_are_the_same(tmp_path: Path):
    path = tmp_path / "größe 1.png"
    Image.fromarray(UPRIGHT).save(path)
    with path.open("rb") as stream:
        from_stream = decode_rgb(stream)
        assert not stream.closed
        assert upright_size(stream) == (24, 40)
    for decoded in (from_stream, decode_rgb(path), decode_rgb(path.read_bytes())):
        np.testing.assert_array_equal(np.asarray(decoded), UPRIGHT)


def test_a_decoded_image_can_be_changed_without_its_file():
    decoded = decode_rgb(encode(Image.fromarray(UPRIGHT), "PNG"))
    assert type(decoded) is Image.Image
    decoded.putpixel((0, 0), (1, 2, 3))
    assert decoded.getpixel((0, 0)) == (1, 2, 3)


def bomb() -> bytes:
    """A BMP header that promises 60,000 x 60,000 pixels."""
    data = bytearray(encode(Image.new("RGB", (2, 2)), "BMP"))
    data[18:26] = np.array([60_000, 60_000], "<i4").tobytes()
    return bytes(data)


def empty_sides() -> bytes:
    data = bytearray(encode(Image.new("RGB", (2, 2)), "BMP"))
    data[18:26] = bytes(8)
    return bytes(data)


JPEG = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")
PNG = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file"),
        (b"image,label\n1,2\n", "no format that Pillow knows, beginning with b'image,label"),
        (b"  <!DOCTYPE html><html>404</html>", "found a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"found a Git LFS pointer. Run `git lfs pull`"),
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "found a HEIC photo.*Convert it to JPEG"),
        (JPEG[: len(JPEG) // 2], "truncated or damaged"),
        (PNG[: len(PNG) // 2], "truncated or damaged"),
        (JPEG[:15], "found a|truncated or damaged"),
        (PNG[:60] + bytes(200) + PNG[260:], "truncated or damaged"),
        (bomb(), "too many pixels"),
        (empty_sides(), "expected an?"),
    ],
)
def test_broken_content_names_the_file(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "bröken photo.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        decode_rgb(path)
    assert str(error.value).startswith(f"{path}: ")
    with pytest.raises(DataError, match=f"^IMG_1: .*({message})"):
        decode_rgb(content, "IMG_1")


def test_a_missing_file_and_a_folder(tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere\.jpg: expected an image, found no such file"):
        decode_rgb(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match=r"nowhere\.jpg: expected an image, found no such file"):
        upright_size(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match=f"{tmp_path.name}: expected an image, cannot open it: Is a directory"):
        decode_rgb(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_file_that_may_not_be_read(tmp_path: Path):
    path = tmp_path / "locked.png"
    path.write_bytes(PNG)
    path.chmod(0)
    with pytest.raises(DataError, match=r"locked.png: .*Permission denied"):
        decode_rgb(path)


@pytest.mark.filterwarnings("ignore:::PIL")
def test_damage_at_any_place_is_a_data_error_or_an_image():
    """No decoder's exception comes through, whatever byte is wrong."""
    rng = np.random.default_rng(1)
    broken = 0
    for suffix in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"):
        whole = encode(Image.fromarray(UPRIGHT), suffix)
        for _ in range(60):
            data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            for place in rng.integers(0, min(len(data), 400), 3):
                data[place] = rng.integers(256)
            try:
                assert decode_rgb(bytes(data)).mode == "RGB"
            except DataError:
                broken += 1
    assert broken > 100


def test_real_photos(balloon: Path):
    paths = sorted((balloon / "val2017").glob("*.jpg"))
    assert len(paths) == 13
    for path in paths:
        assert decode_rgb(path).size == upright_size(path)[::-1]


def test_reduced_decoding_keeps_the_least_side_and_the_picture(tmp_path: Path) -> None:
    gradient = np.linspace(0, 255, 400, dtype=np.uint8)[None, :, None].repeat(210, 0).repeat(3, 2)
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient).save(path, quality=95, exif=exif)
    for least, size in ((300, (210, 400)), (106, (210, 400)), (105, (105, 200)), (27, (53, 100)), (1, (27, 50))):
        image = decode_rgb(path, least_side=least)
        assert image.size == size
        assert np.asarray(image)[0].mean() < 5 < 250 < np.asarray(image)[-1].mean()
    Image.fromarray(gradient).save(tmp_path / "a.png")
    assert decode_rgb(tmp_path / "a.png", least_side=1).size == (400, 210)
