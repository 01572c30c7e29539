"""Follows samples all the way from the JSON to AP: truth that is fed back as predictions must come out as AP 1.0."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.splits import Splits, load_splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import TrainingError
from hf_detr_ft.evaluation.coco_eval import Backend
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.model.hungarian_matching import CriterionWeights
from hf_detr_ft.model.loss import set_criterion
from hf_detr_ft.recipe.sections import AugmentConfig, DataConfig
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments
from hf_detr_ft.training.callbacks import RunFolderCallback
from hf_detr_ft.training.trainer import DetrTrainer
from tests.fixtures import CATEGORIES, CLASSES, draw_split, tiny_config, tiny_processor

THREE_CATEGORIES = [{"id": 90, "name": "fish"}, *CATEGORIES]

VAL_IMAGES = {
    900_000_000_001: (96, 160),
    8: (120, 180),
    21: (60, 48),
    3: (100, 75),
    0: (150, 100),
    17: (140, 80),
    5: (200, 90),
}
"""Image id to upright (height, width), from wide to tall: batches of 3 mix landscape and portrait and end with one."""
EMPTY, CROWDED, TURNED = 3, 8, 17
VAL_OBJECTS = [
    (900_000_000_001, 90, [0, 0, 160, 96]),  # the whole image
    (900_000_000_001, 3, [100.5, 3.25, 55.5, 20]),
    (8, 7, [20, 60, 30, 20]),
    (21, 3, [47, 59, 1, 1]),  # one pixel in the last corner
    (0, 7, [60, 100, 40, 50]),
    (0, 90, [0, 5, 99, 140]),
    (17, 7, [5, 95, 70, 40]),  # outside the image, were it not turned upright
    (5, 90, [10, 150, 30, 50]),
    (5, 90, [50, 10, 33, 120]),
]
CROWD = [60, 10, 110, 90]


class Oracle(DetrForObjectDetection):
    """Says what the labels say, and finds the crowds of `crowds`, too; keeps what it was given."""

    crowds: dict[int, tuple[int, list[float]]]
    """Image id to label and box cxcywh relative to the image."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.crowds = {}
        self.batches: list[dict[str, Any]] = []

    def forward(  # type: ignore[override]
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor,
        labels: list[dict],
        num_items_in_batch: torch.Tensor | None = None,
    ) -> DetrObjectDetectionOutput:
        self.batches.append({"pixel_values": pixel_values, "pixel_mask": pixel_mask, "labels": labels})
        shape = (len(labels), self.config.num_queries)
        logits, boxes = torch.zeros(*shape, self.config.num_labels + 1), torch.full((*shape, 4), 0.5)
        logits[..., -1] = 10
        for row, target in enumerate(labels):
            count = len(target["class_labels"])
            logits[row, range(count), target["class_labels"]] = 20
            boxes[row, :count] = target["boxes"]
            if not self.training and int(target["image_id"]) in self.crowds:
                label, box = self.crowds[int(target["image_id"])]
                logits[row, count, label], boxes[row, count] = 40, torch.tensor(box)
        logits = logits + 0 * self.class_labels_classifier.bias.sum()
        weights = CriterionWeights.from_config(self.config)
        loss, parts = set_criterion(logits[None], boxes[None], labels, weights, num_items_in_batch)
        return DetrObjectDetectionOutput(loss=loss, loss_dict=parts, logits=logits, pred_boxes=boxes)


def write_val(root: Path) -> dict:
    """The validation split, with everything that has ever gone wrong on the way."""
    images, annotations = [], []
    folder = root / "val2017"
    folder.mkdir()
    for image_id, (height, width) in VAL_IMAGES.items():
        name = f"photo {image_id}.jpg"
        photo = Image.effect_noise((width, height), 40).convert("RGB")
        exif = Image.Exif()
        if image_id == TURNED:
            exif[0x0112] = 6
            photo = photo.transpose(Image.Transpose.ROTATE_90)
        photo.save(folder / name, exif=exif)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
    for image_id, category_id, box in VAL_OBJECTS:
        annotations.append({"id": len(annotations), "image_id": image_id, "category_id": category_id, "bbox": box})
        annotations[-1] |= {"area": box[2] * box[3] * 0.7, "iscrowd": 0}
    height, width = VAL_IMAGES[CROWDED]
    crowd = {"id": 70, "image_id": CROWDED, "category_id": 3, "bbox": CROWD, "area": 5000, "iscrowd": 1}
    crowd["segmentation"] = {"size": [height, width], "counts": [0, height * width]}
    return {"images": images, "annotations": [*annotations, crowd], "categories": THREE_CATEGORIES}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """Steps 1 and 2: JSON, checks, rows."""
    root = tmp_path_factory.mktemp("walk")
    (root / "annotations").mkdir()
    train = draw_split(
        root / "train2017", [(32, 48), (48, 32)] * 12, seed=1, categories=THREE_CATEGORIES, objects=[1, 3, 2, 0] * 6
    )
    for split, coco in (("train", train), ("val", write_val(root))):
        (root / "annotations" / f"custom_{split}.json").write_text(json.dumps(coco))
    return load_splits(DataConfig(root=str(root)))


