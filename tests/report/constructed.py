"""A validation split in which every kind of error occurs once, and run folders around it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.data.split_source import file_fingerprint
from hf_detr_ft.evaluation.analysis import analyse_detections
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.report.load_run import Validation
from hf_detr_ft.report.pages import ReportData

NAMES = ("<script>alert(1)</script>", 'a "b" & c')
"""Names of the categories 3 and 7."""
RESULTS = (
    (1, 3, (10, 10, 40, 40), 0.9, "right"),
    (1, 3, (12, 10, 40, 40), 0.8, "duplicate"),
    (1, 3, (120, 75, 40, 40), 0.7, "background"),
    (2, 7, (10, 10, 40, 20), 0.6, "localisation"),
    (2, 3, (100, 50, 40, 40), 0.55, "classification"),
    (2, 3, (10, 60, 40, 40), 0.5, "both"),
    (3, 3, (0, 0, 30, 30), 0.45, "ignored"),
    (1, 3, (60, 10, 40, 40), 0.2, "right"),
    (1, 3, (140, 0, 20, 20), 0.04, "background"),
)
"""Image, category, box xywh, score and what it is."""


def truth(images: int = 4) -> dict[str, Any]:
    """Three images with objects, the third with a crowd region alone; those behind them have none."""
    objects = [
        (1, 3, (10, 10, 40, 40), 0),
        (1, 3, (60, 10, 40, 40), 0),
        (2, 7, (10, 10, 40, 60), 0),
        (2, 7, (100, 50, 40, 40), 0),
        (3, 3, (0, 0, 160, 120), 1),
    ]
    return {
        "images": [
            {"id": n, "file_name": f"{n}.png" if n > 1 else "</script><b>1.png", "width": 160, "height": 120}
            for n in range(1, images + 1)
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": list(box), "area": box[2] * box[3], "iscrowd": crowd}
            for n, (i, c, box, crowd) in enumerate(objects)
        ],
        "categories": [{"id": id_, "name": name} for id_, name in zip((3, 7), NAMES, strict=True)],
    }


def detections() -> Detections:
    entries = [{"image_id": i, "category_id": c, "bbox": list(box), "score": s} for i, c, box, s, _ in RESULTS]
    return Detections.from_results(entries)


def write_photos(coco: dict[str, Any], folder: Path) -> Path:
    for image in coco["images"]:
        photo = Image.new("RGB", (image["width"], image["height"]), "grey")
        ImageDraw.Draw(photo).rectangle((10, 10, 49, 49), fill="red")
        path = folder / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path, "PNG")
    return folder


def validation(folder: Path, images: int = 4) -> Validation:
    coco = truth(images)
    rows = load_split(coco, write_photos(coco, folder), LabelMap.from_coco(coco))
    return Validation(coco, detections(), rows)


def views(one: Validation) -> ReportData:
    """Report data of the validation split alone."""
    return ReportData(one, analyse_detections(one.truth, one.detections))


def history(epochs: int, layers: int = 2) -> list[dict[str, Any]]:
    """A log of one line of losses and one evaluation an epoch."""
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        parts = {"loss_ce": 1 / epoch, "loss_bbox": 0.5 / epoch, "loss_giou": 0.7 / epoch, "class_error": 40.0}
        layered = {f"{part}_{layer}": 2 / epoch for part in ("loss_ce", "loss_bbox") for layer in range(layers - 1)}
        parts |= {"loss": 9 / epoch, "cardinality_error": 3.0, **layered}
        rates = {"learning_rate": 1e-4, "backbone_learning_rate": 1e-5, "grad_norm": 3.0 + epoch}
        lines.append({"epoch": float(epoch), "step": epoch, **parts, **rates})
        metrics = {"map": 0.4 - 0.3 / epoch, "map_50": 0.5, "map_75": 0.3, "map_small": -1.0, "map_large": 0.4}
        values = {**{f"eval_{key}": value for key, value in {**metrics, **parts}.items()}}
        lines.append({"epoch": float(epoch), "step": epoch, **values})
    return lines


def write_run(
    run: Path,
    root: Path,
    coco: dict[str, Any] | None = None,
    found: Detections | None = None,
    log: Sequence[dict[str, Any]] = (),
    **training: Any,
) -> Path:
    """A run folder without weights, over a data set that is written, too."""
    coco, found = coco or truth(), detections() if found is None else found
    write_photos(coco, root / "val2017")
    write_photos(coco, root / "train2017")
    annotations = root / "annotations" / "custom_val.json"
    annotations.parent.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(coco))
    (annotations.parent / "custom_train.json").write_text(json.dumps(coco))
    best = {"epoch": 1.0, "step": 1, **evaluate_detections(coco, found).as_dict()}
    last = {**best, "epoch": 2.0, "step": 2, "metrics": {**best["metrics"], "map": 0.125}}
    about = {"data": {"name": "drawn", "split": "validation"}, "seconds": 75.0, "peak_memory_bytes": 2**30}
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.json").write_text(json.dumps({"best": best, "last": last, **about}))
    (run / "trainer_state.json").write_text(json.dumps({"log_history": list(log) or history(2)}))
    (run / "detections.npz").write_bytes(found.to_npz())
    recipe = {
        "data": {"name": "drawn", "root": str(root)},
        "training": {"output_dir": str(run), **training},
        "made_with": {
            "versions": {"torch": "2.0"},
            "device": "a machine",
            "annotations_sha256": {"val": file_fingerprint(annotations)},
        },
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run
