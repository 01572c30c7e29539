"""Measures whether bf16 learns what fp32 does: the tiny DETR on drawn balloons, over several seeds.

    python benchmarks/measure_bf16.py --seeds 4

The quickstart's recipe, with 400 images and 3 epochs of it. Prints the AP of each run, and the difference between
the precisions beside that between seeds. Further flags are the recipe's.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
SMALLER = ("--data.synthetic_images", "400", "--training.num_train_epochs", "3", "--training.save_strategy", "no")
LAST = ("--training.load_best_model_at_end", "false", "--training.eval_epochs", "3", "--report.enabled", "false")


def train(seed: int, precision: str, flags: list[str]) -> float:
    """Trains once; returns the AP of the last weights on the validation images."""
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        bf16 = str(precision == "bf16").lower()
        settings = (
            "--training.seed",
            str(seed),
            "--training.bf16",
            bf16,
            "--training.output_dir",
            run,
            "--training.disable_tqdm",
        )
        command = [sys.executable, "-m", "hf_detr_ft.cli", "train", RECIPE, *SMALLER, *LAST, *settings, *flags]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        ap: float = json.loads((run / "metrics.json").read_text())["last"]["map"]
    return ap


def main() -> None:
    """Trains one seed after the other, each in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    options, flags = parser.parse_known_args()
    found: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for seed in range(options.seeds):
        for precision, values in found.items():
            values.append(train(seed, precision, flags))
            print(f"seed {seed}, {precision}: AP {values[-1]:.4f}", flush=True)
    for precision, values in found.items():
        print(
            f"{precision}: mean {statistics.mean(values):.4f}, standard deviation over seeds "
            f"{statistics.stdev(values):.4f}, from {min(values):.4f} to {max(values):.4f}"
        )
    differences = [after - before for before, after in zip(*found.values(), strict=True)]
    print(
        f"bf16 less fp32, seed by seed: mean {statistics.mean(differences):+.4f}, each",
        *map("{:+.4f}".format, differences),
    )


if __name__ == "__main__":
    main()