def build(splits: Splits, run: Path, *, shortest_edge: int = 96, backend: Backend = "faster-coco-eval") -> DetrTrainer:
    """Everything of a run but the network, which is the oracle."""
    names = dict(enumerate(splits.label_map.names))
    model = Oracle(tiny_config(list(names.values()), num_queries=30))
    processor = tiny_processor(shortest_edge, shortest_edge * 5 // 3)
    augment = DetrTransform(processor, build_augmentation(AugmentConfig(), shortest_edge), 0)
    args = DetrTrainingArguments(
        output_dir=str(run),
        num_train_epochs=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=3,
        save_strategy="no",
        load_best_model_at_end=False,
        logging_steps=1,
        disable_tqdm=True,
        bf16=False,
        use_cpu=True,
    )
    trainer = DetrTrainer(
        model,
        args,
        train_dataset=transformed(splits.train, augment),
        eval_dataset=transformed(splits.val, DetrTransform(processor)),
        truth=splits.truth,
        label_map=splits.label_map,
        processor=processor,
        train_transform=augment,
        backend=backend,
    )
    trainer.add_callback(
        RunFolderCallback(
            lambda: trainer.result, lambda: trainer.detections, {"data": {"name": "walk", "split": "validation"}}
        )
    )
    return trainer


def find_crowds(oracle: Oracle) -> None:
    height, width = VAL_IMAGES[CROWDED]
    x, y, w, h = CROWD
    box = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    oracle.crowds = {CROWDED: (0, box)}


@pytest.mark.parametrize("backend", ["faster-coco-eval", "pycocotools"])
def test_truth_fed_back_is_ap_1(splits: Splits, tmp_path: Path, backend: Backend) -> None:
    trainer = build(splits, tmp_path, backend=backend)
    find_crowds(trainer.model)
    metrics = trainer.evaluate()
    result = trainer.result
    assert result is not None
    defined = {name: value for name, value in result.metrics.items() if not name.startswith("mar_1")}
    assert defined == pytest.approx(dict.fromkeys(defined, 1.0), abs=1e-9)
    assert result.metrics["mar_100"] == pytest.approx(1.0, abs=1e-9)
    assert [(row.category_id, row.name, row.objects) for row in result.per_class] == [
        (3, CLASSES[0], 2),
        (7, CLASSES[1], 3),
        (90, "fish", 4),
    ]
    assert (result.images, result.objects) == (7, 9)
    assert result.sizes == {"small": 3, "medium": 4, "large": 2}
    assert result.best_f1.f1 == 1.0
    assert metrics["eval_map"] == result.metrics["map"]
    # The criterion measures labels and predictions in one frame.
    assert metrics["eval_loss_bbox"] == pytest.approx(0, abs=1e-6)
    assert metrics["eval_loss_giou"] == pytest.approx(0, abs=1e-5)
    assert metrics["eval_class_error"] == 0


def test_batches_are_what_was_meant(splits: Splits, tmp_path: Path) -> None:
    trainer = build(splits, tmp_path)
    trainer.evaluate()
    batches = trainer.model.batches
    labels = [target for batch in batches for target in batch["labels"]]
    assert [len(batch["labels"]) for batch in batches] == [3, 3, 1]
    assert [int(target["image_id"]) for target in labels] == list(VAL_IMAGES)
    assert [tuple(target["orig_size"].tolist()) for target in labels] == list(VAL_IMAGES.values())
    first = batches[0]
    orientations = {bool(target["size"][0] > target["size"][1]) for target in first["labels"]}
    assert orientations == {True, False}
    for batch in batches:
        assert batch["pixel_mask"].sum((1, 2)).tolist() == [int(target["size"].prod()) for target in batch["labels"]]
    objects = {image_id: sum(entry[0] == image_id for entry in VAL_OBJECTS) for image_id in VAL_IMAGES}
    assert {int(target["image_id"]): len(target["boxes"]) for target in labels} == objects
    assert objects[EMPTY] == 0


def test_batches_go_by_the_shapes_that_the_epoch_draws(splits: Splits, tmp_path: Path) -> None:
    trainer = build(splits, tmp_path)
    sampler = trainer._get_train_sampler()
    for epoch in (0, 1):
        trainer.epoch.set(epoch)
        actual = [row["pixel_values"].shape[1:] for row in trainer.train_dataset]
        assert np.abs(sampler.shapes(np.arange(len(actual))) - np.array(actual)).max() <= 2
        assert sorted(sampler) == list(range(len(splits.train)))


def test_training_batches_come_in_few_shapes_and_evaluation_is_padded_no_more_than_it_has_to(
    splits: Splits, tmp_path: Path
) -> None:
    trainer = build(splits, tmp_path)
    trainer.size_step = 32
    sides = {side for batch in trainer.get_train_dataloader() for side in batch["pixel_values"].shape[2:]}
    assert all(side % 32 == 0 for side in sides)
    for batch in trainer.get_train_dataloader():
        assert batch["pixel_mask"].sum((1, 2)).tolist() == [int(target["size"].prod()) for target in batch["labels"]]
    for batch in trainer.get_eval_dataloader():
        height, width = torch.stack([target["size"] for target in batch["labels"]]).amax(0).tolist()
        assert batch["pixel_values"].shape[2:] == (height, width)


def test_a_training_run_writes_ap_1_into_its_folder(splits: Splits, tmp_path: Path) -> None:
    trainer = build(splits, tmp_path)
    find_crowds(trainer.model)
    trainer.train()
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["best"]["metrics"] == trainer.result.metrics
    assert written["best"]["metrics"]["map"] == pytest.approx(1.0, abs=1e-9)
    assert [(written[which]["epoch"], written[which]["step"]) for which in ("best", "last")] == [(1.0, 12), (2.0, 24)]
    assert written["best"]["objects"] == 9
    assert written["data"] == {"name": "walk", "split": "validation"}
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["epoch"]), row["step"]) for row in rows] == [(1.0, "12"), (2.0, "24")]
    for row in rows:
        assert float(row["eval_map"]) == pytest.approx(1.0, abs=1e-9)
        assert float(row["train_loss_bbox"]) == pytest.approx(0, abs=1e-6)
        assert float(row["train_class_error"]) == 0
    training = [batch["labels"] for batch in trainer.model.batches if len(batch["labels"]) == 2]
    sizes = []
    for labels in (training[:12], training[12:]):
        ids = [[int(target["image_id"]) for target in batch] for batch in labels]
        assert sorted(image_id for batch in ids for image_id in batch) == list(range(100, 124))
        # Even images are wide, odd ones tall; of each 6 that are sorted together, at most one batch is mixed.
        assert sum((one + other) % 2 for one, other in ids) <= 4
        sizes.append({int(target["image_id"]): target["size"].tolist() for batch in labels for target in batch})
    assert sizes[0] != sizes[1]


