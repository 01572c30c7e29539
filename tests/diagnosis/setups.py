"""Sound set-ups of drawn images and tiny models, and ways to break them, one fault each."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_detr_ft.data.drawn_folder import write_drawn_folder
from tests.fixtures import SMALL_TRANSFORMER, as_flags, tiny_detr, tiny_processor, write_coco_folder

CLASSES = ("star", "ring", "cube")
"""Classes that the packaged tiny models know."""
NEW_NAMES = ("north", "east", "south")
"""Names for them that no model knows."""
Coco = dict[str, Any]


class SetUp:
    """A data set in a folder, and flags of a recipe; what breaks it changes both in place.

    Args:
        base: a drawn data set, which stays as it is.
        folder: to make.
    """

    def __init__(self, base: Path, folder: Path) -> None:
        self.folder = folder
        self.cocos: dict[str, Coco] = {}
        folder.mkdir()
        for split in ("train", "val"):
            self.cocos[split] = json.loads((base / "annotations" / f"custom_{split}.json").read_text())
            (folder / f"{split}2017").mkdir()
            for image in (base / f"{split}2017").iterdir():
                os.link(image, folder / f"{split}2017" / image.name)
        self.settings: dict[str, Any] = {
            **{"data.root": folder, "data.name": "drawn"},
            **{"model.checkpoint": "package:hf_detr_ft/tiny_dfine", "model.square_edge": 96},
            **{"training.num_train_epochs": 40, "training.per_device_train_batch_size": 4},
            **{"training.per_device_eval_batch_size": 16, "training.learning_rate": 2e-4},
            **{"training.backbone_learning_rate": 1e-4, "training.max_grad_norm": 1.0},
            **{"training.bf16": "false", "training.use_cpu": "true"},
        }

    def write(self) -> list[str]:
        """Writes the annotations; returns the flags."""
        (self.folder / "annotations").mkdir(exist_ok=True)
        for split, coco in self.cocos.items():
            (self.folder / "annotations" / f"custom_{split}.json").write_text(json.dumps(coco))
        return as_flags(self.settings)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Annotations of both splits."""
        return [entry for coco in self.cocos.values() for entry in coco["annotations"]]

    def rename(self) -> None:
        """Gives the classes names that the model does not know."""
        for coco in self.cocos.values():
            for category, name in zip(coco["categories"], NEW_NAMES, strict=True):
                category["name"] = name


Change = Callable[[SetUp], None]


def draw_base(folder: Path) -> Path:
    """The data set of the set-ups."""
    write_drawn_folder(folder, 32, 10, classes=CLASSES, short_side=(96, 112), workers=1)
    return folder


def off_by_one_ids(setup: SetUp) -> None:
    for entry in setup.entries:
        entry["category_id"] -= 1


def ids_of_neighbours(setup: SetUp) -> None:
    ids = [category["id"] for category in setup.cocos["train"]["categories"]]
    for entry in setup.entries:
        entry["category_id"] = ids[(ids.index(entry["category_id"]) + 1) % len(ids)]


def image_ids_off_by_one(setup: SetUp) -> None:
    for entry in setup.cocos["train"]["annotations"]:
        entry["image_id"] += 1


def corners(setup: SetUp) -> None:
    for entry in setup.entries:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x, y, x + w, y + h]


def normalised(setup: SetUp) -> None:
    for coco in setup.cocos.values():
        sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
        for entry in coco["annotations"]:
            (x, y, w, h), (width, height) = entry["bbox"], sizes[entry["image_id"]]
            entry["bbox"] = [x / width, y / height, w / width, h / height]


def wrong_folder(setup: SetUp) -> None:
    setup.settings["data.train_images"] = "val2017"


def swapped_sizes(setup: SetUp) -> None:
    for coco in setup.cocos.values():
        for image in coco["images"]:
            image["width"], image["height"] = image["height"], image["width"]


def swapped_sides(setup: SetUp) -> None:
    for entry in setup.entries:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [y, x, h, w]


