"""Table Transformer (Smock et al. 2022, arXiv:2110.00061; microsoft/table-transformer)."""

from dataclasses import replace

from hf_detr_ft.model.families.detr import DETR
from hf_detr_ft.model.families.family import unchanged

TABLE_TRANSFORMER = replace(
    DETR,
    model_type="table-transformer",
    name="Table Transformer",
    architecture="TableTransformerForObjectDetection",
    prepare=unchanged,
    backbone_settings=lambda strides, channels, given: {"eos_coefficient": 0.4},
    values=lambda settings: {"training.learning_rate": 5e-5},
)
"""DETR that normalises before attention, not behind it; its rate and weight of "no object" are of src/*.json."""
