"""`python scripts/draw_nuclei.py FOLDER`: photos of drawn nuclei, laid out as those of the Data Science Bowl.

Each photo has as many ellipses as asked for, none on another, of 8 to 20 pixels, bright on dark or dark on bright. From
them `hf-detr-ft get nucleus DATA --from FOLDER` makes a data set. docs/evaluation.md has what a training on it came to.
"""

import hashlib
from argparse import ArgumentParser
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

AXES = (7, 19)
"""Least and largest axis of an ellipse in pixels; what is drawn is up to a pixel larger."""


def draw_photo(index: int, objects: int = 300, side: int = 512) -> tuple[np.ndarray, list[np.ndarray]]:
    """A photo `[side, side, 3]` uint8 and the masks `[side, side]` uint8 of its nuclei, 255 on the nucleus."""
    rng = np.random.default_rng(index)
    taken = np.zeros((side, side), np.uint8)
    light = rng.normal(0, 1, (8, 8)).astype(np.float32)
    photo = 40 + 6 * cv2.resize(light, (side, side), interpolation=cv2.INTER_CUBIC)
    masks: list[np.ndarray] = []
    while len(masks) < objects:
        axes = rng.uniform(*AXES, 2) / 2
        centre = rng.uniform(max(axes), side - max(axes), 2)
        mask = np.zeros_like(taken)
        box = (tuple(centre.tolist()), tuple((2 * axes).tolist()), float(rng.uniform(0, 180)))
        cv2.ellipse(mask, box, 255, -1)
        if not (taken & cv2.dilate(mask, np.ones((3, 3), np.uint8))).any():
            taken |= mask
            masks.append(mask)
            photo += cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.8) * rng.uniform(40, 160)
    photo += rng.normal(0, 5, photo.shape)
    photo = 255 - photo if rng.random() < 0.3 else photo
    return np.repeat(photo.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), masks


def write_photo(folder: Path, index: int, objects: int = 300, side: int = 512) -> None:
    """Writes a photo and its masks below the folder, under a name such as the originals have."""
    photo, masks = draw_photo(index, objects, side)
    name = hashlib.sha256(str(index).encode()).hexdigest()
    for kind in ("images", "masks"):
        (folder / name / kind).mkdir(parents=True)
    Image.fromarray(photo).convert("RGBA").save(folder / name / "images" / f"{name}.png")
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / name / "masks" / f"{number}.png")


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=75)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    for image in range(arguments.images):
        write_photo(arguments.folder, image, arguments.objects, arguments.side)
