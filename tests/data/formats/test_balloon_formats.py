"""The balloon photos through every way in: one and the same model has the same AP."""

import csv
import json
from pathlib import Path

import pytest

from hf_detr_ft.cli import main
from hf_detr_ft.evaluation.coco_result import CocoResult

STEPS = 32
ALL_SIZES = ("map", "map_50", "map_75", "mar_1", "mar_10", "mar_100")
"""Numbers that no area goes into, which boxes alone do not have."""


@pytest.fixture(scope="module")
def run(balloon: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DETR that has seen the photos a few times."""
    run = tmp_path_factory.mktemp("balloon") / "run"
    steps = dict.fromkeys(("max_steps", "eval_steps", "save_steps"), STEPS)
    settings = {**steps, "disable_tqdm": "true", "use_cpu": "true", "output_dir": run}
    flags = [part for name, value in settings.items() for part in (f"--training.{name}", str(value))]
    assert main(["train", "balloon_tiny", "--data.root", str(balloon), "--report.enabled", "false", *flags]) == 0
    return run


@pytest.fixture(scope="module")
def ways(balloon: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Flags that name the validation photos, by format."""
    from datasets import Dataset

    root = tmp_path_factory.mktemp("ways")
    photos, coco = balloon / "val2017", json.loads((balloon / "annotations/custom_val.json").read_text())
    (root / "coco").mkdir()
    (root / "coco/val2017").symlink_to(photos)
    (root / "coco/val.json").write_text(json.dumps(coco))
    for to in ("yolo", "voc"):
        assert main(["convert", str(root / "coco"), str(root / to), "--to", to]) == 0
    via = ["convert", "via", str(balloon / "via/via_region_data_val.json"), str(root / "via/val.json")]
    assert main([*via, "--images", str(photos), "--class-name", "balloon"]) == 0
    (root / "via/val2017").symlink_to(photos)
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    (root / "csv").mkdir()
    (root / "csv/val").symlink_to(photos)
    with (root / "csv/val.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "xmin", "ymin", "xmax", "ymax", "class"])
        for entry in coco["annotations"]:
            x, y, w, h = entry["bbox"]
            table.writerow([names[entry["image_id"]], x, y, x + w, y + h, "balloon"])
    rows = []
    for id_, name in names.items():
        boxes = [entry["bbox"] for entry in coco["annotations"] if entry["image_id"] == id_]
        objects = {"bbox": boxes, "category": ["balloon"] * len(boxes)}
        rows.append({"image": {"bytes": (photos / name).read_bytes(), "path": name}, "objects": objects})
    (root / "parquet").mkdir()
    Dataset.from_list(rows).to_parquet(root / "parquet/validation-00000-of-00001.parquet")
    return {name: ["--data.root", str(root / name)] for name in ("coco", "yolo", "voc", "via", "csv", "parquet")}


def test_the_same_ap(run: Path, ways: dict[str, list[str]], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {square_edge: 224}\ntraining: {per_device_eval_batch_size: 1, bf16: false, use_cpu: true}\n"
    )
    found = {}
    for name, flags in ways.items():
        output = tmp_path / f"{name}.json"
        assert main(["evaluate", str(run), "--recipe", str(recipe), *flags, "--output", str(output)]) == 0
        metrics = CocoResult.from_dict(json.loads(output.read_text())).metrics
        found[name] = {number: metrics[number] for number in ALL_SIZES}
    print({name: numbers["map"] for name, numbers in found.items()})
    assert found["coco"]["map_50"] > 0
    for numbers in found.values():
        assert numbers == pytest.approx(found["coco"], abs=1e-6)
