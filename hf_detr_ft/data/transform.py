"""A row of `data/dataset.py` becomes what the model takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import DetrImageProcessor

from hf_detr_ft.data.augment import Augmentation
from hf_detr_ft.data.images import decode_cell
from hf_detr_ft.errors import DataError


class Epoch:
    """The epoch that is running, in memory that the loader's workers share."""

    def __init__(self) -> None:
        self._value = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set(self, epoch: int) -> None:
        """Called before an epoch's first batch is drawn."""
        self._value[0] = epoch

    def get(self) -> int:
        """The epoch, from 0."""
        return int(self._value[0])


class DetrTransform:
    """Decodes, augments and preprocesses rows; given to `Dataset.with_transform`.

    The processor sees one image at a time and does not pad. Called on several, it would pad them and rescale their
    boxes to the padded canvas (huggingface/transformers#28363), while DETR's boxes belong to the unpadded image.

    What is drawn at random depends on the seed, the epoch and the image alone, so that it is the same with any number
    of workers and processes, and after an interruption.

    Args:
        processor: resizes, normalises and converts boxes.
        augmentation: None in evaluation.
        seed: of all random draws.
        epoch: the running epoch; None: every epoch draws the same.
    """

    def __init__(
        self,
        processor: DetrImageProcessor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        epoch: Epoch | None = None,
    ) -> None:
        self.processor = processor
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = epoch

    def __call__(self, rows: Mapping[str, list]) -> dict[str, list]:
        """Rows as columns in, `pixel_values` (`[3, h, w]` fp32 each) and `labels` out.

        Labels are dictionaries of tensors: `class_labels` `[n]`, `boxes` `[n, 4]` cxcywh in [0, 1] of this image,
        `image_id` `[1]`, `area` `[n]` in resized pixels, `size` and `orig_size` `[2]` (height, width).

        Raises:
            DataError: an image cannot be read, or is so elongated that nothing of its short side would be left.
        """
        columns = (rows["image"], rows["image_id"], rows["objects"])
        samples = [self.sample(*row) for row in zip(*columns, strict=True)]
        return {key: [sample[key] for sample in samples] for key in ("pixel_values", "labels")}

    def sample(self, image: Mapping[str, Any], image_id: int, objects: Mapping[str, list]) -> dict[str, Any]:
        """One row."""
        pixels = np.asarray(decode_cell(image))
        boxes = np.asarray(objects["bbox"], dtype=np.float32).reshape(-1, 4)
        labels = np.asarray(objects["label"], dtype=np.int64)
        areas = np.asarray(objects["area"], dtype=np.float32)
        size = dict(self.processor.size)
        if self.augmentation is not None:
            epoch = self.epoch.get() if self.epoch is not None else 0
            seed = int(np.random.SeedSequence((self.seed, epoch, abs(image_id))).generate_state(1)[0])
            augmented = self.augmentation(pixels, boxes, seed)
            old = boxes[augmented.kept]
            pixels, boxes, labels = augmented.image, augmented.boxes_xywh_px, labels[augmented.kept]
            areas = areas[augmented.kept] * boxes[:, 2:].prod(axis=1) / old[:, 2:].prod(axis=1)
            if "shortest_edge" in size:
                size["shortest_edge"] = augmented.shortest_edge
        height, width = pixels.shape[:2]
        if "longest_edge" in size and round(size["longest_edge"] * min(height, width) / max(height, width)) < 1:
            raise DataError(
                f"{image['path']}: {width} x {height} pixels, resized to a long side of {size['longest_edge']}, would "
                "have nothing left of the short side; expected an image of a usual shape. Cut it up, or leave it out."
            )
        annotations = [
            {"bbox": box, "category_id": int(label), "area": float(area), "iscrowd": 0}
            for box, label, area in zip(boxes.tolist(), labels, areas, strict=True)
        ]
        encoded = self.processor.preprocess(
            images=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            annotations={"image_id": image_id, "annotations": annotations},
            size=size,
            do_pad=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        return {"pixel_values": encoded["pixel_values"][0], "labels": dict(encoded["labels"][0])}


def transformed(dataset: Dataset, transform: DetrTransform) -> Dataset:
    """The rows of `load_split` through the transform when they are read; the columns it does not read stay."""
    return dataset.with_transform(transform, columns=["image", "image_id", "objects"], output_all_columns=True)
