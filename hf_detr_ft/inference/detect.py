"""From a model on disk and images in memory to boxes in pixels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

from hf_detr_ft.boxes import cxcywh_to_xyxy
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.image_size import resize_image
from hf_detr_ft.errors import CheckpointError, DataError, first_line
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.model.init_weights import resolve_source, why_unreadable
from hf_detr_ft.model.speed.folded_norms import keep_folded, lighten

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that Transformers takes weights from; a pickled one is opened with `weights_only`."""


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """What a model says about one image: all its queries, in the model's order.

    Attributes:
        scores: `[Q]` float32, the probability of the label.
        labels: `[Q]` int64, the most probable class other than "no object".
        boxes_xyxy_px: `[Q, 4]` float32, in pixels of the image; can reach over its border, as DETR's boxes do.
    """

    scores: np.ndarray
    labels: np.ndarray
    boxes_xyxy_px: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "ImageDetections":
        """Those with a score above the threshold (as in Transformers, not at it), best first."""
        order = np.argsort(-self.scores, kind="stable")
        kept = order[is_above(self.scores[order], threshold)]
        return ImageDetections(self.scores[kept], self.labels[kept], self.boxes_xyxy_px[kept])


def post_process(
    logits: torch.Tensor, pred_boxes: torch.Tensor, orig_sizes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, labels and boxes of every query, computed in fp32.

    The same as `DetrImageProcessor.post_process_object_detection` with a threshold of 0, as tensors.

    Args:
        logits: `[B, Q, C+1]`, "no object" last.
        pred_boxes: `[B, Q, 4]`, cxcywh in [0, 1] of the image without its padding.
        orig_sizes: `[B, 2]`, (height, width) of the images in the pixels that the boxes are wanted in.

    Returns:
        `scores` `[B, Q]`, `labels` `[B, Q]` int64 and `boxes_xyxy_px` `[B, Q, 4]`.
    """
    scores, labels = logits.float().softmax(-1)[..., :-1].max(-1)
    heights, widths = orig_sizes.to(device=scores.device, dtype=scores.dtype).unbind(-1)
    scale = torch.stack([widths, heights, widths, heights], dim=-1)
    return scores, labels, cxcywh_to_xyxy(pred_boxes.float()) * scale[:, None]


def prepare(image: Image.Image, processor: DetrImageProcessor, name: str = "image") -> torch.Tensor:
    """An RGB image resized and normalised, without padding: `[3, h, w]`.

    Raises:
        DataError: the image is so elongated that nothing of its short side would be left.
    """
    try:
        pixels = resize_image(image, processor) if processor.do_resize else image
        prepared = processor(
            pixels, do_resize=False, do_pad=False, input_data_format="channels_first", return_tensors="pt"
        )
        return prepared["pixel_values"][0]
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"{name}: an image of {image.width} x {image.height} pixels cannot be resized to {dict(processor.size)}: "
            f"{first_line(error)}. Crop it to a usual shape."
        ) from error


def detect(
    model: DetrForObjectDetection,
    processor: DetrImageProcessor,
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
    model: DetrForObjectDetection,
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
    groups: dict[torch.Size, list[int]] = {}
    for index, values in enumerate(pixel_values):
        groups.setdefault(values.shape, []).append(index)
    found: dict[int, ImageDetections] = {}
    for indices in groups.values():
        batch = collate([{"pixel_values": pixel_values[index]} for index in indices])
        outputs = model(
            pixel_values=batch["pixel_values"].to(model.device, model.dtype, memory_format=torch.channels_last),
            pixel_mask=batch["pixel_mask"].to(model.device),
        )
        sizes = torch.tensor([orig_sizes[index] for index in indices])
        columns = (part.cpu().numpy() for part in post_process(outputs.logits, outputs.pred_boxes, sizes))
        found.update(zip(indices, map(ImageDetections, *columns), strict=True))
    return [found[index] for index in range(len(pixel_values))]


def load_detector(source: str) -> tuple[DetrForObjectDetection, DetrImageProcessor]:
    """Model (fp32, in evaluation mode, on the CPU) and processor as `pipeline("object-detection", source)` uses them.

    The model is made for inference: change its weights, and without gradients it goes on with the old ones.

    Args:
        source: a run folder, one of its checkpoints, any folder that `save_pretrained` wrote, `package:NAME/PATH` in a
            Python package, or a Hub id.

    Raises:
        CheckpointError: there is no such folder or Hub id, it is not a DETR, or it is not complete.
    """
    given, source = source, resolve_source(source, "model")
    folder = Path(source)
    if folder.exists():
        _check_folder(folder)
    elif source.startswith((".", "/")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise CheckpointError(f"'{given}': expected a run folder or a Hub id, found no such folder. Check the path.")
    try:
        settings, _ = DetrConfig.get_config_dict(source)
    except Exception as error:  # OS, JSON and Hub errors alike
        raise CheckpointError(_unreadable_config(source, folder.exists(), error)) from error
    model_type = settings.get("model_type") if isinstance(settings, dict) else None
    if model_type != "detr":
        raise CheckpointError(
            f"'{source}': expected a DETR (model_type 'detr' in config.json), found {model_type!r}. "
            "Give a run folder or a checkpoint such as facebook/detr-resnet-50."
        )
    try:
        loaded: Any = DetrForObjectDetection.from_pretrained(
            source,
            config=DetrConfig.from_dict(settings),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # safetensors, pickle, OS and Hub errors alike
        raise CheckpointError(
            f"'{source}': the weights cannot be loaded: {why_unreadable(error)}. Copy or download them again."
        ) from error
    model, report = loaded
    unset = sorted([*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])])
    if unset:
        more = f" and {len(unset) - 1} more" if len(unset) > 1 else ""
        raise CheckpointError(
            f"'{source}': expected weights for all of the model in config.json; missing or of another shape "
            f"are '{unset[0]}'{more}. Weights and config.json are not of one model."
        )
    lighten(model.model.backbone.model)
    keep_folded(model.model.backbone.model)
    try:
        return model.eval(), DetrImageProcessor.from_pretrained(source)
    except Exception as error:
        raise CheckpointError(
            f"'{source}': expected a preprocessor_config.json, which says how images are resized: {first_line(error)}. "
            "Copy it from the run or the model that this one was made from."
        ) from error


def _check_folder(folder: Path) -> None:
    """Says what is missing in a folder before Transformers says it less clearly."""
    if not folder.is_dir():
        raise CheckpointError(f"'{folder}': expected a run folder or a Hub id, found a file. Give its folder.")
    names = sorted(path.name for path in folder.iterdir())
    missing = [] if "config.json" in names else ["config.json"]
    if not set(WEIGHTS) & set(names):
        missing.append(WEIGHTS[0])
    if not missing:
        return
    checkpoints = [name for name in names if re.fullmatch(r"checkpoint-\d+", name)]
    if checkpoints:
        last = folder / max(checkpoints, key=lambda name: int(name.rpartition("-")[2]))
        remedy = f"Its training did not come to an end; give its last checkpoint, {last}, or resume the training."
    else:
        remedy = "Give the folder that training or save_pretrained wrote."
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise CheckpointError(
        f"'{folder}': expected a model, found no {' and no '.join(missing)} but {shown or 'an empty folder'}. {remedy}"
    )


def _unreadable_config(source: str, is_folder: bool, error: Exception) -> str:
    if is_folder:
        return f"'{source}': config.json cannot be read: {first_line(error)}. Copy or download it again."
    return (
        f"'{source}': there is no such folder, and the Hub gave no config.json for it: {first_line(error)}. "
        "Check the name, the network and, for a private model, `hf auth login`."
    )


def class_names(model: DetrForObjectDetection) -> list[str]:
    """By label; those that config.json leaves out are called as Transformers calls classes without a name."""
    id2label: dict = model.config.id2label or {}
    classes = model.class_labels_classifier.out_features - 1
    return [str(id2label.get(label, f"LABEL_{label}")) for label in range(classes)]


def read_category_ids(model: DetrForObjectDetection, source: str) -> list[int]:
    """The data set's category id of each label; the label itself where the model does not know it.

    Raises:
        CheckpointError: the model has another number of them than of labels.
    """
    classes = model.class_labels_classifier.out_features - 1
    category_ids = getattr(model.config, "category_ids", None) or list(range(classes))
    if len(category_ids) != classes:
        raise CheckpointError(
            f"'{source}': config.json has {len(category_ids)} category_ids for {classes} classes. "
            "Correct them, or remove the key to have labels instead."
        )
    return [int(category_id) for category_id in category_ids]
