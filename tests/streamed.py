"""Shards of drawn images, and trainings on them that tell which images each step had."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from hf_detr_ft import cli
from hf_detr_ft.data.sampling import SortedSampler
from hf_detr_ft.training.loss_parts import NOT_COUNTED
from hf_detr_ft.training.trainer import DetrTrainer
from tests.fixtures import as_flags, plain_image, tiny_detr

CLASSES = ["cat", "dog"]
SIZES = ((96, 128), (128, 96), (96, 96))
"""Height and width."""


def draw_rows(split: str, count: int) -> list[dict[str, Any]]:
    """Rows as cppe-5 has them: the image with the number N has N modulo 3 objects."""
    rows = []
    for number in range(count):
        content = io.BytesIO()
        height, width = SIZES[number % len(SIZES)]
        plain_image(height, width, number).save(content, "PNG")
        boxes = [[8.0 + 4 * place, 10.0 + number, 30.0, 20.0 + 5 * place] for place in range(number % 3)]
        row = {
            "image": {"bytes": content.getvalue(), "path": f"{split} {number}.png"},
            "width": width,
            "height": height,
            "objects": {"bbox": boxes, "category": [(number + place) % 2 for place in range(len(boxes))]},
        }
        rows.append(row)
    return rows


def write_parquet(root: Path, train: int = 16, val: int = 3, of_a_file: int = 8, *, sizes: bool = True) -> Path:
    """Parquet files with row groups of two images, with columns that state the images' sizes where `sizes`."""
    objects = {"bbox": List(List(Value("float32"), length=4)), "category": List(ClassLabel(names=CLASSES))}
    sides = {"width": Value("int64"), "height": Value("int64")} if sizes else {}
    features = Features({"image": Image(), **sides, "objects": objects})
    (root / "data").mkdir(parents=True)
    for split, count in (("train", train), ("validation", val)):
        rows = [{key: row[key] for key in features} for row in draw_rows(split, count)]
        for start in range(0, count, of_a_file):
            table = Dataset.from_list(rows[start : start + of_a_file], features=features).with_format("arrow")[:]
            pq.write_table(table, root / "data" / f"{split}-{start:05d}.parquet", row_group_size=2)
    return root


def write_tars(root: Path, train: int = 16, val: int = 3, of_a_file: int = 4) -> Path:
    """The same images as WebDataset shards."""
    root.mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        rows = draw_rows(split, count)
        for start in range(0, count, of_a_file):
            with tarfile.open(root / f"{split}-{start:06d}.tar", "w") as shard:
                for number, row in enumerate(rows[start : start + of_a_file], start):
                    names = [CLASSES[label] for label in row["objects"]["category"]]
                    label = json.dumps({"objects": {"bbox": row["objects"]["bbox"], "category": names}})
                    for suffix, content in (("png", row["image"]["bytes"]), ("json", label.encode())):
                        member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                        member.size = len(content)
                        shard.addfile(member, io.BytesIO(content))
    return root


def flags_of_training(folder: Path, root: Path, run: Path, **more: object) -> list[str]:
    """Flags of two epochs on shards, in batches of two, with augmentation and without dropout."""
    if not (folder / "model").exists():
        tiny_detr(CLASSES).save_pretrained(folder / "model")
    settings = {
        "data.root": root,
        "model.checkpoint": folder / "model",
        "model.shortest_edge": 64,
        "model.longest_edge": 107,
        "model.config": '{"dropout": 0}',
        "report.enabled": "false",
        "speed.store_gigabytes": 0,  # images that are kept are resized before they are cropped
        "training.output_dir": run,
        "training.num_train_epochs": 2,
        "training.per_device_train_batch_size": 2,
        "training.logging_steps": 1,
        "training.bf16": "false",
        "training.use_cpu": "true",
        "training.disable_tqdm": "true",
    }
    return as_flags({**settings, **{name.replace("__", "."): value for name, value in more.items()}})


def train_recorded(
    flags: list[str], run: Path, order: Sequence[int] | None = None
) -> tuple[list[list[int]], list[float]]:
    """Trains; image ids of each step of this process, and the losses that were logged.

    Args:
        flags: of the training.
        run: its folder.
        order: take the images of each epoch in it.
    """
    steps, step, sampler = [], DetrTrainer.training_step, DetrTrainer._get_train_sampler

    def note(self: DetrTrainer, model: Any, inputs: dict[str, Any], items: Any = None) -> Any:
        own = [] if NOT_COUNTED in inputs else inputs["labels"]
        steps.append([int(target["image_id"]) for target in own])
        return step(self, model, inputs, items)

    def choose(self: DetrTrainer, dataset: Any = None) -> Any:
        return sampler(self, dataset) if order is None else SortedSampler(list(order))

    with patch.object(DetrTrainer, "training_step", note), patch.object(DetrTrainer, "_get_train_sampler", choose):
        assert cli.main(["train", *flags]) == 0
    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return steps, [entry["loss"] for entry in log if "loss" in entry]
