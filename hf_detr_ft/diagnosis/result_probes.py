"""Probes of what a run found: scores against the threshold, what counts, training images beside validation's."""

from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.features import IMAGES
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.evaluation.coco_eval import evaluate_matched
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.formatting import pluralize

GAP = 3.0
"""Ratio of AP50 on training and on validation images that few images alone do not make."""


def high_threshold(case: Case) -> Finding | None:
    """Right detections, none of which has a score above the threshold at which they were looked for."""
    if case.loaded is None or case.loaded.evaluation is None or not case.has_learned:
        return None
    matched = case.matched
    right = matched.predictions.score[matched.is_tp]
    if not len(right) or is_above(right, case.threshold).any():
        return None
    best = case.loaded.evaluation["best_f1"]
    return Finding(
        f"the threshold, {case.threshold:g}, is above the scores of all that is found",
        f"AP50 is {case.ap_50:.2f}: {pluralize(len(right), 'detection')} on validation images are right, the best "
        f"with a score of {right.max():.3f}",
        f"look with a lower one: hf-detr-ft predict {case.run} PHOTO --threshold {best['threshold']:.3f} (that of the "
        f"best F1, {best['f1']:.2f})",
    )


def unlike_training(case: Case) -> Finding | None:
    """A run that finds the objects of its training images, and not those of validation."""
    if case.run is None or case.ap_50 is None or case.splits.pieces:
        return None
    matched = case.evaluate(str(case.run), case.sample("train", IMAGES))
    trained = evaluate_matched(matched, case.recipe.evaluation.backend).metrics["map_50"]
    if trained < GAP * max(case.ap_50, 0.05):
        return None
    images = pluralize(len(matched.truth.image_ids), "image")
    return Finding(
        "the run has learned its training images by heart, or validation is other data",
        f"AP50 is {trained:.2f} on {images} of training, and {case.ap_50:.2f} on those of validation",
        "with few photos: fewer steps, more augmentation, a frozen backbone (model.trainable_stages []); else look "
        "whether labels and photos of validation are like training's",
        is_sure=False,
    )
