"""Measures what a training holds in memory: epoch by epoch, and with a hundred times as many images.

    python benchmarks/measure_memory.py --images 200 --epochs 10
    python benchmarks/measure_memory.py --images 20000 --epochs 1

The tiny DETR is fine-tuned on drawn images, with an evaluation in each epoch. Of reading the data and of each epoch it
prints the most memory of the process's own (what the system calls anonymous), seen every 5 ms, and the most with the
pages of files that it has mapped, such as the images in the cache of `datasets`; those the system drops whenever it
needs the room. Linux only. Further flags are the recipe's.
"""

import argparse
import threading
import time
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState, TrainingArguments, set_seed

from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.machine import read_status, reset_peak, set_cpu_threads
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.training.job import build_job

FLAGS = (
    *("--model.checkpoint", "package:hf_detr_ft/tiny_detr", "--model.square_edge", "64"),
    *("--data.synthetic_short_side", "[64,96]", "--data.synthetic_val_images", "200"),
    *("--training.per_device_train_batch_size", "8", "--training.per_device_eval_batch_size", "8"),
    *("--training.save_strategy", "no", "--training.load_best_model_at_end", "false", "--training.bf16", "false"),
)
MIB = 2**20


class Sampler(threading.Thread):
    """Samples the memory that is the process's own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0

    def run(self) -> None:
        """Samples until the process ends."""
        while True:
            self.most = max(self.most, read_status("RssAnon"))
            time.sleep(0.005)

    def report(self, name: str) -> None:
        """Prints the most since the last time."""
        print(f"{name}: own {self.most / MIB:.1f} MiB, with mapped files {read_status('VmHWM') / MIB:.1f}", flush=True)
        self.most = 0
        reset_peak(torch.device("cpu"))


class Memory(TrainerCallback):
    """Notes the most memory of each epoch, its evaluation included."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Reports the epoch that is over."""
        self.sampler.report(f"epoch {state.epoch:g}")


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
        sampler = Sampler()
        sampler.start()
        splits = load_splits(recipe.data)
        trainer = build_job(recipe, splits).trainer
        print(f"{options.images} images, before training: own {read_status('RssAnon') / MIB:.1f} MiB")
        sampler.report("reading")
        trainer.add_callback(Memory(sampler))
        trainer.train()


if __name__ == "__main__":
    main()
