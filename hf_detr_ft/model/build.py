"""The model, from a checkpoint or from a config with a timm backbone."""

import logging
from collections.abc import Sequence
from typing import Any

import timm
from torch import nn
from transformers import DetrConfig

from hf_detr_ft.errors import RecipeError, first_line
from hf_detr_ft.formatting import did_you_mean
from hf_detr_ft.model.backbone_weights import load_backbone_weights
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.model.init_weights import initialise_like_detr, scale_projection
from hf_detr_ft.model.load import CLASS_HEAD, load_for_finetuning
from hf_detr_ft.model.speed.apply_speed import apply_speed
from hf_detr_ft.recipe.sections import ModelConfig, SpeedConfig

logger = logging.getLogger(__name__)


def build_model(
    config: ModelConfig,
    names: Sequence[str],
    category_ids: Sequence[int],
    speed: SpeedConfig | None = None,
    made_anew: Sequence[str] = (),
) -> DetrForObjectDetection:
    """The model of a recipe, its class head made for the data's labels.

    Args:
        config: the recipe's `model` section.
        names: class names of the labels 0..N-1.
        category_ids: the data set's category id of each label; kept in the config for whoever has the model alone.
        speed: the recipe's `speed` section; its defaults where not given.
        made_anew: prefixes of the names of tensors that the checkpoint need not have, besides the class head's.

    Raises:
        CheckpointError: the checkpoint is missing, not a DETR or not complete.
        RecipeError: neither or both of `model.checkpoint` and `model.backbone`, or unknown names in `model.config`.
    """
    if (config.checkpoint is None) == (config.backbone is None):
        remedy = "Give one of them" if config.backbone is None else "Set the other one to null"
        raise RecipeError(
            "model: expected either model.checkpoint (fine-tune a DETR) or model.backbone (start one from a config), "
            f"found checkpoint={config.checkpoint!r} and backbone={config.backbone!r}. {remedy}."
        )
    label_settings = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: label for label, name in enumerate(names)},
        "category_ids": [int(category_id) for category_id in category_ids],
    }
    overrides = _checked_overrides(config.config)
    if config.checkpoint is not None:
        model = load_for_finetuning(
            config.checkpoint, config.revision, {**overrides, **label_settings}, (CLASS_HEAD, *made_anew)
        )
    else:
        model = _from_backbone(config, {**overrides, **label_settings})
    model.auxiliary_losses = config.auxiliary_losses
    apply_speed(model, speed or SpeedConfig(), training=True)
    return model


def _checked_overrides(overrides: dict[str, Any]) -> dict[str, Any]:
    known = set(DetrConfig.__annotations__) - {"auxiliary_loss", "backbone_config", "is_encoder_decoder"}
    unknown = [name for name in overrides if name not in known]
    if unknown:
        hints = ", ".join(f"'{name}'{did_you_mean(name, sorted(known))}" for name in unknown)
        raise RecipeError(f"model.config: expected fields of transformers.DetrConfig, found {hints}.")
    try:
        DetrConfig(**overrides)
    except Exception as error:
        raise RecipeError(f"model.config: DetrConfig refuses these values: {' '.join(str(error).split())}") from error
    for name, value in overrides.items():
        if name.endswith(("dropout", "layerdrop")) and not 0 <= value <= 1:
            raise RecipeError(f"model.config.{name}: expected a probability from 0 to 1, found {value}.")
    return dict(overrides)


def _from_backbone(config: ModelConfig, settings: dict[str, Any]) -> DetrForObjectDetection:
    """A DETR on a timm backbone, with the initial weights of facebookresearch/detr."""
    backbone = str(config.backbone)
    if not timm.is_model(backbone):
        raise RecipeError(
            f"model.backbone: expected the name of a timm model, found '{backbone}'"
            f"{did_you_mean(backbone, timm.list_models())}. timm.list_models() lists them."
        )
    try:
        features: Any = timm.create_model(backbone, features_only=True, pretrained=False).feature_info
    except Exception as error:
        raise RecipeError(f"model.backbone: timm's '{backbone}' gives no feature maps: {first_line(error)}.") from error
    reductions = [int(entry["reduction"]) for entry in features.info]
    if config.backbone_stride not in reductions:
        raise RecipeError(
            f"model.backbone_stride: expected one of {sorted(set(reductions))} for '{backbone}', "
            f"found {config.backbone_stride}."
        )
    backbone_config = {
        "model_type": "timm_backbone",
        "backbone": backbone,
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": [max(i for i, reduction in enumerate(reductions) if reduction == config.backbone_stride)],
        # Transformers replaces batch norms by frozen ones without the activation that timm keeps inside some of them,
        # and with an epsilon of its own; frozen by timm they keep both, and stock Transformers opens the model rightly.
        "freeze_batch_norm_2d": True,
    }
    detr_config = DetrConfig(backbone_config=backbone_config, **settings)
    _require_even_heads(detr_config)
    try:
        model = DetrForObjectDetection(detr_config)
    except Exception as error:
        raise RecipeError(f"model.config: no DETR can be built from these settings: {first_line(error)}.") from error
    initialise_like_detr(model)
    if config.backbone_weights is None:
        logger.warning("model.backbone_weights is not set: the backbone '%s' starts from random weights.", backbone)
    else:
        load_backbone_weights(model, config.backbone_weights)
        scale_projection(model)
    return model


def _require_even_heads(config: DetrConfig) -> None:
    """Position embeddings have a half for each axis, and every head as many channels as the others."""
    heads = (config.encoder_attention_heads, config.decoder_attention_heads)
    if config.num_queries < 1 or min(heads) < 1 or any(config.d_model % divisor for divisor in (2, *heads)):
        raise RecipeError(
            f"model.config: expected 1 or more num_queries, found {config.num_queries}, and a d_model that 2, "
            f"encoder_attention_heads ({heads[0]}) and decoder_attention_heads ({heads[1]}) divide, "
            f"found {config.d_model}."
        )


def count_parameters(model: nn.Module) -> int:
    """Number of all parameters, trained or not; frozen norms hold buffers and do not count."""
    return sum(parameter.numel() for parameter in model.parameters())
