"""Four training images learned by heart: what can learn at all can do that, in a minute with a small model."""

from dataclasses import replace
from typing import Any

from transformers import PrinterCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from hf_detr_ft.data.splits import build_splits
from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.diagnosis.log_probes import describe_parts, read_losses
from hf_detr_ft.diagnosis.schedule_probes import usual_rate
from hf_detr_ft.errors import TrainingError
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.recipe.sections import AugmentConfig, ModelConfig, Recipe
from hf_detr_ft.training.callbacks import ProgressLines
from hf_detr_ft.training.job import prepare_trial

IMAGES = 4
STEPS, EVERY = 150, 10
"""Steps at most, and steps between evaluations."""
ENOUGH = 0.5
"""AP50 on the four images that shows that they are learned."""
EDGES = (480, 800)
"""Most pixels of short and long side of images that keep their shape: larger ones would take minutes on a CPU."""


class StopAtEnough(ProgressCallback):
    """Ends a training as soon as an evaluation is good enough; shows a bar meanwhile, and no lines."""

    def __init__(self) -> None:
        super().__init__()
        self.best = 0.0

    def on_log(self, *_: Any, **__: Any) -> None:
        """Prints nothing."""

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        """Looks at AP50."""
        self.best = max(self.best, float((metrics or {}).get("eval_map_50", 0.0)))
        control.should_training_stop = control.should_training_stop or self.best >= ENOUGH


def overfit(case: Case) -> Finding | None:
    """Four training images that the model cannot learn by heart, without augmentation and at a usual rate."""
    sample = case.sample("train", IMAGES)
    data = replace(case.recipe.data, train_limit=None, val_limit=None, classes={})
    splits = build_splits(data, {"train": sample, "val": sample}, [])
    recipe = _by_heart(case.job.recipe, usual_rate(case), str(case.folder / "by_heart"), len(splits.train))
    job, stop = prepare_trial(recipe, splits), StopAtEnough()
    for printing in (PrinterCallback, ProgressLines):
        job.trainer.remove_callback(printing)
    job.trainer.add_callback(stop)
    cause = f"the model cannot learn {pluralize(len(splits.train), 'image')} of training by heart"
    try:
        job.trainer.train()
    except TrainingError as error:
        return Finding.of_error(cause, error)
    if stop.best >= ENOUGH:
        return None
    steps, losses = job.trainer.state.global_step, read_losses(job.trainer.state.log_history)
    return Finding(
        cause,
        f"AP50 on them is {stop.best:.2f} after {steps} steps without augmentation; {describe_parts(losses)}",
        "the fault is in the model's settings, or in images and boxes as they reach it: look at these with `hf-detr-ft "
        "check --report`; try the recipe with model.config {} and another model.checkpoint",
    )


def _by_heart(recipe: Recipe, rate: float, folder: str, images: int) -> Recipe:
    """The recipe with few steps over the same images, without augmentation, schedule and files."""
    settings = {
        "output_dir": folder,
        "max_steps": STEPS,
        "learning_rate": max(recipe.training.learning_rate, rate),
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "learning_rate_drop_epoch": None,
        "ema_decay": None,
        "per_device_train_batch_size": images,
        "per_device_eval_batch_size": images,
        "gradient_accumulation_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": EVERY,
        "eval_epochs": 1,
        "logging_steps": EVERY,
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "early_stopping_patience": None,
        "dataloader_drop_last": False,
    }
    augment = AugmentConfig(preset="none")
    return replace(recipe.with_training(**settings), augment=augment, model=_smaller(recipe.model))


def _smaller(config: ModelConfig) -> ModelConfig:
    edges = min(config.shortest_edge, EDGES[0]), min(config.longest_edge, EDGES[1])
    return replace(config, shortest_edge=edges[0], longest_edge=edges[1])
