"""A detector as a graph that any runtime can have: normalised images and masks in, logits and boxes out."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_detr_ft.data.image_size import ImageProcessor, ImageSize, resizes_bytes, white_level_of
from hf_detr_ft.inference.detect import class_names, read_category_ids
from hf_detr_ft.model.families import family_of
from hf_detr_ft.onnx import Description

INPUTS = ("pixel_values", "pixel_mask")
OUTPUTS = ("logits", "pred_boxes")
LEAST_SIDE = 64
"""Pixels of the side of the smallest images that a network is tried with; more where its queries need more places."""


class Network(nn.Module):
    """A detector with tensors alone as its inputs and outputs.

    Args:
        model: made for inference, see `load_detector`.

    Attributes:
        inputs: names of its inputs; `pixel_mask` where the family looks at it.
        step: pixels that heights and widths of its images are multiples of.
        least: pixels of the side of the smallest square that gives it as many places as it has queries.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        family = family_of(model)
        self.inputs = INPUTS if family.pixel_mask else INPUTS[:1]
        self.step = family.size.side(model.config, 1) if family.size.square else 1
        self.least = self._round_up(LEAST_SIDE)
        cells = family.size.cells(model.config)
        while cells and sum((self.least // cell) ** 2 for cell in cells) < model.config.num_queries:
            self.least = self._round_up(self.least + 1)

    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None) -> Any:
        """Logits `[B, Q, C]` and boxes `[B, Q, 4]`, cxcywh in [0, 1] of the images without their padding.

        Args:
            pixel_values: `[B, 3, H, W]`, normalised, padded right and below.
            pixel_mask: `[B, H, W]` int64, 1 on the image, 0 on the padding.
        """
        masks = {} if pixel_mask is None else {"pixel_mask": pixel_mask}
        outputs = self.model(pixel_values=pixel_values, **masks)
        return outputs.logits, outputs.pred_boxes

    def example(self, batch: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
        """Images of noise, the same each time, of decreasing size where the network looks at masks.

        Args:
            batch: number of images.
            height: of the batch in pixels, rounded up to what the network takes.
            width: likewise.
        """
        height, width = self._round_up(height), self._round_up(width)
        pixel_values = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
        if len(self.inputs) == 1:
            return (pixel_values,)
        pixel_mask = torch.ones(batch, height, width, dtype=torch.int64)
        for index in range(1, batch):
            pixel_mask[index, height - index * height // (2 * batch) :] = 0
            pixel_mask[index, :, width - index * width // (3 * batch) :] = 0
        return pixel_values * pixel_mask[:, None], pixel_mask

    def _round_up(self, side: int) -> int:
        return -(-side // self.step) * self.step

    def axes(self) -> list[dict[int, str]]:
        """Names of the dimensions of each input that change from batch to batch."""
        return [{0: "batch", 2: "height", 3: "width"}, {0: "batch", 1: "height", 2: "width"}][: len(self.inputs)]


@torch.no_grad()
def record(network: Network) -> tuple[torch.Tensor, ...]:
    """Images to record a network with, after a first pass that folds norms into weights, which become constants."""
    inputs = network.example(2, network.least * 3 // 2, network.least * 2)
    network(*inputs)
    return inputs


def describe(model: PreTrainedModel, processor: ImageProcessor, source: str, precision: str) -> Description:
    """Facts about a detector that its file tells.

    Args:
        model: is read.
        processor: the model's own.
        source: where both were loaded from, for errors.
        precision: of the file.
    """
    family, config, names = family_of(model), model.config, class_names(model)
    classes = len(names)
    detections = family.most_detections(config.num_queries, classes, getattr(config, "max_detections", 0))
    normalises = bool(processor.do_normalize)
    return Description(
        family=config.model_type,
        precision=precision,
        names=names,
        category_ids=read_category_ids(model, source),
        scores=family.scores,
        detections=detections,
        size=ImageSize.from_processor(processor).as_dict(),
        do_resize=bool(processor.do_resize),
        resample=int(processor.resample),
        resizes_bytes=resizes_bytes(processor),
        rescale_factor=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        image_mean=[float(value) for value in processor.image_mean] if normalises else [0.0] * 3,
        image_std=[float(value) for value in processor.image_std] if normalises else [1.0] * 3,
        pixel_mask=family.pixel_mask,
        white_level=white_level_of(processor),
    )
