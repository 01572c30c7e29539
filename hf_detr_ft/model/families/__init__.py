"""The families of detectors that can be trained, a file each; `FAMILIES` is the table of them."""

from collections.abc import Mapping
from typing import Any

from hf_detr_ft.model.families.conditional_detr import CONDITIONAL_DETR
from hf_detr_ft.model.families.d_fine import D_FINE
from hf_detr_ft.model.families.dab_detr import DAB_DETR
from hf_detr_ft.model.families.deformable_detr import DEFORMABLE_DETR
from hf_detr_ft.model.families.detr import DETR
from hf_detr_ft.model.families.detr_masks import DETR_MASKS
from hf_detr_ft.model.families.family import Family
from hf_detr_ft.model.families.lw_detr import LW_DETR
from hf_detr_ft.model.families.rf_detr import RF_DETR
from hf_detr_ft.model.families.rt_detr import RT_DETR
from hf_detr_ft.model.families.rt_detr_v2 import RT_DETR_V2
from hf_detr_ft.model.families.table_transformer import TABLE_TRANSFORMER

ACCEPTED = (
    *(DETR, RT_DETR, RT_DETR_V2, D_FINE, RF_DETR, LW_DETR),
    *(DEFORMABLE_DETR, CONDITIONAL_DETR, DAB_DETR, TABLE_TRANSFORMER),
)
"""Those that are trained, in the order of messages."""
FAMILIES: dict[str, Family] = {family.model_type: family for family in ACCEPTED}
"""Families by the `model_type` of their configs."""

REFUSED: dict[str, str] = {
    "deimv2": "its loss is here, but nothing reads the predictions of its layers yet",
    "yolos": "it takes padding for image, so that boxes depend on what else is in a batch",
    "grounding-dino": "it wants a text for each image, which a data set of boxes has none of",
    "pp_doclayout_v3": "Transformers has no training for it",
}
"""Reasons why other detectors of Transformers are not trained, by their `model_type`."""


def family_of(model: Any) -> Family:
    """The family of a model, ours or Transformers'."""
    return DETR_MASKS if hasattr(model, "mask_head") else FAMILIES[model.config.model_type]


def saved_family(config: Any) -> Family:
    """The family of the model that a config was saved with."""
    has_masks = DETR_MASKS.architecture in (config.architectures or ())
    return DETR_MASKS if has_masks else FAMILIES[config.model_type]


def why_refused(settings: Mapping[str, Any]) -> str | None:
    """The reason why a model with this config.json is not taken, as half a sentence, or ""; None where it is."""
    if "auto_map" in settings:
        return "it brings code of its own (auto_map), which trust_remote_code would run"
    model_type = settings.get("model_type")
    if model_type in FAMILIES:
        return None
    return REFUSED.get(str(model_type), "")
