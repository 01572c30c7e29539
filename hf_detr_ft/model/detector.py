"""The network that is trained: Transformers' DETR with the losses of facebookresearch/detr."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn
from transformers import DetrConfig
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

from hf_detr_ft.model.hungarian_matching import CriterionWeights
from hf_detr_ft.model.loss import set_criterion


class DetrForObjectDetection(transformers.DetrForObjectDetection):
    """`transformers.DetrForObjectDetection`, tensor for tensor, with another loss.

    It has the same name because `save_pretrained` writes the class's name into `config.json`, and what is saved is to
    be opened with stock Transformers.

    `config.auxiliary_loss` stays False. When it is True, Transformers' decoder passes the *normalised* state of each
    layer on to the next, and normalises the last one twice; DETR hands on the state as it is. With the trained norms of
    a checkpoint that is another network, in inference too. So the states are collected here and normalised beside the
    decoder, as DETR does, and the saved model stays the one that was trained.

    Attributes:
        auxiliary_losses: also compute the loss of every decoder layer before the last (DETR does).
    """

    accepts_loss_kwargs = True
    auxiliary_losses: bool = True

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config)
        parts = ((self.model.encoder, "attention_mask"), (self.model.decoder, "encoder_attention_mask"))
        for part, name in parts:
            part.register_forward_pre_hook(partial(_add_to_scores, name), with_kwargs=True)

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: list[dict] | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> DetrObjectDetectionOutput:
        """Detect, and where there are labels compute the loss.

        Args:
            pixel_values: `[B, 3, H, W]`, normalised, padded right and below.
            pixel_mask: `[B, H, W]`, 1 on the image, 0 on the padding.
            labels: per image `class_labels` `[n]` and `boxes` `[n, 4]`, cxcywh in [0, 1] of the unpadded image.
            num_items_in_batch: `loss.count_items` of the whole batch over processes and accumulation; None: this is it.
            **kwargs: Transformers' own arguments, without labels only.

        Returns:
            `logits` `[B, Q, C+1]`, `pred_boxes` `[B, Q, 4]`, with labels also `loss` and `loss_dict`.

        Raises:
            TypeError: other arguments were given with labels.
        """
        if labels is None:
            return super().forward(pixel_values, pixel_mask=pixel_mask, **kwargs)
        if kwargs:
            raise TypeError(
                f"forward with labels takes no {', '.join(sorted(kwargs))}; call it without labels for that"
            )
        outputs: Any = self.model(pixel_values, pixel_mask=pixel_mask, output_hidden_states=self.auxiliary_losses)
        states = outputs.last_hidden_state[None]
        if self.auxiliary_losses:
            # The first hidden state is the decoder's input, the last one is `last_hidden_state`, normalised already.
            before_last = [self.model.decoder.layernorm(state) for state in outputs.decoder_hidden_states[1:-1]]
            states = torch.stack([*before_last, outputs.last_hidden_state])
        logits, pred_boxes = self.predict_from(states)
        weights = CriterionWeights.from_config(self.config)
        loss, parts = set_criterion(logits, pred_boxes, labels, weights, num_items_in_batch)
        return DetrObjectDetectionOutput(
            loss=loss,
            loss_dict=parts,
            logits=logits[-1],
            pred_boxes=pred_boxes[-1],
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
        )

    def predict_from(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[..., C+1]` and boxes `[..., 4]` of decoder or encoder states, in fp32.

        bf16 tells some 256 positions apart along a side: balloon's true boxes, rounded to it, come to AP 0.94.
        """
        with torch.autocast(states.device.type, enabled=False):
            states = states.to(self.class_labels_classifier.weight.dtype)
            return self.class_labels_classifier(states), self.bbox_predictor(states).sigmoid()


def _add_to_scores(name: str, module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Turns the mask `[B, N]` of feature map positions into what is added to scores, `[B, 1, 1, N]`, before they begin.

    Transformers would make it `[B, 1, N, N]`, which attention turns into scores once a layer, and would first ask the
    device whether anything is padded, so that host and device wait for each other twice a step.
    """
    mask = kwargs.get(name)
    if mask is not None and mask.dim() == 2 and module.config._attn_implementation in ("sdpa", "eager"):
        dtype = next(module.parameters()).dtype
        added = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        added.masked_fill_(~mask.bool(), torch.finfo(dtype).min)
        kwargs = {**kwargs, name: added[:, None, None]}
    return args, kwargs


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collects what a module returns while the context is open; its hook goes when it closes, whatever goes wrong."""
    outputs: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        yield outputs
    finally:
        hook.remove()
