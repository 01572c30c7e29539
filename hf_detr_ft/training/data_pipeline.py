"""Splits of a recipe as the trainer reads them."""

from dataclasses import replace

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.cache.image_cache import cache_images
from hf_detr_ft.data.image_size import ImageSize, build_processor
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.data.transform import DetrTransform
from hf_detr_ft.recipe.sections import Recipe

STRIDE = 32
"""Pixels of the image per step of the feature map, in most models."""


def store_splits(recipe: Recipe, splits: Splits) -> Splits:
    """The splits with their photos decoded and resized, as far as `speed.store_gigabytes` reaches."""
    size = ImageSize.from_config(recipe.model)
    # A crop or a turn belongs before the resize to a square: training images keep their shape.
    train_size = size if size.keeps_shape else ImageSize(size.shortest_edge, 8 * size.shortest_edge)
    limit = recipe.speed.store_gigabytes * 1e9
    train = cache_images(splits.train, train_size, limit, "train")
    val = cache_images(splits.val, size, limit, "val")
    return replace(splits, train=splits.train if train is None else train, val=splits.val if val is None else val)


def build_train_transform(recipe: Recipe) -> DetrTransform:
    """Augments and preprocesses training rows."""
    args, edge = recipe.training, ImageSize.from_config(recipe.model).shortest_edge
    return DetrTransform(
        build_processor(recipe.model),
        build_augmentation(recipe.augment, edge),
        args.seed if args.data_seed is None else args.data_seed,
        edge if recipe.speed.reduced_decoding else None,
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
