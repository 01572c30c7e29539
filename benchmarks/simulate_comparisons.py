"""`python benchmarks/simulate_comparisons.py [PAIRS]`: how often `compare` is right, on detections that are made up.

Objects of three classes, each as hard for all models as for one; a model's skill decides what it finds, how well it
places boxes and how sure it is. Two recipes differ by skill, seeds of one a little. Minutes on one core.
"""

import sys
from typing import Any

import numpy as np

from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.groups import compare_groups
from hf_detr_ft.evaluation.matching import match_detections
from hf_detr_ft.evaluation.truth import read_truth

CLASSES = 3
SEED_SKILL = 0.03
"""Standard deviation of skill between seeds, about 0.005 AP; of three trainings a group it is twice as much."""
FIVE_POINTS = 0.27
"""Difference of skill that makes one of about 0.05 AP."""
CASES = ((13, 0.0, 1), (100, 0.0, 1), (500, 0.0, 1), (500, FIVE_POINTS, 1), (50, 0.0, 3), (200, 0.0, 3))
"""Images, difference of skill, and trainings of each recipe."""


def draw_truth(images: int, generator: np.random.Generator) -> dict[str, Any]:
    """A COCO dict of 1 object or more an image."""
    annotations = []
    for image_id in range(1, images + 1):
        for _ in range(1 + generator.poisson(2)):
            corner, sides = generator.uniform(0, 400, 2), generator.uniform(20, 150, 2)
            box = [*corner.tolist(), *sides.tolist()]
            annotations.append({"image_id": image_id, "category_id": int(generator.integers(CLASSES)), "bbox": box})
    return {
        "images": [{"id": image_id} for image_id in range(1, images + 1)],
        "categories": [{"id": label, "name": str(label)} for label in range(CLASSES)],
        "annotations": annotations,
    }


def detect(coco: dict[str, Any], hardness: np.ndarray, skill: float, generator: np.random.Generator) -> Detections:
    """Detections of a model: most of the objects, and about one box of nothing an image."""
    rows = []
    for annotation, shift in zip(coco["annotations"], hardness, strict=True):
        sure = skill + shift + generator.normal(0, 0.7)
        if generator.random() < 1 / (1 + np.exp(-2 - sure)):
            x, y, w, h = annotation["bbox"]
            dx, dy, dw, dh = generator.normal(0, 0.12 * np.exp(-sure / 2), 4)
            score = 1 / (1 + np.exp(-sure - generator.normal(0, 0.5)))
            box = (x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh))
            rows.append((annotation["image_id"], annotation["category_id"], score, *box))
    images = len(coco["images"])
    for image_id in generator.integers(1, images + 1, generator.poisson(images)):
        box = (*generator.uniform(0, 400, 2), *generator.uniform(20, 150, 2))
        rows.append((image_id, generator.integers(CLASSES), generator.beta(1, 4), *box))
    columns = np.array(rows)
    return Detections(columns[:, 0].astype(int), columns[:, 1].astype(int), columns[:, 2], columns[:, 3:])


def simulate(images: int, difference: float, trainings: int, pairs: int) -> str:
    """A row of the table."""
    generator, told, values = np.random.default_rng(images), 0, []
    for _ in range(pairs):
        coco = draw_truth(images, generator)
        truth, hardness = read_truth(coco), generator.normal(0, 1, len(coco["annotations"]))
        groups = []
        for base in (0.0, difference):
            skills = base + generator.normal(0, SEED_SKILL * (2 if trainings > 1 else 1), trainings)
            found = [detect(coco, hardness, skill, generator) for skill in skills]
            groups.append([match_detections(truth, detections) for detections in found])
        row = compare_groups(*groups).overall
        values.append(row.value)
        told += row.is_told_apart
    return f"| {images} | {trainings} | {np.mean(values):+.3f} ± {np.std(values):.3f} | {told} of {pairs} |"


if __name__ == "__main__":
    print("| images | trainings of each | B - A | told apart |\n|---|---|---|---|")
    for images, difference, trainings in CASES:
        print(simulate(images, difference, trainings, int(sys.argv[1]) if len(sys.argv) > 1 else 100), flush=True)
