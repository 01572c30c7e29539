"""The log of facebookresearch/detr, log.txt: written beside ours, and read as ours.

It has a JSON object for each epoch, counted from 0: means of the training's losses (`train_`), sums or means over the
validation (`test_`), COCO's twelve numbers in COCO's order (`test_coco_eval_bbox`, of masks `test_coco_eval_masks`),
`epoch` and `n_parameters`. Losses have their weights in them, and end in `_unscaled` where they have not.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_detr_ft.atomic import write_text
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.coco_result import COCO_METRICS
from hf_detr_ft.model.criteria.mask_losses import MaskWeights
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.hungarian_matching import CriterionWeights
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.callbacks import rows_of

PART = re.compile(r"(loss_[a-z]+|class_error|cardinality_error)(_\w+)?")
"""Name of a part of the loss, and the layer that it is of."""
BOXES, MASKS = "test_coco_eval_bbox", "test_coco_eval_masks"


class OriginalLog(TrainerCallback):
    """Writes log.txt of the run folder after each evaluation, from the whole log, so that a resumed run's has all.

    Args:
        model: whose losses have weights, and whose trained parameters are counted.
    """

    def __init__(self, model: Detector) -> None:
        self.weights: dict[str, float] = {}
        if model.family.scores == "softmax":  # other families have other losses, whose weights are no entries of it
            config: Any = model.config
            weights = CriterionWeights.from_config(config)
            self.weights = {"loss_ce": 1.0, "loss_bbox": weights.bbox_loss, "loss_giou": weights.giou_loss}
        if model.family.masks:
            masks = MaskWeights.from_config(model.config)
            self.weights |= {"loss_mask": masks.mask_loss, "loss_dice": masks.dice_loss}
        self.n_parameters = sum(each.numel() for each in model.parameters() if each.requires_grad)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Writes the file."""
        if state.is_world_process_zero:
            lines = original_lines(state.log_history, self.weights, self.n_parameters)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            write_text(RunFolder(str(args.output_dir)).original_log, text)


def original_lines(
    history: Sequence[Mapping[str, Any]], weights: Mapping[str, float], n_parameters: int
) -> list[dict[str, Any]]:
    """Lines of the original's log, one for each evaluation of ours.

    Args:
        history: Transformers' `log_history`.
        weights: of the parts of the loss, of the same in all layers.
        n_parameters: number of trained parameters.
    """
    lines = []
    for trained, evaluation in rows_of(history):
        line: dict[str, Any] = {}
        validated = {key.removeprefix("eval_"): value for key, value in evaluation.items() if key.startswith("eval_")}
        for split, values in (("train", trained), ("test", validated)):
            finite = {key: value for key, value in values.items() if isinstance(value, float) and math.isfinite(value)}
            line |= {f"{split}_{key}": value for key, value in _original_keys(finite, weights).items()}
        if "learning_rate" in trained:
            line["train_lr"] = trained["learning_rate"]
        line[BOXES] = [validated[key] for key, _, _ in COCO_METRICS if key in validated]
        masks = [validated[f"mask_{key}"] for key, _, _ in COCO_METRICS if f"mask_{key}" in validated]
        if masks:
            line[MASKS] = masks
        epoch = float(evaluation.get("epoch") or 0) - 1
        line |= {"epoch": round(epoch) if epoch.is_integer() else epoch, "n_parameters": n_parameters}
        lines.append(dict(sorted(line.items())))  # a checkpoint's log comes back with its names in another order
    return lines


def _original_keys(values: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    found = {key: values[key] for key in ("class_error", "loss") if key in values}
    for key, value in values.items():
        part = PART.fullmatch(key)
        if part is not None:
            found[f"{key}_unscaled"] = value
            if part[1] in weights:
                found[key] = weights[part[1]] * value
    return found


def read_original_log(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines of Transformers' log that say the same, and the evaluations with COCO's twelve numbers, by epoch.

    Where an epoch comes twice, since a training was begun again, the later line counts.

    Raises:
        DataError: it is no such log.
    """
    lines = {}
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if text.strip():
            line = _parse(path, number, text)
            lines[line["epoch"]] = line
    if not lines:
        raise DataError(f"{path}: expected the log of facebookresearch/detr, a JSON object an epoch, found nothing.")
    history, evaluations = [], list[dict[str, Any]]()
    for epoch in sorted(lines):
        line, after = lines[epoch], {"epoch": float(epoch + 1)}
        numbers = line.get(BOXES) or []
        metrics = dict(zip([key for key, _, _ in COCO_METRICS], numbers, strict=False))
        history.append({**after, **_own_keys(line, "train_", "")})
        history.append({**after, **_own_keys(line, "test_", "eval_"), **{f"eval_{k}": v for k, v in metrics.items()}})
        if metrics:
            evaluations.append({**after, "metrics": metrics})
    return history, evaluations


def _parse(path: Path, number: int, text: str) -> dict[str, Any]:
    """One line of a log."""
    try:
        line = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"{path}: line {number}: expected a JSON object, but {error}. It was cut off or is another program's; "
            "remove the line or the file."
        ) from error
    epoch = line.get("epoch") if isinstance(line, dict) else None
    numbers = line.get(BOXES, [-1.0] * len(COCO_METRICS)) if isinstance(line, dict) else []
    is_list = isinstance(numbers, list) and all(isinstance(value, int | float) for value in numbers)
    if not isinstance(epoch, int | float) or not is_list or len(numbers) != len(COCO_METRICS):
        raise DataError(
            f"{path}: line {number}: expected an epoch of facebookresearch/detr, with 'epoch' and {len(COCO_METRICS)} "
            f"numbers in '{BOXES}', found something else. Remove the line, or give another folder."
        )
    return line


def _own_keys(line: Mapping[str, Any], prefix: str, own: str) -> dict[str, float]:
    """Values of one split under the names of our log."""
    found = {}
    for key, value in line.items():
        name = key.removeprefix(prefix).removesuffix("_unscaled")
        is_part = key.endswith("_unscaled") and PART.fullmatch(name) is not None
        if key.startswith(prefix) and isinstance(value, int | float) and (is_part or name in ("loss", "class_error")):
            found[own + name] = float(value)
    if isinstance(line.get(f"{prefix}lr"), int | float):
        found["learning_rate"] = float(line[f"{prefix}lr"])
    return found
