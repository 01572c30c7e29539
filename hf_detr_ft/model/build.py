"""The model, from a checkpoint or from a config with a timm backbone."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from transformers import DetrConfig
from transformers.utils import logging as transformers_logging

from hf_detr_ft.errors import CheckpointError, RecipeError, first_line
from hf_detr_ft.formatting import nearest
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.model.init_weights import (
    initialise_like_original,
    load_backbone_weights,
    resolve_source,
    scale_projection,
    why_unreadable,
)
from hf_detr_ft.model.speed.folded_norms import lighten
from hf_detr_ft.model.speed.fp32_attention import use_fp32_attention
from hf_detr_ft.recipe.sections import ModelConfig, SpeedConfig

logger = logging.getLogger(__name__)

CLASS_HEAD = "class_labels_classifier."
"""The tensors that are made new for the data's labels; every other one has to be loaded."""


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
        names: of the labels 0..N-1.
        category_ids: of the labels in the data set; kept in the config for whoever has the model alone.
        speed: the recipe's `speed` section; its defaults where not given.
        made_anew: how the names of tensors begin that the checkpoint need not have, besides those of the class head.

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
        model = load_checkpoint(
            config.checkpoint, config.revision, {**overrides, **label_settings}, (CLASS_HEAD, *made_anew)
        )
    else:
        model = _from_backbone(config, {**overrides, **label_settings})
    model.auxiliary_losses = config.auxiliary_losses
    speed = speed or SpeedConfig()
    model.channels_last = speed.channels_last
    lighten(model.model.backbone.model, speed.fold_frozen_norms)
    if speed.fp32_attention:
        use_fp32_attention(model)
    if speed.compile_backbone:
        # Sizes that are known to change are compiled for once; those of each batch would be compiled for anew.
        model.model.backbone.compile(dynamic=True)
    return model


def _checked_overrides(overrides: dict[str, Any]) -> dict[str, Any]:
    known = set(DetrConfig.__annotations__) - {"auxiliary_loss", "backbone_config", "is_encoder_decoder"}
    unknown = [name for name in overrides if name not in known]
    if unknown:
        hints = ", ".join(f"'{name}'{nearest(name, sorted(known))}" for name in unknown)
        raise RecipeError(f"model.config: expected fields of transformers.DetrConfig, found {hints}.")
    try:
        DetrConfig(**overrides)
    except Exception as error:
        raise RecipeError(f"model.config: DetrConfig refuses these values: {' '.join(str(error).split())}") from error
    for name, value in overrides.items():
        if name.endswith(("dropout", "layerdrop")) and not 0 <= value <= 1:
            raise RecipeError(f"model.config.{name}: expected a probability from 0 to 1, found {value}.")
    return dict(overrides)


