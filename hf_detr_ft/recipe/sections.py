"""Sections and fields of a recipe, with their units and limits and with DETR's values (facebookresearch/detr).

The section `training` is in `training_arguments.py`, which imports Transformers and torch; nothing here does.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hf_detr_ft.run_folder import SPLITS

if TYPE_CHECKING:
    from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments


def bounded(default: Any, least: float, most: float = math.inf) -> Any:
    """Dataclass field with a default and limits, both included; `files.py` refuses values outside."""
    return field(default=default, metadata={"least": least, "most": most})


Format = Literal[
    "coco", "yolo", "voc", "via", "labelme", "createml", "openimages", "imagefolder", "parquet", "webdataset", "csv"
]
"""Formats of annotations that can be read."""


MaskUse = Literal[True, False, "some"]
"""Masks that are read: of all objects, which have to have one; none; or those that are there, and else the boxes."""


@dataclass
class DataConfig:
    """Images and COCO annotations of the training and the validation split."""

    name: str = "custom"
    """Name of the data set in messages and on the model card."""
    root: str | None = None
    """Folder that the paths below are relative to; the current folder where it is not set. Where they are left out
    and nothing lies at them, the annotations and images that are there are found. hf://datasets/USER/NAME is downloaded
    from the Hub."""
    format: Format | None = None
    """Format of the annotations; found out where not set (DETR: coco)."""
    streaming: bool = False
    """Read training images from Parquet files or WebDataset shards as they come, on the disk or on the Hub, without a
    copy of them; those of validation are unpacked. The order of an epoch depends on the numbers of processes and
    workers then (DETR: no)."""
    train_annotations: str = "annotations/custom_train.json"
    """COCO JSON of the training images (DETR: annotations/instances_train2017.json)."""
    train_images: str = "train2017"
    """Folder of the training images (DETR: the same)."""
    val_annotations: str | None = "annotations/custom_val.json"
    """COCO JSON of the validation images; null to take them out of training's, as where there is none, see `val_share`
    (DETR: annotations/instances_val2017.json)."""
    val_images: str = "val2017"
    """Folder of the validation images (DETR: the same)."""
    test_annotations: str | None = None
    """COCO JSON of images that training never sees: evaluated once, at its end, and by `evaluate --split test` (DETR:
    none)."""
    test_images: str = "test2017"
    """Folder of the test images (DETR: none)."""
    val_share: float | None = bounded(None, 0.01, 0.9)
    """Share of the training images that become the validation split instead, the same ones each time, every class by
    its share; 0.2 where there is no other validation split. Near-duplicates, frames of a video and copies of a photo
    stay together, and splits.json in the run folder names the images of each (DETR: none)."""
    folds: int | None = bounded(None, 2)
    """Divide the training images into so many parts in the same way, for cross-validation; `fold` says which part
    validates (DETR: none)."""
    fold: int | None = bounded(None, 1)
    """The part that validates, from 1 to `folds`; each image is in one (DETR: none)."""
    group_by: str | None = None
    """Images that are not to be divided, by what they share: a key of the image entries, or a regular expression for
    `file_name`, such as ^(patient[0-9]+). Where not set, a video's frames and copies of a photo, as far as entries or
    names tell; `id` for each image alone. Near-duplicates stay together with either (DETR: none)."""
    split_file: str | None = None
    """JSON that names the validation images instead: {"validation": [file names]}, such as the splits.json of a run. A
    run that goes on, and a recipe of a run folder, take the one in the folder (DETR: none)."""
    unlabelled: Literal["background", "ignore", "refuse"] = "ignore"
    """Images in the training folder that the annotations do not name: `background`, images without objects; `ignore`
    them; `refuse` to train. Their number is said. Images without a label file are background in YOLO folders already
    (DETR: ignore)."""
    classes: dict[str, str | None] = field(default_factory=dict)
    """Other names for classes, as {Cat: cat, tomcat: cat, lion: null}: those of one name become one class, and of null
    are left out with their objects; all others stay (DETR: none)."""
    balance: float | None = bounded(None, 0, 1)
    """Show images of rare classes more often, as in LVIS: sqrt(balance / share of the images that have the class)
    times as often as the others, where that is more. 0.001 in LVIS; 0.1 for some classes of some hundred images. An
    epoch keeps its length (DETR: none)."""
    file_names: Literal["exact", "similar"] = "exact"
    """`similar`: take a file_name that no file has for the one image file below the folder whose name differs only in
    slashes, folder, suffix, percent signs, Unicode form or case; `check` says where that reads all images
    (DETR: exact)."""
    exif: Literal["upright", "stored"] = "upright"
    """`stored`: boxes were drawn on the pixels of photos as they are stored, and are turned with each photo as its EXIF
    orientation says; `check` finds such labels by their sizes (DETR: upright)."""
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
        """Path of one of the fields above that name files, such as `train_annotations`."""
        return Path(self.root or ".").expanduser() / Path(getattr(self, name)).expanduser()

    def with_record(self, run: Path) -> "DataConfig":
        """The same with the splits of a run folder, where that run made some."""
        record = run / SPLITS
        return replace(self, split_file=str(record.absolute())) if record.is_file() else self


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
    multi_scale: bool | Literal["batch"] | None = None
    """Draw the short side of each image from 60 % to 100 % of model.shortest_edge; the preset's where not set
    (DETR: yes). `batch`, for square images: each step has one side, from 75 % to 125 % of model.square_edge and most
    often that, as the originals of RT-DETR and D-FINE draw it for each batch; the same in all processes."""
    color_jitter: float | None = bounded(None, 0, 1)
    """Strength of random brightness, contrast and saturation, 0 to 1; the preset's where not set (DETR: 0)."""
    rotate: float | None = bounded(None, 0, 180)
    """Largest random rotation in degrees; boxes grow around the rotated ones (DETR: 0)."""
    mosaic: float = bounded(0.0, 0, 1)
    """Probability of an image of four, in the first one's shape (DETR: 0)."""
    copy_paste: float = bounded(0.0, 0, 1)
    """Probability of an image with one to ten objects of another one pasted onto it, cut out along their outlines, or
    as whole boxes where they have none (DETR: 0)."""
    min_visibility: float = bounded(0.1, 0, 1)
    """A box of which a crop, or what is pasted over it, leaves a smaller share of its area than this goes (DETR keeps
    every rest)."""
    pipeline: list[Any] | dict[str, Any] | None = None
    """Steps of albumentations, such as [HorizontalFlip, {GaussNoise: {p: 0.2}}], or what albumentations.to_dict gives;
    they come after all of the above, with an image at the size that the model takes (DETR: none)."""


