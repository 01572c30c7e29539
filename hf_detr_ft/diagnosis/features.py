"""Probes that compare images by the features of the model's backbone: no training, and no labels of it."""

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from hf_detr_ft.data.images import decode_row
from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.formatting import percent, pluralize
from hf_detr_ft.model.families.family import map_encoder_of

AT_ONCE = 16
SIDE = 128
"""Pixels of the images' sides."""
CROPS, LEAST_CROPS = 240, 60
"""Objects that are compared, at most and at least."""
IMAGES, LEAST_IMAGES = 48, 8
"""Images of each split that are compared, at most and at least."""
NEIGHBOURS = 5
APART = 0.95
"""Share of images of one split whose nearest one is of the same, from which on the splits show other things."""


@torch.inference_mode()
def describe_images(case: Case, images: list[Image.Image]) -> np.ndarray:
    """Means of the backbone's last feature map, of length 1, `[N, C]`."""
    model, side = case.model, case.model.family.size.side(case.model.config, SIDE)
    encoder, device = map_encoder_of(model), next(model.parameters()).device
    encoder.eval()
    found = []
    for start in range(0, len(images), AT_ONCE):
        batch = [image.resize((side, side)) for image in images[start : start + AT_ONCE]]
        size = {"height": side, "width": side}
        pixels = case.processor(images=batch, size=size, do_pad=False, return_tensors="pt")["pixel_values"].to(device)
        maps = encoder(pixels, torch.ones(len(batch), side, side, device=device))
        found.append(maps[-1][0].float().mean(dim=(2, 3)).cpu().numpy())
    features = np.concatenate(found)
    features = features - features.mean(axis=0)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)


def meaningless_labels(case: Case) -> Finding | None:
    """Classes of objects that like-looking objects do not share, more often than chance makes it so."""
    crops, labels, owners = _crops(case)
    counts = np.bincount(labels, minlength=2)
    if len(labels) < LEAST_CROPS or (counts >= NEIGHBOURS).sum() < 2:
        return None
    features = describe_images(case, crops)
    alike = features @ features.T
    alike[owners[:, None] == owners[None]] = -np.inf  # objects of a photo look alike for other reasons
    nearest = np.argsort(-alike, axis=1)[:, :NEIGHBOURS]
    shared = float((labels[nearest] == labels[:, None]).mean())
    shares = counts / counts.sum()
    chance = float((shares**2).sum())
    error = float(np.sqrt(chance * (1 - chance) / len(labels)))
    if shared > chance + 2 * error:
        return None
    return Finding(
        "class labels are shuffled, or say nothing of how the objects look",
        f"of the {NEIGHBOURS} objects that look most like one, {percent(shared)} have its class, and {percent(chance)} "
        f"would by chance ({pluralize(len(labels), 'training object')}, by the features of the backbone)",
        "look whether class names fit what is in the boxes: `hf-detr-ft check --report`",
        is_sure=False,
    )


def _crops(case: Case) -> tuple[list[Image.Image], np.ndarray, np.ndarray]:
    """Objects cut out of training images, their labels, and the place of their images; some of each image."""
    rows: Dataset = case.sample_rows("train", CROPS)
    crops, labels, owners = list[Image.Image](), list[int](), list[int]()
    each = max(2, CROPS // len(rows))
    for place, row in enumerate(rows):
        image, objects = decode_row(row), row["objects"]
        for (x, y, w, h), label in zip(objects["bbox"][:each], objects["label"][:each], strict=True):
            left, top = max(0, int(x)), max(0, int(y))
            right, bottom = min(image.width, round(x + w)), min(image.height, round(y + h))
            if right - left >= 4 and bottom - top >= 4 and len(crops) < CROPS:
                crops.append(image.crop((left, top, right, bottom)))
                labels.append(label)
                owners.append(place)
    return crops, np.array(labels, dtype=np.int64), np.array(owners, dtype=np.int64)


def other_validation(case: Case) -> Finding | None:
    """Validation images that look like one another, and never like one of training."""
    if case.splits.pieces:
        return None
    val = case.sample_rows("val", IMAGES)
    train = case.sample_rows("train", len(val))
    count = len(train)
    if count < LEAST_IMAGES:
        return None
    features = describe_images(case, [decode_row(row) for rows in (train, val.select(range(count))) for row in rows])
    alike = features @ features.T
    np.fill_diagonal(alike, -np.inf)
    is_val = np.arange(2 * count) >= count
    own = float((is_val[alike.argmax(axis=1)] == is_val).mean())
    across = np.median(alike[:count, count:].max(axis=0))
    within = np.median(alike[:count, :count][~np.eye(count, dtype=bool)])
    if own < APART or across > within:
        return None
    return Finding(
        "validation images are of another kind than training's",
        f"{percent(own)} of {2 * count} images look most like one of their own split, by the features of the backbone, "
        "where half would by chance; the nearest training image is as unlike a validation image as two training images "
        "are each other",
        "validate on photos like those of training (data.val_share takes some out), or train on photos like those of "
        "validation",
        is_sure=False,
    )
