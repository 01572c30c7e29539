"""Errors for people, of what stops a training or an evaluation in the middle."""

from datasets import Dataset

from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.errors import TrainingError
from hf_detr_ft.model.hungarian_matching import UnusableBatchError
from hf_detr_ft.recipe.sections import DetrTrainingArguments


def out_of_memory(doing: str, step: int, args: DetrTrainingArguments) -> TrainingError:
    """Error that names the batch size which the device's memory does not suffice for.

    Args:
        doing: `training` or `evaluation`.
        step: at which it stopped.
        args: of the recipe.
    """
    if doing == "training":
        field, size = "per_device_train_batch_size", args.train_batch_size
        remedy = "Lower it and raise training.gradient_accumulation_steps by as much, which gives the same gradients"
    else:
        field, size, remedy = "per_device_eval_batch_size", args.eval_batch_size, "Lower it"
    return TrainingError(
        f"{doing} stopped at step {step}: {args.device} is out of memory with training.{field} {size}. {remedy}, or "
        "lower model.shortest_edge and model.longest_edge."
    )


def unusable_batch(error: UnusableBatchError, doing: str, step: int, dataset: Dataset, classes: int) -> TrainingError:
    """Error that names the files of the images which cannot be learned from, and a remedy.

    Args:
        error: of the criterion.
        doing: `training` or `evaluation`.
        step: at which it stopped.
        dataset: of the images.
        classes: of the model.
    """
    columns = (read_column(dataset, name) for name in ("image_id", "file_name"))
    names = dict(zip(*columns, strict=True))
    images = ", ".join(f"{names.get(image_id, '?')} (image id {image_id})" for image_id in error.image_ids)
    remedy = {
        "labels are out of range": f"Expected labels 0 to {classes - 1}; run `hf-detr-ft check`.",
        "boxes are not finite": "Run `hf-detr-ft check` on the annotations.",
    }.get(error.reason, "Lower training.learning_rate, or set training.bf16 and training.fp16 to false.")
    return TrainingError(f"{doing} stopped at step {step}: {error.reason} for {images}. {remedy}")
