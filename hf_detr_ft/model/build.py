"""The model, from a checkpoint or from a config with a timm backbone."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from torch import nn
from transformers import PreTrainedConfig

from hf_detr_ft.errors import RecipeError, first_line
from hf_detr_ft.formatting import did_you_mean
from hf_detr_ft.model.backbone_weights import load_backbone_weights
from hf_detr_ft.model.checkpoint import Checkpoint, read_settings
from hf_detr_ft.model.detector import Detector, detector_class
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.families.detr_masks import DETR_MASKS
from hf_detr_ft.model.families.family import Family
from hf_detr_ft.model.load import load_for_finetuning
from hf_detr_ft.model.speed.apply_speed import apply_speed
from hf_detr_ft.recipe.sections import ModelConfig, SpeedConfig

logger = logging.getLogger(__name__)


def build_model(
    config: ModelConfig,
    names: Sequence[str],
    category_ids: Sequence[int],
    speed: SpeedConfig | None = None,
    made_anew: Sequence[str] = (),
) -> Detector:
    """The model of a recipe, its class heads made for the data's labels.

    Args:
        config: the recipe's `model` section.
        names: class names of the labels 0..N-1.
        category_ids: the data set's category id of each label; kept in the config for whoever has the model alone.
        speed: the recipe's `speed` section; its defaults where not given.
        made_anew: prefixes of the names of tensors that the checkpoint need not have, besides the class heads'.

    Raises:
        CheckpointError: the checkpoint is missing, not of a family that can be trained or not complete.
        RecipeError: neither or both of `model.checkpoint` and `model.backbone`, another family than the checkpoint's,
            unknown names in `model.config`, or settings that the family cannot be trained with.
    """
    family = find_family(config)
    if family.needs_all_layers and not config.auxiliary_losses:
        raise RecipeError(
            f"model.auxiliary_losses: expected true for a {family.name}, found false: heads of the decoder layers "
            "before the last would not be trained. Leave it out."
        )
    label_settings = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: label for label, name in enumerate(names)},
        "category_ids": [int(category_id) for category_id in category_ids],
    }
    overrides = _checked_overrides(family, config.config)
    if config.num_queries is not None and overrides.setdefault("num_queries", config.num_queries) != config.num_queries:
        raise RecipeError(
            f"model.num_queries: expected one number of queries, found {config.num_queries} there and "
            f"{overrides['num_queries']} in model.config.num_queries. Leave the latter out."
        )
    checkpoint = Checkpoint.from_config(config)
    if checkpoint is not None:
        settings = {**overrides, **label_settings}
        model = load_for_finetuning(checkpoint, settings, made_anew, family.masks, config.reuse_class_rows)
    else:
        model = _from_backbone(family, config, {**overrides, **label_settings})
    _require_size(family, model, config)
    model.auxiliary_losses = config.auxiliary_losses
    apply_speed(model, speed or SpeedConfig(), training=True)
    return model


def find_family(config: ModelConfig, settings: Mapping[str, Any] | None = None) -> Family:
    """The family of a recipe's model.

    Args:
        config: the recipe's `model` section.
        settings: the content of the checkpoint's config.json, where it is read already.

    Raises:
        CheckpointError: the checkpoint is missing or not of a family that can be trained.
        RecipeError: neither or both of `model.checkpoint` and `model.backbone`, or another family than the
            checkpoint's.
    """
    if (config.checkpoint is None) == (config.backbone is None):
        remedy = "Give one of them" if config.backbone is None else "Set the other one to null"
        raise RecipeError(
            "model: expected either model.checkpoint (fine-tune a DETR) or model.backbone (start one from a config), "
            f"found checkpoint={config.checkpoint!r} and backbone={config.backbone!r}. {remedy}."
        )
    if config.family is not None and config.family not in FAMILIES:
        raise RecipeError(
            f"model.family: expected one of {', '.join(FAMILIES)}, found '{config.family}'"
            f"{did_you_mean(config.family, list(FAMILIES))}."
        )
    checkpoint = Checkpoint.from_config(config)
    if checkpoint is None and config.masks:
        raise RecipeError(
            "model.masks: expected a model.checkpoint that finds boxes already, since nothing beside a mask head is "
            "trained; found a new model. Train its boxes first, without model.masks, and give that run folder."
        )
    if checkpoint is None:
        family = FAMILIES[config.family or "detr"]
        if not family.timm_backbone:
            raise RecipeError(
                f"model.backbone: expected a family that can be built on a timm backbone, found '{family.model_type}', "
                f"whose backbone is its own. Give a checkpoint of {family.name} as model.checkpoint."
            )
        return family
    checkpoint.check_exists()
    own = (settings or read_settings(checkpoint))["model_type"]
    if config.family not in (None, own):
        raise RecipeError(
            f"model.family: expected '{own}', which the checkpoint '{config.checkpoint}' is, found '{config.family}'. "
            "Leave it out."
        )
    if config.masks and own != DETR_MASKS.model_type:
        raise RecipeError(
            f"model.masks: expected the checkpoint of a DETR, which Transformers has a mask head for, found "
            f"'{config.checkpoint}', a {FAMILIES[own].name}. Leave model.masks out, or take a DETR."
        )
    return DETR_MASKS if config.masks else FAMILIES[own]


def _require_size(family: Family, model: Detector, config: ModelConfig) -> None:
    """Refuses a size of images that the family does not take."""
    if not family.size.square:
        return
    step, edge = family.size.step(model.config), config.square_edge
    if edge is None or edge % step:
        nearest = max(step, round((edge or config.shortest_edge) / step) * step)
        raise RecipeError(
            f"model.square_edge: expected a multiple of {step}, since {family.name} takes squares whose maps halve "
            f"evenly, found {edge}. The nearest is {nearest}."
        )
    settings: Any = model.config
    places = sum(int(edge // cell) ** 2 for cell in family.size.cells(settings))
    if 0 < places < settings.num_queries:
        raise RecipeError(
            f"model.num_queries: expected at most {places}, since {family.name} takes its queries from so many places "
            f"at a model.square_edge of {edge}, found {settings.num_queries}. Lower it, or raise square_edge."
        )


def _checked_overrides(family: Family, overrides: dict[str, Any]) -> dict[str, Any]:
    config_class = family.config_class
    known = set(config_class.__annotations__) - {"auxiliary_loss", "backbone_config", "is_encoder_decoder"}
    unknown = [name for name in overrides if name not in known]
    if unknown:
        hints = ", ".join(f"'{name}'{did_you_mean(name, sorted(known))}" for name in unknown)
        raise RecipeError(f"model.config: expected fields of transformers.{config_class.__name__}, found {hints}.")
    try:
        config_class(**overrides)
    except Exception as error:
        raise RecipeError(
            f"model.config: {config_class.__name__} refuses these values: {' '.join(str(error).split())}"
        ) from error
    for name, value in overrides.items():
        if name.endswith(("dropout", "layerdrop")) and not 0 <= value <= 1:
            raise RecipeError(f"model.config.{name}: expected a probability from 0 to 1, found {value}.")
    return dict(overrides)


def _from_backbone(family: Family, config: ModelConfig, settings: dict[str, Any]) -> Detector:
    """A detector on a timm backbone, with the initial weights of its original."""
    backbone = str(config.backbone)
    strides = family.strides if len(family.strides) > 1 else (config.backbone_stride,)
    out_indices, channels = _feature_maps(backbone, strides)
    backbone_config = {
        "model_type": "timm_backbone",
        "backbone": backbone,
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": out_indices,
        # Transformers replaces batch norms by frozen ones without the activation that timm keeps inside some of them,
        # and with an epsilon of its own; frozen by timm they keep both, and stock Transformers opens the model rightly.
        "freeze_batch_norm_2d": True,
    }
    try:
        model_config = family.config_class(
            backbone_config=backbone_config, **{**family.backbone_settings(strides, channels, settings), **settings}
        )
    except Exception as error:
        raise RecipeError(f"model.config: {family.config_class.__name__}: {first_line(error)}.") from error
    _require_even_heads(model_config)
    try:
        model = detector_class(family)(model_config)
    except Exception as error:
        raise RecipeError(
            f"model.config: no {family.name} can be built from these settings: {first_line(error)}."
        ) from error
    family.initialise(model)
    if config.backbone_weights is None:
        logger.warning("model.backbone_weights is not set: the backbone '%s' starts from random weights.", backbone)
    else:
        load_backbone_weights(model, config.backbone_weights)
        family.fit_to_backbone(model)
    return model


def _feature_maps(backbone: str, strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """Index and channels of a timm model's feature map of each stride."""
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
    missing = [stride for stride in strides if stride not in reductions]
    if missing:
        raise RecipeError(
            f"model.backbone_stride: expected one of {sorted(set(reductions))} for '{backbone}', found {missing[0]}."
            if len(strides) == 1
            else f"model.backbone: expected feature maps of the strides {list(strides)}, found "
            f"{sorted(set(reductions))} in '{backbone}'. Take a backbone of the usual four or five stages."
        )
    indices = [max(i for i, reduction in enumerate(reductions) if reduction == stride) for stride in strides]
    return indices, [int(features.info[index]["num_chs"]) for index in indices]


def _require_even_heads(config: PreTrainedConfig) -> None:
    """Position embeddings have a half for each axis, and every head as many channels as the others."""
    settings: Any = config
    heads = (settings.encoder_attention_heads, settings.decoder_attention_heads)
    width = getattr(settings, "d_model", None) or settings.hidden_size
    if settings.num_queries < 1 or min(heads) < 1 or any(width % divisor for divisor in (2, *heads)):
        raise RecipeError(
            f"model.config: expected 1 or more num_queries, found {settings.num_queries}, and a d_model that 2, "
            f"encoder_attention_heads ({heads[0]}) and decoder_attention_heads ({heads[1]}) divide, "
            f"found {width}."
        )


def count_parameters(model: nn.Module) -> int:
    """Number of all parameters, trained or not; frozen norms hold buffers and do not count."""
    return sum(parameter.numel() for parameter in model.parameters())
