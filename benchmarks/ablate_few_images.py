"""`python benchmarks/ablate_few_images.py FOLDER [IMAGES …]`: what measures for few images bring, alone and together.

The tiny D-FINE learns balloons, and stars and fish that it knows, from 30, 120 and 500 drawn photos, with 3 seeds each;
AP is that of 200 other photos, evaluated at the end. Each row is compared with the first, by `hf-detr-ft compare`.
What is there in FOLDER is not trained again. About five minutes on one core for each row.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_detr_ft.evaluation.groups import Group, compare_groups, estimate_ap
from hf_detr_ft.report.read_group import find_runs, read_group

STEPS = {30: 150, 120: 150, 500: 200}
"""Steps of 8 photos by the number of images."""
BASE = {
    "data.synthetic_classes": '["balloon", "star", "fish"]',
    "data.synthetic_val_images": "200",
    "data.synthetic_seed": "17",
    "augment.preset": "none",
    "augment.horizontal_flip": "0.5",
    "training.per_device_train_batch_size": "8",
    "training.ema_decay": "null",
    "training.eval_strategy": "steps",
    "training.save_strategy": "steps",
    "training.save_total_limit": "1",
    "report.enabled": "false",
    "training.use_cpu": "true",
    "training.disable_tqdm": "true",
}
MEASURES: dict[str, dict[str, str]] = {
    "none": {},
    "average of the weights": {"training.ema_decay": "0.9999"},
    "rows of known classes": {"model.reuse_class_rows": "true"},
    "mosaics": {"augment.mosaic": "0.5"},
    "copy-paste": {"augment.copy_paste": "0.5"},
    "a size a step": {"augment.multi_scale": "batch"},
    "frozen backbone": {"model.trainable_stages": "[]"},
    "no warm-up": {"training.warmup_steps": "0"},
}
TOGETHER = ("average of the weights", "rows of known classes", "mosaics", "copy-paste")


def train(folder: Path, images: int, values: dict[str, str]) -> Group:
    """Detections of three trainings."""
    steps = str(STEPS[images])
    length = {"training.max_steps": steps, "training.eval_steps": steps, "training.save_steps": steps}
    given = {**BASE, "data.synthetic_images": str(images), **length, **values, "training.output_dir": str(folder)}
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "hf_detr_ft.cli", "train", "quickstart", "--seeds", "3", *flags]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return read_group(find_runs(str(folder)))[0]


def measure(folder: Path, sizes: Sequence[int]) -> None:
    """Prints a row for each measure, as soon as it is trained."""
    rows = {**MEASURES, "together": {key: value for name in TOGETHER for key, value in MEASURES[name].items()}}
    for images in sizes:
        print(f"\n{images} images\n\n| measure | AP | AP50 | more than none |\n|---|---|---|---|", flush=True)
        base: Group = []
        for name, values in rows.items():
            group = train(folder / str(images) / name.replace(" ", "_"), images, values)
            base = base or group
            ap, ap_50 = estimate_ap(group).values()
            row = compare_groups(base, group).overall
            limits = "" if row.interval is None else f" ({row.interval.low:+.3f} to {row.interval.high:+.3f})"
            difference = f"{row.value:+.3f}{limits}{' *' if row.is_told_apart else ''}"
            print(f"| {name} | {ap.mean:.3f} ± {ap.deviation:.3f} | {ap_50.mean:.3f} | {difference} |", flush=True)


if __name__ == "__main__":
    measure(Path(sys.argv[1]), list(map(int, sys.argv[2:])) or list(STEPS))
