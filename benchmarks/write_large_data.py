"""Writes a data set of COCO's size and make-up, to measure `check` and the start of a training on.

    python benchmarks/write_large_data.py /data/large                                      # 118,000 + 5,000 images
    python benchmarks/write_large_data.py /data/photos --images 20000 --val-images 200 --textured

Images are JPEGs of the sizes that are frequent in COCO, no two of them equal; `--textured` gives them the detail of a
photo, and so its bytes and the time to decode it. Annotations are outlines of 24 points on average, some of two parts,
some that cross themselves, and a crowd region in a hundred. Areas are those of the outlines, or with `--areas box`
those of the boxes, as some labelling tools write them.
"""

import argparse
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (426, 640), (375, 500), (500, 375), (612, 612))
"""Height and width."""
OBJECTS = 7
"""Objects of an image, on average."""
CLASSES = 80


def encode_images(textured: bool) -> list[bytes]:
    """A JPEG of each size."""
    rng, files = np.random.default_rng(0), []
    for height, width in SIZES:
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        if textured:
            noise = rng.normal(0, 8, (height, width, 1))
            image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
        else:
            image = Image.new("RGB", (width, height), (90, 120, 60))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=85)
        files.append(stream.getvalue())
    return files


def with_comment(jpeg: bytes, text: str) -> bytes:
    """The same image with a comment, so that no two files are equal."""
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text.encode() + jpeg[2:]


def draw_outline(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Points `[N, 2]` (x, y) of an outline around a place of the image; one in 20 crosses itself."""
    points = max(4, int(rng.lognormal(3.0, 0.6)))
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    if rng.random() < 0.05:
        angles[points // 2 :] = angles[points // 2 :][::-1]
    radius = min(rng.lognormal(3.5, 0.9), min(height, width) / 2 - 2)
    radii = radius * rng.uniform(0.7, 1, points)
    centre = rng.uniform(radius + 1, np.array([width, height]) - radius - 1)
    return np.round(centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1), 2)


def shoelace(points: np.ndarray) -> float:
    """Area of an outline."""
    x, y = (points - points[0]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def annotate(rng: np.random.Generator, height: int, width: int, areas: str) -> dict:
    """Outline, box and area of an object, or a crowd region."""
    parts = [draw_outline(rng, height, width) for _ in range(2 if rng.random() < 0.1 else 1)]
    left_top, right_bottom = np.concatenate(parts).min(axis=0), np.concatenate(parts).max(axis=0)
    box = np.round([*left_top, *(right_bottom - left_top)], 2).tolist()
    crowd = bool(rng.random() < 0.01)
    area = box[2] * box[3] if areas == "box" else sum(map(shoelace, parts))
    outline: object = [part.ravel().tolist() for part in parts]
    if crowd:
        outline = {"size": [height, width], "counts": [height * width // 2, height * width - height * width // 2]}
    return {"segmentation": outline, "area": round(area, 4), "iscrowd": int(crowd), "bbox": box}


def write_split(folder: Path, name: str, count: int, textured: bool, areas: str, seed: int) -> None:
    """Writes images and annotations, an entry at a time."""
    rng, jpegs, images = np.random.default_rng(seed), encode_images(textured), []
    (folder / f"{name}2017").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        which = int(rng.choice(len(SIZES), p=(0.35, 0.15, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05)))
        file_name = f"{index:012d}.jpg"
        (folder / f"{name}2017" / file_name).write_bytes(with_comment(jpegs[which], f"{name} {index}"))
        height, width = SIZES[which]
        images.append({"id": index, "file_name": file_name, "height": height, "width": width})

    def entries() -> Iterator[dict]:
        number = 0
        for image in images:
            for _ in range(rng.integers(0, 2 * OBJECTS + 1)):
                number += 1
                entry = {"id": number, "image_id": image["id"], "category_id": int(rng.integers(CLASSES)) + 1}
                yield entry | annotate(rng, image["height"], image["width"], areas)

    file = folder / "annotations" / f"custom_{name}.json"
    file.parent.mkdir(exist_ok=True)
    categories = [{"id": label + 1, "name": f"class {label}"} for label in range(CLASSES)]
    with file.open("w") as stream:
        stream.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": [')
        stream.writelines(f"{', ' if n else ''}{json.dumps(entry)}" for n, entry in enumerate(entries()))
        stream.write("]}")


def main() -> None:
    """Writes both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="made where it is not there")
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--val-images", type=int, default=5_000)
    parser.add_argument("--textured", action="store_true", help="images with the detail of a photo")
    parser.add_argument("--areas", choices=("outline", "box"), default="outline")
    arguments = parser.parse_args()
    write_split(arguments.folder, "train", arguments.images, arguments.textured, arguments.areas, 0)
    write_split(arguments.folder, "val", arguments.val_images, arguments.textured, arguments.areas, 1)


if __name__ == "__main__":
    main()