def load_checkpoint(
    source: str, revision: str | None, settings: dict[str, Any], made_anew: tuple[str, ...] = (CLASS_HEAD,)
) -> DetrForObjectDetection:
    """A `DetrForObjectDetection` checkpoint with a class head for other labels.

    Args:
        source: a folder, `package:NAME/PATH` in a Python package, or a Hub id, in the Hub's legacy or current layout.
        revision: branch, tag or commit on the Hub.
        settings: fields of the config to change, `id2label` among them.
        made_anew: how the names of the tensors begin that need not be there, nor fit.

    Returns:
        The model in fp32. Its class head is new unless the checkpoint has exactly these class names.

    Raises:
        CheckpointError: see `build_model`.
    """
    source = resolve_source(source, "model.checkpoint")
    config = _read_config(source, revision)
    same_classes = list((config.id2label or {}).values()) == list(settings["id2label"].values())
    if config.auxiliary_loss:
        logger.warning(
            "%s was trained with Transformers' auxiliary_loss, which normalises between decoder layers. Its layers are "
            "used as the original DETR does; expect a lower AP in the first epochs.",
            source,
        )
    config.auxiliary_loss = False
    for name, value in settings.items():
        setattr(config, name, value)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it reports at length that the class head is new
    try:
        loaded: Any = DetrForObjectDetection.from_pretrained(
            source,
            revision=revision or "main",
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # safetensors, pickle, OS and Hub errors alike: this checkpoint is not usable
        raise CheckpointError(
            f"model.checkpoint: the weights of '{source}' cannot be loaded: {why_unreadable(error)}. "
            "Copy or download them again."
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    model, report = loaded
    _require_complete(source, report, made_anew)
    if not same_classes:
        model.class_labels_classifier.reset_parameters()
    return model


def _read_config(source: str, revision: str | None) -> DetrConfig:
    is_local = Path(source).exists()
    if is_local and not (Path(source) / "config.json").is_file():
        found = sorted(path.name for path in Path(source).iterdir())[:8] if Path(source).is_dir() else "a file"
        raise CheckpointError(
            f"model.checkpoint: '{source}' holds no config.json; found {found or 'an empty folder'}. "
            "Give the folder that save_pretrained wrote, a run folder or one of its checkpoint-* folders."
        )
    try:
        settings, _ = DetrConfig.get_config_dict(source, revision=revision or "main")
    except Exception as error:
        if is_local:
            raise CheckpointError(
                f"model.checkpoint: config.json of '{source}' cannot be read: {first_line(error)}. "
                "Copy or download it again."
            ) from error
        raise CheckpointError(
            f"model.checkpoint: '{source}' is no folder here, and the Hub gave no config for it: {first_line(error)}. "
            "Check the name, the network and, for a private model, `hf auth login`."
        ) from error
    model_type = settings.get("model_type") if isinstance(settings, dict) else None
    if model_type != "detr":
        raise CheckpointError(
            f"model.checkpoint: expected a DETR (model_type 'detr' in config.json), '{source}' is a '{model_type}'. "
            "Choose a checkpoint such as facebook/detr-resnet-50."
        )
    try:
        return DetrConfig.from_dict(_with_backbone_config(settings))
    except Exception as error:
        raise CheckpointError(
            f"model.checkpoint: config.json of '{source}' is none of a DETR: {' '.join(str(error).split())}. "
            "Copy or download it again."
        ) from error


def _with_backbone_config(settings: dict[str, Any]) -> dict[str, Any]:
    """A config of Transformers 4 says by loose fields which timm backbone it has; this says it as Transformers 5 does.

    Transformers would ask the Hub whether "resnet50" is a repository, and fail without a network.
    """
    if settings.get("backbone_config") is not None or not settings.get("use_timm_backbone", False):
        return settings
    loose = ("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone", "backbone_config")
    kwargs = settings.get("backbone_kwargs") or {}
    backbone_config = {
        "model_type": "timm_backbone",
        "backbone": settings.get("backbone") or "resnet50",
        "num_channels": kwargs.get("in_chans", settings.get("num_channels", 3)),
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": kwargs.get("out_indices", [1, 2, 3, 4]),
    }
    if settings.get("dilation"):
        backbone_config["output_stride"] = kwargs.get("output_stride", 16)
    kept = {name: value for name, value in settings.items() if name not in loose}
    return {**kept, "backbone_config": backbone_config}


def _require_complete(source: str, report: dict, made_anew: tuple[str, ...]) -> None:
    """Refuses a checkpoint that leaves anything but what is made anew at random weights."""
    mismatched = [(name, found, wanted) for name, found, wanted in report["mismatched_keys"]]
    problems = [
        f"'{name}' has the shape {tuple(found)} where the config wants {tuple(wanted)}"
        for name, found, wanted in mismatched
        if not name.startswith(made_anew)
    ]
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(made_anew))
    problems += [f"'{name}' is missing" for name in missing]
    if problems:
        unexpected = sorted(report["unexpected_keys"])
        hint = f" It holds {len(unexpected)} tensors of other names, '{unexpected[0]}' first." if unexpected else ""
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(
            f"model.checkpoint: {len(problems)} tensors of '{source}' would start from noise: {shown}.{hint} "
            "Use a checkpoint of this architecture, and leave shapes out of model.config."
        )


def _from_backbone(config: ModelConfig, settings: dict[str, Any]) -> DetrForObjectDetection:
    """A DETR on a timm backbone, with the original's initial weights."""
    backbone = str(config.backbone)
    if not timm.is_model(backbone):
        raise RecipeError(
            f"model.backbone: expected the name of a timm model, found '{backbone}'"
            f"{nearest(backbone, timm.list_models())}. timm.list_models() lists them."
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
    initialise_like_original(model)
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
    """Of all parameters, trained or not; frozen norms hold buffers and do not count."""
    return sum(parameter.numel() for parameter in model.parameters())