@dataclass
class ModelConfig:
    """The network: a checkpoint of a DETR of any kind to fine-tune, or a new one on a timm backbone."""

    checkpoint: str | None = "facebook/detr-resnet-50"
    """Hub id, folder or `package:NAME/PATH` of a DETR of any kind, or a `.pth` of facebookresearch/detr; null to start
    from `backbone`. `package:hf_detr_ft/tiny_dfine` and `package:hf_detr_ft/tiny_detr` come with this package."""
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
    reuse_class_rows: bool = False
    """Begin with the checkpoint's rows of the class head for classes that it knows by name, singular or plural, or by a
    usual synonym; which ones is said (DETR: no)."""
    masks: bool = False
    """Train a mask head on a DETR that finds the data's boxes already, and nothing else: `DetrForSegmentation`. Every
    annotation has to have a mask (DETR: --masks --frozen_weights)."""
    trainable_stages: list[str] | None = None
    """Backbone stages to train, such as [layer3, layer4]; [all]; [] for none. Where not set everything
    behind a stride of 4 (DETR: the same, layer2 to layer4)."""
    num_queries: int | None = bounded(None, 1)
    """Queries, the most objects of an image that can be found. Those of a checkpoint are kept, and more are made so
    that they find nothing at first; the checkpoint's number where not set (DETR: 100)."""
    config: dict[str, Any] = field(default_factory=dict)
    """Other fields of `transformers.DetrConfig`, or of the config of the model's kind, such as `dropout` (DETR:
    0.1)."""
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
    max_detections: int = bounded(100, 100)
    """Best detections of an image and class that count, for images of more than 100 objects: AP and AR of so many come
    beside COCO's numbers, as `map_at_500` (DETR: 100, as COCO)."""


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
    """Decode and resize each photo once, when it first comes up, and keep it in the cache of `datasets`
    (HF_DATASETS_CACHE), of each split that takes no more than this; 0 to decode them anew in every epoch (DETR
    does)."""
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


class Choice(NamedTuple):
    """A value that was chosen, and the reason, for people."""

    value: Any
    why: str


@dataclass
class Recipe:
    """A whole training job."""

    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig
    evaluation: EvaluationConfig
    speed: SpeedConfig
    report: ReportConfig
    training: "DetrTrainingArguments"
    """Arguments of the Trainer; `push_to_hub` is false in them: its own upload carries a pickle of them, and no AP."""
    push: bool
    """Publish the finished run on the Hub."""
    resolved: dict[str, Any]
    """Sections and values as given, defaulted and chosen automatically, plain enough for YAML; `files.save_recipe`
    writes them."""
    given: frozenset[str] = frozenset()
    """Fields that the file or the flags give, such as training.learning_rate."""
    choices: Mapping[str, Choice] = field(default_factory=dict)
    """Values that `training.preset` chose, by field."""

    @property
    def masks(self) -> MaskUse:
        """Masks that its data sets are read with."""
        return self.model.masks or ("some" if self.augment.copy_paste else False)

    def with_training(self, **settings: Any) -> "Recipe":
        """The same recipe with other values in `training`; what was resolved stays, and this one is left as it is."""
        args = copy.copy(self.training)
        for name, value in settings.items():
            setattr(args, name, value)
        return replace(self, training=args)

    def with_choices(self, choices: Mapping[str, Choice]) -> "Recipe":
        """The same recipe with values that were chosen, also in `resolved`; this one is left as it is."""
        resolved = {section: dict(keys) for section, keys in self.resolved.items()}
        values: dict[str, dict[str, Any]] = {section: {} for section in resolved}
        for name, choice in choices.items():
            section, key = name.split(".")
            resolved[section][key] = values[section][key] = choice.value
        recipe = self.with_training(**values.pop("training", {}))
        sections = {name: replace(getattr(self, name), **keys) for name, keys in values.items() if keys}
        return replace(recipe, **sections, resolved=resolved, choices={**self.choices, **choices})
