"""A detector in an ONNX file, run without torch or Transformers: NumPy, Pillow and ONNX Runtime are enough.

from hf_detr_ft.onnx import OnnxDetector

detector = OnnxDetector("runs/my/export/model.onnx")
found = detector("photo.jpg", threshold=0.7)
print(found["boxes"], found["names"], found["scores"])
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_detr_ft.data.byte_resize import resize_bytes
from hf_detr_ft.errors import CheckpointError, DataError, first_line
from hf_detr_ft.inference.image_input import is_one_image, list_images, name_image, open_image


@dataclass(frozen=True)
class Description:
    """Facts that a file tells of its detector: classes, scores, and how images are prepared for it."""

    family: str
    """Its `model_type` in Transformers."""
    precision: str
    names: list[str]
    """Names of the classes, by label."""
    category_ids: list[int]
    """The data set's category id of each label."""
    scores: str
    """Kind of its scores: softmax, where the last class is "no object", or sigmoid."""
    detections: int
    """Detections of an image."""
    size: dict[str, int]
    """`shortest_edge` and `longest_edge`, or `height` and `width`, in pixels."""
    do_resize: bool
    resample: int
    """Pillow's number of the way to interpolate."""
    resizes_bytes: bool
    """Images are resized as integers of 8 bits; else as floats."""
    rescale_factor: float
    """Factor on the values of 0 to 255; 1 where they stay."""
    image_mean: list[float]
    image_std: list[float]
    """Mean and standard deviation of each colour that are normalised away; 0 and 1 where nothing is."""
    pixel_mask: bool
    """The network looks at the mask of the padding."""
    white_level: int | None = None
    """Value that is white in images of 16 bits; None: their largest."""

    def to_strings(self) -> dict[str, str]:
        """Each field as JSON, as files keep it."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], name: str) -> "Description":
        """Inverse of `to_strings`.

        Raises:
            CheckpointError: a field is missing, or is no JSON.
        """
        try:
            return cls(**{entry.name: json.loads(strings[entry.name]) for entry in fields(cls)})
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{name}: expected a file of hf-detr-ft export, whose metadata has {error} in JSON; found "
                f"{', '.join(sorted(strings)) or 'no metadata'}. Export the run again."
            ) from error

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) in pixels that an image is resized to, as DETR's image processor rounds it."""
        if "height" in self.size:
            return self.size["height"], self.size["width"]
        short, long = min(height, width), max(height, width)
        edge: float = self.size["shortest_edge"]
        if long / short * edge > self.size["longest_edge"]:
            edge = self.size["longest_edge"] * short / long
        target = round(edge)
        if short == target:
            return height, width
        other = int(edge * long / short)
        return (target, other) if height <= width else (other, target)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """An RGB image resized and normalised: `[3, h, w]` float32.

        Raises:
            DataError: it is so elongated that nothing of its short side would be left.
        """
        if self.do_resize:
            height, width = self.resized(image.height, image.width)
            if min(height, width) < 1:
                raise DataError(
                    f"an image of {image.width} x {image.height} pixels cannot be resized to {self.size}: nothing of "
                    "its short side would be left. Crop it to a usual shape."
                )
            if self.resizes_bytes:
                pixels = resize_bytes(image, height, width, self.resample)
            else:
                way = Image.Resampling(self.resample)
                planes = [plane.convert("F").resize((width, height), way) for plane in image.split()]
                pixels = np.stack([*map(np.asarray, planes)], axis=-1)
        else:
            pixels = np.asarray(image)
        values = pixels.astype(np.float32) * np.float32(self.rescale_factor)
        mean, deviation = (np.array(each, np.float32) for each in (self.image_mean, self.image_std))
        values = (values - mean) / deviation
        return np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)

    def detections_of(
        self, logits: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores `[N]`, labels `[N]` and boxes `[N, 4]` of an image, best first.

        Args:
            logits: `[Q, C]`.
            boxes: `[Q, 4]`, cxcywh in [0, 1].
            size: (height, width) of the image in the pixels that boxes are wanted in.
        """
        if self.scores == "softmax":
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            each = (powers / powers.sum(-1, keepdims=True))[:, :-1]
            labels, queries = each.argmax(-1), np.arange(len(each))
            scores = each.max(-1)
        else:
            flat = (1 / (1 + np.exp(-logits))).reshape(-1)
            places = np.argsort(-flat, kind="stable")[: self.detections]
            scores, labels, queries = flat[places], places % logits.shape[1], places // logits.shape[1]
        order = np.argsort(-scores, kind="stable")
        centres, halves = boxes[queries, :2], np.maximum(boxes[queries, 2:], 0) / 2
        corners = np.concatenate([centres - halves, centres + halves], axis=1) * np.array(
            [*size[::-1], *size[::-1]], np.float32
        )
        return scores[order], labels[order], corners[order]


def pad(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images `[3, h, w]` as one batch `[B, 3, H, W]`, zeros right and below, and its mask `[B, H, W]`, 1 on images."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    pixel_values = np.zeros((len(images), 3, height, width), np.float32)
    pixel_mask = np.zeros((len(images), height, width), np.int64)
    for index, image in enumerate(images):
        pixel_values[index, :, : image.shape[1], : image.shape[2]] = image
        pixel_mask[index, : image.shape[1], : image.shape[2]] = 1
    return pixel_values, pixel_mask


class OnnxDetector:
    """The detector in an ONNX file of `hf-detr-ft export`.

    Attributes:
        description: what the file says of it.

    Args:
        path: of the file.
        threads: of the CPU to compute with; by default one for each core.
        providers: ONNX Runtime's, such as "CUDAExecutionProvider" of onnxruntime-gpu; the CPU's by default.

    Raises:
        CheckpointError: the file is missing, no ONNX, or not of `hf-detr-ft export`.
    """

    def __init__(
        self, path: str | Path, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if not Path(path).is_file():
            raise CheckpointError(f"{path}: expected an ONNX file, found none. Make it with hf-detr-ft export.")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # the runtime has a class of errors for each cause
            reason = first_line(error)
            raise CheckpointError(f"{path}: ONNX Runtime cannot open it: {reason}. Export it again.") from error
        metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.description = Description.from_strings(metadata, str(path))

    def run(self, pixel_values: np.ndarray, pixel_mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Logits `[B, Q, C]` and boxes `[B, Q, 4]`, cxcywh in [0, 1], of prepared images.

        Args:
            pixel_values: `[B, 3, H, W]` float32.
            pixel_mask: `[B, H, W]` int64; 1 on images, 0 on padding; not read where the network has no mask.
        """
        masks = {"pixel_mask": pixel_mask} if self.description.pixel_mask else {}
        logits, boxes = self._session.run(["logits", "pred_boxes"], {"pixel_values": pixel_values, **masks})
        return logits, boxes

    def __call__(self, images: Any, threshold: float = 0.5, batch_size: int = 1) -> Any:
        """Detects objects in an image, or in several.

        Args:
            images: as `hf_detr_ft.Detector` takes them.
            threshold: detections with a score above it are kept.
            batch_size: images that are in memory, and in the network where they have one shape.

        Returns:
            As `hf_detr_ft.Detector`: `boxes` `[N, 4]` (left, top, right, bottom in pixels of the upright image),
            `labels`, `scores`, `names` and `source`, best first; a list of them for several images.

        Raises:
            DataError: an image cannot be read.
        """
        found: list[dict[str, Any]] = []
        waiting = list_images(images)
        while some := list(islice(waiting, batch_size)):
            opened = [open_image(image, self.description.white_level) for image in some]
            outputs = self._run_by_shape([self.description.prepare(image) for image in opened])
            for image, upright, output in zip(some, opened, outputs, strict=True):
                one = self.description.detections_of(*output, (upright.height, upright.width))
                found.append(self._name(*one, threshold) | {"source": name_image(image)})
        return found[0] if is_one_image(images) else found

    def _run_by_shape(self, prepared: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Logits and boxes of each image; those of one shape go through the network together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, pixels in enumerate(prepared):
            groups.setdefault(pixels.shape, []).append(place)
        outputs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for places in groups.values():
            results = self.run(*pad([prepared[place] for place in places]))
            outputs |= dict(zip(places, zip(*results, strict=True), strict=True))
        return [outputs[place] for place in range(len(prepared))]

    def _name(self, scores: np.ndarray, labels: np.ndarray, boxes: np.ndarray, threshold: float) -> dict[str, Any]:
        kept = scores > np.float32(threshold)
        names = [self.description.names[label] for label in labels[kept].tolist()]
        return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept], "names": names}