def centres(setup: SetUp) -> None:
    for entry in setup.entries:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x + w / 2, y + h / 2, w, h]


def stored_with_exif(setup: SetUp, orientation: int, turn: Image.Transpose) -> None:
    """Stores photos turned, with the tag that turns them back; boxes are those of the pixels as stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for split, coco in setup.cocos.items():
        for image in coco["images"]:
            path = setup.folder / f"{split}2017" / image["file_name"]
            pixels = Image.open(path).convert("RGB")
            path.unlink()
            pixels.save(path, quality=95, exif=exif)


def turned_by_a_quarter(setup: SetUp) -> None:
    stored_with_exif(setup, 6, Image.Transpose.ROTATE_90)


def turned_by_half(setup: SetUp) -> None:
    stored_with_exif(setup, 3, Image.Transpose.ROTATE_180)


def empty_validation(setup: SetUp) -> None:
    setup.cocos["val"]["annotations"] = []


def missing_class(setup: SetUp) -> None:
    coco = setup.cocos["train"]
    gone = coco["categories"][1]["id"]
    coco["annotations"] = [entry for entry in coco["annotations"] if entry["category_id"] != gone]


def shuffled(setup: SetUp) -> None:
    generator = np.random.default_rng(0)
    for coco in setup.cocos.values():
        labels = generator.permutation([entry["category_id"] for entry in coco["annotations"]]).tolist()
        for entry, label in zip(coco["annotations"], labels, strict=True):
            entry["category_id"] = label


def shuffled_new_classes(setup: SetUp) -> None:
    shuffled(setup)
    setup.rename()


def new_transformer(setup: SetUp) -> None:
    setup.settings |= {"model.checkpoint": "null", "model.backbone": "test_resnet"}
    setup.settings["model.config"] = json.dumps(SMALL_TRANSFORMER)


def untrained_checkpoint(setup: SetUp) -> None:
    folder = setup.folder / "random"
    tiny_detr(CLASSES).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    del setup.settings["model.square_edge"]
    setup.settings["model.checkpoint"] = folder


def rate_times_100(setup: SetUp) -> None:
    setup.settings["training.learning_rate"] *= 100


def rate_by_1000(setup: SetUp) -> None:
    setup.settings["training.learning_rate"] /= 1000
    setup.settings["training.backbone_learning_rate"] /= 1000


def few_steps(setup: SetUp) -> None:
    setup.settings["training.num_train_epochs"] = 1


def endless_warmup(setup: SetUp) -> None:
    setup.settings["training.warmup_steps"] = 100_000
    setup.settings["training.lr_scheduler_type"] = "constant_with_warmup"


def no_data(setup: SetUp) -> None:
    setup.settings["data.root"] = setup.folder / "nowhere"


def no_checkpoint(setup: SetUp) -> None:
    setup.settings["model.checkpoint"] = setup.folder


def one_query(setup: SetUp) -> None:
    setup.settings["model.num_queries"] = 1


def frozen(setup: SetUp) -> None:
    setup.settings |= {
        "model.trainable_stages": "[]",
        "training.learning_rate": 0,
        "training.backbone_learning_rate": 0,
    }


def tiny_objects(setup: SetUp) -> None:
    for entry in setup.entries:
        entry["bbox"][2:] = [3, 3]
        entry["area"] = 9
        entry.pop("segmentation", None)


def packaged(setup: SetUp, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Takes a packaged model with other settings of its processor."""
    from importlib.resources import files

    source, folder = Path(str(files("hf_detr_ft") / name)), setup.folder / "model"
    folder.mkdir()
    for file in source.iterdir():
        if file.suffix == ".json":
            content = json.loads(file.read_text())
            if file.name == "preprocessor_config.json":
                change(content)
            (folder / file.name).write_text(json.dumps(content))
        elif file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
    setup.settings["model.checkpoint"] = folder


def normalised_twice(setup: SetUp) -> None:
    def change(settings: dict[str, Any]) -> None:
        mean, std = (np.array(settings[name]) for name in ("image_mean", "image_std"))
        settings.update(image_mean=(mean + mean * std).tolist(), image_std=(std**2).tolist())

    packaged(setup, "tiny_detr", change)


