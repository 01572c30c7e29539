"""`hf-detr-ft benchmark RECIPE`: training on the user's own data by stock Transformers and by ours, timed in turn."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from tqdm.auto import tqdm
from transformers import (
    DetrImageProcessor,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from hf_detr_ft.atomic import write_json
from hf_detr_ft.data.augment import Augmentation, build_augmentation
from hf_detr_ft.data.images import decode_cell
from hf_detr_ft.data.splits import Splits, load_splits
from hf_detr_ft.errors import RecipeError, first_line
from hf_detr_ft.model.build import build_model, build_processor
from hf_detr_ft.recipe import Recipe
from hf_detr_ft.recipe_file import load_recipe
from hf_detr_ft.runs.environment import describe_environment, peak_memory
from hf_detr_ft.runs.run_folder import check_output
from hf_detr_ft.runs.train import build_trainer, show_progress, store_splits

WARM_UP = 2
"""Steps before those that are timed: the first ones allocate memory and choose algorithms."""
STOCK = "stock"
OURS = "ours"
ALONE: dict[str, Sequence[str]] = {
    "frozen norms not folded": ["--speed.fold_frozen_norms", "false"],
    "not channels last": ["--speed.channels_last", "false"],
    "fp32": ["--training.bf16", "false", "--training.fp16", "false"],
    "all stages trained": ["--model.trainable_stages", "[all]"],
    "random batches": ["--training.train_sampling_strategy", "random"],
    "photos not kept": ["--speed.store_gigabytes", "0"],
    "photos decoded whole": ["--speed.store_gigabytes", "0", "--speed.reduced_decoding", "false"],
}
"""Our measures, each taken back alone by these flags."""


@dataclass
class Measurement:
    """The timed steps of one variant in one round."""

    images: int
    seconds: float
    waiting_seconds: float
    """Of them, those that passed before a step had its batch."""
    pixels: int
    """Of all batches, with their padding."""
    image_pixels: int
    peak_bytes: int
    """The most that the process held meanwhile; on a GPU, what torch had allocated there."""
    steps: int


@dataclass
class Row:
    """One variant over all rounds."""

    name: str
    rounds: list[Measurement] = field(default_factory=list)
    failure: str | None = None

    def images_per_second(self) -> list[float]:
        """By round."""
        return [one.images / one.seconds for one in self.rounds]

    def as_dict(self, stock: "Row | None") -> dict[str, Any]:
        """The figures of the table."""
        rates = self.images_per_second()
        if not rates:
            return {"name": self.name, "failure": self.failure}
        ratios = [
            ours / theirs for ours, theirs in zip(rates, stock.images_per_second() if stock else [], strict=False)
        ]
        total = sum(one.seconds for one in self.rounds)
        return {
            "name": self.name,
            "seconds_per_step": statistics.median(one.seconds / one.steps for one in self.rounds),
            "images_per_second": statistics.median(rates),
            "least": min(rates),
            "most": max(rates),
            "ratio_to_stock": statistics.median(ratios) if ratios else None,
            "waiting_share": sum(one.waiting_seconds for one in self.rounds) / total,
            "padding_share": 1 - sum(one.image_pixels for one in self.rounds) / sum(one.pixels for one in self.rounds),
            "peak_bytes": max(one.peak_bytes for one in self.rounds),
            "rounds": [asdict(one) for one in self.rounds],
        }


def benchmark(path: Path | None, flags: Sequence[str], rounds: int, steps: int, output: Path | None = None) -> int:
    """Trains a few steps of each variant, `rounds` times in turn, and prints a table.

    Args:
        path: the recipe; its run folder is not touched.
        flags: over it.
        rounds: how often each variant is run.
        steps: that are timed in each.
        output: a JSON file for the figures.

    Raises:
        RecipeError: an argument is out of range.
    """
    for name, value in (("rounds", rounds), ("steps", steps)):
        if value < 1:
            raise RecipeError(f"--{name}: expected at least 1, found {value}")
    check_output(output)
    transformers_logging.disable_progress_bar()
    recipe = load_recipe(path, flags)
    splits = load_splits(recipe.data, progress=show_progress)
    variants = {STOCK: [], OURS: [], **_that_change_something(path, flags, recipe)}
    rows = {name: Row(name) for name in variants}
    bar = tqdm(total=rounds * len(rows), desc="benchmark", disable=None)
    for _ in range(rounds):
        for name, changes in variants.items():
            bar.set_postfix_str(name)
            if rows[name].failure is None:
                try:
                    rows[name].rounds.append(run_variant(path, [*flags, *changes], splits, steps, stock=name == STOCK))
                except (ArithmeticError, RuntimeError, ValueError) as error:  # such as stock's NaN, shown in the table
                    rows[name].failure = f"{type(error).__name__}: {first_line(error)}"
            bar.update()
    bar.close()
    figures = [row.as_dict(rows[STOCK]) for row in rows.values()]
    args = recipe.training
    print(
        f"{len(splits.train)} training images of '{recipe.data.name}', batches of {args.train_batch_size} x "
        f"{args.gradient_accumulation_steps}, {args.device.type}; {rounds} rounds of {steps} steps"
    )
    print(table(figures))
    if output is not None:
        write_json(output, {"variants": figures, "made_with": describe_environment(splits.fingerprints)})
        print(f"written: {output}")
    return 0


def _that_change_something(path: Path | None, flags: Sequence[str], recipe: Recipe) -> dict[str, list[str]]:
    """The variants of `ALONE` whose flags say something else than the recipe does."""
    return {
        f"ours, {name}": list(changes)
        for name, changes in ALONE.items()
        if load_recipe(path, [*flags, *changes]).resolved != recipe.resolved
    }


def run_variant(path: Path | None, flags: Sequence[str], splits: Splits, steps: int, *, stock: bool) -> Measurement:
    """Trains `WARM_UP + steps` steps anew and times the last ones."""
    recipe = load_recipe(path, flags)
    args = recipe.training
    args.push_to_hub, args.report_to, args.disable_tqdm = False, [], True
    args.eval_strategy = args.save_strategy = "no"
    args.load_best_model_at_end, args.logging_strategy = False, "no"
    args.max_steps = WARM_UP + steps
    with TemporaryDirectory() as folder:
        args.output_dir = folder
        set_seed(args.seed)
        trainer = build_stock(recipe, splits) if stock else build_trainer(recipe, store_splits(recipe, splits))
        watch = Stopwatch(trainer)
        trainer.train()
    measurement = watch.measurement()
    del trainer, watch
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return measurement


def build_stock(recipe: Recipe, splits: Splits) -> Trainer:
    """What the examples of Transformers do with the same weights, photos, augmentation and batch size, in fp32."""
    names, ids = splits.label_map.names, splits.label_map.category_ids
    ours = build_model(recipe.model, names, ids)
    ours.config.auxiliary_loss = recipe.model.auxiliary_losses
    model = transformers.DetrForObjectDetection(ours.config)
    model.load_state_dict(ours.state_dict())
    args = recipe.training
    settings = {
        name: getattr(args, name)
        for name in (
            *("output_dir", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
            *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm"),
            *("dataloader_num_workers", "use_cpu", "seed"),
        )
    }
    processor = build_processor(recipe.model)
    edge = recipe.model.square_edge or recipe.model.shortest_edge
    collate = StockCollator(processor, build_augmentation(recipe.augment, edge), args.seed)
    return Trainer(
        model,
        TrainingArguments(
            **settings,
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
            dataloader_pin_memory=args.dataloader_pin_memory,
        ),
        train_dataset=splits.train,
        data_collator=collate,
    )


class StockCollator:
    """Decodes and augments rows and gives all of a batch to the processor at once, which pads them."""

    def __init__(self, processor: DetrImageProcessor, augmentation: Augmentation, seed: int) -> None:
        self.processor = processor
        self.augmentation = augmentation
        self.seed = seed

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch for `transformers.DetrForObjectDetection`."""
        images, annotations = [], []
        for row in rows:
            seed = int(np.random.SeedSequence((self.seed, abs(row["image_id"]))).generate_state(1)[0])
            augmented = self.augmentation(
                np.asarray(decode_cell(row["image"])), np.asarray(row["objects"]["bbox"]), seed
            )
            images.append(augmented.image)
            objects = [
                {"bbox": box, "category_id": row["objects"]["label"][kept], "area": box[2] * box[3], "iscrowd": 0}
                for box, kept in zip(augmented.boxes_xywh_px.tolist(), augmented.kept.tolist(), strict=True)
            ]
            annotations.append({"image_id": row["image_id"], "annotations": objects})
        batch = self.processor.preprocess(images=images, annotations=annotations, return_tensors="pt")
        return {**batch, "labels": [dict(label) for label in batch["labels"]]}


