"""Measures how fast a full-size DETR-R50 trains, beside Transformers' own training, and keeps the figures for the page.

On a CPU:   python benchmarks/measure_training_speed.py cpu --data.root balloon
On a GPU:   python benchmarks/measure_training_speed.py gpu --data.root balloon

Each short side and batch size is one `hf-detr-ft benchmark` in a process of its own; its figures go to
benchmarks/results/DEVICE_SIDE_BATCH.json, from which scripts/build_performance_page.py makes the tables of
docs/performance.md. What is there already is not measured again; delete a file to have it anew.

Without images: --data.root null --data.synthetic_images 64 --data.synthetic_short_side "[800,1000]".
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
FIGURES = REPOSITORY / "benchmarks" / "results"
LONGEST = {480: 800, 800: 1333}
SETTINGS: dict[str, dict[str, Any]] = {
    "cpu": {"sides": (480, 800), "batches": (2, 4, 8), "images": {480: 32, 800: 8}, "rounds": {480: 3, 800: 2}},
    "gpu": {"sides": (800,), "batches": (8, 16), "images": {800: 320}, "rounds": {800: 5}},
}
BREAKDOWN = {("cpu", 480, 4), ("gpu", 800, 8), ("gpu", 800, 16)}
"""Jobs that also run the baseline in our precision, and ours without each of its measures and under the profiler."""
MODEL = ("--model.checkpoint", "null", "--model.backbone", "resnet50", "--augment.preset", "light")
"""Random weights take as long as trained ones. Images are flipped and recoloured and keep the short side that the row
names; DETR's crops and sizes, of 60 % to 100 %, would make it a smaller one."""


def command(device: str, side: int, batch: int, output: Path, flags: list[str]) -> list[str]:
    """Command of one benchmark."""
    settings = SETTINGS[device]
    steps = max(2, settings["images"][side] // batch)
    return [
        *(sys.executable, "-m", "hf_detr_ft.cli", "benchmark", str(REPOSITORY / "recipes" / "balloon.yaml"), *MODEL),
        *("--model.shortest_edge", str(side), "--model.longest_edge", str(LONGEST[side])),
        *("--training.per_device_train_batch_size", str(batch), "--output", str(output)),
        *("--rounds", str(settings["rounds"][side]), "--steps", str(steps)),
        *(("--profile",) if (device, side, batch) in BREAKDOWN else ("--no-breakdown",)),
        *flags,
    ]


def main() -> None:
    """Runs the benchmarks whose figures are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", choices=SETTINGS)
    options, flags = parser.parse_known_args()
    FIGURES.mkdir(exist_ok=True)
    for side in SETTINGS[options.device]["sides"]:
        for batch in SETTINGS[options.device]["batches"]:
            output = FIGURES / f"{options.device}_{side}_{batch}.json"
            if not output.exists():
                subprocess.run(command(options.device, side, batch, output, flags), check=True)


if __name__ == "__main__":
    main()
