"""Sections and fields of a recipe, with their units and limits and with DETR's values (facebookresearch/detr)."""

import copy
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments


def bounded(default: Any, least: float, most: float = math.inf) -> Any:
    """Dataclass field with a default and limits, both included; `files.py` refuses values outside."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass
class DataConfig:
    """Images and COCO annotations of the training and the validation split."""

    name: str = "custom"
    """Name of the data set in messages and on the model card."""
    root: str | None = None
    """Folder that the paths below are relative to; the current folder where it is not set."""
    train_annotations: str = "annotations/custom_train.json"
    """COCO JSON of the training images (DETR: annotations/instances_train2017.json)."""
    train_images: str = "train2017"
    """Folder of the training images (DETR: the same)."""
    val_annotations: str = "annotations/custom_val.json"
    """COCO JSON of the validation images (DETR: annotations/instances_val2017.json)."""
    val_images: str = "val2017"
    """Folder of the validation images (DETR: the same)."""
    file_names: Literal["exact", "similar"] = "exact"
    """`similar`: take a file_name that no file has for the one image file below the folder whose name differs only in
    slashes, folder, suffix, percent signs, Unicode form or case; `check` says where that reads all images
    (DETR: exact)."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """`skip`: go on without a photo that becomes unreadable meanwhile, and count it in metrics.json and on the model
    card; one of validation counts as a photo on which nothing was found (DETR: stop)."""
    white_level: int | None = bounded(None, 1, 65535)
    """Value that is white in images of 16 bits, such as 4095 from a camera of 12 bits; 65535 where not set
    (DETR: 255, as images of 8 bits have it)."""
    train_limit: int | None = bounded(None, 1)
    """Use only the first so many training images that have objects; all where not set (DETR: all)."""
    val_limit: int | None = bounded(None, 1)
    """Use only the first so many validation images that have objects; all where not set (DETR: all)."""
    synthetic_images: int | None = bounded(None, 1, 10**9)
    """Draw so many training photos instead of reading any: those of `hf-detr-ft get synthetic`, without files of your
    own. They are drawn once and kept in the cache of `datasets` (HF_DATASETS_CACHE)."""
    synthetic_val_images: int = bounded(200, 1, 10**9)
    """Draw so many validation photos, none of them in training. As all fields below, without meaning where
    synthetic_images is not set."""
    synthetic_classes: list[str] | None = None
    """Classes to draw and annotate, such as [balloon, star]; all of the generator's where not set."""
    synthetic_seed: int = bounded(0, 0)
    """Seed of the drawn photos; each gives another set of them."""
    synthetic_short_side: tuple[int, int] = (240, 320)
    """Least and largest short side of the drawn photos in pixels, such as [64, 96]."""

    def path(self, name: str) -> Path:
        """Path of `train_annotations`, `train_images`, `val_annotations` or `val_images` lies."""
        return Path(self.root or ".").expanduser() / Path(getattr(self, name)).expanduser()


@dataclass
class AugmentConfig:
    """Augmentation of training images; evaluation sees every image as it is."""

    preset: Literal["detr", "light", "none"] = "detr"
    """`detr`: DETR's flip, multi-scale resize and crop; `light`: flip and mild colours; `none`: nothing
    (DETR: detr)."""
    horizontal_flip: float | None = bounded(None, 0, 1)
    """Probability of a mirror image; the preset's where not set (DETR: 0.5)."""
    vertical_flip: float | None = bounded(None, 0, 1)
    """Probability of an upside-down image; the preset's where not set (DETR: 0)."""
    random_crop: float | None = bounded(None, 0, 1)
    """Probability of a crop before the final resize; the preset's where not set (DETR: 0.5)."""
    multi_scale: bool | None = None
    """Draw the short side from 60 % to 100 % of model.shortest_edge; the preset's where not set (DETR: yes)."""
    color_jitter: float | None = bounded(None, 0, 1)
    """Strength of random brightness, contrast and saturation, 0 to 1; the preset's where not set (DETR: 0)."""
    rotate: float | None = bounded(None, 0, 180)
    """Largest random rotation in degrees; boxes grow around the rotated ones (DETR: 0)."""
    min_visibility: float = bounded(0.1, 0, 1)
    """A box of which a crop leaves a smaller share of its area than this goes (DETR keeps every rest)."""


