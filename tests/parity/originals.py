"""The families' original criteria, imported from checkouts of their repositories.

Only the module of the criterion and those that it computes with are run. What else it imports, such as backbones and
CUDA extensions, is replaced by names without content.
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
import torchvision

from hf_detr_ft.model.predictions import LayerPredictions, Predictions
from tests.parity.cases import BINS, CLASSES, Run

Labels = Sequence[dict[str, torch.Tensor]]

COSTS = {"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0}
FOCAL_WEIGHTS = {"loss_ce": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0}
RT_DETR_WEIGHTS = {"loss_vfl": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
D_FINE_WEIGHTS = {**RT_DETR_WEIGHTS, "loss_fgl": 0.15, "loss_ddf": 1.5}
DEIM_WEIGHTS = {"loss_mal": 1.0, **{name: D_FINE_WEIGHTS[name] for name in list(D_FINE_WEIGHTS)[1:]}}


Load = Callable[[str], ModuleType]
"""Imports a module of a checkout by its name."""

BARE = ("models", "models.DAB_DETR", "rfdetr", "rfdetr.models", "src", "src.zoo", "src.zoo.rtdetr", "src.zoo.dfine")
BARE += ("engine", "engine.deim")
"""Packages whose `__init__`, which imports whole models, is not run."""

EMPTY = ("models.backbone", "models.transformer", "models.deformable_transformer", "models.DAB_DETR.backbone")
EMPTY += ("models.DAB_DETR.transformer", "rfdetr.models.backbone", "rfdetr.models.transformer")
EMPTY += ("src.core", "src.misc", "src.misc.dist", "src.misc.dist_utils")
EMPTY += ("engine.core", "engine.misc", "engine.misc.dist_utils")
"""Modules without content."""


@contextmanager
def imports_from(folder: Path, empty: Sequence[str] = EMPTY) -> Iterator[Load]:
    """Imports criteria, or with nothing left empty whole models, from a checkout while the context is open."""
    hidden = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "datasets"}
    before = set(sys.modules)
    for name in BARE:
        module = ModuleType(name)
        module.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = module
    for name in empty:
        nothing: Any = mock.MagicMock(__all__=[], __path__=[], __spec__=None, get_world_size=lambda: 1)
        nothing.is_dist_available_and_initialized = lambda: False
        nothing.register = lambda *of: of[0] if of else lambda cls: cls
        sys.modules[name] = nothing
    sys.path.insert(0, str(folder))
    try:
        # They compare versions by their first digits, and know no torchvision of today.
        with mock.patch.object(torchvision, "__version__", "0.9.0"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield import_module
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            del sys.modules[name]
        sys.modules.update(hidden)  # theirs has the name of Hugging Face's


def as_targets(labels: Labels) -> list[dict[str, torch.Tensor]]:
    """Labels as all originals take them."""
    return [{"labels": label["class_labels"], "boxes": label["boxes"]} for label in labels]


def as_outputs(layers: LayerPredictions, layer: int) -> dict[str, torch.Tensor]:
    """One layer's predictions as all originals take them."""
    return {"pred_logits": layers.logits[layer], "pred_boxes": layers.boxes_cxcywh_rel[layer]}


def run_detr(criterion: Any, weights: dict[str, float]) -> Run:
    """Runs a criterion of DETR's kind, which returns losses without their weights."""

    def run(predictions: Predictions, labels: Labels) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        layers = predictions.layers
        outputs: dict[str, Any] = as_outputs(layers, -1)
        if len(layers.logits) > 1:
            outputs["aux_outputs"] = [as_outputs(layers, layer) for layer in range(len(layers.logits) - 1)]
        if predictions.encoder is not None:
            outputs["enc_outputs"] = as_outputs(predictions.encoder, 0)
        parts = criterion(outputs, as_targets(labels))
        parts = {name: value for name, value in parts.items() if not name.startswith(("loss_xy", "loss_hw"))}
        weighted = {name: weights.get(re.sub(r"_(\d+|enc)$", "", name), 0.0) for name in parts}
        return sum(parts[name] * weight for name, weight in weighted.items() if weight), parts

    return run


