"""A detector for scripts: images of any kind in, boxes, labels and scores out. It is `hf_detr_ft.Detector`."""

import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, TypedDict, overload

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_detr_ft.data.image_size import ImageProcessor, white_level_of
from hf_detr_ft.data.masks import Masks
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.inference.detect import (
    ImageDetections,
    class_names,
    load_detector,
    read_category_ids,
)
from hf_detr_ft.inference.detect_files import Look, detect_ahead
from hf_detr_ft.inference.image_input import ImageInput, is_one_image, list_images, name_image, open_image
from hf_detr_ft.inference.slices import check_slices

if TYPE_CHECKING:
    import supervision as sv

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
Threshold: TypeAlias = float | Mapping[str, float]
THRESHOLD = 0.5
"""Threshold of a class that is given none, as that of `pipeline()`."""


class Found(TypedDict):
    """Detections of one image, best first. `supervision.Detections.from_transformers` takes it, too."""

    boxes: np.ndarray
    """`[N, 4]` float32, left, top, right, bottom in pixels of the upright image; can reach over its border."""
    labels: np.ndarray
    """`[N]` int64, keys of `model.config.id2label`."""
    scores: np.ndarray
    """`[N]` float32."""
    names: list[str]
    """Names of the classes, N."""
    source: str | None
    """Path or address of the image; None of one in memory."""
    segmentations: NotRequired[list[dict[str, Any]]]
    """Masks as COCO's RLE (`size`, `counts`), N; of a model with a mask head alone."""


class Detector:
    """A detector of any family with its image processor.

        detector = Detector.from_pretrained("runs/my")  # or a Hub id, such as "user/name"
        found = detector("photo.jpg", threshold=0.7)
        print(found["boxes"], found["names"], found["scores"])

    Attributes:
        model: in evaluation mode, on the device that it runs on.
        processor: the model's own.
        names: of the classes, by label.
        category_ids: the data set's category id of each label.
    """

    def __init__(
        self, model: PreTrainedModel, processor: ImageProcessor, category_ids: list[int] | None = None
    ) -> None:
        self.model = model
        self.processor = processor
        self.names = class_names(model)
        self.category_ids = list(range(len(self.names))) if category_ids is None else category_ids

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
    ) -> "Detector":
        """Loads a model.

        Args:
            source: a run folder, one of its checkpoints, any folder that `save_pretrained` wrote, `package:NAME/PATH`
                in a Python package, a file of facebookresearch/detr, or a Hub id.
            device: to run on; by default the accelerator, where there is one.
            precision: of the backbone, the rest is in fp32, where boxes are those of `pipeline()`. "auto" times both,
                in some tenths of a second, and takes bf16 where that is faster.

        Raises:
            CheckpointError: there is no such folder or Hub id, it is not of a family that can be trained, or it is not
                complete.
        """
        model, processor = load_detector(os.fspath(source))
        if device is None:
            device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        torch.nn.Module.to(model, device)
        if precision != "fp32":
            from hf_detr_ft.model.speed.bf16_backbone import choose_backbone_precision

            choose_backbone_precision(model, None if precision == "auto" else True)
        return cls(model, processor, read_category_ids(model, os.fspath(source)))

    @overload
    def __call__(
        self,
        images: ImageInput,
        *,
        threshold: Threshold = ...,
        nms: float | None = ...,
        batch_size: int = ...,
        slices: int | None = ...,
    ) -> Any: ...

    @overload
    def __call__(
        self,
        images: Iterable[ImageInput],
        *,
        threshold: Threshold = ...,
        nms: float | None = ...,
        batch_size: int = ...,
        slices: int | None = ...,
    ) -> list[Found]: ...

    def __call__(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        threshold: Threshold = THRESHOLD,
        nms: float | None = None,
        batch_size: int = 8,
        slices: int | None = None,
    ) -> Found | list[Found]:
        """Detects objects in an image, or in several.

        Args:
            images: a path, an http(s) address, an image of Pillow, an array `[h, w, 3]` of uint8 in RGB, a tensor
                `[3, h, w]` of uint8 or of floats from 0 to 1; or several of them in a list, an array or a tensor of one
                dimension more, or a folder.
            threshold: detections with a score above it are kept; one for all, or by class, 0.5 where a class has none.
            nms: IoU above which, of two detections of one class, the worse one is left out. DETR needs none.
            batch_size: images that are in memory, and in the model where they have one shape; or slices.
            slices: pixels of a side of the slices that each image is cut into, so that objects are found that are small
                in the whole image; they overlap by a quarter, and each object comes once. Scores are 0.05 or more then.

        Returns:
            Detections of the image, or a list of them in the order of the images.

        Raises:
            RecipeError: a threshold or the slices are wrong, or there is no image in a folder.
            DataError: an image cannot be read.
        """
        least = self._read_threshold(threshold)
        check_slices(slices, "slices")
        look = Look(self.model, self.processor, batch_size, slices)
        open_one = partial(open_image, white_level=white_level_of(self.processor))
        found: list[Found] = []
        for source, _, one in detect_ahead(look, list_images(images), open_one, name=_name_or_image):
            kept = one.above(least) if nms is None else one.above(least).without_overlaps(nms)
            found.append(self._name(kept, name_image(source)))
        return found[0] if is_one_image(images) else found

    @staticmethod
    def to_supervision(found: Found) -> "sv.Detections":
        """Detections of one image for `supervision`, with masks of a model that has them, and names as "class_name"."""
        import supervision as sv

        masks = Masks.of(found.get("segmentations", []))
        return sv.Detections(
            xyxy=found["boxes"],
            mask=masks.decode() if len(masks) else None,
            confidence=found["scores"],
            class_id=found["labels"],
            data={"class_name": np.array(found["names"], dtype=str)},
        )

    def _read_threshold(self, threshold: Threshold) -> np.ndarray:
        """Threshold of each label, `[C]`."""
        given = threshold if isinstance(threshold, Mapping) else dict.fromkeys(self.names, threshold)
        unknown = [name for name in given if name not in self.names]
        if unknown:
            raise RecipeError(f"threshold: the model has no class {unknown[0]!r}; it has {', '.join(self.names[:20])}")
        wrong = [value for value in given.values() if not 0 <= value <= 1]
        if wrong:
            raise RecipeError(f"threshold: expected scores from 0 to 1, found {wrong[0]}")
        return np.array([given.get(name, THRESHOLD) for name in self.names])

    def _name(self, kept: ImageDetections, source: str | None) -> Found:
        names = [self.names[label] for label in kept.labels.tolist()]
        found = Found(boxes=kept.boxes_xyxy_px, labels=kept.labels, scores=kept.scores, names=names, source=source)
        if kept.masks is not None:
            found["segmentations"] = kept.masks.as_dicts()
        return found


def _name_or_image(image: ImageInput) -> str:
    return name_image(image) or "image"
