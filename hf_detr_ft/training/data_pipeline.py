"""Splits of a recipe as the trainer reads them."""

from dataclasses import replace
from typing import Any

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.cache.image_cache import cache_images
from hf_detr_ft.data.image_size import ImageProcessor, ImageSize, resizes_bytes
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.data.streamed_rows import StreamedRows
from hf_detr_ft.data.transform import DetrTransform
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model.build import find_family
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.processor import load_or_build_processor
from hf_detr_ft.recipe.sections import ModelConfig, Recipe

STRIDE = 32
"""Pixels of the image per step of the feature map, in most models."""


def build_processor(config: ModelConfig, white_level: int | None = None) -> ImageProcessor:
    """The processor of training, evaluation and the published model: the checkpoint's own with a recipe's sizes.

    Args:
        config: the recipe's `model` section.
        white_level: of images of 16 bits; the processor keeps it for whoever decodes images for its model.

    Raises:
        CheckpointError: the checkpoint is missing, not of a family that can be trained, or its processor cannot be
            read.
    """
    kept: dict[str, Any] = {} if white_level is None else {"white_level": white_level}
    size = ImageSize.from_config(config).as_dict()
    processor: ImageProcessor = load_or_build_processor(
        Checkpoint.from_config(config), find_family(config), size=size, **kept
    )
    return processor


def store_splits(recipe: Recipe, splits: Splits, processor: ImageProcessor) -> Splits:
    """The splits with places to keep images in that `processor` resized, as far as `speed.store_gigabytes` reaches."""
    size = ImageSize.from_config(recipe.model)
    if not resizes_bytes(processor):
        return splits
    # A crop or a turn belongs before the resize to a square: training images keep their shape.
    train_size = size if size.keeps_shape else ImageSize(size.shortest_edge, 8 * size.shortest_edge)
    limit = recipe.speed.store_gigabytes * 1e9
    train = None if splits.pieces else cache_images(splits.train, train_size, limit, processor)
    val = cache_images(splits.val, size, limit, processor)
    return replace(splits, train=splits.train if train is None else train, val=splits.val if val is None else val)


def build_train_transform(recipe: Recipe, processor: ImageProcessor) -> DetrTransform:
    """Augments training rows and preprocesses them with `build_processor`'s."""
    args, edge = recipe.training, ImageSize.from_config(recipe.model).shortest_edge
    return DetrTransform(
        processor,
        build_augmentation(recipe.augment, edge),
        args.seed_of_images,
        edge if recipe.speed.reduced_decoding and resizes_bytes(processor) else None,
        recipe.data.on_bad_image,
    )


def stream_rows(recipe: Recipe, splits: Splits, transform: DetrTransform) -> StreamedRows | None:
    """Training samples as they come, with the transform of `build_train_transform`; None where all rows are at hand."""
    args = recipe.training
    if not splits.pieces:
        return None
    return StreamedRows(
        splits.train,
        splits.pieces,
        transform,
        batch_size=args.train_batch_size,
        process=(args.process_index, args.world_size),
        workers=args.dataloader_num_workers,
        order=args.train_sampling_strategy,
        seed=transform.seed,
    )


def choose_size_step(recipe: Recipe) -> int:
    """Pixels that the sides of training batches are multiples of."""
    step, size = recipe.speed.size_step, ImageSize.from_config(recipe.model)
    if step is not None:
        return step
    new_shapes = size.keeps_shape and build_augmentation(recipe.augment, size.shortest_edge).draws_shapes
    if not new_shapes or recipe.training.device.type != "cpu":
        return 1
    return max(STRIDE, round(size.shortest_edge / 8 / STRIDE) * STRIDE)


def choose_batch_edges(recipe: Recipe, model: Detector) -> list[int]:
    """Sides in pixels to draw each step's from; none where images have the size that the transform gives them.

    Those of RT-DETR's and D-FINE's configurations: at 640 pixels 480 to 800 by 32, and three times as often 640.

    Raises:
        RecipeError: images keep their shapes.
    """
    edge = recipe.model.square_edge
    if recipe.augment.multi_scale != "batch":
        return []
    if edge is None:
        raise RecipeError(
            "augment.multi_scale: expected model.square_edge beside batch, found images that keep their shapes, for "
            "which true draws a size each and lays like shapes into one batch. Set it to true, or give "
            "model.square_edge."
        )
    step = model.family.size.step(model.config)
    step *= -(-STRIDE // step)
    reach = edge // 4 // step
    return [edge + step * place for place in range(-reach, reach + 1)] + [edge] * 2
