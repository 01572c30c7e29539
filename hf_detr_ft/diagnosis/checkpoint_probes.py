"""Probes of the model that a training begins with: its weights, and what its images become before it sees them."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn

from hf_detr_ft.data.images import decode_row
from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.errors import CheckpointError, InputError
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.model.families.family import Family, backbone_of
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.run_folder import PROCESSOR

SEEN = 50_000
"""Images that a transformer from random weights has to see before it finds anything; DETR's saw 118,000 300 times."""
PRETRAINED = (
    "start from a detector: model.checkpoint facebook/detr-resnet-50, or package:hf_detr_ft/tiny_dfine, which comes "
    "with the package, and model.backbone null"
)
IMAGES = 8
LARGEST, LEAST_RANGE = 6.0, 0.1
"""Largest value of a pixel that was normalised once, whichever way; and least range of images that show something."""
FIELDS = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
"""Settings of a processor that say which values pixels get."""
SEES_MORE, SEES = 1.5, 0.2
"""Ratio of the best scores on images that were prepared one way and another, and least of them that is a detection."""


def unusable_model(case: Case) -> Finding | None:
    """A checkpoint that cannot be loaded, or settings that no model or trainer can be made of."""
    try:
        _ = case.job
    except InputError as error:
        return Finding.of_error("the model cannot be made", error)
    return None


def untrained_transformer(case: Case) -> Finding | None:
    """A transformer whose norms are what they are before the first step of any training."""
    inside = set(backbone_of(case.model).modules())
    norms = [norm for norm in case.model.modules() if isinstance(norm, nn.LayerNorm) and norm not in inside]
    untouched = sum(_is_new(norm) for norm in norms)
    if untouched <= len(norms) / 2:
        return None
    config, trainer = case.recipe.model, case.job.trainer
    evidence = (
        f"{untouched} of its {pluralize(len(norms), 'layer norm')} have weights of 1 and biases of 0, as new ones have"
    )
    if config.checkpoint is not None:
        return Finding(f"the transformer of '{config.checkpoint}' was never trained", evidence, PRETRAINED)
    images = int(total_steps(case) * trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps)
    if images >= SEEN:
        return None
    if config.backbone_weights is None:
        evidence += f", and model.backbone_weights is not set: '{config.backbone}' begins at random as well"
    return Finding(
        "the transformer begins with random weights, and sees too few images to learn to detect",
        f"model.checkpoint is null, and {evidence}; the recipe shows it {images:,} images, {len(case.splits.train):,} "
        "different ones, where DETR's saw 118,000 images 300 times",
        PRETRAINED,
        is_sure=False,
    )


def _is_new(norm: nn.LayerNorm) -> bool:
    return bool((norm.weight == 1).all()) and (norm.bias is None or not norm.bias.any())


def total_steps(case: Case) -> int:
    """Optimizer's steps of the whole training."""
    args, trainer = case.job.trainer.args, case.job.trainer
    return int(args.max_steps if args.max_steps > 0 else args.num_train_epochs * trainer.steps_per_epoch())


def pixel_values(case: Case) -> Finding | None:
    """Images that reach the model in values which no normalisation gives, or as nothing but one colour."""
    val = case.job.trainer.eval_dataset
    seen = [val[place]["pixel_values"] for place in range(min(IMAGES, len(val)))]
    most = max(float(image.abs().max()) for image in seen)
    spread = max(float(image.max()) for image in seen) - min(float(image.min()) for image in seen)
    if most <= LARGEST and spread >= LEAST_RANGE:
        return None
    settings = {name: getattr(case.processor, name, None) for name in FIELDS}
    cause = "normalised twice, or not rescaled to 0 to 1" if most > LARGEST else "nearly one colour"
    return Finding(
        f"images are {cause}, when they reach the model",
        f"values of {pluralize(len(seen), 'validation image')} as the model gets them reach {most:.3g} and span "
        f"{spread:.3g}; after one normalisation they lie within -3 to 3 and span more than 1. The processor has "
        f"{settings}",
        f"correct the checkpoint's {PROCESSOR}: pixels times rescale_factor 1/255, less image_mean, divided by "
        "image_std, each once; or look at the photos",
    )


def other_preprocessing(case: Case) -> Finding | None:
    """A checkpoint that is surer of what it sees where images are prepared as its family's are, not by its own file."""
    name = case.recipe.model.checkpoint
    family = case.model.family
    unlike = _unlike_family(case.processor, family)
    if name is None or case.recipe.model.revision is not None or not unlike:
        return None
    try:
        model: Any = load_for_inference(name)
    except CheckpointError:
        return None  # it has no class head yet: there are no scores to compare
    rows = case.sample_rows("train", IMAGES)
    own, usual = (_best_score(model, family, case, rows, settings) for settings in ({}, unlike))
    if usual < SEES or usual < SEES_MORE * own:
        return None
    settings = {key: getattr(case.processor, key) for key in unlike}
    return Finding(
        f"'{name}' was probably trained on images that were prepared otherwise",
        f"its processor has {settings}, where {family.name} usually has {unlike}; best scores of "
        f"{pluralize(len(rows), 'training image')} are {own:.2f} on average, and {usual:.2f} with the usual ones",
        f"correct the checkpoint's {PROCESSOR}",
        is_sure=False,
    )


def _unlike_family(processor: Any, family: Family) -> dict[str, Any]:
    """Settings of the family's processors where a processor has others that change what it does."""
    usual = getattr(transformers, family.processor)()
    unlike = {key: getattr(usual, key) for key in FIELDS if getattr(processor, key) != getattr(usual, key)}
    normalises = processor.do_normalize or usual.do_normalize
    return {key: value for key, value in unlike.items() if normalises or key not in ("image_mean", "image_std")}


@torch.inference_mode()
def _best_score(model: Any, family: Family, case: Case, rows: Any, settings: Mapping[str, Any]) -> float:
    """Mean over images of the best score of any class, where the processor has some other settings."""
    best = []
    for row in rows:
        inputs = case.processor(images=decode_row(row), return_tensors="pt", **settings)
        logits = model(**inputs).logits[0].float()
        scores = logits.softmax(-1)[:, :-1] if family.scores == "softmax" else logits.sigmoid()
        best.append(float(scores.max()))
    return sum(best) / len(best)
