"""The networks that are trained: Transformers' detectors with the losses of their originals."""

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import transformers

from hf_detr_ft.model.batch_norms import repair_gradients
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.families.detr import DETR
from hf_detr_ft.model.families.family import Family
from hf_detr_ft.model.predictions import DetectionOutput, Predictions

if TYPE_CHECKING:
    Host = transformers.PreTrainedModel
else:
    Host = object


class Detector(Host):
    """A class of Transformers' detectors, tensor for tensor, with the loss of its family: the part that all share.

    Attributes:
        family: of the model.
        auxiliary_losses: also compute the loss of every decoder layer before the last (DETR does).
        reused_classes: names of classes whose rows of the class heads are the checkpoint's, and its names for them.
    """

    family: ClassVar[Family]
    accepts_loss_kwargs = True
    auxiliary_losses: bool = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.reused_classes: dict[str, str] = {}
        repair_gradients(self)
        self.family.prepare(self)

    @classmethod
    def is_custom_code(cls) -> bool:
        """False: tensors have the names in files that Transformers' class gives them."""
        return False

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: list[dict] | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Detect, and where there are labels compute the loss.

        Args:
            pixel_values: `[B, 3, H, W]`, normalised, padded right and below.
            pixel_mask: `[B, H, W]`, 1 on the image, 0 on the padding.
            labels: per image `class_labels` `[n]` and `boxes` `[n, 4]`, cxcywh in [0, 1] of the unpadded image; for a
                mask head `masks` `[n, h, w]`.
            num_items_in_batch: `loss.count_items` of the whole batch over processes and accumulation; None: this is it.
            **kwargs: Transformers' own arguments, without labels only.

        Returns:
            `logits` `[B, Q, C]`, `pred_boxes` `[B, Q, 4]`, with labels also `loss` and `loss_dict`; with a mask head
            `pred_masks` `[B, Q, h, w]`, but in training.

        Raises:
            TypeError: other arguments were given with labels.
        """
        if labels is None:
            masks = {"pixel_mask": pixel_mask} if self.family.pixel_mask else {}
            return super().forward(pixel_values, **masks, **kwargs)
        if kwargs:
            raise TypeError(
                f"forward with labels takes no {', '.join(sorted(kwargs))}; call it without labels for that"
            )
        predictions = self.family.predict(self, pixel_values, pixel_mask, labels)
        pred_masks = None if self.training else all_masks(predictions)
        loss, parts = self.family.criterion(predictions, labels, self.config, num_items_in_batch)
        if self.training and predictions.denoising is None:
            # Other processes' batches may have boxes, and gradients are averaged over all of them.
            for parameter in self.family.parameters_without_boxes(self):
                loss = loss + 0 * parameter.sum()
        return DetectionOutput(
            loss=loss,
            loss_dict=parts,
            logits=predictions.layers.logits[-1],
            pred_boxes=predictions.layers.boxes_cxcywh_rel[-1],
            pred_masks=pred_masks,
            encoder_last_hidden_state=predictions.encoder_last_hidden_state,
        )


def all_masks(predictions: Predictions) -> torch.Tensor | None:
    """Mask logits `[B, Q, h, w]` of all queries; None without a mask head."""
    if predictions.masks is None:
        return None
    batch, queries = predictions.layers.logits.shape[1:3]
    places = torch.arange(batch * queries, device=predictions.layers.logits.device)
    return predictions.masks.logits(places // queries, places % queries).unflatten(0, (batch, queries))


class DetrForObjectDetection(Detector, transformers.DetrForObjectDetection):
    """DETR; of the same name as Transformers' class.

    `save_pretrained` writes the class's name into `config.json`, and what is saved is to be opened with stock
    Transformers.
    """

    family = DETR


@cache
def detector_class(family: Family) -> type[Detector]:
    """Transformers' class of a family with the family's loss, of the same name."""
    if family is FAMILIES["detr"]:
        return DetrForObjectDetection
    made: type[Detector] = type(family.architecture, (Detector, family.stock_class), {"family": family})
    return made
