"""Errors for people, of what stops a training or an evaluation in the middle."""

from datasets import Dataset

from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.errors import TrainingError
from hf_detr_ft.model.hungarian_matching import UnusableBatchError
from hf_detr_ft.recipe.sections import DetrTrainingArguments


def out_of_memory(doing: str, step: int, args: DetrTrainingArguments, batch: str, can_split: bool) -> TrainingError:
    """Error that names the batch which the device's memory does not suffice for.

    Args:
        doing: `training` or `evaluation`.
        step: at which it stopped.
        args: of the recipe.
        batch: images and shape.
        can_split: batches could be computed in parts, and are not.
    """
    remedies = ["lower model.shortest_edge and model.longest_edge"]
    if doing == "training" and args.train_batch_size > 1:
        remedies.insert(
            0,
            f"lower training.per_device_train_batch_size {args.train_batch_size} and raise "
            "training.gradient_accumulation_steps by as much",
        )
    if doing == "evaluation" and args.eval_batch_size > 1:
        remedies.insert(0, f"lower training.per_device_eval_batch_size {args.eval_batch_size}")
    if can_split:
        remedies.insert(0, "give --training.auto_find_batch_size, which computes such batches in parts")
    advice = "; or ".join(remedies)
    return TrainingError(
        f"{doing} stopped at step {step}: {args.device} is out of memory with {batch}. {advice[0].upper()}{advice[1:]}."
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
