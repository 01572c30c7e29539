"""`python benchmarks/measure_suspects.py FOLDER`: precision and recall of `check --model` on drawn photos, 5 % spoilt.

Draws 1,000 training and 200 validation photos, removes, relabels or shifts (by 40 to 80 % of a side) 5 % of the
annotations of each split, fine-tunes the tiny D-FINE on the spoilt ones as recipes/quickstart.yaml does (`--epochs 0`:
takes it as it comes, for its own ten classes), and compares what is listed to what was spoilt. 8 minutes on one core.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hf_detr_ft.cli import main
from hf_detr_ft.evaluation.suspects import SAME_PLACE, pairwise_iou
from hf_detr_ft.evaluation.worst_suspects import SHIFT
from hf_detr_ft.runs.check_model import check_model

SHARE = 0.05
KINDS = ("removed", "relabelled", "shifted")


def spoil(path: Path, seed: int) -> dict[int, tuple[str, dict[str, Any]]]:
    """Spoils a COCO JSON in place; kind and sound entry by annotation id."""
    coco, random, done = json.loads(path.read_text()), np.random.default_rng(seed), {}
    entries, classes = coco["annotations"], len(coco["categories"])
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for number, place in enumerate(random.permutation(len(entries))[: round(SHARE * len(entries))].tolist()):
        entry, kind = entries[place], KINDS[number % len(KINDS)]
        done[entry["id"]] = kind, {**entry, "bbox": list(entry["bbox"])}
        if kind == "relabelled":
            ids = [category["id"] for category in coco["categories"]]
            entry["category_id"] = ids[(ids.index(entry["category_id"]) + int(random.integers(1, classes))) % classes]
        elif kind == "shifted":
            side, box = int(random.integers(2)), entry["bbox"]
            by = random.choice([-1, 1]) * random.uniform(*SHIFT) * box[2 + side]
            room = sizes[entry["image_id"]][side] - box[2 + side]
            box[side] = min(max(box[side] + (by if 0 <= box[side] + by <= room else -by), 0), room)
            entry.pop("segmentation", None)
    coco["annotations"] = [entry for entry in entries if done.get(entry["id"], ("",))[0] != "removed"]
    path.write_text(json.dumps(coco))
    return done


def judge(listed: list[dict[str, Any]], done: dict[int, tuple[str, dict[str, Any]]], images: dict[int, str]) -> str:
    """A row of the table: listed, precision, recall, and how many were found of each kind."""
    found, right = set[int](), 0
    for suspect in listed:
        id_ = suspect["annotation_id"]
        if id_ is None:
            there = [
                key
                for key, (kind, entry) in done.items()
                if kind != "relabelled"
                and images[entry["image_id"]] == suspect["file_name"]
                and pairwise_iou(*(np.array([box], float) for box in (suspect["found_bbox"], entry["bbox"])))[0, 0]
                >= SAME_PLACE
            ]
            id_ = there[0] if there else None
        right += id_ in done
        found |= {id_} & done.keys()
    kinds, hit = (Counter(done[id_][0] for id_ in ids) for ids in (done, found))
    of_kinds = " | ".join(f"{hit[kind]} of {kinds[kind]}" for kind in KINDS)
    return f"{len(listed)} | {right / max(len(listed), 1):.2f} | {len(found) / len(done):.2f} | {of_kinds} |"


def measure(folder: Path, seed: int, epochs: int, classes: str) -> None:
    """Draws, spoils, trains, checks, and prints the table."""
    data, run = folder / "data", folder / "run"
    drawn = ["--images", "1000", "--val-images", "200", "--seed", str(seed), "--classes", classes]
    assert main(["get", "synthetic", str(data), *drawn, "--short-side", "192", "240", "--workers", "1"]) == 0
    files = {split: data / "annotations" / f"custom_{split}.json" for split in ("train", "val")}
    done = {split: spoil(path, seed) for split, path in files.items()}
    recipe = yaml.safe_load((Path(__file__).parents[1] / "recipes" / "quickstart.yaml").read_text())
    recipe["data"] = {"name": "spoilt", "root": str(data)}
    recipe["report"] = {"enabled": False}
    recipe["training"] |= {"output_dir": str(run), "num_train_epochs": max(epochs, 1), "use_cpu": True}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    model = str(run) if epochs else "package:hf_detr_ft/tiny_dfine"
    if epochs:
        assert main(["train", str(path)]) == 0
    check_model(path, [], source=model, output=folder / "suspects")
    print("| split | listed | precision | recall | removed | relabelled | shifted |\n|---|---|---|---|---|---|---|")
    for split, spoilt in done.items():
        names = {image["id"]: image["file_name"] for image in json.loads(files[split].read_text())["images"]}
        print(
            f"| {split} | {judge(json.loads((folder / f'suspects/suspects-{split}.json').read_text()), spoilt, names)}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--classes", default="balloon,star")
    measure(**vars(parser.parse_args()))
