from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from hf_detr_ft.data.checks.near_duplicates import describe_changes, find_alike, make_thumbnail, read_thumbnails
from tests.fixtures import plain_image


@pytest.fixture
def photo() -> Image.Image:
    return plain_image(240, 320, seed=1)


def alike(one: Path, other: Path) -> bool:
    described = describe_changes(read_thumbnails([one, other]))
    return bool(find_alike(described[:1], described[1:]))


def save(image: Image.Image, path: Path, **settings: object) -> Path:
    image.save(path, **settings)
    return path


@pytest.mark.parametrize("change", ["compressed", "smaller", "brighter", "cut", "png", "sixteen", "turned"])
def test_a_changed_copy_is_found(photo: Image.Image, tmp_path: Path, change: str) -> None:
    original, copy = save(photo, tmp_path / "a.jpg", quality=95), tmp_path / "b.jpg"
    if change == "compressed":
        save(photo, copy, quality=40)
    elif change == "smaller":
        save(photo.resize((160, 120)), copy)
    elif change == "brighter":
        save(ImageEnhance.Brightness(photo).enhance(1.2), copy)
    elif change == "cut":
        save(photo.crop((3, 2, 320, 240)), copy)
    elif change == "png":
        copy = save(photo.convert("RGBA"), tmp_path / "b.png")
    elif change == "sixteen":
        values = np.asarray(photo.convert("L"), dtype=np.uint16) * 16
        copy = save(Image.fromarray(values), tmp_path / "b.png")
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        save(photo.transpose(Image.Transpose.ROTATE_90), copy, exif=exif, quality=95)
    assert alike(original, copy)


def test_other_photos_are_not_and_nothing_plain_is(tmp_path: Path) -> None:
    paths = [save(plain_image(120, 160, seed=seed), tmp_path / f"{seed}.jpg") for seed in range(20)]
    paths += [save(Image.new("RGB", (120, 160), (seed, 9, 9)), tmp_path / f"plain{seed}.png") for seed in range(3)]
    described = describe_changes(read_thumbnails(paths))
    assert [(one, other) for one, other, _ in find_alike(described, described) if one < other] == []


def test_a_file_that_is_no_image_is_like_none(photo: Image.Image, tmp_path: Path) -> None:
    good, bad = save(photo, tmp_path / "a.jpg"), tmp_path / "b.jpg"
    bad.write_bytes(b"no image")
    assert [thumbnail is None for thumbnail in read_thumbnails([good, bad, tmp_path / "none.jpg"])] == [
        False,
        True,
        True,
    ]
    assert not alike(good, bad) and not alike(bad, bad)


def test_a_large_jpeg_is_decoded_at_an_eighth(tmp_path: Path) -> None:
    with Image.open(save(plain_image(800, 1200, seed=2), tmp_path / "a.jpg")) as image:
        make_thumbnail(image, 1)
        assert image.size == (150, 100)
