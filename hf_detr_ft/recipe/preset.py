"""`training.preset: auto`: length, batch, schedule and measures by the size of the data, as few rules.

What a recipe gives itself is never chosen, and what is chosen goes by what is given: so many steps, so many epochs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

from hf_detr_ft.formatting import pluralize
from hf_detr_ft.recipe.sections import Choice, Recipe

FEW = 500
"""Images below which data are few."""
IMAGES_A_STEP = (8, 16)
"""Images a step of all processes together, of few images and of more: RF-DETR and RT-DETR have 16 (their configs)."""
EPOCHS = 50
"""Epochs, as of DETR on the balloon photos: AP .445 after 1, .48 from the 21st to the 50th (docs/few_images.md)."""
LEAST_STEPS, MOST_STEPS = 1_000, 30_000
"""Steps that few images are shown again for, and that many images end at."""
LEAST_EPOCHS = 12
"""Epochs of however many images: the shortest schedule that is usual on COCO."""
DROP = 0.8
"""Share of the epochs behind which rates are a tenth: DETR's on the balloon photos, 40 of 50."""
EVALUATIONS = 20
BATCH = ("training.per_device_train_batch_size", "training.gradient_accumulation_steps")
STAGES = "model.trainable_stages"
FIELDS = (
    *("training.num_train_epochs", *BATCH, "training.learning_rate_drop_epoch", "training.eval_epochs"),
    *("model.reuse_class_rows", "model.num_queries", STAGES),
)
"""Fields that may be chosen."""


@dataclass(frozen=True)
class DataSize:
    """Numbers that the rules go by.

    Attributes:
        images: of training.
        objects: on all of them.
        classes: in the data.
        fullest: objects on the image that has most, validation's among them.
        queries: of the model as it is.
        processes: that train together.
    """

    images: int
    objects: int
    classes: int
    fullest: int
    queries: int
    processes: int = 1

    def __str__(self) -> str:
        parts = ((self.images, "image"), (self.objects, "object"))
        classes = "1 class" if self.classes == 1 else f"{self.classes:,} classes"
        return ", ".join([*(pluralize(count, name) for count, name in parts), classes])


def choose(recipe: Recipe, size: DataSize) -> dict[str, Choice]:
    """Values by field, such as training.num_train_epochs, each with its reason; none of what the recipe gives."""
    given, choices = recipe.given, dict[str, Choice]()
    if not given & set(BATCH):
        own = min(IMAGES_A_STEP[size.images >= FEW], 2 ** (size.images.bit_length() - 1))
        share = max(1, own // size.processes)
        choices[BATCH[0]] = Choice(share, f"{size}: {own} images a step of all processes together")
        choices[BATCH[1]] = Choice(1, "all at once")
    choices |= _choose_length(recipe.with_choices(choices), size)
    measures = () if recipe.model.masks else _choose_measures(recipe, size)
    return {name: choice for name, choice in (*choices.items(), *measures) if name not in given}


def _choose_length(recipe: Recipe, size: DataSize) -> dict[str, Choice]:
    """Epochs, the drop of the rates and the epochs between evaluations."""
    args, choices = recipe.training, dict[str, Choice]()
    of_a_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * size.processes
    steps = max(1, size.images // of_a_step if args.dataloader_drop_last else ceil(size.images / of_a_step))
    epochs = args.num_train_epochs
    if args.max_steps > 0:
        epochs = args.max_steps / steps
    elif "training.num_train_epochs" not in recipe.given:
        most = max(LEAST_EPOCHS, min(EPOCHS, floor(MOST_STEPS / steps)))
        epochs = float(max(most, ceil(LEAST_STEPS / steps)))
        bound = f"at least {LEAST_STEPS:,}" if epochs > EPOCHS else f"{EPOCHS} epochs, fewer of many images"
        all_steps = f"{pluralize(steps, 'step')} an epoch, {round(epochs * steps):,} in all"
        why = f"{size.images:,} images are {all_steps}; {bound}"
        choices["training.num_train_epochs"] = Choice(epochs, why)
    if not recipe.given & {"training.lr_scheduler_type", "training.warmup_steps"}:
        why = "all rates at a tenth for the last fifth"
        choices["training.learning_rate_drop_epoch"] = Choice(round(DROP * epochs, 3), why)
    if args.eval_strategy == "epoch":
        every = max(1, round(epochs / EVALUATIONS))
        choices["training.eval_epochs"] = Choice(every, f"{EVALUATIONS} evaluations or so, saved each")
    return choices


def _choose_measures(recipe: Recipe, size: DataSize) -> Iterator[tuple[str, Choice]]:
    """Class rows and queries."""
    if recipe.model.checkpoint is not None:
        yield "model.reuse_class_rows", Choice(True, "for classes that the checkpoint knows by name, if any")
    if size.fullest > size.queries and "num_queries" not in recipe.model.config:
        why = f"an image has {size.fullest} objects, and the model {size.queries} queries"
        yield "model.num_queries", Choice(size.fullest, why)


def divide_batch(recipe: Recipe, images: int, room: int) -> dict[str, Choice]:
    """Micro-batches of a process's images of a step, such that each has room in memory; gradients stay the same.

    Args:
        recipe: whose `given` fields are not chosen.
        images: of a step, on one process.
        room: images that the memory has room for at once; 0: not even one.
    """
    at_once = max([count for count in range(1, images + 1) if images % count == 0 and count <= room], default=1)
    choices = {}
    if at_once < images:
        why = f"memory has room for {room} of {images} images at once"
        choices = {BATCH[0]: Choice(at_once, why), BATCH[1]: Choice(images // at_once, "the same gradients")}
    if room == 0 and STAGES not in recipe.given and not recipe.model.masks:
        choices[STAGES] = Choice([], "not even one image has room where the backbone is trained, too")
    return choices
