"""Splits from files and from the generator: the same photos, drawn once, kept in the cache of `datasets`."""

import errno
import hashlib
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from filelock import FileLock

from hf_detr_ft.data import drawn_split as synthetic_split
from hf_detr_ft.data.cache.row_cache import hash_sources
from hf_detr_ft.data.drawn_folder import write_drawn_folder
from hf_detr_ft.data.drawn_split import cache_key
from hf_detr_ft.data.split_source import file_fingerprint, load_source
from hf_detr_ft.data.splits import Splits, build_splits, check_data, check_split, load_splits
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.recipe.sections import DataConfig
from hf_detr_ft.synthetic import render as synthetic
from hf_detr_ft.synthetic.image_set import ImageSetConfig, draw_images

CLASSES = ["star", "balloon", "cone"]
DRAWN: dict[str, Any] = {
    "synthetic_images": 12,
    "synthetic_val_images": 5,
    "synthetic_classes": CLASSES,
    "synthetic_seed": 3,
    "synthetic_short_side": (48, 64),
}
CONFIG = DataConfig(**DRAWN)
pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written") / "data"
    assert write_drawn_folder(root, 12, 5, seed=3, classes=CLASSES, short_side=(48, 64), workers=1)
    return root


def rows(splits: Splits) -> list[dict]:
    """Rows of both splits, every image as the bytes it has or its file has."""
    found = []
    for row in [*splits.train, *splits.val]:
        image = row.pop("image")
        found.append({**row, "jpeg": image["bytes"] or Path(image["path"]).read_bytes()})
    return found


def forbid_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*args: object) -> None:
        raise DataError("drawn again")

    monkeypatch.setattr(synthetic_split, "draw_images", draw)


def test_drawn_splits_are_those_that_get_synthetic_writes(written: Path) -> None:
    files = DataConfig(root=str(written))
    for split in ("train", "val"):
        source, problems = check_split(CONFIG, split, decode=True)
        coco = json.loads((written / "annotations" / f"custom_{split}.json").read_text())
        assert all(annotation.pop("segmentation") for annotation in coco["annotations"])
        assert source.coco == coco
        expected = check_split(files, split, decode=True)[1]
        assert [(p.severity, p.kind, p.entry) for p in problems] == [(p.severity, p.kind, p.entry) for p in expected]
    drawn, read = load_splits(CONFIG), load_splits(files)
    assert (drawn.truth, drawn.label_map) == (read.truth, read.label_map)
    assert drawn.train.features == read.train.features
    assert drawn.train.column_names == read.train.column_names
    assert rows(drawn) == rows(read)
    assert drawn.train[1]["image"]["path"] == "000000000001.jpg"


def test_limits_hold_for_rows_and_truth_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "EMPTY_SHARE", 0.6)  # so that the first photos with objects are not just the first
    whole = load_splits(CONFIG)
    limited = load_splits(DataConfig(**DRAWN, train_limit=2, val_limit=1))
    expected = [row for row in whole.train if row["objects"]["label"]][:2]
    assert list(limited.train) == expected
    assert [row["image_id"] for row in expected] != [0, 1]
    assert list(limited.val) == [row for row in whole.val if row["objects"]["label"]][:1]
    assert limited.val["image_id"][:] == [image["id"] for image in limited.truth["images"]]
    assert limited.fingerprints == whole.fingerprints


def test_every_image_of_a_drawn_split_is_the_photo_that_its_objects_are_in() -> None:
    """`rows` would not notice photos and objects that were both moved."""
    splits = load_splits(CONFIG)
    for row in splits.train:
        photo = synthetic.render(row["image_id"], seed=3, classes=CLASSES, short_side=(48, 64))
        assert row["objects"]["bbox"] == [list(thing.box_xywh_px) for thing in photo.objects]
        height, width = photo.image.shape[:2]
        assert row["aspect_ratio"] == pytest.approx(width / height)
        assert row["image"]["path"] == row["file_name"] == f"{row['image_id']:012d}.jpg"


def test_files_of_the_same_name_in_the_current_folder_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "000000000001.jpg").write_bytes(b"another photo")
    monkeypatch.chdir(tmp_path)
    row = load_splits(CONFIG).train[1]
    assert row["image"]["path"] == "000000000001.jpg"
    assert row["image"]["bytes"].startswith(b"\xff\xd8")


