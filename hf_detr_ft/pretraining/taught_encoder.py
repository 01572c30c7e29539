"""A DETR whose encoder is asked for objects, too, while it is trained."""

from typing import Any

import torch
import torch.nn.functional as F

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model import detector
from hf_detr_ft.model.families.detr import predict_from
from hf_detr_ft.model.families.family import outputs_of
from hf_detr_ft.model.hungarian_matching import CriterionWeights
from hf_detr_ft.pretraining.encoder_loss import encoder_criterion


class DetrForObjectDetection(detector.DetrForObjectDetection):
    """DETR with `encoder_criterion` added to its loss in training; of the same name, which is saved with it.

    Attributes:
        encoder_loss: weight of the added loss.
    """

    encoder_loss: float = 0.0

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: list[dict] | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Detect, and where there are labels compute the loss; see `DetrForObjectDetection.forward`."""
        with outputs_of(self.model.input_projection) as maps:
            outputs: Any = super().forward(pixel_values, pixel_mask, labels, num_items_in_batch, **kwargs)
        if labels is None or not self.training:
            return outputs
        if pixel_mask is None:
            pixel_mask = pixel_values.new_ones(len(pixel_values), *pixel_values.shape[-2:])
        # As Transformers' backbone does it.
        mask = F.interpolate(pixel_mask[None].float(), size=maps[0].shape[-2:])[0].bool()
        added, parts = encoder_criterion(
            *predict_from(self, outputs.encoder_last_hidden_state),
            mask,
            labels,
            CriterionWeights.from_config(self.config),
            self.config.num_queries,
            num_items_in_batch,
        )
        outputs.loss = outputs.loss + self.encoder_loss * added
        outputs.loss_dict = {**outputs.loss_dict, **parts}
        return outputs


def teach_encoder(model: detector.Detector, encoder_loss: float) -> None:
    """Adds the loss of the encoder's positions to a model's own, with a weight, in place.

    Its tensors stay the same, and so does what is saved.

    Raises:
        RecipeError: the model is of a family with another encoder.
    """
    if not isinstance(model, detector.DetrForObjectDetection):
        raise RecipeError(f"--encoder-loss: expected a DETR, found {model.family.name}. Leave it out.")
    model.__class__ = DetrForObjectDetection
    assert isinstance(model, DetrForObjectDetection)
    model.encoder_loss = encoder_loss