def run_rt_detr(criterion: Any, weights: dict[str, float]) -> Run:
    """Runs a criterion of RT-DETR's kind, which returns weighted losses."""

    def run(predictions: Predictions, labels: Labels) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        outputs = rt_detr_outputs(predictions, encoder_is_last=type(criterion).__name__ == "SetCriterion")
        weighted = criterion(outputs, as_targets(labels))
        parts = {}
        for name, value in weighted.items():
            weight = weights[str(re.match(r"loss_[a-z]+", name)[0])]  # type: ignore[index]
            if name.endswith(f"_aux_{len(predictions.layers.logits) - 1}"):
                name = name[: name.rindex("_aux")] + "_enc"
            parts[re.sub(r"_enc_0$", "_enc", name.replace("_aux_", "_").replace("_pre", "_initial"))] = value / weight
        return sum(weighted.values()), parts  # type: ignore[return-value]

    return run


def rt_detr_outputs(predictions: Predictions, encoder_is_last: bool) -> dict[str, Any]:
    """All outputs of RT-DETR, whose first version has the encoder's after those of the decoder."""
    assert predictions.encoder is not None
    outputs: dict[str, Any] = {
        **fine_grained_outputs(predictions.layers)[-1],
        "aux_outputs": fine_grained_outputs(predictions.layers)[:-1],
        "up": torch.tensor([0.5]),
        "reg_scale": torch.tensor([4.0]),
    }
    for name in ("teacher_corners", "teacher_logits"):
        outputs.pop(name, None)
    encoder = [as_outputs(predictions.encoder, 0)]
    if encoder_is_last:
        outputs["aux_outputs"] += encoder
    else:
        outputs |= {"enc_aux_outputs": encoder, "enc_meta": {"class_agnostic": False}}
    if predictions.initial is not None:
        outputs["pre_outputs"] = as_outputs(predictions.initial, 0)
    denoising = predictions.denoising
    if denoising is not None:
        positions = [(row >= 0).nonzero()[:, 0] for row in denoising.targets]
        outputs["dn_meta"] = {"dn_positive_idx": positions, "dn_num_group": denoising.groups}
        noised = "dn_outputs" if denoising.initial is not None else "dn_aux_outputs"
        outputs[noised] = fine_grained_outputs(denoising.layers)
        if denoising.initial is not None:
            outputs["dn_pre_outputs"] = as_outputs(denoising.initial, 0)
    return outputs


def fine_grained_outputs(layers: LayerPredictions) -> list[dict[str, torch.Tensor]]:
    """Outputs of each layer, with D-FINE's distributions and their teacher where there are any."""
    outputs = [as_outputs(layers, layer) for layer in range(len(layers.logits))]
    if layers.corners is not None and layers.reference_boxes is not None:
        for layer, entry in enumerate(outputs):
            entry |= {"pred_corners": layers.corners[layer], "ref_points": layers.reference_boxes[layer]}
            entry |= {"teacher_corners": layers.corners[-1], "teacher_logits": layers.logits[-1]}
    return outputs


def softmax(load: Load, module: str) -> Run:
    """DETR's criterion."""
    matcher = load("models.matcher").HungarianMatcher(1, 5, 2)
    parts = ["labels", "boxes", "cardinality"]
    return run_detr(load(module).SetCriterion(CLASSES, matcher, {}, 0.1, parts), {**FOCAL_WEIGHTS, "loss_ce": 1.0})


def focal(load: Load, module: str, matcher: str = "models.matcher", **settings: Any) -> Run:
    """Deformable DETR's criterion, and those that were made from it."""
    criterion = load(module).SetCriterion(
        num_classes=CLASSES,
        matcher=load(matcher).HungarianMatcher(**COSTS),
        weight_dict={},
        losses=["labels", "boxes"],
        focal_alpha=0.25,
        **settings,
    )
    return run_detr(criterion, {**FOCAL_WEIGHTS, "loss_ce": 1.0} if settings else FOCAL_WEIGHTS)