def test_several_processes_draw_the_same(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    alone = load_splits(CONFIG)
    expected = rows(alone), alone.fingerprints
    shutil.rmtree(cache_folder)
    workers = []

    def watch(indices: range, set_config: ImageSetConfig, count: int) -> Any:
        workers.append(count)
        return draw_images(indices, set_config, count)

    monkeypatch.setattr(synthetic_split, "draw_images", watch)
    monkeypatch.setattr(synthetic_split, "LEAST_PARALLEL", 12)
    monkeypatch.setattr(synthetic_split, "count_cores", lambda: 2)
    several = load_splits(CONFIG)
    assert workers == [2, 1], "training in two processes, the few of validation in this one"
    assert (rows(several), several.fingerprints) == expected


def test_they_are_drawn_once(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    first = load_splits(CONFIG)
    expected = rows(first)
    with monkeypatch.context() as patch:
        forbid_drawing(patch)
        again = load_splits(CONFIG)
        assert rows(again) == expected
        assert again.fingerprints == first.fingerprints
        with pytest.raises(DataError, match="drawn again"):
            load_splits(DataConfig(**{**DRAWN, "synthetic_seed": 4}))
    shutil.rmtree(cache_folder)
    assert rows(load_splits(CONFIG)) == expected


def test_a_changed_generator_draws_again(monkeypatch: pytest.MonkeyPatch) -> None:
    load_splits(CONFIG)
    forbid_drawing(monkeypatch)
    monkeypatch.setattr(synthetic_split, "hash_sources", lambda files: "other code")
    with pytest.raises(DataError, match="drawn again"):
        load_splits(CONFIG)


def test_whatever_changes_a_photo_changes_the_key_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    set_config = ImageSetConfig(("star",), 0, (48, 64))
    keys = [cache_key(range(8), set_config), cache_key(range(1, 9), set_config), cache_key(range(9), set_config)]
    keys += [
        cache_key(range(8), ImageSetConfig(("balloon",), 0, (48, 64))),
        cache_key(range(8), ImageSetConfig(("star",), 1, (48, 64))),
    ]
    keys += [
        cache_key(range(8), ImageSetConfig(("star",), 0, (48, 65))),
        cache_key(range(8), ImageSetConfig(("star",), 0, (47, 64))),
    ]
    assert cache_key(range(8), ImageSetConfig(("star",), 0, (48, 64))) == keys[0]
    for module, name in ((np, "__version__"), (synthetic_split.cv2, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, "0")
            keys.append(cache_key(range(8), set_config))
    assert len(set(keys)) == len(keys)


def test_the_key_knows_every_module_that_draws() -> None:
    folder = Path(synthetic.__file__).parent
    names = ("__init__", "backgrounds", "canvas", "image_set", "render", "scene", "shapes")
    code = b"".join((folder / f"{name}.py").read_bytes() for name in names)
    assert hash_sources(synthetic_split.MODULES) == hashlib.sha256(code).hexdigest()


def test_an_interrupted_drawing_leaves_nothing_that_is_taken_for_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def interrupted(indices: range, *args: Any) -> Iterator[Iterator]:
        def stop() -> Iterator:
            raise KeyboardInterrupt
            yield

        with draw_images(indices[:3], *args) as photos:
            yield (photo for part in (photos, stop()) for photo in part)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic_split, "draw_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_source(CONFIG, "train")
    assert len(load_source(CONFIG, "train").coco["images"]) == 12


def test_what_goes_wrong_while_they_are_drawn_is_said_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*args: object) -> None:
        raise DataError("a process that draws them was killed")

    monkeypatch.setattr(synthetic_split, "draw_images", draw)
    with pytest.raises(DataError, match="^a process that draws them was killed$"):
        load_source(CONFIG, "train")


@pytest.mark.parametrize(("name", "kept"), [("*.arrow", 2000), ("*.arrow", 0), ("dataset_info.json", 200)])
def test_a_cache_that_cannot_be_used_is_named_with_the_remedy(
    name: str, kept: int, cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_source(CONFIG, "val")
    [file] = cache_folder.rglob(name)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"{cache_folder}/hf_detr_ft/drawn: .*Remove it if it is damaged"):
        load_source(CONFIG, "val")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    with pytest.raises(DataError, match=f"{tmp_path}/file/hf_detr_ft/drawn: .*Not a directory.*HF_DATASETS_CACHE"):
        load_source(CONFIG, "val")


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the cache one that others share and this user may only read."""

    def make() -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(FileLock, "acquire", refuse)
        monkeypatch.setattr(Path, "touch", refuse)

    return make


def test_drawn_images_are_read_from_a_read_only_cache(read_only: Callable[[], None]) -> None:
    expected = rows(load_splits(CONFIG))
    read_only()
    assert rows(load_splits(CONFIG)) == expected
    with pytest.raises(DataError, match=r"drawn: expected a folder .*Read-only file system.*HF_DATASETS_CACHE"):
        load_splits(DataConfig(**{**DRAWN, "synthetic_seed": 4}))


def test_a_full_disk_is_named(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic_split, "draw_images", draw)
    with pytest.raises(DataError, match=f"{cache_folder}/hf_detr_ft/drawn: .*No space left on device"):
        load_source(CONFIG, "val")


def test_all_wrong_values_are_named_by_their_fields_before_anything_is_drawn(cache_folder: Path) -> None:
    wrong = {"synthetic_classes": ["dog"], "synthetic_short_side": (64, 48), "synthetic_seed": -1}
    with pytest.raises(RecipeError) as error:
        load_splits(DataConfig(**{**DRAWN, **wrong}))
    text = str(error.value)
    assert "data.synthetic_classes: expected some of balloon, " in text
    assert text.splitlines()[-1].endswith("found 'dog'")
    assert "data.synthetic_short_side: expected least and largest, 32 pixels or more, found 64 48" in text
    assert "data.synthetic_seed: expected at least 0, found -1" in text
    assert not cache_folder.exists()


def test_photos_without_any_object_are_refused_as_those_of_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "EMPTY_SHARE", 1.0)
    with pytest.raises(DataError, match=r"error \[no-annotations\] synthetic train"):
        load_splits(CONFIG)


def test_classes_that_validation_lacks_are_warned_of() -> None:
    sources, problems = check_data(DataConfig(**{**DRAWN, "synthetic_classes": None}), decode=False)
    assert [problem.kind for problem in problems] == ["category-not-in-validation"]
    splits = build_splits(CONFIG, sources, problems)
    assert splits.label_map.names == synthetic.CLASSES


def test_nothing_is_asked_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", connect)
    assert len(load_splits(CONFIG).train) == 12


def test_the_records_fingerprints_tell_annotations_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_fingerprint(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    found = [load_splits(DataConfig(**{**DRAWN, "synthetic_seed": seed})).fingerprints for seed in (3, 4)]
    assert all(set(one) == {"synthetic train", "synthetic val"} for one in found)
    assert len({digest for one in found for digest in one.values()}) == 4
    assert all(len(digest) == 64 for one in found for digest in one.values())
