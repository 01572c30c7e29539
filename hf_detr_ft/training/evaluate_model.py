"""A model run over a recipe's validation or test split."""

import json
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import cast

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel, PrinterCallback

from hf_detr_ft.data.checks.problems import Problem, require_no_errors
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import prepare_coco
from hf_detr_ft.data.image_size import ImageProcessor, ImageSize
from hf_detr_ft.data.once_per_machine import once_per_machine
from hf_detr_ft.data.split_source import Source
from hf_detr_ft.data.splits import check_split
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.coco_result import CocoResult
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.families import family_of
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.model.processor import load_processor
from hf_detr_ft.model.speed.apply_speed import apply_speed
from hf_detr_ft.model.speed.bf16_backbone import choose_backbone_precision
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.run_folder import CONFIG, RunFolder
from hf_detr_ft.training.callbacks import print_progress_lines
from hf_detr_ft.training.job import Job, show_progress
from hf_detr_ft.training.trainer import DetrTrainer


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of an evaluation, and the data it is of.

    Attributes:
        result: the numbers.
        detections: what they were computed from.
        truth: the COCO dict that was evaluated on.
        rows: rows of `load_split`, one for each image.
        model: the model that ran, in evaluation mode.
        processor: its processor.
    """

    result: CocoResult
    detections: Detections
    truth: dict
    rows: Dataset
    model: Detector
    processor: ImageProcessor


@dataclass(frozen=True, eq=False)
class SplitRows:
    """A split as a model is evaluated on it.

    Attributes:
        truth: the COCO dict that AP is computed against.
        label_map: the model's labels with the data's category ids.
        rows: of `load_split`, one for each image.
    """

    truth: dict
    label_map: LabelMap
    rows: Dataset


def load_rows(
    recipe: Recipe,
    model: PreTrainedModel,
    processor: ImageProcessor,
    source: str,
    split: Source | None = None,
    name: str = "val",
) -> SplitRows:
    """Reads and checks a split for a model, once on each machine.

    Args:
        recipe: whose `data` section says what is read.
        model: whose classes the data's are matched with.
        processor: the model's own.
        source: what messages call the model.
        split: see `evaluate_model`.
        name: "train", "val" or "test".
    """
    data = recipe.data

    def load() -> SplitRows:
        found, problems = split, list[Problem]()
        if found is None:
            size, masks = ImageSize.from_processor(processor), family_of(model).masks
            found, problems = check_split(data, name, size, decode=False, progress=show_progress, masks=masks)
        require_no_errors(problems)
        truth = prepare_coco(found.coco, data.val_limit if name == "val" else None, found.masks)
        label_map = match_classes(model.config, truth, source)
        return SplitRows(truth, label_map, found.load(truth, label_map))

    return once_per_machine(load)


def evaluate_model(source: str, recipe: Recipe, split: Source | None = None, name: str = "val") -> Evaluation:
    """Runs a model over the validation or the test split of a recipe.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        recipe: whose data, batch sizes and measures for speed are used.
        split: the split where it was read and checked already; its images are not looked at beforehand.
        name: "val" or "test".
    """
    data = recipe.data
    model = cast(Detector, load_for_inference(source, with_loss=True))
    processor = load_processor(Checkpoint(source))
    apply_speed(model, recipe.speed, training=False)

    loaded = load_rows(recipe, model, processor, source, split, name)
    with TemporaryDirectory() as folder:
        args = recipe.with_training(
            bf16=False, fp16=False, mixed_precision="no", report_to=[], output_dir=folder
        ).training
        torch.nn.Module.to(model, args.device)
        choose_backbone_precision(model, None if recipe.training.bf16 else False)
        trainer = DetrTrainer(
            model,
            args,
            train_dataset=None,
            eval_dataset=transformed(loaded.rows, DetrTransform(processor, on_bad_image=data.on_bad_image)),
            truth=loaded.truth,
            label_map=loaded.label_map,
            processor=processor,
            backend=recipe.evaluation.backend,
            max_detections=recipe.evaluation.max_detections,
        )
        print_progress_lines(trainer)
        trainer.remove_callback(PrinterCallback)  # the table says it
        trainer.evaluate()
    assert trainer.result is not None and trainer.detections is not None
    return Evaluation(trainer.result, trainer.detections, loaded.truth, loaded.rows, model, processor)


def evaluate_test(job: Job) -> None:
    """Evaluates the weights that are kept on the test split, where there is one, and notes the result for metrics.json.

    A run that goes on after its end has the result of this step and these annotations: nothing is evaluated twice.
    """
    trainer, results, test = job.trainer, job.results, job.splits.test
    kept = results.best if trainer.args.load_best_model_at_end else results.last
    if test is None or kept is None:
        return
    of = {"epoch": kept["epoch"], "step": kept["step"], "annotations_sha256": test.fingerprint}
    before = RunFolder(str(trainer.args.output_dir)).read_metrics().get("test")
    found = broadcast_object_list([before])[0] or {}  # other machines may not have the folder
    if any(found.get(name) != value for name, value in of.items()):
        processor = cast(ImageProcessor, trainer.processing_class)
        rows = transformed(test.rows, DetrTransform(processor, on_bad_image=job.recipe.data.on_bad_image))
        found = {**of, **trainer.evaluate_test(rows, test.truth)}
    results.about["test"] = found


def match_classes(config: PreTrainedConfig, truth: dict, source: str) -> LabelMap:
    """Labels of a model with the category ids that the data have for them.

    The ids that the model was trained with are taken where they agree with the data: no id means one class here and
    another there. What is left then goes by name, and all does where the ids disagree or the model knows none. Classes
    that the data do not know get negative ids, which `to_detections` leaves out.

    Args:
        config: the model's config.json.
        truth: a COCO dict.
        source: what messages call the model.

    Raises:
        DataError: the data have objects of classes that the model was not made for, or a name could mean two classes.
    """
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    data = {category["id"]: category["name"] for category in truth["categories"]}
    trained = getattr(config, "category_ids", None) or []
    shared = {id_: (name, data[id_]) for id_, name in zip(trained, names, strict=False) if id_ in data}
    agree = len(trained) == len(names) and all(ours == theirs for ours, theirs in shared.values())
    ids = {label: id_ for label, id_ in enumerate(trained) if id_ in shared} if agree else {}
    left = {id_: name for id_, name in data.items() if id_ not in ids.values()}
    by_name = {label: name for label, name in enumerate(names) if label not in ids and name in left.values()}
    twice = {name for name in by_name.values() if names.count(name) > 1 or list(data.values()).count(name) > 1}
    if twice:
        raise DataError(
            f"{json.dumps(sorted(twice)[:10])} is the name of several classes in the data or of '{source}', and their "
            "ids do not tell which is which. Give each class a name of its own, in the annotations and in the model's "
            f"{CONFIG} (id2label)."
        )
    place = {name: id_ for id_, name in left.items()}
    ids |= {label: place[name] for label, name in by_name.items()}
    used = {annotation["category_id"] for annotation in truth["annotations"]}
    unknown = sorted(name for id_, name in data.items() if id_ in used and id_ not in ids.values())
    if unknown:
        raise DataError(
            f"'{source}' knows the classes {json.dumps(names[:10])}; the data have objects of "
            f"{json.dumps(unknown[:10])}. Evaluate on data with the model's class names, or fine-tune on these."
        )
    return LabelMap(tuple(ids.get(label, -1 - label) for label in range(len(names))), tuple(names))
