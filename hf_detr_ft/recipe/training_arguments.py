"""Fields of a recipe's `training` section: Transformers' `TrainingArguments` with DETR's values."""

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import TrainingArguments

from hf_detr_ft.recipe.sections import bounded


@dataclass
class DetrTrainingArguments(TrainingArguments):
    """Transformers' `TrainingArguments`, whole, with DETR's values, and a few fields of our own.

    https://huggingface.co/docs/transformers/main_classes/trainer describes every inherited field.
    """

    output_dir: str | None = None
    """The run folder; runs/NAME-OF-THE-RECIPE where not set."""
    overwrite: bool = False
    """Remove what is in the run folder. Without it, a run folder that exists stops the run."""
    preset: Literal["auto"] | None = None
    """`auto`: choose what the recipe leaves out of epochs, batch, drop of the rates, evaluations, class rows, queries
    and frozen parts, by the numbers of images, objects and classes and the memory that is there; each choice is said
    with its reason, and saved with the run, see docs/few_images.md (DETR: none)."""
    learning_rate: float = bounded(1e-4, 0)
    """Learning rate of the transformer and the heads, for AdamW (DETR: 1e-4)."""
    backbone_learning_rate: float = bounded(1e-5, 0)
    """Learning rate of the backbone, for AdamW (DETR: 1e-5)."""
    weight_decay: float = bounded(1e-4, 0)
    """Weight decay of matrices and convolutions (DETR: 1e-4)."""
    decay_all: bool = False
    """Decay norms, biases and other vectors, too (DETR: yes)."""
    max_grad_norm: float = bounded(0.1, 0)
    """Gradients are clipped to this L2 norm (DETR: 0.1)."""
    num_train_epochs: float = bounded(50.0, 0)
    """Passes over the training images (DETR: 300 or 500 from scratch on COCO)."""
    per_device_train_batch_size: int = bounded(4, 1)
    """Images a step on each device (DETR: 4 on each of 16 GPUs)."""
    gradient_accumulation_steps: int = bounded(1, 1)
    """Batches whose gradients add up to those of one step; half the batch and twice the steps give the same gradients
    (DETR: 1)."""
    per_device_eval_batch_size: int = bounded(4, 1)
    """Images an evaluation batch on each device."""
    auto_find_batch_size: bool = False
    """Compute a batch that does not fit the device's memory in halves, quarters, … whose gradients add up to the same,
    instead of stopping; evaluation, too. In one process (DETR: no)."""
    lr_scheduler_type: str = "constant"
    """Shape of the learning rate over time (DETR: constant, with one drop)."""
    learning_rate_drop_epoch: float | None = bounded(None, 0)
    """Divide all learning rates by 10 after this epoch, with lr_scheduler_type constant (DETR: 200 of 300)."""
    ema_decay: float | None = bounded(None, 0, 0.99999)
    """Keep an exponential moving average of the weights, which is evaluated and saved in their place: the share that it
    keeps of itself in a step, at most (1 + step) / (10 + step), so that it never reaches back further than about the
    last ninth of a run. Checkpoints have both weights, 4 bytes a parameter more, and so has the device. Not set:
    the original's, 0.9999 for RT-DETR and D-FINE, 0.9997 for LW-DETR, 0.993 for RF-DETR; null: none (DETR: none)."""
    bf16: bool | None = None  # type: ignore[assignment]
    """Train in mixed precision with bfloat16; false for fp32. Where neither this nor fp16 is set: what `accelerate
    launch` was told; else bf16 on a GPU that computes in it, fp16 on an older one; on a CPU whichever of bf16 and fp32
    trains a convolution faster (DETR: fp32)."""
    seed: int = bounded(42, 0, 2**32 - 1)
    """Seed of new weights, of dropout and, where data_seed is not set, of the images' order and augmentation (DETR:
    42)."""
    data_seed: int | None = bounded(None, 0, 2**32 - 1)
    """Seed of the images' order and augmentation, where it is to differ from `seed` (DETR: the same)."""
    early_stopping_patience: int | None = bounded(None, 1)
    """Stop after so many evaluations in a row without a better AP; never where not set (DETR: never)."""
    eval_strategy: str = "epoch"
    """Time of evaluations: no, steps or epoch (DETR: epoch)."""
    eval_epochs: int = bounded(1, 1)
    """Evaluate, and save, only in every nth epoch, and in the last one (DETR: 1)."""
    save_strategy: str = "epoch"
    """Time of checkpoints: no, steps, epoch or best."""
    save_total_limit: int | None = 2
    """Number of checkpoints to keep; the best one is among them."""
    load_best_model_at_end: bool = True
    """Put the weights of the best AP, not the last ones, into the run folder."""
    metric_for_best_model: str | None = "map"
    """The number that the best weights have: map is COCO's AP over IoU 0.50 to 0.95."""
    greater_is_better: bool | None = None
    """True where more of it is better; true for every AP where not set."""
    logging_steps: float = 10
    """Steps between two lines of losses."""
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = "group_by_length"
    """Order of training images; group_by_length batches those that have like shapes after augmentation, which spares
    padding (DETR: random)."""
    dataloader_num_workers: int | None = None  # type: ignore[assignment]
    """Processes that decode and augment; where not set 0 on a CPU, beside a GPU its share of the cores, up to 8 (DETR:
    2)."""
    remove_unused_columns: bool = False
    """Has to stay false: a row's columns become the model's inputs later."""
    ddp_find_unused_parameters: bool | None = False
    """Every parameter that is trained is used in every step, so there is nothing to search for."""
    logging_nan_inf_filter: bool = False
    """Log the average in place of a loss that is not finite; to look for one, host and device wait for each other in
    every step. Predictions that are not finite stop a training anyway (DETR: no)."""
    report_to: str | list[str] | None = "none"
    """Places that scalars go to: none, tensorboard, wandb, mlflow, … or a list of them."""

    def __post_init__(self) -> None:
        self.bf16 = bool(self.bf16)
        self.dataloader_num_workers = self.dataloader_num_workers or 0
        self.dataloader_persistent_workers = self.dataloader_num_workers > 0
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False
        # Transformers wants it said that a machine without an accelerator trains on its CPU, before it allows bf16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.dataloader_pin_memory and not self.use_cpu and self.accelerator_config is None:
            self.accelerator_config = {"non_blocking": True}  # a batch is some ten small tensors for each image
        super().__post_init__()
        self.label_names = ["labels"]
        # DataParallel would split the labels' tensors instead of the list; several GPUs take `accelerate launch`.
        self._n_gpu = min(1, self.n_gpu)

    @property
    def seed_of_images(self) -> int:
        """Seed of the images' order, augmentation and sizes."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def precision(self) -> str:
        """Precision that training computes in: bf16, fp16 or fp32."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "fp32"