def rt_detr(load: Load, package: str, module: str, name: str, weights: dict[str, float], **settings: Any) -> Run:
    """RT-DETR's criterion, and those that were made from it."""
    criterion = getattr(load(f"{package}.{module}"), name)(
        matcher=load(f"{package}.matcher").HungarianMatcher(COSTS, use_focal_loss=True),
        weight_dict=weights,
        losses=settings.pop("losses", ["vfl", "boxes"]),
        alpha=0.75,
        num_classes=CLASSES,
        **settings,
    )
    return run_rt_detr(criterion, weights)


@dataclass(frozen=True)
class Original:
    """Where a family's criterion is."""

    repository: str
    """On GitHub; the folder of its checkout has the name after the slash."""
    commit: str
    make: Callable[[Load], Run]
    below: str = "."
    """Folder of the checkout that modules are imported from."""


RT_DETR_SOURCE = ("lyuwenyu/RT-DETR", "068dfde65f2667ad6555883c69d73de886518cad")
"""Repository and commit of both versions."""
RT_DETR_RUN = partial(rt_detr, package="src.zoo.rtdetr", weights=RT_DETR_WEIGHTS)

ORIGINALS = {
    "detr": Original(
        "facebookresearch/detr",
        "29901c51d7fe8712168b8d0d64351170bc0f83e0",
        partial(softmax, module="models.detr"),
    ),
    "table-transformer": Original(
        "microsoft/table-transformer",
        "16d124f616109746b7785f03085100f1f6247575",
        partial(softmax, module="models.detr"),
        below="detr",
    ),
    "yolos": Original(
        "hustvl/YOLOS",
        "5717fc29d727dab84ad585c56457b4de1225eddc",
        partial(softmax, module="models.detector"),
    ),
    "conditional_detr": Original(
        "Atten4Vis/ConditionalDETR",
        "8ea7c3f3fff49cd287855d4f13cc12a6066bc8e9",
        partial(focal, module="models.conditional_detr"),
    ),
    "dab-detr": Original(
        "IDEA-Research/DAB-DETR",
        "723ddb80e95dbd3c9a2e4ef68c1e0fa9319167cf",
        partial(focal, module="models.DAB_DETR.DABDETR", matcher="models.DAB_DETR.matcher"),
    ),
    "deformable_detr": Original(
        "fundamentalvision/Deformable-DETR",
        "11169a60c33333af00a4849f1808023eba96a931",
        partial(focal, module="models.deformable_detr"),
    ),
    "rt_detr": Original(
        *RT_DETR_SOURCE,
        partial(RT_DETR_RUN, module="rtdetr_criterion", name="SetCriterion"),
        below="rtdetr_pytorch",
    ),
    "rt_detr_v2": Original(
        *RT_DETR_SOURCE,
        partial(RT_DETR_RUN, module="rtdetrv2_criterion", name="RTDETRCriterionv2"),
        below="rtdetrv2_pytorch",
    ),
    "d_fine": Original(
        "Peterande/D-FINE",
        "4a1f73a8bcfac736a88abde9596d87f116d780a7",
        partial(
            rt_detr,
            package="src.zoo.dfine",
            module="dfine_criterion",
            name="DFINECriterion",
            weights=D_FINE_WEIGHTS,
            losses=["vfl", "boxes", "local"],
            reg_max=BINS,
        ),
    ),
    "deimv2": Original(
        "Intellindust-AI-Lab/DEIMv2",
        "0fff8d4dcdc272e6cf2d84be31399db471357941",
        partial(
            rt_detr,
            package="engine.deim",
            module="deim_criterion",
            name="DEIMCriterion",
            weights=DEIM_WEIGHTS,
            losses=["mal", "boxes", "local"],
            gamma=1.5,
            reg_max=BINS,
        ),
    ),
    "lw_detr": Original(
        "Atten4Vis/LW-DETR",
        "d5e6e6c4add2d24dafb965ced8b50163c50b9788",
        partial(focal, module="models.lwdetr", group_detr=3, ia_bce_loss=True),
    ),
    "rf_detr": Original(
        "roboflow/rf-detr",
        "35ac6ab64634e188bbb0fa3fc5135132f0df45fc",
        partial(focal, module="rfdetr.models.lwdetr", matcher="rfdetr.models.matcher", group_detr=3, ia_bce_loss=True),
    ),
}
"""By `model_type` of Transformers."""
