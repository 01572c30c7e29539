"""Measures what a training holds in memory: epoch by epoch, and with a hundred times as many photos.

    python docs/measure_memory.py --images 200 --epochs 10
    python docs/measure_memory.py --images 20000 --epochs 1

The tiny DETR is fine-tuned on drawn photos, with an evaluation in each epoch. Of each epoch it prints the most memory
of the process's own (what the system calls anonymous), and the most with the pages of files that it has mapped, such as
the photos in the cache of `datasets`; those the system drops whenever it needs the room. Linux only. Further flags are
the recipe's.
"""

import argparse
from tempfile import TemporaryDirectory
from typing import Any

from transformers import TrainerCallback, TrainingArguments, set_seed

from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.memory import keeping_memory
from hf_detr_ft.recipe_file import load_recipe
from hf_detr_ft.runs.environment import set_cpu_threads
from hf_detr_ft.runs.stopwatch import read_status, reset_peak
from hf_detr_ft.runs.train import build_trainer
from hf_detr_ft.runs.train_data import store_splits

FLAGS = (
    *("--model.checkpoint", "package:hf_detr_ft/tiny_detr", "--model.square_edge", "64"),
    *("--data.synthetic_short_side", "[64,96]", "--data.synthetic_val_images", "200"),
    *("--training.per_device_train_batch_size", "8", "--training.per_device_eval_batch_size", "8"),
    *("--training.save_strategy", "no", "--training.load_best_model_at_end", "false", "--training.bf16", "false"),
)
MIB = 2**20


class Memory(TrainerCallback):
    """Notes the most memory of each epoch, its evaluation included."""

    def __init__(self) -> None:
        self.own = 0
        self.number = 0

    def look(self, *_: Any, **__: Any) -> None:
        """Once a step."""
        self.own = max(self.own, read_status("RssAnon"))

    def on_step_end(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """In training."""
        self.look()

    def on_prediction_step(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """In evaluation."""
        self.look()

    def on_evaluate(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """The epoch is over."""
        self.look()
        self.number += 1
        print(
            f"epoch {self.number:2}: own {self.own / MIB:7.1f} MiB, with mapped files {read_status('VmHWM') / MIB:7.1f}"
        )
        self.own = 0
        reset_peak(args.device)


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    options, flags = parser.parse_known_args()
    sizes = ("--data.synthetic_images", str(options.images), "--training.num_train_epochs", str(options.epochs))
    with TemporaryDirectory() as folder:
        recipe = load_recipe(None, [*FLAGS, *sizes, *flags, "--training.output_dir", folder])
        set_cpu_threads(recipe.speed.cpu_threads, "cpu")
        set_seed(0)
        trainer = build_trainer(recipe, store_splits(recipe, load_splits(recipe.data)))
        print(f"{options.images} photos, before training: own {read_status('RssAnon') / MIB:.1f} MiB")
        trainer.add_callback(Memory())
        with keeping_memory("cpu", recipe.speed.keep_memory):
            trainer.train()


if __name__ == "__main__":
    main()
