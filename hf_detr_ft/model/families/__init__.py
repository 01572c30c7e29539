"""The families of detectors that can be trained, a file each; `FAMILIES` is the table of them."""

from collections.abc import Mapping
from typing import Any

from hf_detr_ft.model.families.conditional_detr import CONDITIONAL_DETR
from hf_detr_ft.model.families.d_fine import D_FINE
from hf_detr_ft.model.families.deformable_detr import DEFORMABLE_DETR
from hf_detr_ft.model.families.detr import DETR
from hf_detr_ft.model.families.family import Family
from hf_detr_ft.model.families.rt_detr import RT_DETR
from hf_detr_ft.model.families.rt_detr_v2 import RT_DETR_V2

ACCEPTED = (DETR, RT_DETR, RT_DETR_V2, D_FINE, DEFORMABLE_DETR, CONDITIONAL_DETR)
"""Those that are trained, in the order of messages."""
FAMILIES: dict[str, Family] = {family.model_type: family for family in ACCEPTED}
"""Families by the `model_type` of their configs."""

REFUSED: dict[str, str] = {}
"""Reasons why other detectors of Transformers are not trained, by their `model_type`."""


def family_of(model: Any) -> Family:
    """The family of a model, ours or Transformers'."""
    return FAMILIES[model.config.model_type]


def why_refused(settings: Mapping[str, Any]) -> str | None:
    """The reason why a model with this config.json is not taken, as half a sentence, or ""; None where it is."""
    if "auto_map" in settings:
        return "it brings code of its own (auto_map), which trust_remote_code would run"
    model_type = settings.get("model_type")
    if model_type in FAMILIES:
        return None
    return REFUSED.get(str(model_type), "")
