"""`python benchmarks/ablate_few_images.py FOLDER [IMAGES …] [BALLOON] [--steps N]`: what measures for few images bring.

The tiny D-FINE learns balloons, and stars and fish that it knows, from 30, 120 and 500 drawn photos, with 3 seeds each;
AP is that of 200 other photos, evaluated at the end. From the balloon photos, whose folder is BALLOON, it learns in
three folds of those for training, 100 steps each; AP is that of the folds' detections together. Each row is compared
with the first, by `hf-detr-ft compare`. What is there in FOLDER is not trained again. About five minutes on one core
for each row of drawn photos, ten of the balloon photos.

With `--steps` all trainings have so many (give another FOLDER), with `--measure NAME …` the table has these rows alone.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from hf_detr_ft.evaluation.groups import Group, compare_groups, estimate_ap
from hf_detr_ft.report.read_group import find_runs, read_group

STEPS = {30: 150, 120: 150, 500: 200}
"""Steps of 8 photos by the number of images."""
BALLOON_STEPS, FOLDS = 100, 3
DRAWN = {
    "data.synthetic_classes": '["balloon", "star", "fish"]',
    "data.synthetic_val_images": "200",
    "data.synthetic_seed": "17",
}
BASE = {
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
    "colours": {"augment.color_jitter": "0.4"},
    "copy-paste": {"augment.copy_paste": "0.5"},
    "a size a step": {"augment.multi_scale": "batch"},
    "frozen backbone": {"model.trainable_stages": "[]"},
    "no warm-up": {"training.warmup_steps": "0"},
}
TOGETHER = ("average of the weights", "rows of known classes", "mosaics", "copy-paste")


@dataclass(frozen=True)
class Photos:
    """Photos that are learned from.

    Attributes:
        name: of the table.
        values: of the recipe, by field.
        steps: of a training.
        series: flags of `train` for several runs.
    """

    name: str
    values: dict[str, str]
    steps: int
    series: tuple[str, ...]


def find_photos(argument: str) -> Photos:
    """Drawn photos by their number, or the balloon photos by their folder."""
    if argument.isdecimal():
        values = {**DRAWN, "data.synthetic_images": argument}
        return Photos(f"{argument} images", values, STEPS[int(argument)], ("--seeds", "3"))
    values = {"data.synthetic_images": "null", "data.root": argument}
    return Photos("balloon", values, BALLOON_STEPS, ("--seeds", "3", "--folds", str(FOLDS)))


def train(folder: Path, photos: Photos, values: dict[str, str]) -> Group:
    """Detections of three trainings."""
    steps = str(photos.steps)
    length = {"training.max_steps": steps, "training.eval_steps": steps, "training.save_steps": steps}
    given = {**BASE, **photos.values, **length, **values, "training.output_dir": str(folder)}
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "hf_detr_ft.cli", "train", "quickstart", *photos.series, *flags]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return read_group(find_runs(str(folder)))[0]


def measure(folder: Path, photos: Photos, names: list[str]) -> None:
    """Prints a row for each measure, as soon as it is trained."""
    rows = {**MEASURES, "together": {key: value for name in TOGETHER for key, value in MEASURES[name].items()}}
    print(
        f"\n{photos.name}, {photos.steps} steps\n\n| measure | AP | AP50 | more than none |\n|---|---|---|---|",
        flush=True,
    )
    base: Group = []
    for name in dict.fromkeys(["none", *(names or rows)]):
        if photos.name == "balloon" and name == "rows of known classes":
            continue  # it knows no balloons
        group = train(folder / photos.name.split()[0] / name.replace(" ", "_"), photos, rows[name])
        base = base or group
        ap, ap_50 = estimate_ap(group).values()
        row = compare_groups(base, group).overall
        limits = "" if row.interval is None else f" ({row.interval.low:+.3f} to {row.interval.high:+.3f})"
        difference = f"{row.value:+.3f}{limits}{' *' if row.is_told_apart else ''}"
        print(f"| {name} | {ap.mean:.3f} ± {ap.deviation:.3f} | {ap_50.mean:.3f} | {difference} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("photos", nargs="*", default=list(map(str, STEPS)))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--measure", nargs="+", default=[], choices=[*MEASURES, "together"])
    given = parser.parse_args()
    for photos in map(find_photos, given.photos):
        measure(given.folder, replace(photos, steps=given.steps or photos.steps), given.measure)
