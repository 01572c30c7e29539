"""The albumentations pipeline that a recipe writes out: read, checked, and made, of the classes that are let in."""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as short
from types import ModuleType
from typing import Any

from hf_detr_ft.errors import RecipeError, first_line
from hf_detr_ft.formatting import did_you_mean

COLOURS = (
    *("AdditiveNoise", "AdvancedBlur", "AutoContrast", "Blur", "CLAHE", "ChannelDropout", "ChannelShuffle"),
    *("ChromaticAberration", "ColorJitter", "Defocus", "Downscale", "Emboss", "Equalize", "FancyPCA", "GaussNoise"),
    *("GaussianBlur", "GlassBlur", "HEStain", "HueSaturationValue", "ISONoise", "Illumination", "ImageCompression"),
    *("InvertImg", "MedianBlur", "MotionBlur", "MultiplicativeNoise", "PlanckianJitter", "PlasmaBrightnessContrast"),
    *("PlasmaShadow", "Posterize", "RGBShift", "RandomBrightnessContrast", "RandomFog", "RandomGamma", "RandomGravel"),
    *("RandomRain", "RandomShadow", "RandomSnow", "RandomSunFlare", "RandomToneCurve", "RingingOvershoot"),
    *("SaltAndPepper", "Sharpen", "ShotNoise", "Solarize", "Spatter", "Superpixels", "ToGray", "ToSepia"),
    *("UnsharpMask", "ZoomBlur"),
)
"""Steps that leave boxes where they are."""
PLACES = (
    *("CoarseDropout", "ElasticTransform", "Erasing", "GridDistortion", "GridDropout", "GridElasticDeform"),
    *("HorizontalFlip", "NoOp", "OpticalDistortion", "PiecewiseAffine", "PixelDropout"),
    *("SafeRotate", "ShiftScaleRotate", "ThinPlateSpline", "VerticalFlip", "XYMasking"),
)
"""Steps that move or cover objects on an image of the same size."""
SHAPES = (
    *("Affine", "AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "CenterCrop", "Crop", "CropAndPad", "D4"),
    *("LongestMaxSize", "Pad", "PadIfNeeded", "Perspective", "RandomCrop", "RandomCropFromBorders"),
    *("RandomResizedCrop", "RandomRotate90", "RandomScale", "RandomSizedBBoxSafeCrop", "RandomSizedCrop", "Resize"),
    *("Rotate", "SmallestMaxSize", "SquareSymmetry", "Transpose"),
)
"""Steps after which an image may have another size, which is then resized once more."""
GROUPS: dict[str, dict[str, type]] = {
    "Compose": {"p": float},
    "Sequential": {"p": float},
    "OneOf": {"p": float},
    "SomeOf": {"n": int, "replace": bool, "p": float},
    "RandomOrder": {"n": int, "replace": bool, "p": float},
}
"""Steps of steps, with their other arguments."""
ALLOWED = (*COLOURS, *PLACES, *SHAPES, *GROUPS)
REFUSED = {
    "runs code": ("Lambda",),
    "takes other images or files; augment.mosaic and augment.copy_paste mix training images": (
        *("FDA", "HistogramMatching", "PixelDistributionAdaptation", "TemplateTransform", "MixUp", "Mosaic"),
        *("OverlayElements", "TextImage"),
    ),
    "does what the model's image processor does": ("Normalize", "ToFloat", "FromFloat", "ToTensorV2", "ToRGB"),
    "needs more than an image and its boxes": (
        *("MaskDropout", "RandomCropNearBBox", "ConstrainedCoarseDropout", "CropNonEmptyMaskIfExists"),
    ),
}
"""Reasons why others are not let in."""
KEPT_BACK = {"Equalize": ("mask", "mask_params")}
"""Arguments that take arrays or functions."""
NAME = "__class_fullname__"
"""Key of a step's name in what `albumentations.to_dict` gives."""
FILTERS = ("min_area", "min_visibility", "min_width", "min_height", "max_accept_ratio")
EXAMPLE = "HorizontalFlip: {p: 0.5}"


@dataclass
class Pipeline:
    """Steps of a recipe's pipeline; see `read_pipeline`."""

    steps: list[Any] = field(default_factory=list)
    """Objects of albumentations."""
    problems: list[str] = field(default_factory=list)
    """A line for each thing that is wrong."""
    reshapes: bool = False
    """True where an image may have another size afterwards."""


def load_albumentations() -> ModuleType:
    """The library, which would ask the network for a newer version of itself when it is imported."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


def build_pipeline(written: Any) -> Pipeline:
    """The steps of `read_pipeline`.

    Raises:
        RecipeError: lists all that is wrong with it.
    """
    pipeline = read_pipeline(written)
    if pipeline.problems:
        raise RecipeError("\n".join(pipeline.problems))
    return pipeline


def read_pipeline(written: Any) -> Pipeline:
    """Steps of albumentations as a recipe writes them.

    That is a list, each step a name, or a name with its arguments; or what `albumentations.to_dict` gives. Nothing but
    the classes of `ALLOWED` is made, whose arguments are numbers and texts, by albumentations' own schema.

    Args:
        written: `augment.pipeline`; None for no step.
    """
    pipeline, where = Pipeline(), "augment.pipeline"
    if written is None:
        return pipeline
    if isinstance(written, Mapping) and "transform" in written:
        written = written["transform"]
    if isinstance(written, Mapping):
        written = [written] if NAME in written else [{name: given} for name, given in written.items()]
    pipeline.steps = _read_steps(written, where, pipeline)
    return pipeline


def _read_steps(written: Any, where: str, pipeline: Pipeline) -> list[Any]:
    if not isinstance(written, Sequence) or isinstance(written, str):
        pipeline.problems.append(f"{where}: expected a list of steps, such as [{EXAMPLE}], found {short(written)}")
        return []
    steps = [_read_step(entry, f"{where}[{place}]", pipeline) for place, entry in enumerate(written)]
    return [step for step in steps if step is not None]


def _read_step(written: Any, where: str, pipeline: Pipeline) -> Any:
    """One step; None where something is wrong with it, which is noted."""
    name, given = _name_and_arguments(written)
    if not isinstance(name, str) or not isinstance(given, Mapping):
        pipeline.problems.append(f"{where}: expected a step, such as {EXAMPLE}, found {short(written)}")
        return None
    short_name, where, known = name.rpartition(".")[2], f"{where}.{name}", len(pipeline.problems)
    if short_name not in ALLOWED or not hasattr(load_albumentations(), short_name):
        pipeline.problems.append(f"{where}: {_why_not(short_name)}")
        return None
    pipeline.reshapes |= short_name in SHAPES
    arguments = {str(key): value for key, value in given.items()}
    if short_name in GROUPS:
        arguments = _read_group(short_name, arguments, where, pipeline)
    if len(pipeline.problems) > known:
        return None
    step, problems = _make(short_name, arguments)
    pipeline.problems += [f"{where}{problem}" for problem in problems]
    return step


def _name_and_arguments(written: Any) -> tuple[Any, Any]:
    if isinstance(written, Mapping) and NAME in written:
        return written[NAME], {key: value for key, value in written.items() if key != NAME}
    name, given = written, None
    if isinstance(written, Mapping) and len(written) == 1:
        ((name, given),) = written.items()
    given = {"transforms": given} if isinstance(given, list) and name in GROUPS else given
    return name, {} if given is None else given


def _why_not(name: str) -> str:
    reasons = [reason for reason, names in REFUSED.items() if name in names]
    if reasons:
        return f"expected another step: this one {reasons[0]}. Leave it out"
    return f"expected a step of albumentations that is let in, found '{name}'{did_you_mean(name, ALLOWED)}"


def _read_group(name: str, given: dict[str, Any], where: str, pipeline: Pipeline) -> dict[str, Any]:
    """Arguments of a group, its steps read."""
    arguments = dict(given)
    if name == "Compose":
        pipeline.problems += [f"{where}.{problem}" for problem in _strip_compose(arguments)]
    steps = _read_steps(arguments.pop("transforms", None) or None, where, pipeline)
    for key, value in arguments.items():
        kind = GROUPS[name].get(key)
        if kind is None:
            hint = did_you_mean(key, ["transforms", *GROUPS[name]])
            pipeline.problems.append(f"{where}: unknown argument '{key}'{hint}")
        elif kind is bool and not isinstance(value, bool):
            pipeline.problems.append(f"{where}.{key}: expected true or false, found {short(value)}")
        elif kind is int and (type(value) is not int or value < 1):
            pipeline.problems.append(f"{where}.{key}: expected a whole number from 1, found {short(value)}")
        elif kind is float and (type(value) not in (int, float) or not 0 <= value <= 1):
            pipeline.problems.append(f"{where}.{key}: expected a number from 0 to 1, found {short(value)}")
    return {**arguments, "transforms": steps}


def _strip_compose(given: dict[str, Any]) -> list[str]:
    """Takes out what `albumentations.to_dict` writes of boxes and targets, which are ours; what of it would be lost."""
    problems = []
    boxes = given.pop("bbox_params", None) or {}
    filters = [key for key in FILTERS if isinstance(boxes, Mapping) and boxes.get(key)]
    if filters:
        problems.append(
            f"bbox_params: expected no {' or '.join(filters)}. Leave it out, and set augment.min_visibility"
        )
    for key in ("keypoint_params", "additional_targets"):
        if given.pop(key, None):
            problems.append(f"{key}: expected none: there are boxes and masks alone. Leave it out")
    given.pop("is_check_shapes", None)
    return problems


def _make(name: str, arguments: dict[str, Any]) -> tuple[Any, list[str]]:
    """An object of albumentations, and what its own schema has against the arguments."""
    library = load_albumentations()
    if name in ("Compose", "Sequential"):  # a Compose within another one would check images anew
        return library.Sequential(**{"p": 1.0 if name == "Compose" else 0.5, **arguments}), []
    made = getattr(library, name)
    known = [key for key in inspect.signature(made).parameters if key not in KEPT_BACK.get(name, ())]
    unknown = [f": unknown argument '{key}'{did_you_mean(key, known)}" for key in arguments if key not in known]
    if unknown:
        return None, unknown
    strict = {"strict": True} if "InitSchema" in vars(made) else {}  # else albumentations warns, and takes the defaults
    try:
        return made(**arguments, **strict), []
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        cause: Any = error.__cause__
        if not hasattr(cause, "errors"):
            return None, [f": albumentations refuses it: {first_line(error)}"]
    expected: dict[str, list[str]] = {}
    for fault in cause.errors():
        key = str(fault["loc"][0]) if fault["loc"] else ""
        expected.setdefault(key, []).append(_in_words(fault))
    return None, [
        f"{'.' if key else ''}{key}: expected {' or '.join(dict.fromkeys(texts))}, "
        f"found {short(arguments[key]) if key in arguments else 'none'}"
        for key, texts in expected.items()
    ]


def _in_words(fault: Mapping[str, Any]) -> str:
    """Words for what the schema expected, from one of pydantic's errors."""
    text = str(fault["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return "a value" if fault["type"] == "missing" else f"{text[:1].lower()}{text[1:]}".rstrip(".")
