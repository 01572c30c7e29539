"""AP and AR of one model by the original's `main.py --eval` and by `hf-detr-ft evaluate`, on drawn photos and balloons.

The model is a small DETR on a ResNet-18 that starts from random weights and learns the photos by heart: what counts is
that its AP is well above 0, and the same in both.
"""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torchvision.transforms.functional import pil_to_tensor, resize, to_pil_image
from transformers import DetrImageProcessor

from hf_detr_ft.cli import main
from hf_detr_ft.data.dataset import prepare_coco
from hf_detr_ft.model.original.to_original import write_as_original
from hf_detr_ft.recipe.rules import METRICS
from tests.fixtures import as_flags
from tests.parity import original_models
from tests.parity.original_augment import RECIPE
from tests.parity.original_training import DROPOUTS, original_arguments, run_original

MODEL = original_models.Model("resnet18")
SIZES = {"num_queries": 20, "dim_feedforward": 256}
"""Arguments of the original that differ from those of the other comparisons."""
EDGES = (160, 256)
PHOTOS = ("drawn", "balloon")
NAMES = ("AP", "AP50", "AP75", "AP S", "AP M", "AP L", "AR 1", "AR 10", "AR 100", "AR S", "AR M", "AR L")
CATEGORIES = [{"id": 0, "name": "balloon"}, {"id": 5, "name": "star"}, {"id": 7, "name": "mug"}]


def write_sets(balloon: Path, root: Path) -> None:
    """Both sets of photos in COCO's folders below `root`, with the same categories, and all of them in one file.

    Areas are right there and no annotation has the id 0, in which ours would differ on purpose.

    Args:
        balloon: folder of the balloon data set, of which the 13 validation photos are taken.
        root: an empty folder.
    """
    main(["get", "synthetic", str(root / "drawn"), "--images", "1", "--val-images", "12", "--classes", "star,mug"])
    (root / "balloon").mkdir()
    (root / "balloon" / "val2017").symlink_to((balloon / "val2017").resolve())
    whole: dict = {"images": [], "annotations": [], "categories": CATEGORIES}
    ids = {category["name"]: category["id"] for category in CATEGORIES}
    for name, folder in zip(PHOTOS, (root / "drawn", balloon), strict=True):
        coco = prepare_coco(json.loads((folder / "annotations" / "custom_val.json").read_text()), None)
        names = {category["id"]: category["name"] for category in coco["categories"]}
        shift = 10_000 * len(whole["images"])
        for annotation in coco["annotations"]:
            annotation["category_id"] = ids[names[annotation["category_id"]]]
            annotation |= {"id": annotation["id"] + shift + 1, "image_id": annotation["image_id"] + shift}
        for image in coco["images"]:
            image["id"] += shift
        (root / name / "annotations").mkdir(exist_ok=True)
        for split in ("train", "val"):
            (root / name / f"{split}2017").mkdir(exist_ok=True)
            path = root / name / "annotations" / f"instances_{split}2017.json"
            path.write_text(json.dumps(coco | {"categories": CATEGORIES}))
        for image in coco["images"]:
            image["file_name"] = f"{name}/val2017/{image['file_name']}"
        whole["images"] += coco["images"]
        whole["annotations"] += coco["annotations"]
    (root / "all.json").write_text(json.dumps(whole))


def learn_by_heart(root: Path, steps: int = 1000) -> Path:
    """The run folder of a model that was trained on all photos below `root`."""
    with mock.patch.dict(original_models.ARGUMENTS, SIZES):
        content = {"model": original_models.random_tensors(MODEL), "args": vars(MODEL.arguments)}
        torch.save(content, root / "start.pth")
    settings = {
        "data.root": root,
        "data.train_annotations": "all.json",
        "data.train_images": ".",
        "data.val_annotations": "all.json",
        "data.val_images": ".",
        "augment.preset": "none",
        "model.checkpoint": root / "start.pth",
        "model.backbone": "null",
        "model.backbone_weights": "null",
        "model.config": json.dumps(dict.fromkeys(DROPOUTS, 0.0)),
        "model.shortest_edge": EDGES[0],
        "model.longest_edge": EDGES[1],
        "model.trainable_stages": '["all"]',
        "speed.store_gigabytes": 1,
        "training.max_steps": steps,
        "training.learning_rate": 2e-4,
        "training.backbone_learning_rate": 2e-4,
        "training.learning_rate_drop_epoch": "null",
        "training.lr_scheduler_type": "cosine",
        "training.warmup_steps": 50,
        "training.per_device_train_batch_size": 5,
        "training.dataloader_drop_last": "false",
        "training.eval_strategy": "steps",
        "training.eval_steps": 250,
        "training.save_strategy": "no",
        "training.output_dir": root / "run",
        "training.use_cpu": "true",
        "training.disable_tqdm": "true",
        "training.overwrite": "true",
        "report.enabled": "false",
    }
    assert main(["train", str(RECIPE), *as_flags(settings)]) == 0
    return root / "run"


def resize_as_original(_: Any, image: torch.Tensor, size: Any, **__: Any) -> torch.Tensor:
    """Images `[..., 3, h, w]` uint8 as `datasets/transforms.py` resizes one: its size, and Pillow's pixels."""
    height, width = image.shape[-2:]
    short, long = min(height, width), max(height, width)
    edge = size.shortest_edge
    if long / short * edge > size.longest_edge:
        edge = round(size.longest_edge * short / long)
    target = [int(edge * side / short) for side in (height, width)]
    flat = image.reshape(-1, 3, height, width)
    resized = [pil_to_tensor(resize(to_pil_image(each), target)) for each in flat]
    return torch.stack(resized).reshape(*image.shape[:-2], *target)


def evaluate_all(checkout: Path, run: Path, photos: Path) -> dict[str, list[float]]:
    """The 12 COCO numbers by who computed them, one photo at a time: padding of a batch would change them."""
    write_as_original(str(run), photos / "model.pth", "original")
    with mock.patch.dict(original_models.ARGUMENTS, SIZES):
        arguments = original_arguments(MODEL)
    arguments += as_flags({"coco_path": photos, "resume": photos / "model.pth", "batch_size": 1})
    theirs = run_original(checkout, photos, {"edges": EDGES}, "--eval", *arguments)
    with mock.patch.object(DetrImageProcessor, "resize", resize_as_original):
        as_there = evaluate(run, photos)
    return {
        "the original": theirs["coco_eval_bbox"],
        "ours": evaluate(run, photos),
        "ours, resized as there": as_there,
    }


def evaluate(run: Path, photos: Path) -> list[float]:
    """The 12 numbers of `hf-detr-ft evaluate`."""
    output, data = photos / "ours.json", {"data.root": photos, "training.per_device_eval_batch_size": 1}
    flags = as_flags({**data, "training.use_cpu": "true", "training.bf16": "false"})
    assert main(["evaluate", str(run), "--recipe", str(RECIPE), "--output", str(output), *flags]) == 0
    ours = json.loads(output.read_text())
    return [ours["metrics"][name] for name in METRICS[:12]]
