"""Contents of a split: images, objects, classes, shapes, places, and what is left of it after the model's resize."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.segmentation_area import LARGE_AREA, MEDIUM_AREA

DETR_SIZE = ImageSize(800, 1333)
"""The size that DETR resizes images to."""
DETR_STRIDE = 32
"""Pixels of the resized image per step of DETR's feature map."""
GRID = 16
"""Cells along each side of the map of positions."""
CHUNK = 65_536
"""Boxes that are spread over the map at a time, so that COCO needs no gigabyte."""


@dataclass(frozen=True, eq=False)
class SplitStatistics:
    """Counts and distributions of one split. Objects are annotations that are no crowd regions.

    Boxes are clipped to their images, as training does. An object whose box has no area there is counted, but has no
    shape and no place: it is in no array of length M.

    Attributes:
        label_map: the split's categories, those without objects too.
        image_sizes_px: `[I, 2]` (height, width) of the upright images.
        resized_sizes_px: `[I, 2]` (height, width) that the model sees in evaluation.
        image_indices: `[N]`, the position in `image_sizes_px` of each object's image.
        labels: `[N]`, each object's class.
        areas_px: `[N]`, COCO's area in square pixels of the original image.
        boxes_xyxy_rel: `[N, 4]` in [0, 1] of each image.
        crowd_regions: annotations that are left out everywhere else.
        stride: pixels of the resized image per step of the feature map.
    """

    label_map: LabelMap
    image_sizes_px: np.ndarray
    resized_sizes_px: np.ndarray
    image_indices: np.ndarray
    labels: np.ndarray
    areas_px: np.ndarray
    boxes_xyxy_rel: np.ndarray
    crowd_regions: int
    stride: int

    def resized(self, size: ImageSize, stride: int) -> "SplitStatistics":
        """The same split as a model sees it.

        Args:
            size: that images are resized to.
            stride: pixels of the resized image per step of the feature map.
        """
        return replace(self, resized_sizes_px=size.of_each(self.image_sizes_px), stride=stride)

    @property
    def images(self) -> int:
        """Number of images, I."""
        return len(self.image_sizes_px)

    @property
    def objects(self) -> int:
        """Number of objects, N."""
        return len(self.labels)

    @cached_property
    def objects_per_image(self) -> np.ndarray:
        """Objects of each image, `[I]`."""
        return np.bincount(self.image_indices, minlength=self.images)

    @cached_property
    def objects_per_class(self) -> np.ndarray:
        """Objects of each class, `[C]`, by label."""
        return np.bincount(self.labels, minlength=len(self.label_map))

    @cached_property
    def images_per_class(self) -> np.ndarray:
        """Images of each class, `[C]`, by label: those that show at least one object of it."""
        pairs = np.unique(self.labels * max(1, self.images) + self.image_indices)
        return np.bincount(pairs // max(1, self.images), minlength=len(self.label_map))

    @cached_property
    def placed(self) -> np.ndarray:
        """Mask `[N]` of the M objects whose box has an area within the image."""
        return np.all(self._sides_rel > 0, axis=1)

    @property
    def _sides_rel(self) -> np.ndarray:
        """Sides `[N, 2]` (width, height) of boxes, relative to their images."""
        return self.boxes_xyxy_rel[:, 2:] - self.boxes_xyxy_rel[:, :2]

    def _sides_px(self, sizes_px: np.ndarray) -> np.ndarray:
        """Sides `[M, 2]` (width, height) of boxes in images of these (height, width), `[I, 2]`."""
        return self._sides_rel[self.placed] * sizes_px[self.image_indices[self.placed], ::-1]

    @cached_property
    def relative_sizes(self) -> np.ndarray:
        """Sizes of boxes, `[M]`: square root of the box's area over that of the image's area, 0 to 1."""
        return np.sqrt(self._sides_rel[self.placed].prod(axis=1))

    @cached_property
    def short_sides_px(self) -> np.ndarray:
        """Short sides of boxes in the resized image, `[M]`."""
        return self._sides_px(self.resized_sizes_px).min(axis=1)

    @cached_property
    def aspect_ratios(self) -> np.ndarray:
        """Width over height, `[M]`, of boxes in the original image."""
        width, height = self._sides_px(self.image_sizes_px).T
        return width / height

    @property
    def image_aspect_ratios(self) -> np.ndarray:
        """Width over height of images, `[I]`."""
        return self.image_sizes_px[:, 1] / self.image_sizes_px[:, 0]

    @property
    def below_cell(self) -> int:
        """Objects whose short side in the resized image is less than one step of the feature map."""
        return int((self.short_sides_px < self.stride).sum())

    @property
    def sizes(self) -> dict[str, int]:
        """Objects per COCO size, by the annotation's area in the original image, as the evaluation counts them."""
        return _count_sizes(self.areas_px)

    @property
    def resized_sizes(self) -> dict[str, int]:
        """Objects per COCO size in the image that the model sees."""
        scales = self.resized_sizes_px / self.image_sizes_px
        return _count_sizes(self.areas_px * scales[self.image_indices].prod(axis=1))

    @cached_property
    def positions(self) -> np.ndarray:
        """Map `[GRID, GRID]`, rows from the top, of how often objects are there, as a multiple of an even spread.

        Each of the M objects counts the same, spread evenly over its box: by their centres alone large objects would
        seem to be all in the middle, by the area that they cover small ones would not be seen. The mean is 1, or 0
        without objects.
        """
        edges = np.arange(GRID + 1) / GRID
        boxes = self.boxes_xyxy_rel[self.placed]
        total = np.zeros((GRID, GRID))
        for start in range(0, len(boxes), CHUNK):
            x0, y0, x1, y1 = (column[:, None] for column in boxes[start : start + CHUNK].T)
            across, down = (
                np.diff(np.clip((edges - low) / (high - low), 0, 1), axis=1) for low, high in ((x0, x1), (y0, y1))
            )
            total += down.T @ across
        return total * GRID**2 / max(1, len(boxes))

    def as_dict(self) -> dict[str, Any]:
        """Counts, and the least, median and largest value of each distribution, None without any, for JSON."""
        return {
            "images": self.images,
            "objects": self.objects,
            "crowd_regions": self.crowd_regions,
            "images_without_objects": int((self.objects_per_image == 0).sum()),
            "objects_without_area": int((~self.placed).sum()),
            "classes": self._classes(),
            "objects_per_image": summarise(self.objects_per_image),
            "image_heights_px": summarise(self.image_sizes_px[:, 0]),
            "image_widths_px": summarise(self.image_sizes_px[:, 1]),
            "image_aspect_ratios": summarise(self.image_aspect_ratios),
            "relative_sizes": summarise(self.relative_sizes),
            "aspect_ratios": summarise(self.aspect_ratios),
            "sizes": self.sizes,
            "resized_sizes": self.resized_sizes,
            "short_sides_px": summarise(self.short_sides_px),
            "stride": self.stride,
            "below_cell": self.below_cell,
        }

    def _classes(self) -> list[dict[str, Any]]:
        keys = ("category_id", "name", "objects", "images")
        columns = (self.objects_per_class.tolist(), self.images_per_class.tolist())
        rows = zip(self.label_map.category_ids, self.label_map.names, *columns, strict=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]


def describe_split(coco: dict[str, Any]) -> SplitStatistics:
    """Counts and measures one split, as DETR resizes it until `SplitStatistics.resized` says otherwise.

    COCO's 118,000 images and 860,000 objects take a few seconds.

    Args:
        coco: a checked COCO dict, best with the areas of `with_polygon_areas`; where `area` is missing the box's is
            taken.

    Raises:
        DataError: `categories` are missing or wrong.
        KeyError: an annotation's image or category is not listed, which `check_coco` reports.
    """
    label_map = LabelMap.from_coco(coco)
    labels = {category_id: label for label, category_id in enumerate(label_map.category_ids)}
    places = {image["id"]: place for place, image in enumerate(coco["images"])}
    sizes_px = np.array([(image["height"], image["width"]) for image in coco["images"]], dtype=np.int64).reshape(-1, 2)
    objects = [entry for entry in coco["annotations"] if not entry.get("iscrowd")]
    image_indices = np.array([places[entry["image_id"]] for entry in objects], dtype=np.int64)
    boxes_xywh_px = np.array([entry["bbox"] for entry in objects], dtype=np.float64).reshape(-1, 4)
    areas = [entry.get("area") for entry in objects]
    return SplitStatistics(
        label_map=label_map,
        image_sizes_px=sizes_px,
        resized_sizes_px=DETR_SIZE.of_each(sizes_px),
        image_indices=image_indices,
        labels=np.array([labels[entry["category_id"]] for entry in objects], dtype=np.int64),
        areas_px=np.where(
            [area is None for area in areas],
            boxes_xywh_px[:, 2:].prod(axis=1),
            np.array([area or 0 for area in areas], dtype=np.float64),
        ),
        boxes_xyxy_rel=np.clip(xywh_to_xyxy(boxes_xywh_px) / np.tile(sizes_px[image_indices, ::-1], 2), 0, 1),
        crowd_regions=len(coco["annotations"]) - len(objects),
        stride=DETR_STRIDE,
    )


def summarise(values: np.ndarray) -> dict[str, float] | None:
    """Least, median and largest value; None where there are none."""
    if not values.size:
        return None
    return {"least": float(values.min()), "median": float(np.median(values)), "most": float(values.max())}


def _count_sizes(areas: np.ndarray) -> dict[str, int]:
    large, not_small = int((areas >= LARGE_AREA).sum()), int((areas >= MEDIUM_AREA).sum())
    return {"small": len(areas) - not_small, "medium": not_small - large, "large": large}