class Stopwatch(TrainerCallback):
    """Times the steps of a trainer after `WARM_UP`."""

    def __init__(self, trainer: Trainer) -> None:
        self.device = trainer.args.device
        self.images = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps
        self.images *= trainer.args.world_size
        self.ends: list[float] = []
        self.waits: list[float] = []
        self.shapes: list[tuple[int, torch.Tensor]] = []
        model: Any = trainer.model
        self.hook = model.register_forward_pre_hook(self._note_batch, with_kwargs=True)
        trainer.add_callback(self)

    def _note_batch(self, _: torch.nn.Module, __: tuple, inputs: dict[str, Any]) -> None:
        mask = inputs["pixel_mask"]
        self.shapes.append((mask.numel(), mask.sum()))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The batch is there."""
        if self.ends:
            self.waits.append(self._now() - self.ends[-1])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The step is done."""
        self.ends.append(self._now())
        if len(self.ends) == WARM_UP:
            self.shapes.clear()
            self.waits.clear()
            reset_peak(self.device)

    def measurement(self) -> Measurement:
        """Of all steps after `WARM_UP`."""
        self.hook.remove()
        steps = len(self.ends) - WARM_UP
        return Measurement(
            images=steps * self.images,
            seconds=self.ends[-1] - self.ends[WARM_UP - 1],
            waiting_seconds=sum(self.waits),
            pixels=sum(size for size, _ in self.shapes),
            image_pixels=sum(int(used) for _, used in self.shapes),
            peak_bytes=peak_bytes(self.device),
            steps=steps,
        )


