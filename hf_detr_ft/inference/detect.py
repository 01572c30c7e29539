"""A detector loaded from disk, and its boxes in pixels of images in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.ops import batched_nms
from transformers import PreTrainedModel

from hf_detr_ft.boxes import cxcywh_to_xyxy
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.image_size import ImageProcessor, resize_image, resizes_bytes
from hf_detr_ft.data.masks import Masks, encode_pixels, resize_nearest
from hf_detr_ft.errors import CheckpointError, DataError, first_line
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.model.checkpoint import Checkpoint, resolve_source
from hf_detr_ft.model.families import family_of
from hf_detr_ft.model.families.detr import DETR
from hf_detr_ft.model.families.family import Family
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.model.processor import load_processor
from hf_detr_ft.model.speed.apply_speed import apply_speed
from hf_detr_ft.recipe.sections import SpeedConfig
from hf_detr_ft.run_folder import CHECKPOINT, CONFIG, RunFolder

MASKS_AT_ONCE = 25
"""Masks that are as large as the image at a time."""


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """Detections of one image: of all of a model's queries, in the model's order, or the best ones first.

    A model with softmax scores gives each query's class; one with sigmoid scores gives its best pairs of a query and a
    class, so that a query may come twice.

    Attributes:
        scores: `[N]` float32, the probability of the label.
        labels: `[N]` int64, a class other than "no object".
        boxes_xyxy_px: `[N, 4]` float32, in pixels of the image; can reach over its border, as DETR's boxes do.
        masks: `[N]`; None of a model without a mask head.
        tracks: `[N]` int64, ids of the objects over the frames of a video; None where nothing was tracked.
    """

    scores: np.ndarray
    labels: np.ndarray
    boxes_xyxy_px: np.ndarray
    masks: Masks | None = None
    tracks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float | np.ndarray) -> "ImageDetections":
        """Detections with a score above the threshold (as in Transformers, not at it), best first.

        Args:
            threshold: for all of them, or `[C]`, one for each label.
        """
        order = np.argsort(-self.scores, kind="stable")
        least = threshold[self.labels[order]] if isinstance(threshold, np.ndarray) else threshold
        return self.at(order[is_above(self.scores[order], least)])

    def without_overlaps(self, iou: float) -> "ImageDetections":
        """Detections, best first, without those that overlap a better one of their class by more than an IoU."""
        boxes, scores, labels = (torch.from_numpy(part) for part in (self.boxes_xyxy_px, self.scores, self.labels))
        return self.at(batched_nms(boxes, scores, labels, iou).numpy())

    def at(self, places: np.ndarray) -> "ImageDetections":
        """Detections at these places, in their order."""
        masks = None if self.masks is None else self.masks.select(places)
        tracks = None if self.tracks is None else self.tracks[places]
        return ImageDetections(self.scores[places], self.labels[places], self.boxes_xyxy_px[places], masks, tracks)


def post_process(
    logits: torch.Tensor, pred_boxes: torch.Tensor, orig_sizes: torch.Tensor, family: Family = DETR, wanted: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, labels and boxes of every detection, computed in fp32.

    The same as `post_process_object_detection` of the family's processor with a threshold of 0, as tensors, but that no
    box has a negative width or height.

    Args:
        logits: `[B, Q, C]`, with softmax scores "no object" last.
        pred_boxes: `[B, Q, 4]`, cxcywh in [0, 1] of the image without its padding.
        orig_sizes: `[B, 2]`, (height, width) of the images in the pixels that the boxes are wanted in.
        family: of the model.
        wanted: detections of an image, where the family keeps fewer by itself.

    Returns:
        `scores` `[B, N]`, `labels` `[B, N]` int64 and `boxes_xyxy_px` `[B, N, 4]`. With softmax scores N is Q, in the
        queries' order; with sigmoid scores N is `most_detections` of the family, best first.
    """
    scores = class_scores(logits, family)
    if family.scores == "softmax":
        scores, labels = scores.max(-1)
    else:
        queries, classes = scores.shape[-2:]
        scores, index = scores.flatten(1).topk(family.most_detections(queries, classes, wanted), dim=1)
        labels = index % classes
        pred_boxes = pred_boxes.gather(1, (index // classes)[..., None].expand(-1, -1, 4))
    return scores, labels, corners_in_pixels(pred_boxes, orig_sizes)


def encode_masks(
    pred_masks: torch.Tensor, pixel_mask: torch.Tensor, orig_sizes: Sequence[Sequence[int]]
) -> list[Masks]:
    """Masks of all queries of each image, in its original pixels: where the probability is above one half.

    Brought to the size of the padded images by bilinear interpolation, then cut, then resized, as facebookresearch/detr
    does it (`PostProcessSegm`).

    Args:
        pred_masks: `[B, Q, h, w]`, logits over the padded images.
        pixel_mask: `[B, H, W]`, 1 on the images.
        orig_sizes: B times (height, width).
    """
    heights, widths = (pixel_mask.amax(axis).sum(1).tolist() for axis in (2, 1))
    encoded = []
    for logits, height, width, size in zip(pred_masks, heights, widths, orig_sizes, strict=True):
        parts = []
        for some in logits.float().split(MASKS_AT_ONCE):
            whole = F.interpolate(some[None], pixel_mask.shape[1:], mode="bilinear", align_corners=False)[0]
            inside = (whole[:, : int(height), : int(width)] > 0).cpu().numpy()
            parts.append(encode_pixels(resize_nearest(inside, (int(size[0]), int(size[1])))))
        encoded.append(Masks.concat(parts))
    return encoded


def class_scores(logits: torch.Tensor, family: Family) -> torch.Tensor:
    """Probability of each class in fp32, of logits `[..., C]`; with softmax scores without the last, "no object"."""
    return logits.float().sigmoid() if family.scores == "sigmoid" else logits.float().softmax(-1)[..., :-1]


def corners_in_pixels(boxes_cxcywh_rel: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Corners `[..., N, 4]` in fp32 of boxes `[..., N, 4]`, in pixels of images of these sizes `[..., 2]`.

    D-FINE computes a box from four distances, of which two can cross; such a box gets a width or height of 0.
    """
    heights, widths = sizes.to(boxes_cxcywh_rel.device, torch.float32).unbind(-1)
    scale = torch.stack([widths, heights, widths, heights], dim=-1)
    centres, sides = boxes_cxcywh_rel.float().split(2, dim=-1)
    return cxcywh_to_xyxy(torch.cat([centres, sides.clamp(min=0)], dim=-1)) * scale[..., None, :]


def prepare(image: Image.Image, processor: ImageProcessor, name: str = "image") -> torch.Tensor:
    """An RGB image resized and normalised, without padding: `[3, h, w]`.

    Raises:
        DataError: the image is so elongated that nothing of its short side would be left.
    """
    resized = bool(processor.do_resize) and resizes_bytes(processor)
    try:
        pixels = resize_image(image, processor) if resized else torch.from_numpy(np.array(image)).permute(2, 0, 1)
        prepared = processor(
            pixels,
            do_resize=processor.do_resize and not resized,
            do_pad=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        return prepared["pixel_values"][0]
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"{name}: an image of {image.width} x {image.height} pixels cannot be resized to {dict(processor.size)}: "
            f"{first_line(error)}. Crop it to a usual shape."
        ) from error


def detect(
    model: PreTrainedModel,
    processor: ImageProcessor,
    images: Sequence[Image.Image],
    *,
    device: torch.device | str | None = None,
) -> list[ImageDetections]:
    """Detections of one batch of RGB images, which do not depend on what else is in the batch.

    Args:
        model: used in evaluation mode.
        processor: the model's own.
        images: upright, as `decode_rgb` gives them.
        device: to run on; the model is moved there. By default where it is.

    Raises:
        DataError: see `prepare`.
    """
    pixel_values = [prepare(image, processor, f"image {index} of the batch") for index, image in enumerate(images)]
    return detect_prepared(model, pixel_values, [(image.height, image.width) for image in images], device=device)


@torch.inference_mode()
def detect_prepared(
    model: PreTrainedModel,
    pixel_values: Sequence[torch.Tensor],
    orig_sizes: Sequence[tuple[int, int]],
    *,
    device: torch.device | str | None = None,
) -> list[ImageDetections]:
    """`detect` for images that went through `prepare`.

    Only images of one shape go through the model together. The attention masks padding, but the backbone's
    convolutions see it, so a padded image has slightly other boxes than the same image alone.

    Args:
        model: used in evaluation mode.
        pixel_values: `[3, h, w]` each.
        orig_sizes: (height, width) each, of the images before `prepare`.
        device: see `detect`.
    """
    if device is not None:
        torch.nn.Module.to(model, device)
    model.eval()
    family, wanted = family_of(model), getattr(model.config, "max_detections", 0)
    groups: dict[torch.Size, list[int]] = {}
    for index, values in enumerate(pixel_values):
        groups.setdefault(values.shape, []).append(index)
    found: dict[int, ImageDetections] = {}
    for indices in groups.values():
        batch = collate([{"pixel_values": pixel_values[index]} for index in indices])
        masks = {"pixel_mask": batch["pixel_mask"].to(model.device)} if family.pixel_mask else {}
        outputs = model(pixel_values=batch["pixel_values"].to(model.device, model.dtype), **masks)
        sizes = [orig_sizes[index] for index in indices]
        found_here = post_process(outputs.logits, outputs.pred_boxes, torch.tensor(sizes), family, wanted)
        columns: list[Any] = [part.cpu().numpy() for part in found_here]
        if family.masks:
            columns.append(encode_masks(outputs.pred_masks, batch["pixel_mask"], sizes))
        found.update(zip(indices, map(ImageDetections, *columns), strict=True))
    return [found[index] for index in range(len(pixel_values))]


def load_detector(source: str) -> tuple[PreTrainedModel, ImageProcessor]:
    """Model (fp32, in evaluation mode, on the CPU) and processor as `pipeline("object-detection", source)` uses them.

    The model is made for inference, with the measures for speed of the run's recipe (the defaults where there is none):
    change its weights, and without gradients it goes on with the old ones.

    Args:
        source: a run folder, one of its checkpoints, any folder that `save_pretrained` wrote, `package:NAME/PATH` in a
            Python package, or a Hub id.

    Raises:
        CheckpointError: there is no such folder or Hub id, it is not a DETR, or it is not complete.
    """
    model = load_for_inference(source)
    apply_speed(model, read_speed(source), training=False)
    return model, load_processor(Checkpoint(source))


def read_speed(source: str) -> SpeedConfig:
    """The `speed` section of the recipe in a run folder, or above one of its checkpoints; else the defaults.

    A recipe that cannot be read stops nobody who asks for detections.
    """
    folder = Path(resolve_source(source, "model"))
    run = RunFolder(folder.parent if CHECKPOINT.fullmatch(folder.name) else folder)
    try:
        section = run.read_recipe()[0].get("speed")
    except (DataError, OSError, UnicodeDecodeError):
        section = None
    known = {field.name for field in fields(SpeedConfig)}
    given = section if isinstance(section, dict) else {}
    return SpeedConfig(**{name: value for name, value in given.items() if name in known})


def class_names(model: PreTrainedModel) -> list[str]:
    """Class names by label; those that config.json leaves out are called as Transformers does."""
    id2label: dict = model.config.id2label or {}
    return [str(id2label.get(label, f"LABEL_{label}")) for label in range(int(model.config.num_labels or 0))]


def read_category_ids(model: PreTrainedModel, source: str) -> list[int]:
    """The data set's category id of each label; the label itself where the model does not know it.

    Raises:
        CheckpointError: the model has another number of them than of labels.
    """
    classes = int(model.config.num_labels or 0)
    category_ids = getattr(model.config, "category_ids", None) or list(range(classes))
    if len(category_ids) != classes:
        raise CheckpointError(
            f"'{source}': {CONFIG} has {len(category_ids)} category_ids for {classes} classes. "
            "Correct them, or remove the key to have labels instead."
        )
    return [int(category_id) for category_id in category_ids]
