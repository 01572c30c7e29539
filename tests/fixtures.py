"""Small COCO folders and tiny DETRs, made on the fly; tests need no network and no files of their own."""

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

from hf_detr_ft.synthetic.image_set import LEAST_SIDE
from hf_detr_ft.synthetic.render import SyntheticImage, coco_annotations, render

CLASSES = ("mug", "cone")
"""By label; neither in alphabetical order nor in the generator's, so that names and ids can be told to go together."""
CATEGORIES = tuple({"id": id_, "name": name} for id_, name in zip((3, 7), CLASSES, strict=True))
"""Sparse category ids on purpose: a label is never equal to its category id."""
PHOTOS_TRIED = 500


def draw_split(
    images_dir: Path,
    sizes: Sequence[tuple[int, int]],
    *,
    seed: int,
    categories: Sequence[dict] = CATEGORIES,
    objects: Sequence[int] | None = None,
) -> dict:
    """Draws one split and returns its COCO dict.

    Args:
        images_dir: where the photos go; made if it is not there.
        sizes: (height, width) of each photo.
        seed: another one, other photos.
        categories: their names are classes of the generator.
        objects: how many each photo shows; at least one each where not given.
    """
    names = tuple((category["id"], category["name"]) for category in categories)
    counts = (None,) * len(sizes) if objects is None else tuple(objects)
    photos, coco = _draw(tuple((height, width) for height, width in sizes), counts, seed, names)
    images_dir.mkdir(parents=True, exist_ok=True)
    for file_name, jpeg in photos.items():
        (images_dir / file_name).write_bytes(jpeg)
    return json.loads(coco)


def write_coco_folder(
    root: Path,
    train_sizes: Sequence[tuple[int, int]] = ((96, 128), (128, 96), (96, 128), (96, 96)),
    val_sizes: Sequence[tuple[int, int]] = ((96, 128), (128, 96)),
    categories: Sequence[dict] = CATEGORIES,
    train_objects: Sequence[int] | None = None,
) -> Path:
    """Writes `annotations/custom_{train,val}.json`, `train2017/` and `val2017/` under `root`; returns `root`."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, sizes, seed, objects in (("train", train_sizes, 1, train_objects), ("val", val_sizes, 2, None)):
        coco = draw_split(root / f"{split}2017", sizes, seed=seed, categories=categories, objects=objects)
        (root / "annotations" / f"custom_{split}.json").write_text(json.dumps(coco))
    return root


def draw_photo(height: int, width: int, seed: int) -> Image.Image:
    """A photo of any size without its annotations; another seed, another photo."""
    size = max(height, LEAST_SIDE), max(width, LEAST_SIDE)
    return Image.fromarray(_render(0, seed, size, CLASSES).image).resize((width, height))


@cache
def _draw(
    sizes: tuple[tuple[int, int], ...],
    objects: tuple[int | None, ...],
    seed: int,
    names: tuple[tuple[int, str], ...],
) -> tuple[dict[str, bytes], str]:
    """JPEG by file name, and the COCO dict as JSON, since those who get it change it."""
    category_ids = {name: id_ for id_, name in names}
    jpegs: dict[str, bytes] = {}
    images: list[dict] = []
    annotations: list[dict] = []
    taken: set[int] = set()
    for size, count in zip(sizes, objects, strict=True):
        index, photo = _find_photo(seed, size, tuple(category_ids), count, taken)
        taken.add(index)
        id_, file_name, stream = 100 + len(images), f"{seed:02d}_{len(images):03d}.jpg", io.BytesIO()
        Image.fromarray(photo.image).save(stream, "JPEG", quality=95)
        jpegs[file_name] = stream.getvalue()
        images.append({"id": id_, "file_name": file_name, "height": size[0], "width": size[1]})
        entries = coco_annotations(photo, id_, tuple(category_ids), len(annotations) + 1)
        for thing, entry in zip(photo.objects, entries, strict=True):
            annotations.append({**entry, "category_id": category_ids[thing.name]})
    categories = [{"id": id_, "name": name} for id_, name in names]
    return jpegs, json.dumps({"images": images, "annotations": annotations, "categories": categories})


def _find_photo(
    seed: int, size: tuple[int, int], classes: tuple[str, ...], objects: int | None, taken: set[int]
) -> tuple[int, SyntheticImage]:
    """The first photo that is not taken and shows so many objects, or any where None is given, and its index."""
    for index in range(PHOTOS_TRIED):
        if index not in taken:
            photo = _render(index, seed, size, classes)
            if len(photo.objects) == objects or (objects is None and photo.objects):
                return index, photo
    raise ValueError(f"none of {PHOTOS_TRIED} photos of {size} shows {objects} objects")


@cache
def _render(index: int, seed: int, size: tuple[int, int], classes: tuple[str, ...]) -> SyntheticImage:
    return render(index, seed=seed, classes=classes, size=size)


SMALL_TRANSFORMER = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 12,
}
"""Fields of a `DetrConfig`."""


def tiny_config(labels: Sequence[str] = CLASSES, **overrides: object) -> DetrConfig:
    """A DETR of about 0.5 million parameters on timm's `test_resnet` (stages layer1 … layer4, plain batch norms)."""
    settings: dict = {
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": "test_resnet",
            "features_only": True,
            "use_pretrained_backbone": False,
            "out_indices": [1, 2, 3, 4],
        },
        **SMALL_TRANSFORMER,
        "id2label": dict(enumerate(labels)),
        "label2id": {name: label for label, name in enumerate(labels)},
    }
    return DetrConfig(**{**settings, **overrides})


def tiny_detr(labels: Sequence[str] = CLASSES, seed: int = 0, **overrides: object) -> DetrForObjectDetection:
    """Random weights, the same for the same seed; in evaluation mode."""
    torch.manual_seed(seed)
    return DetrForObjectDetection(tiny_config(labels, **overrides)).eval()


def tiny_processor(shortest_edge: int = 96, longest_edge: int = 160) -> DetrImageProcessor:
    """The processor that goes with the tiny model."""
    return DetrImageProcessor(size={"shortest_edge": shortest_edge, "longest_edge": longest_edge})


def write_run_folder(
    run: Path, model: DetrForObjectDetection | None = None, category_ids: Sequence[int] = (3, 7)
) -> Path:
    """A run folder's weights, `config.json` (with `category_ids`) and `preprocessor_config.json`; random weights."""
    model = model or tiny_detr()
    model.config.category_ids = list(category_ids)
    model.save_pretrained(run)
    tiny_processor().save_pretrained(run)
    return run