def reset_peak(device: torch.device) -> None:
    """Begins to look for the most memory anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """The most memory since `reset_peak`; of the process's life where the system cannot tell."""
    if device.type == "cpu" and sys.platform == "linux":
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return peak_memory(device)


def table(figures: Sequence[Mapping[str, Any]]) -> str:
    """The variants side by side, for the terminal."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "": lambda row: row["name"],
        "s/step": lambda row: f"{row['seconds_per_step']:.3f}",
        "images/s": lambda row: f"{row['images_per_second']:.2f}",
        "(least - most)": lambda row: f"{row['least']:.2f} - {row['most']:.2f}",
        "x stock": lambda row: "-" if row["ratio_to_stock"] is None else f"{row['ratio_to_stock']:.2f}",
        "padding": lambda row: f"{row['padding_share']:.0%}",
        "waiting": lambda row: f"{row['waiting_share']:.0%}",
        "memory": lambda row: f"{row['peak_bytes'] / 2**30:.2f} GiB",
    }
    lines = [list(columns)]
    for row in figures:
        if "failure" in row:
            lines.append([row["name"], f"fails: {row['failure']}"])
        else:
            lines.append([show(row) for show in columns.values()])
    widths = [max(len(line[i]) for line in lines if len(line) > 2) for i in range(len(columns))]
    widths[0] = max(len(line[0]) for line in lines)
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    if len(line) == 2:
        return f"{line[0].ljust(widths[0])}  {line[1]}"
    return "  ".join([line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True))])