def test_two_evaluations_in_a_row_count_each_image_once(splits: Splits, tmp_path: Path) -> None:
    trainer = build(splits, tmp_path)
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first["eval_map"] == second["eval_map"] == pytest.approx(1.0, abs=1e-9)
    assert trainer.result.detections == 7 * 30


def test_predictions_that_are_not_finite_end_the_evaluation_and_name_the_photos(splits: Splits, tmp_path: Path) -> None:
    trainer = build(splits, tmp_path)
    trainer.model.crowds = {TURNED: (0, [float("nan")] * 4)}
    with pytest.raises(TrainingError, match=r"evaluation stopped .* photo 17\.jpg \(image id 17\)\."):
        trainer.evaluate()


def test_truth_of_the_balloon_photos_fed_back_is_ap_1(balloon: Path, tmp_path: Path) -> None:
    splits = load_splits(DataConfig(name="balloon", root=str(balloon)))
    trainer = build(splits, tmp_path, shortest_edge=48)
    metrics = trainer.evaluate()
    assert metrics["eval_map"] == pytest.approx(1.0, abs=1e-9)
    assert (trainer.result.images, trainer.result.objects) == (13, 50)
    assert trainer.result.sizes == {"small": 3, "medium": 17, "large": 30}
    assert [(row.category_id, row.name) for row in trainer.result.per_class] == [(0, "balloon")]
    assert [len(splits.train), sum(len(row["label"]) for row in splits.train["objects"])] == [61, 255]