def not_normalised(setup: SetUp) -> None:
    packaged(setup, "tiny_detr", lambda settings: settings.update(do_normalize=False))


def rescaled_twice(setup: SetUp) -> None:
    packaged(setup, "tiny_dfine", lambda settings: settings.update(rescale_factor=settings["rescale_factor"] ** 2))


def other_validation(setup: SetUp) -> None:
    """Rectangles on noise, of the same names."""
    categories = setup.cocos["train"]["categories"]
    other = write_coco_folder(setup.folder / "other", val_sizes=[(96, 128)] * 12, categories=categories)
    setup.settings |= {"data.val_images": other / "val2017"}
    setup.cocos["val"] = json.loads((other / "annotations" / "custom_val.json").read_text())
    setup.rename()


def other_images(setup: SetUp) -> None:
    """Each image has the name of another of its size."""
    images, folder = setup.cocos["train"]["images"], setup.folder / "train2017"
    side = min(min(image["width"], image["height"]) for image in images)
    for image in images:
        cut = Image.open(folder / image["file_name"]).convert("RGB").resize((side, side))
        (folder / image["file_name"]).unlink()
        cut.save(folder / image["file_name"], quality=95)
    names = [image["file_name"] for image in images]
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    for entry in setup.cocos["train"]["annotations"]:
        width, height = sizes[entry["image_id"]]
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x * side / width, y * side / height, w * side / width, h * side / height]
        entry.pop("segmentation", None)
        entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    for place, image in enumerate(images):
        image.update(width=side, height=side, file_name=names[(place + 1) % len(names)])


def drowned_in_dropout(setup: SetUp) -> None:
    setup.rename()
    setup.settings |= {"model.checkpoint": "package:hf_detr_ft/tiny_detr", "model.config": "{dropout: 0.98}"}


def all_crowds(setup: SetUp) -> None:
    for entry in setup.cocos["val"]["annotations"][1:]:
        entry["iscrowd"] = 1


BROKEN: tuple[tuple[Change, str], ...] = (
    (no_data, "the data cannot be read"),
    (off_by_one_ids, "category_id is off by one"),
    (ids_of_neighbours, "category ids are off by one"),
    (image_ids_off_by_one, "image_id is off by one"),
    (corners, "boxes are [x1, y1, x2, y2]"),
    (normalised, "boxes are normalised"),
    (centres, "boxes look like [centre x, centre y, width, height]"),
    (wrong_folder, "not in the image folder"),
    (other_images, "boxes are not where the objects are"),
    (no_checkpoint, "the model cannot be made"),
    (new_transformer, "begins with random weights"),
    (untrained_checkpoint, "was never trained"),
    (rate_times_100, "training.learning_rate is 100 times as high"),
    (rate_by_1000, "training.learning_rate is 1000 times as low"),
    (few_steps, "too few steps"),
    (endless_warmup, "too few steps"),
    (frozen, "everything is frozen"),
    (one_query, "more objects than the model has queries"),
    (tiny_objects, "smaller than a cell"),
    (empty_validation, "a split is empty"),
    (normalised_twice, "normalised twice"),
    (not_normalised, "prepared otherwise"),
    (rescaled_twice, "nearly one colour"),
    (swapped_sizes, "width and height are swapped"),
    (swapped_sides, "boxes look like [y, x, height, width]"),
    (turned_by_a_quarter, "EXIF had not turned"),
    (turned_by_half, "boxes look like of the photo turned by 180"),
    (shuffled, "class labels are shuffled"),
    (shuffled_new_classes, "class labels are shuffled, or say nothing"),
    (missing_class, "no objects of a class"),
    (other_validation, "validation images are of another kind"),
    (drowned_in_dropout, "cannot learn 4 images"),
    (all_crowds, "marked as crowd regions"),
)
"""What is broken, and words of the cause that has to be named first."""
