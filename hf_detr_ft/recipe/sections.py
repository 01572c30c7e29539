"""The recipe: what can be set, with units and the original DETR's values. `recipe_file.py` reads and writes it."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from hf_detr_ft.machine import fastest_precision


@dataclass
class DataConfig:
    """Images and COCO annotations of the training and the validation split."""

    name: str = "custom"
    """Name of the data set in messages and on the model card."""
    root: str | None = None
    """Folder that the paths below are relative to; the current folder where it is not set."""
    train_annotations: str = "annotations/custom_train.json"
    """COCO JSON of the training images (the original: annotations/instances_train2017.json)."""
    train_images: str = "train2017"
    """Folder of the training images (the original's name)."""
    val_annotations: str = "annotations/custom_val.json"
    """COCO JSON of the validation images (the original: annotations/instances_val2017.json)."""
    val_images: str = "val2017"
    """Folder of the validation images (the original's name)."""
    train_limit: int | None = None
    """Use only the first so many training images that have objects; all where not set (the original: all)."""
    val_limit: int | None = None
    """Use only the first so many validation images that have objects; all where not set (the original: all)."""
    synthetic_images: int | None = None
    """Draw so many training photos instead of reading any: those of `hf-detr-ft get synthetic`, without files of your
    own. They are drawn once and kept in the cache of `datasets` (HF_DATASETS_CACHE)."""
    synthetic_val_images: int = 200
    """Draw so many validation photos, none of them in training. As all fields below, without meaning where
    synthetic_images is not set."""
    synthetic_classes: list[str] | None = None
    """Classes to draw and annotate, such as [balloon, star]; all of the generator's where not set."""
    synthetic_seed: int = 0
    """Of the drawn photos: another set of them for each seed."""
    synthetic_short_side: tuple[int, int] = (240, 320)
    """Least and largest short side of the drawn photos in pixels, such as [64, 96]."""

    def path(self, name: str) -> Path:
        """Where `train_annotations`, `train_images`, `val_annotations` or `val_images` lies."""
        return Path(self.root or ".").expanduser() / Path(getattr(self, name)).expanduser()


@dataclass
class AugmentConfig:
    """What is done to training images; evaluation sees every image as it is."""

    preset: Literal["detr", "light", "none"] = "detr"
    """`detr`: the original's flip, multi-scale resize and crop; `light`: flip and mild colours; `none`: nothing."""
    horizontal_flip: float | None = None
    """Probability of a mirror image; the preset's where not set (the original: 0.5)."""
    vertical_flip: float | None = None
    """Probability of an upside-down image; the preset's where not set (the original: 0)."""
    random_crop: float | None = None
    """Probability of a crop before the final resize; the preset's where not set (the original: 0.5)."""
    multi_scale: bool | None = None
    """Draw the short side from 60 % to 100 % of model.shortest_edge; the preset's where not set (the original: yes)."""
    color_jitter: float | None = None
    """Strength of random brightness, contrast and saturation, 0 to 1; the preset's where not set (the original: 0)."""
    rotate: float | None = None
    """Largest random rotation in degrees; boxes grow around the rotated ones (the original: 0)."""
    min_visibility: float = 0.1
    """A box of which a crop leaves a smaller share of its area than this goes (the original keeps every rest)."""


@dataclass
class ModelConfig:
    """The network: a DETR checkpoint to fine-tune, or a new DETR on a timm backbone."""

    checkpoint: str | None = "facebook/detr-resnet-50"
    """Hub id, folder or `package:NAME/PATH` of a `DetrForObjectDetection`; null to start from `backbone`. The tiny DETR
    that comes with this package is `package:hf_detr_ft/tiny_detr`."""
    revision: str | None = None
    """Branch, tag or commit of the checkpoint on the Hub; its default branch where not set."""
    shortest_edge: int = 800
    """Pixels of an image's short side after resizing (the original: 800)."""
    longest_edge: int = 1333
    """Most pixels of an image's long side after resizing (the original: 1333)."""
    square_edge: int | None = None
    """Resize every image to a square of so many pixels a side instead, whatever its shape. A small model learns places
    sooner on a map of one shape, and nothing is padded (the original keeps the shape)."""
    auxiliary_losses: bool = True
    """Compute the loss behind every decoder layer, not only the last (the original: yes)."""
    trainable_stages: list[str] | None = None
    """Backbone stages to train, such as [layer3, layer4]; [all]; [] for none; the original's layer2 to layer4
    (everything behind a stride of 4) where not set."""
    config: dict[str, Any] = field(default_factory=dict)
    """Other fields of `transformers.DetrConfig`, such as `dropout` (the original: 0.1) or `num_queries` (100)."""
    backbone: str | None = None
    """timm model to build a new DETR on, with `checkpoint: null` (the original: resnet50)."""
    backbone_weights: str | None = None
    """ImageNet weights of `backbone`: a local file, `package:NAME/PATH` in a Python package, or `timm` for its own."""
    backbone_stride: int = 32
    """Pixels of the image per step of the feature map that the transformer reads (the original: 32; DC5: 16)."""


@dataclass
class EvaluationConfig:
    """How AP is computed."""

    backend: Literal["faster-coco-eval", "pycocotools"] = "faster-coco-eval"
    """`pycocotools` is the reference; the other one gives the same numbers several times as fast."""
    batch_size: int | None = None
    """Images a batch on each device; training.per_device_eval_batch_size where not set."""


@dataclass
class SpeedConfig:
    """What is done to be fast. None of it changes what is learned, each can be switched off alone."""

    fold_frozen_norms: bool = True
    """Let convolutions do the work of the frozen batch norms behind them (the original: no)."""
    channels_last: bool = True
    """Keep images and maps in the order in which convolutions are fastest (the original: no)."""
    fp32_attention: bool = True
    """Compute the products of attention in fp32 where a CPU trains in bf16, whose kernel there takes several times as
    long backward (the original: all in fp32)."""
    store_gigabytes: float = 4.0
    """Decode and resize the photos once and keep them in the cache of `datasets` (HF_DATASETS_CACHE), each split that
    takes no more than this; 0 to decode them anew in every epoch (the original does)."""
    reduced_decoding: bool = True
    """Decode training JPEGs that are not kept at a half, a quarter or an eighth of their size, where that is no smaller
    than the model takes them (the original: no)."""
    size_step: int | None = None
    """Pad training batches to multiples of so many pixels, so that their shapes come again: for each new shape a CPU
    has to prepare every convolution anew. Where not set an eighth of the short side on a CPU where augmentation
    draws shapes, else 1 (the original: 1)."""
    compile_backbone: bool = False
    """Compile the backbone with torch.compile, once for images of all shapes. On a CPU that takes a C++ compiler and a
    minute or two, which a long training wins back (the original: no)."""
    cpu_threads: int | None = None
    """Threads of each process on a CPU. Where not set, those that OMP_NUM_THREADS says, or the processes of a machine
    share its cores; `accelerate launch` alone would leave one thread to each."""


@dataclass
class DetrTrainingArguments(TrainingArguments):
    """Transformers' `TrainingArguments`, whole, with the original DETR's values, and a few fields of our own.

    https://huggingface.co/docs/transformers/main_classes/trainer describes every inherited field.
    """

    output_dir: str | None = None
    """The run folder; runs/NAME-OF-THE-RECIPE where not set."""
    overwrite: bool = False
    """Remove what is in the run folder. Without it, a run folder that exists stops the run."""
    learning_rate: float = 1e-4
    """Of the transformer and the heads, for AdamW (the original: 1e-4)."""
    backbone_learning_rate: float = 1e-5
    """Of the backbone, for AdamW (the original: 1e-5)."""
    weight_decay: float = 1e-4
    """Of matrices and convolutions; norms and biases are not decayed (the original: 1e-4, on everything)."""
    max_grad_norm: float = 0.1
    """Gradients are clipped to this L2 norm (the original: 0.1)."""
    num_train_epochs: float = 50.0
    """Passes over the training images (the original: 300 or 500 from scratch on COCO)."""
    per_device_train_batch_size: int = 4
    """Images a step on each device (the original: 4 on each of 16 GPUs)."""
    per_device_eval_batch_size: int = 4
    """Images an evaluation batch on each device."""
    lr_scheduler_type: str = "constant"
    """Shape of the learning rate over time (the original: constant, with one drop)."""
    learning_rate_drop_epoch: float | None = None
    """Divide all learning rates by 10 after this epoch, with lr_scheduler_type constant (the original: 200 of 300)."""
    bf16: bool | None = None  # type: ignore[assignment]
    """Train in mixed precision with bfloat16. Where neither this nor fp16 is set, the machine times a convolution in
    each precision and takes a faster one than fp32; false for fp32 (the original: fp32)."""
    early_stopping_patience: int | None = None
    """Stop after so many evaluations in a row without a better AP; never where not set (the original: never)."""
    eval_strategy: str = "epoch"
    """When to evaluate: no, steps or epoch (the original: epoch)."""
    eval_epochs: int = 1
    """Evaluate, and save, only in every nth epoch, and in the last one (the original: 1)."""
    save_strategy: str = "epoch"
    """When to write a checkpoint: no, steps, epoch or best."""
    save_total_limit: int | None = 2
    """How many checkpoints to keep; the best one is among them."""
    load_best_model_at_end: bool = True
    """Put the weights of the best AP, not the last ones, into the run folder."""
    metric_for_best_model: str | None = "map"
    """The number that the best weights have: map is COCO's AP over IoU 0.50 to 0.95."""
    greater_is_better: bool | None = None
    """Whether more of it is better; true for every AP where not set."""
    logging_steps: float = 10
    """Steps between two lines of losses."""
    train_sampling_strategy: Literal["random", "sequential", "group_by_length", "batch_rebalance"] = "group_by_length"
    """group_by_length batches images that have like shapes after augmentation, which spares padding (the original:
    random)."""
    length_column_name: str = "aspect_ratio"
    """The column that batch_rebalance goes by."""
    dataloader_num_workers: int | None = None  # type: ignore[assignment]
    """Processes that decode and augment; where not set 0 on a CPU, beside a GPU its share of the cores, up to 8 (the
    original: 2)."""
    remove_unused_columns: bool = False
    """Has to stay false: a row's columns become the model's inputs later."""
    ddp_find_unused_parameters: bool | None = False
    """Every parameter that is trained is used in every step, so there is nothing to search for."""
    report_to: str | list[str] | None = "none"
    """Where scalars go: none, tensorboard, wandb, mlflow, … or a list of them."""

    def __post_init__(self) -> None:
        # Transformers wants it said that a machine without an accelerator trains on its CPU, before it allows bf16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.bf16 is None:
            launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            chosen = not self.fp16 and launched == "no"
            fastest = fastest_precision(self._device_type()) if chosen else "no"
            self.bf16, self.fp16 = fastest == "bf16", self.fp16 or fastest == "fp16"
        if self.dataloader_num_workers is None:
            on_gpu = torch.cuda.is_available() and not self.use_cpu
            cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            self.dataloader_num_workers = min(8, max(1, cores - 1)) if on_gpu else 0
        self.dataloader_persistent_workers = self.dataloader_num_workers > 0
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False
        if self.use_cpu:
            self.dataloader_pin_memory = False
        super().__post_init__()
        self.label_names = ["labels"]
        # DataParallel would split the labels' tensors instead of the list; several GPUs take `accelerate launch`.
        self._n_gpu = min(1, self.n_gpu)

    def _device_type(self) -> str:
        accelerator = None if self.use_cpu else torch.accelerator.current_accelerator()
        return "cpu" if accelerator is None else accelerator.type

    @property
    def precision(self) -> str:
        """bf16, fp16 or fp32."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "fp32"


@dataclass
class Recipe:
    """A whole training job."""

    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig
    evaluation: EvaluationConfig
    speed: SpeedConfig
    training: DetrTrainingArguments
    resolved: dict[str, Any]
    """Sections and values as given and defaulted, plain enough for YAML; `recipe_file.save_recipe` writes them."""
