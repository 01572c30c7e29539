"""The baseline to compare with: Trainer, model and loss of Transformers as its examples use them."""

from typing import Any

from transformers import PrinterCallback, Trainer, TrainingArguments

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.model.build import build_model
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.training.data_pipeline import build_processor


def build_baseline(recipe: Recipe, splits: Splits, precision: str = "fp32") -> Trainer:
    """A trainer with the recipe's weights, images, augmentation and batch size, and nothing else of ours.

    Images are decoded in every epoch, whole, and come in random order. They go through Transformers' processor one by
    one, as ours do: given a batch, it would resize all to one short side and rescale their boxes to the padding.

    Args:
        recipe: whose sizes, rates and seeds are taken.
        splits: whose training images are used.
        precision: fp32, bf16 or fp16.
    """
    names, ids = splits.label_map.names, splits.label_map.category_ids
    ours = build_model(recipe.model, names, ids)
    ours.config.auxiliary_loss = recipe.model.auxiliary_losses
    model = ours.family.stock_class(ours.config)
    model.load_state_dict(ours.state_dict())
    args = recipe.training
    copied = (
        *("output_dir", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm"),
        *("dataloader_num_workers", "dataloader_pin_memory", "use_cpu", "seed"),
    )
    settings: dict[str, Any] = {name: getattr(args, name) for name in copied}
    edge = ImageSize.from_config(recipe.model).shortest_edge
    transform = DetrTransform(build_processor(recipe.model), build_augmentation(recipe.augment, edge), args.seed)
    trainer = Trainer(
        model,
        TrainingArguments(
            **settings,
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
        ),
        train_dataset=transformed(splits.train, transform),
        data_collator=collate,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
