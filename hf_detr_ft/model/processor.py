"""Image processors: a checkpoint's own, or a new one of its family."""

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor, ImageProcessingMixin

from hf_detr_ft.errors import CheckpointError, first_line
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.model.families.family import Family
from hf_detr_ft.run_folder import PROCESSOR


def load_processor(checkpoint: Checkpoint, **settings: Any) -> Any:
    """The processor that was saved beside a model.

    Args:
        checkpoint: of the model.
        settings: of the processor, over its own.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    try:
        return AutoImageProcessor.from_pretrained(
            checkpoint.path, revision=checkpoint.revision or "main", backend="torchvision", **settings
        )
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint}: expected a {PROCESSOR}, which says how images are resized: {first_line(error)}. "
            "Copy it from the run or the model that this one was made from."
        ) from error


def load_or_build_processor(checkpoint: Checkpoint | None, family: Family, **settings: Any) -> Any:
    """The processor of a checkpoint that has one, else that of its family with the values of Transformers.

    Args:
        checkpoint: to start from; None for a new model.
        family: of the model.
        settings: of the processor, over its own.

    Raises:
        CheckpointError: it cannot be read.
    """
    if checkpoint is None or not own_settings(checkpoint):
        return getattr(transformers, family.processor)(**settings)
    return load_processor(checkpoint, **settings)


def own_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of a checkpoint's preprocessor_config.json; nothing where it has none.

    Raises:
        CheckpointError: it cannot be read.
    """
    folder = Path(checkpoint.path)
    if folder.is_dir() and not (folder / PROCESSOR).is_file():
        return {}
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(
            checkpoint.path, revision=checkpoint.revision or "main"
        )
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.part(PROCESSOR)} cannot be read: {first_line(error)}. Copy or download it again."
        ) from error
    return dict(settings)