@dataclass
class ModelConfig:
    """The network: a checkpoint of a DETR of any kind to fine-tune, or a new one on a timm backbone."""

    checkpoint: str | None = "facebook/detr-resnet-50"
    """Hub id, folder or `package:NAME/PATH` of a DETR of any kind; null to start from `backbone`. The tiny DETR
    that comes with this package is `package:hf_detr_ft/tiny_detr`."""
    revision: str | None = None
    """Branch, tag or commit of the checkpoint on the Hub; its default branch where not set."""
    shortest_edge: int = bounded(800, 1)
    """Pixels of an image's short side after resizing (DETR: 800)."""
    longest_edge: int = bounded(1333, 1)
    """Most pixels of an image's long side after resizing (DETR: 1333)."""
    square_edge: int | None = bounded(None, 1)
    """Resize every image to a square of so many pixels a side instead, whatever its shape. A small model learns places
    sooner on a map of one shape, and nothing is padded (DETR keeps the shape)."""
    auxiliary_losses: bool = True
    """Compute the loss behind every decoder layer, not only the last (DETR: yes)."""
    trainable_stages: list[str] | None = None
    """Backbone stages to train, such as [layer3, layer4]; [all]; [] for none. Where not set everything
    behind a stride of 4 (DETR: the same, layer2 to layer4)."""
    config: dict[str, Any] = field(default_factory=dict)
    """Other fields of `transformers.DetrConfig`, or of the config of the model's kind, such as `dropout` (DETR: 0.1) or
    `num_queries` (100)."""
    backbone: str | None = None
    """Name of the timm model to build a new DETR on, with `checkpoint: null` (DETR: resnet50)."""
    family: str | None = None
    """Kind of DETR to build on `backbone`: detr, rt_detr, rt_detr_v2, d_fine, deformable_detr, conditional_detr or
    dab-detr; detr where not set. A checkpoint says itself what it is (DETR: detr)."""
    backbone_weights: str | None = None
    """ImageNet weights of `backbone`: a local file, `package:NAME/PATH` in a Python package, or `timm` for its own."""
    backbone_stride: int = 32
    """Pixels of the image per step of the feature map that the transformer reads (DETR: 32; DC5: 16)."""


@dataclass
class EvaluationConfig:
    """Computation of AP."""

    backend: Literal["faster-coco-eval", "pycocotools"] = "faster-coco-eval"
    """`pycocotools` is the reference; the other one gives the same numbers several times as fast."""


@dataclass
class ReportConfig:
    """The report at the end of a training."""

    enabled: bool = True
    """Write report.html and plots/predictions.png; `hf-detr-ft report RUN` makes them later, too (DETR: none)."""


@dataclass
class SpeedConfig:
    """Measures for speed. None of them changes what is learned, and each can be switched off alone."""

    fold_frozen_norms: bool = True
    """Let convolutions do the work of the frozen batch norms behind them (DETR: no)."""
    channels_last: bool = True
    """Keep images and maps in the order in which convolutions are fastest (DETR: no)."""
    fp32_attention: bool = True
    """Compute the products of attention in fp32 where a CPU trains in bf16, whose kernel there takes several times as
    long backward (DETR: all in fp32)."""
    store_gigabytes: float = bounded(4.0, 0)
    """Decode and resize the photos once and keep them in the cache of `datasets` (HF_DATASETS_CACHE), each split that
    takes no more than this; 0 to decode them anew in every epoch (DETR does)."""
    reduced_decoding: bool = True
    """Decode training JPEGs that are not kept at a half, a quarter or an eighth of their size, where that is no smaller
    than the model takes them (DETR: no)."""
    size_step: int | None = bounded(None, 1)
    """Pad training batches to multiples of so many pixels, so that their shapes come again: for each new shape a CPU
    has to prepare every convolution anew. Where not set an eighth of the short side on a CPU where augmentation
    draws shapes, else 1 (DETR: 1)."""
    compile_backbone: bool = False
    """Compile the backbone with torch.compile, once for images of all shapes. On a CPU that takes a C++ compiler and a
    minute or two, which a long training wins back (DETR: no)."""
    cpu_threads: int | None = bounded(None, 1)
    """Threads of each process on a CPU. Where not set, those that OMP_NUM_THREADS says, or the processes of a machine
    share its cores; `accelerate launch` alone would leave one thread to each."""


@dataclass
class DetrTrainingArguments(TrainingArguments):
    """Transformers' `TrainingArguments`, whole, with DETR's values, and a few fields of our own.

    https://huggingface.co/docs/transformers/main_classes/trainer describes every inherited field.
    """

    output_dir: str | None = None
    """The run folder; runs/NAME-OF-THE-RECIPE where not set."""
    overwrite: bool = False
    """Remove what is in the run folder. Without it, a run folder that exists stops the run."""
    learning_rate: float = bounded(1e-4, 0)
    """Learning rate of the transformer and the heads, for AdamW (DETR: 1e-4)."""
    backbone_learning_rate: float = bounded(1e-5, 0)
    """Learning rate of the backbone, for AdamW (DETR: 1e-5)."""
    weight_decay: float = bounded(1e-4, 0)
    """Weight decay of matrices and convolutions; norms and biases are not decayed (DETR: 1e-4, on everything)."""
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
        super().__post_init__()
        self.label_names = ["labels"]
        # DataParallel would split the labels' tensors instead of the list; several GPUs take `accelerate launch`.
        self._n_gpu = min(1, self.n_gpu)

    @property
    def precision(self) -> str:
        """Precision that training computes in: bf16, fp16 or fp32."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "fp32"


@dataclass
class Recipe:
    """A whole training job."""

    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig
    evaluation: EvaluationConfig
    speed: SpeedConfig
    report: ReportConfig
    training: DetrTrainingArguments
    """Arguments of the Trainer; `push_to_hub` is false in them: its own upload carries a pickle of them, and no AP."""
    push: bool
    """Publish the finished run on the Hub."""
    resolved: dict[str, Any]
    """Sections and values as given, defaulted and chosen automatically, plain enough for YAML; `files.save_recipe`
    writes them."""

    def with_training(self, **settings: Any) -> "Recipe":
        """The same recipe with other values in `training`; what was resolved stays, and this one is left as it is."""
        args = copy.copy(self.training)
        for name, value in settings.items():
            setattr(args, name, value)
        return replace(self, training=args)
