"""A row of `data/dataset.py` becomes what the model takes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset

from hf_detr_ft.data.augmented import Augmentation
from hf_detr_ft.data.cache.image_cache import load_pixels
from hf_detr_ft.data.copy_paste import MOST, paste_objects
from hf_detr_ft.data.image_size import ImageProcessor, ImageSize
from hf_detr_ft.data.images import GO_ON, decode_cell_with_size
from hf_detr_ft.data.masks import decode_masks, resize_nearest
from hf_detr_ft.data.mosaic import TILES, draw_mosaic
from hf_detr_ft.data.tile import Tile, has_area_inside, scaled_objects
from hf_detr_ft.errors import DataError

COLUMNS = ("image", "image_id", "objects", "original_size", "white_level", "kept")
"""Columns that the transform reads; not all rows have the last two."""
BLANK = (32, 32)
"""Height and width in pixels of what stands in the place of an image that cannot be read."""
NOMINAL_WIDTH = 2000
"""Width in pixels that an image is given of which only the aspect ratio is known."""


TRIES = 10
"""Images that are looked at for one with objects, to paste them onto another."""


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
        least_side: of an image that is decoded at a reduced size, see `decode_rgb`; None: all are decoded whole.
        on_bad_image: `skip` gives a blank one in the place of an image that cannot be read.

    Attributes:
        epoch: the running epoch, which whoever trains has to set; 0 until then.
        rows: of the data set, from which mosaics and pasted objects come; there are none without.
    """

    rows: Dataset | None = None

    def __init__(
        self,
        processor: ImageProcessor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        least_side: int | None = None,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.on_bad_image = on_bad_image
        self.processor = processor
        self.size = ImageSize.from_processor(processor)
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = Epoch()
        self.least_side = least_side

    def _seed_of(self, image_id: int) -> int:
        """Seed of all that is drawn for an image in the running epoch."""
        return int(np.random.SeedSequence((self.seed, self.epoch.get(), abs(image_id))).generate_state(1)[0])

    def shapes(self, image_ids: Sequence[int], aspect_ratios: Sequence[float], step: int = 1) -> np.ndarray:
        """Shapes (height, width) `[N, 2]` that the running epoch gives images, without reading their pixels.

        Args:
            image_ids: N.
            aspect_ratios: N, width over height.
            step: shapes are rounded up to multiples of it, as `collate` pads them.
        """
        if self.size.shape is not None:
            return np.tile(self.size.shape, (len(image_ids), 1))
        shapes = []
        for image_id, aspect_ratio in zip(image_ids, aspect_ratios, strict=True):
            shape = max(1, round(NOMINAL_WIDTH / aspect_ratio)), NOMINAL_WIDTH
            size = self.size
            if self.augmentation is not None:
                crop = self.augmentation.draw_crop(*shape, self._seed_of(image_id))
                shape, size = crop.size, size.with_shortest_edge(crop.shortest_edge)
            shapes.append(size.of(*shape))
        return -(-np.array(shapes, dtype=np.int64).reshape(-1, 2) // step) * step

    def __call__(self, rows: Mapping[str, list]) -> dict[str, list]:
        """Rows as columns in, `pixel_values` (`[3, h, w]` fp32 each) and `labels` out.

        Labels are dictionaries of tensors: `class_labels` `[n]`, `boxes` `[n, 4]` cxcywh in [0, 1] of this image,
        `image_id` `[1]`, `area` `[n]` in resized pixels, `size` and `orig_size` `[2]` (height, width); where the rows
        have masks, `masks` `[n, h, w]` bool. Of a blank image they have no boxes, and say why as `unreadable`; the loss
        and AP leave it out.

        Raises:
            DataError: an image cannot be read, or is so elongated that nothing of its short side would be left.
        """
        columns = {name: rows[name] for name in COLUMNS if name in rows}
        cells = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        samples = [self.sample_or_blank(row) for row in cells]
        return {key: [sample[key] for sample in samples] for key in ("pixel_values", "labels")}

    def sample_or_blank(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Sample of a row; a blank one where its image cannot be read and `on_bad_image` is `skip`."""
        try:
            return self.sample(row)
        except DataError as error:
            if self.on_bad_image == "stop":
                raise DataError(f"{error} {GO_ON}") from error
            return self.blank(row["image_id"], str(error))

    def blank(self, image_id: int, reason: str) -> dict[str, Any]:
        """A sample in the place of an image that could not be read for this reason, or of none where it is empty."""
        labels = {
            "class_labels": torch.zeros(0, dtype=torch.int64),
            "boxes": torch.zeros(0, 4),
            "image_id": torch.tensor([image_id]),
            "orig_size": torch.tensor(BLANK),
            "unreadable": reason,
        }
        return {"pixel_values": torch.zeros(3, *(self.size.shape or BLANK)), "labels": labels}

    def sample(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row, with the columns of `COLUMNS` that it has; its image may be `kept` smaller than its boxes say."""
        size, image_id = self.size, row["image_id"]
        seed = self._seed_of(image_id)
        pastes = self._draw_pastes(seed)
        tile, original = self._read(row, outlines=pastes is not None)
        decoded = tile.pixels.shape[:2]
        if self.augmentation is not None:
            if pastes is not None:
                pasted = self._paste(tile, pastes, self.augmentation.min_visibility)
                tile = pasted if "mask" in row["objects"] else replace(pasted, masks=None)
            tile, shortest_edge = self._augment(tile, seed)
            size = size.with_shortest_edge(shortest_edge)
        height, width = tile.pixels.shape[:2]
        resized = row.get("kept") is not None and decoded != original and size.keeps_shape
        if resized and decoded == (height, width) and size == self.size:
            size = ImageSize.exactly(height, width)  # it is what the processor makes of the original
        if size.is_too_thin(height, width):
            raise DataError(
                f"{row['image']['path']}: {width} x {height} pixels, resized to a long side of {size.longest_edge}, "
                "would have nothing left of the short side; expected an image of a usual shape. Cut it up, or leave it "
                "out."
            )
        annotations = [
            {"bbox": box, "category_id": int(label), "area": float(area), "iscrowd": 0}
            for box, label, area in zip(tile.boxes_xywh_px.tolist(), tile.labels, tile.areas, strict=True)
        ]
        sample = self._encode(tile.pixels, size, {"image_id": image_id, "annotations": annotations})
        if tile.masks is not None:
            inside = has_area_inside(tile.boxes_xywh_px, height, width)  # the processor leaves out the others
            shape = tuple(sample["pixel_values"].shape[1:])
            sample["labels"]["masks"] = torch.from_numpy(resize_nearest(tile.masks[inside], shape)).bool()
        if self.augmentation is None:
            sample["labels"]["orig_size"] = torch.tensor(original)
        return sample

    def _read(self, row: Mapping[str, Any], outlines: bool = False) -> tuple[Tile, tuple[int, int]]:
        """Decoded image with its objects, and the size (height, width) of the original.

        Args:
            row: see `sample`.
            outlines: give the objects masks also where no mask head is trained.
        """
        image, white_level = row["image"], row.get("white_level")
        if row.get("kept") is None or row.get("original_size") is None:
            decoded_image, original = decode_cell_with_size(image, self.least_side, white_level)
            pixels = np.asarray(decoded_image)
        else:
            pixels = load_pixels(row["kept"], image, self.processor, white_level)
            original = row["original_size"][0], row["original_size"][1]
        objects, decoded = row["objects"], (pixels.shape[0], pixels.shape[1])
        encoded = objects.get("mask", objects.get("outline") if outlines else None)
        masks = None if encoded is None else decode_masks(encoded, original, decoded)
        return Tile(pixels, *scaled_objects(objects, decoded, original), masks), original

    def _augment(self, tile: Tile, seed: int) -> tuple[Tile, int]:
        """Augmented image with its objects, and the short side to resize it to."""
        assert self.augmentation is not None
        if self.rows is not None:
            draws = np.random.default_rng((seed, TILES))
            if draws.random() < self.augmentation.mosaic:
                others = [
                    self._read_other(self.rows[i]) for i in draws.integers(len(self.rows), size=TILES - 1).tolist()
                ]
                tile = draw_mosaic([tile, *others], draws, self.augmentation.min_visibility)
        augmented = self.augmentation(tile.pixels, tile.boxes_xywh_px, seed, tile.masks, self.size)
        boxes, kept = augmented.boxes_xywh_px, augmented.kept
        shares = boxes[:, 2:].prod(axis=1) / tile.boxes_xywh_px[kept, 2:].prod(axis=1)
        areas = tile.areas[kept] * shares
        return Tile(augmented.image, boxes, tile.labels[kept], areas, augmented.masks), augmented.shortest_edge

    def _draw_pastes(self, seed: int) -> np.random.Generator | None:
        """Draws of what is pasted onto an image; None where nothing is."""
        if self.augmentation is None or self.rows is None:
            return None
        draws = np.random.default_rng((seed, MOST))
        return draws if draws.random() < self.augmentation.copy_paste else None

    def _paste(self, tile: Tile, draws: np.random.Generator, min_visibility: float) -> Tile:
        """The image with objects of another one, as soon as one that has some is drawn."""
        assert self.rows is not None
        others = (self.rows[index] for index in draws.integers(len(self.rows), size=TRIES).tolist())
        other = next((row for row in others if row["objects"]["label"]), None)
        return tile if other is None else paste_objects(tile, self._read_other(other, True), draws, min_visibility)

    def _read_other(self, row: Mapping[str, Any], outlines: bool = False) -> Tile:
        """Image of another row; a grey one in the place of one that cannot be read where `on_bad_image` is `skip`."""
        try:
            return self._read(row, outlines)[0]
        except DataError:
            if self.on_bad_image == "stop":
                raise
            return Tile.empty(*BLANK)

    def _encode(self, pixels: np.ndarray, size: ImageSize, annotations: dict[str, Any]) -> dict[str, Any]:
        """Image `[h, w, 3]` and COCO annotations as the processor makes them."""
        encoded = self.processor.preprocess(
            images=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            annotations=annotations,
            size=size.as_dict(),
            do_pad=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        return {"pixel_values": encoded["pixel_values"][0], "labels": dict(encoded["labels"][0])}


def transformed(dataset: Dataset, transform: DetrTransform) -> Dataset:
    """The rows of `load_split` through the transform when they are read; the columns it does not read stay."""
    read = [name for name in COLUMNS if name in dataset.column_names]
    rows = dataset.with_transform(transform, columns=read, output_all_columns=True)
    if transform.augmentation is not None and (transform.augmentation.mosaic or transform.augmentation.copy_paste):
        transform.rows = dataset.with_format(None).select_columns(read)  # afterwards: it would be hashed with the rest
    return rows
