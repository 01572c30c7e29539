"""The model card, what goes up with a run, and the push, with the real client against a Hub on loopback."""

import ast
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.torch import load_file

import hf_detr_ft
from hf_detr_ft.cli import main
from hf_detr_ft.errors import DataError, InputError, RecipeError
from hf_detr_ft.hub import build_model_card, check_access, collect_files, push_run, remove_private, write_model_card
from hf_detr_ft.hub.upload_files import is_public_plot
from hf_detr_ft.plots.training_curves import LOSS_TITLES
from hf_detr_ft.recipe.files import load_recipe, save_recipe
from hf_detr_ft.yaml12 import dump_yaml, parse_yaml
from tests.fixtures import CLASSES, tiny_detr, write_coco_folder, write_run_folder
from tests.hub.hub_server import ANNA, BERT, HubServer, Refusal, check_card

METRICS = {
    "map": 0.5834567891234567,
    "map_50": 0.8171717171717172,
    "map_75": 0.1,
    "map_small": -1,
    "map_medium": 0.25,
    "map_large": 1 / 3,
    **dict.fromkeys(("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"), 0.5),
}
HOME = "/home/localuser"
RECIPE: dict[str, Any] = {
    "data": {"name": "balloon", "root": f"{HOME}/my photos/balloon", "train_annotations": "annotations/train.json"},
    "augment": {"preset": "detr", "pipeline": ["Blur", {"GaussNoise": {"p": 0.2}}]},
    "model": {
        "checkpoint": f"{HOME}/weights/detr-r50",
        "trainable_stages": ["layer2", "layer3", "layer4"],
        "config": {"num_queries": 12},
    },
    "training": {
        "output_dir": f"{HOME}/runs/balloon",
        "learning_rate": "1e-4",
        "seed": 7,
        "hub_token": ANNA,
        "push_to_hub": True,
        "overwrite": True,
        "resume_from_checkpoint": "checkpoint-30",
    },
    "made_with": {"versions": {"torch": "2.15.0", "timm": "not installed"}, "device": "NVIDIA H100"},
}
NAMES = {"README.md", "config.json", "metrics.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml"}


def evaluation(**overrides: Any) -> dict[str, Any]:
    per_class = [
        {"category_id": 3, "name": CLASSES[0], "ap": 0.6, "ap_50": 0.8, "ar_100": 0.7, "objects": 4},
        {"category_id": 7, "name": CLASSES[1], "ap": -1, "ap_50": -1, "ar_100": -1, "objects": 0},
    ]
    best = {"epoch": 2.0, "step": 30, "metrics": METRICS, "per_class": per_class, "images": 2, "objects": 4}
    best_f1 = {"threshold": 0.625, "f1": 0.8, "precision": 0.8, "recall": 0.8}
    return {
        "best": {**best, "best_f1": best_f1},
        "last": {**best, "step": 60, "metrics": dict.fromkeys(METRICS, 0.01)},
        "data": {"name": "balloon", "split": "validation"},
        "base_model": None,
        "seconds": 90.0,
        **overrides,
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(weights: Path, tmp_path: Path) -> Path:
    """A run folder as training leaves it, with all that must not go up."""
    run = tmp_path / "runs" / "balloon"
    shutil.copytree(weights, run)
    (run / "metrics.json").write_text(json.dumps(evaluation()))
    (run / "recipe.yaml").write_text(dump_yaml(RECIPE))
    return run


# The card


def card_of(run: Path, **changes: Any) -> tuple[str, dict[str, Any]]:
    (run / "metrics.json").write_text(json.dumps(evaluation(**changes)))
    text = build_model_card(run, "anna/detr-balloon")
    assert check_card(text) == []
    return text, ModelCard(text).data.to_dict()


def test_the_card_carries_the_metrics_exactly(run: Path) -> None:
    path = write_model_card(run, "anna/detr-balloon")
    metadata = metadata_load(path)
    assert path == run / "README.md"
    assert metadata is not None
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "detr-balloon"
    written = {result.metric_name: (result.metric_type, result.metric_value) for result in results}
    assert written == {
        name: (key, METRICS[key]) for name, key in (("AP", "map"), ("AP50", "map_50"), ("AP75", "map_75"))
    }
    assert {(r.task_type, r.dataset_name, r.dataset_type, r.dataset_split) for r in results} == {
        ("object-detection", "balloon", "balloon", "validation")
    }
    assert metadata["library_name"] == "transformers"
    assert metadata["pipeline_tag"] == "object-detection"
    assert metadata["tags"] == ["detr", "object-detection", "vision", "hf_detr_ft"]
    assert not {"license", "base_model", "datasets"} & metadata.keys()


@pytest.mark.parametrize(("name", "model_type", "article"), [("D-FINE", "d_fine", "A"), ("RT-DETR", "rt_detr", "An")])
def test_the_card_names_the_family(run: Path, name: str, model_type: str, article: str) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    text, data = card_of(run, family=name, most_detections=7)
    assert "At most 7 objects are found" in text, "of 300 queries Deformable DETR gives the best 100"
    assert (
        f"{article} [{name}](https://huggingface.co/docs/transformers/model_doc/{model_type}) object detector" in text
    )
    assert data["tags"][0] == model_type


def test_the_page_shows_all_numbers_and_dashes_where_coco_has_none(run: Path) -> None:
    text, _ = card_of(run)
    assert "**AP 0.583, AP50 0.817, AP75 0.100** on the validation split (2 images, 4 objects)." in text
    assert "| AP large | area above 96² pixels | 0.333 |" in text
    assert "| AP small | area below 32² pixels | - |" in text
    assert f"| {CLASSES[0]} | 4 | 0.600 | 0.800 |\n| {CLASSES[1]} | 0 | - | - |" in text
    assert "| `training.learning_rate` | `1e-4` |" in text
    assert "| `model.trainable_stages` | `layer2, layer3, layer4` |" in text
    assert """| `augment.pipeline` | `["Blur", {"GaussNoise": {"p": 0.2}}]` |""" in text
    assert "threshold=0.625)" in text
    assert "fine-tuned from a local checkpoint (detr-r50) on balloon" in text
    assert "At most 12 objects" in text
    assert "hf-detr-ft train recipe.yaml --data.root FOLDER --model.checkpoint MODEL_FOLDER\n" in text
    assert "| `model.config.num_queries` | `12` |" in text
    assert "minutes on NVIDIA H100. Versions: hf_detr_ft " in text
    assert ", torch 2.15.0." in text
    assert HOME not in text
    assert ANNA not in text


def test_the_card_tells_the_limits_that_were_seen(run: Path) -> None:
    best = evaluation()["best"]
    metrics = {**best["metrics"], "map_small": 0.1, "map_medium": -1, "map_large": 0.75}
    rows = [{"name": f"class_{n}", "objects": 5 * n, "ap": n / 10, "ap_50": 0.9} for n in range(1, 7)]
    found = {"threshold": 0.6, "f1": 0.8, "precision": 0.9, "recall": 0.72}
    text, _ = card_of(run, best={**best, "metrics": metrics, "per_class": rows, "best_f1": found})
    assert "- Above 0.6 it misses 28 % of the objects, and 10 % of its boxes are wrong.\n" in text
    assert "- It is weakest on small objects: AP 0.100, 0.750 on large ones.\n" in text
    assert "10 or more objects with the lowest AP are class_2 (0.200), class_3 (0.300), class_4 (0.400).\n" in text
    text, _ = card_of(run, best={"metrics": {"map": 0.5}})
    assert "weakest" not in text and "lowest AP" not in text and "it misses" not in text


def test_an_undefined_metric_is_left_out_of_the_metadata(run: Path) -> None:
    best = {**evaluation()["best"], "metrics": {**METRICS, "map_75": -1}}
    _, data = card_of(run, best=best)
    assert [metric["type"] for metric in data["model-index"][0]["results"][0]["metrics"]] == ["map", "map_50"]
    _, data = card_of(run, best={**best, "metrics": dict.fromkeys(METRICS, -1)})
    assert "model-index" not in data


def with_model(run: Path, **model: Any) -> tuple[str, dict[str, Any]]:
    (run / "recipe.yaml").write_text(dump_yaml({**RECIPE, "model": model}))
    return card_of(run)


def test_drawn_photos_need_no_folder_to_train_again(run: Path) -> None:
    recipe = {**RECIPE, "data": {"synthetic_images": 20, "root": None}, "model": {"backbone": "resnet50"}}
    (run / "recipe.yaml").write_text(dump_yaml(recipe))
    text, _ = card_of(run)
    assert "is the resolved recipe of the run:\n\n```bash\nhf-detr-ft train recipe.yaml\n```" in text


def test_a_base_model_of_the_hub_becomes_a_link_and_a_local_one_does_not(run: Path, tmp_path: Path) -> None:
    text, data = with_model(run, checkpoint="facebook/detr-resnet-50")
    assert data["base_model"] == "facebook/detr-resnet-50"
    assert "[facebook/detr-resnet-50](https://huggingface.co/facebook/detr-resnet-50)" in text
    assert "recipe.yaml --data.root FOLDER\n" in text
    (tmp_path / "facebook" / "detr-resnet-50").mkdir(parents=True)
    assert "base_model" not in with_model(run, checkpoint="facebook/detr-resnet-50")[1]
    for local in (f"{HOME}/detr", "../weights/detr", "weights/detr/best", "detr", r"C:\weights\detr", "./detr"):
        assert "base_model" not in with_model(run, checkpoint=local)[1], local


def test_a_model_from_a_backbone_has_no_base_model(run: Path) -> None:
    (run / "metrics.json").write_text(json.dumps(evaluation(base_model="timm/resnet18")))
    text, data = with_model(run, checkpoint=None, backbone="timm/resnet18")
    assert "base_model" not in data
    assert "built on the backbone timm/resnet18 and trained on balloon" in text
    assert "--model.checkpoint" not in text


def test_without_a_recipe_the_base_model_is_the_one_of_the_metrics(run: Path) -> None:
    (run / "recipe.yaml").unlink()
    assert card_of(run, base_model="facebook/detr-resnet-50")[1]["base_model"] == "facebook/detr-resnet-50"


def test_a_local_path_for_a_name_is_not_told(run: Path) -> None:
    text, data = card_of(run, data={"name": f"{HOME}/balloon"})
    described = {"name": "balloon", "type": "balloon", "split": "validation"}
    assert data["model-index"][0]["results"][0]["dataset"] == described
    assert HOME not in text


def test_the_card_tells_of_the_weights_that_are_published(run: Path) -> None:
    (run / "recipe.yaml").write_text(dump_yaml({"training": {"load_best_model_at_end": False}}))
    text, data = card_of(run)
    assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.01
    assert "**AP 0.010" in text
    assert "step 60" in text


def test_a_data_set_of_the_hub_becomes_a_link(run: Path) -> None:
    text, data = card_of(run, data={"name": "anna/cppe-5", "split": "test"})
    described = {"name": "anna/cppe-5", "type": "anna/cppe-5", "split": "test"}
    assert data["datasets"] == ["anna/cppe-5"]
    assert data["model-index"][0]["results"][0]["dataset"] == described
    assert "[anna/cppe-5](https://huggingface.co/datasets/anna/cppe-5)" in text


def test_a_test_split_is_named_apart(run: Path) -> None:
    best = evaluation()["best"]
    text, data = card_of(run, test={**best, "metrics": {**best["metrics"], "map": 0.314}, "images": 9, "objects": 21})
    results = [(r["dataset"]["split"], r["metrics"][0]["value"]) for r in data["model-index"][0]["results"]]
    assert results == [("validation", best["metrics"]["map"]), ("test", 0.314)]
    assert "On the test split (9 images, 21 objects), which was evaluated once, at the end" in text
    assert "chose nothing: **AP 0.314, " in text
    assert "On the test split" not in card_of(run)[0]


def test_the_licence_is_the_stated_one(run: Path) -> None:
    assert ModelCard(build_model_card(run, "anna/x", license="apache-2.0")).data["license"] == "apache-2.0"


def test_exported_files_go_up_and_the_card_tells_what_was_measured(run: Path) -> None:
    folder = run / "export"
    folder.mkdir()
    measured = {"files": ["model.xml", "model.bin"], "runtime": "openvino 1", "ap": 0.5, "ap_pytorch": 0.501}
    speeds = {"box_difference_px": 0.25, "images_per_second": 4, "images_per_second_pytorch": 2, "bytes": 1_500_000}
    (folder / "model.xml.json").write_text(json.dumps(measured | speeds))
    (folder / "model.xml").write_text("graph")
    (folder / "model.bin").write_text("weights")
    files = collect_files(run, "anna/x")
    assert files["export/model.xml"] == folder / "model.xml" and files["export/model.bin"] == folder / "model.bin"
    card = build_model_card(run, "anna/x")
    assert "| model.xml | openvino 1 | 0.500 | 0.501 | 0.25 | 4.00 | 2.00 | 1.5 |" in card
    shutil.rmtree(folder)
    assert "## Exported" not in build_model_card(run, "anna/x")


def test_thirty_classes_are_listed_the_most_frequent_first(run: Path) -> None:
    rows = [{"name": f"class|{n}", "ap": 0.1, "ap_50": 0.2, "objects": n} for n in range(40)]
    text, _ = card_of(run, best={**evaluation()["best"], "per_class": rows})
    assert re.findall(r"^\| class\\\|(\d+)", text, re.MULTILINE) == [str(n) for n in range(39, 9, -1)]
    assert "the 30 most frequent of 40" in text


def test_a_run_without_recipe_or_training_facts_has_a_card(run: Path) -> None:
    (run / "recipe.yaml").unlink()
    (run / "metrics.json").write_text(json.dumps({"best": {"metrics": METRICS}}))
    text = build_model_card(run)
    assert check_card(text) == []
    assert 'pipeline("object-detection", "your-name/balloon")' in text
    assert "Reproduce" not in text
    assert ", trained on a custom data set." in text
    assert "threshold=0.5" in text


def test_a_card_is_renewed_until_a_person_edits_it(run: Path) -> None:
    path = write_model_card(run)
    (run / "metrics.json").write_text(json.dumps(evaluation(seconds=6000.0)))
    assert "100.0 minutes" in write_model_card(run).read_text()
    path.write_text(path.read_text().replace("## Limits", "## What I saw"))
    edited = path.read_text()
    assert write_model_card(run).read_text() == edited
    path.write_text("# Mine\n")
    assert write_model_card(run).read_text() == "# Mine\n"
    assert [entry.name for entry in run.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "metrics.json: expected JSON"),
        ("[]", "metrics.json: expected a JSON object, found a list"),
        ('{"last": {}}', "metrics.json: expected best and in it metrics, found last"),
    ],
)
def test_metrics_that_training_did_not_write_are_named(run: Path, content: str, expected: str) -> None:
    (run / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=re.escape(expected)):
        build_model_card(run)


@pytest.mark.parametrize(("content", "expected"), [("a: [", "expected YAML"), ("- 1", "found a list")])
def test_a_recipe_that_is_none_is_named(run: Path, content: str, expected: str) -> None:
    (run / "recipe.yaml").write_text(content)
    with pytest.raises(RecipeError, match=f"recipe.yaml.*{expected}"):
        build_model_card(run)


# What may leave the machine


@pytest.mark.parametrize("key", ["hub_token", "push_to_hub_token"])
def test_secrets_are_dropped(key: str) -> None:
    assert remove_private({"training": {key: "abc", "seed": 1}, "list": [{key: None}]}) == {
        "training": {"seed": 1},
        "list": [{}],
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/u/my photos/balloon/", "balloon"),
        ("~/balloon", "balloon"),
        ("~u/balloon", "balloon"),
        ("../../u/balloon", "balloon"),
        (r"C:\Users\u\balloon", "balloon"),
        (r"\\server\u\balloon", "balloon"),
        ("//server/u/balloon", "balloon"),
        ("file:///home/u/balloon", "balloon"),
        ("https://huggingface.co/facebook/detr-resnet-50", "https://huggingface.co/facebook/detr-resnet-50"),
        ("facebook/detr-resnet-50", "facebook/detr-resnet-50"),
        ("annotations/custom_train.json", "annotations/custom_train.json"),
        ("mAP / epoch and 1/2", "mAP / epoch and 1/2"),
        ("1e-4", "1e-4"),
        (["/home/u/a", None, 1, True, 0.5], ["a", None, 1, True, 0.5]),
    ],
)
def test_paths_are_reduced_and_the_rest_stays(value: object, expected: object) -> None:
    assert remove_private({"key": value}) == {"key": expected}


def test_settings_that_only_look_private_stay() -> None:
    kept = {"average_tokens_across_devices": True, "use_mask_token": False, "max_tokens": 3, "keys": "a"}
    labels = {"id2label": {"0": "/dog", "1": "~/cat"}, "per_class": [{"name": "/dog"}]}
    assert remove_private({**kept, **labels}) == {**kept, **labels}


def add_private_files(run: Path) -> None:
    """All kinds of things that people have in a run folder, none of which may go up as they are."""
    (run / "training_args.bin").write_bytes(pickle.dumps({"hub_token": ANNA}))
    for name in ("checkpoint-30", "logs", "plots", "plots/deeper"):
        (run / name).mkdir()
    for name in (
        ".env",
        "notes.txt",
        "checkpoint-30/optimizer.pt",
        "logs/events",
        "plots/notes.txt",
        "plots/deeper/a.png",
    ):
        (run / name).write_text(f"HF_TOKEN={ANNA} {HOME}")
    (run / "plots" / "precision-recall.png").write_bytes(b"\x89PNG curve")
    (run / "plots" / "my photo.png").write_bytes(b"\x89PNG a person")
    (run / "plots" / "predictions.png").write_bytes(b"\x89PNG photos of the validation split")
    (run / "results.csv").write_text("epoch,map\n1,0.5\n")
    (run / "report.html").write_text("<p>shows photos</p>")
    (run / "plots" / "photos").mkdir()
    (run / "plots" / "photos" / "attention.png").write_bytes(b"\x89PNG a photo")
    (run / "detections.npz").write_bytes(b"PK of the validation photos")
    (run / "trainer_state.json").write_text(f'{{"best_model_checkpoint": "{HOME}/runs"}}')
    config = json.loads((run / "config.json").read_text())
    config["_name_or_path"] = f"{HOME}/weights/detr-r50"
    (run / "config.json").write_text(json.dumps(config))
    metrics = evaluation(base_model=f"{HOME}/weights/detr-r50")
    (run / "metrics.json").write_text(json.dumps(metrics))


def test_only_the_allow_list_goes_up_and_nothing_private_in_it(hub: HubServer, run: Path) -> None:
    add_private_files(run)
    url = push_run(run, "anna/detr-balloon")
    assert url == f"{hub.url}/anna/detr-balloon"
    files = hub.files("anna/detr-balloon")
    assert files.keys() - {".gitattributes"} == NAMES | {"results.csv", "plots/precision-recall.png"}
    assert hub.repos["anna/detr-balloon"].titles == ["initial commit", "Upload a run"]
    stored = hub.stored_bytes()
    for private in (ANNA, BERT, "localuser", "my photos", str(run.parent), "hub_token: "):
        assert private.encode() not in stored, private
    recipe = parse_yaml(files["recipe.yaml"].decode())
    assert recipe["training"] == {"learning_rate": "1e-4", "output_dir": "balloon", "seed": 7}
    assert recipe["data"] == {"name": "balloon", "root": "balloon", "train_annotations": "annotations/train.json"}
    assert json.loads(files["metrics.json"])["best"] == evaluation()["best"]
    assert json.loads(files["config.json"])["_name_or_path"] == "detr-r50"
    assert json.loads(files["config.json"])["category_ids"] == [3, 7]
    assert files["results.csv"] == b"epoch,map\n1,0.5\n"
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()


def figures_of_the_report() -> dict[str, bool]:
    """Names of the figures of a run's page, and whether they show images; `x` stands for what is filled in."""
    found = {}
    for path in (Path(hf_detr_ft.__file__).parent / "report" / "sections").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Plot":
                name = node.args[0]
                parts = name.values if isinstance(name, ast.JoinedStr) else [name]
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)
                found[text] = any(keyword.arg and keyword.arg.startswith("shows_") for keyword in node.keywords)
    losses = {name.replace("_", "-") for name in LOSS_TITLES}
    filled_in = {"x", "x-layers", "x-denoising", "ap-x"}  # of losses, and of several runs beside each other
    return {name: shows for name, shows in found.items() if name not in filled_in} | dict.fromkeys(losses, False)


def test_figures_go_up_unless_they_show_images() -> None:
    figures = figures_of_the_report()
    assert {"average-precision", "positions-x", "loss-giou", "encoder-attention-x-x"} <= figures.keys()
    for name, shows_images in figures.items():
        assert is_public_plot(name) != shows_images, f"{name}: see PUBLIC_PLOTS"
    assert not is_public_plot("predictions")


def test_no_path_and_no_token_of_a_run_goes_up(hub: HubServer, run: Path, tmp_path: Path) -> None:
    """The recipe as training writes it, each field that can name a file naming one."""
    for name in ("photos", "weights"):
        (tmp_path / name).mkdir()
    paths = {"data.root": "photos", "data.train_annotations": "a.json", "data.val_images": "val"}
    paths |= {"model.checkpoint": "weights", "model.backbone_weights": "weights", "training.output_dir": "out"}
    flags = [part for name, path in paths.items() for part in (f"--{name}", str(tmp_path / path))]
    recipe = load_recipe(None, [*flags, "--training.hub_token", ANNA, "--training.resume_from_checkpoint", "last"])
    save_recipe(recipe, run / "recipe.yaml", {"annotations_sha256": {"train": "0"}})
    assert str(tmp_path) in (run / "recipe.yaml").read_text()
    push_run(run, "anna/x")
    stored = hub.stored_bytes()
    for private in (str(tmp_path), str(tmp_path.parent), tmp_path.name, ANNA):
        assert private.encode() not in stored, private
    assert parse_yaml(hub.files("anna/x")["recipe.yaml"].decode())["training"]["output_dir"] == "out"


@pytest.mark.parametrize("name", ["no", "2024-05-01", "1:30", "010", "1_000", "null", "'quoted'"])
def test_a_published_recipe_means_what_it_meant(run: Path, name: str) -> None:
    """YAML 1.1 takes some of these for false, a date, minutes and numbers."""
    recipe = load_recipe(None, ["--data.synthetic_images", "3"])
    recipe.resolved["data"]["name"] = name
    save_recipe(recipe, run / "recipe.yaml", {})
    content = collect_files(run, "anna/x")["recipe.yaml"]
    assert isinstance(content, bytes)
    published = run / "published.yaml"
    published.write_bytes(content)
    assert load_recipe(published).data.name == name


def test_a_pushed_recipe_trains_again(hub: HubServer, run: Path, tmp_path: Path) -> None:
    folders = ["--data.root", str(write_coco_folder(tmp_path / "data")), "--model.checkpoint", str(run)]
    never = ("--training.eval_strategy", "no", "--training.save_strategy", "no")
    flags = [*folders, *never, "--training.load_best_model_at_end", "false", "--training.max_steps", "1"]
    small = ["--model.shortest_edge", "64", "--training.bf16", "false", "--training.use_cpu", "true"]
    save_recipe(load_recipe(None, [*flags, *small]), run / "recipe.yaml", {})
    push_run(run, "anna/x")
    pushed = tmp_path / "recipe.yaml"
    pushed.write_bytes(hub.files("anna/x")["recipe.yaml"])
    assert main(["train", str(pushed), *folders, "--training.output_dir", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["README.md", "plots/errors.png", "results.csv"])
def test_a_token_in_a_file_that_goes_up_as_it_is_stops_the_push(hub: HubServer, run: Path, name: str) -> None:
    (run / "plots").mkdir()
    (run / name).write_text(f"# Mine\n\nlogin({BERT!r})\n")
    with pytest.raises(DataError, match=f"{name}: holds what looks like an access token, nothing was uploaded"):
        push_run(run, "anna/detr-balloon")
    assert hub.requests == []


# The push


def client_environment(hub: HubServer, home: Path) -> dict[str, str]:
    """A clean machine whose Hub is the one on loopback."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "XDG_"))
    }
    added = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return {**kept, **added, "HF_TOKEN": ANNA, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}


PUSH = """
import sys
from pathlib import Path
from hf_detr_ft.hub import push_run
print(push_run(Path(sys.argv[1]), "anna/detr-balloon", private=True))
"""

READ_BACK = """
import json, re, sys
import huggingface_hub
import numpy as np
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from transformers import pipeline

image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8))
found = [pipeline("object-detection", model)(image, threshold=0.0) for model in ("anna/detr-balloon", sys.argv[1])]
card = ModelCard.load("anna/detr-balloon")
if int(huggingface_hub.__version__.split(".")[0]) >= 2:  # older ones ask huggingface.co, whatever HF_ENDPOINT says
    card.validate()
(snippet,) = re.findall(r"```python\\n(.*?)```", card.text, re.DOTALL)
used = {}
exec(snippet, used)
results = {result.metric_name: result.metric_value for result in card.data.eval_results}
info = HfApi().model_info("anna/detr-balloon")
print(json.dumps({"found": found, "results": results, "snippet": used["detector"].model.name_or_path,
    "private": info.private, "tree": [entry.path for entry in HfApi().list_repo_tree("anna/detr-balloon")]}))
"""


def test_a_run_comes_back_from_a_clean_cache_as_it_was(run: Path, tmp_path: Path) -> None:
    with HubServer() as hub:
        outputs = []
        for script, home in ((PUSH, "writer"), (READ_BACK, "reader")):
            environment = client_environment(hub, tmp_path / home)
            command = [sys.executable, "-W", "error::UserWarning:huggingface_hub", "-c", script, str(run)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            outputs.append(done.stdout.splitlines()[-1])
        assert hub.unknown == []
        assert outputs[0] == f"{hub.url}/anna/detr-balloon"
        assert "POST /api/validate-yaml" in hub.requests
        assert f"PUT /lfs-storage/{next(iter(hub.large))}" in hub.requests
    back = json.loads(outputs[1])
    from_hub, from_folder = back["found"]
    assert from_hub == from_folder
    assert len(from_hub) == 12
    assert {detection["label"] for detection in from_hub} <= set(CLASSES)
    assert back["results"] == {"AP": METRICS["map"], "AP50": METRICS["map_50"], "AP75": METRICS["map_75"]}
    assert back["snippet"] == "anna/detr-balloon"
    assert back["private"] is True
    assert set(back["tree"]) == NAMES | {".gitattributes"}


def test_a_bare_name_goes_to_the_account_of_the_token(hub: HubServer, run: Path) -> None:
    push_run(run, "detr-balloon", token=BERT)
    assert b'pipeline("object-detection", "bert/detr-balloon")' in hub.files("bert/detr-balloon")["README.md"]


def test_a_revision_is_a_branch_of_its_own(hub: HubServer, run: Path) -> None:
    assert push_run(run, "anna/x", revision="v2", commit_message="Second try") == f"{hub.url}/anna/x/tree/v2"
    push_run(run, "anna/x", revision="v2")
    assert hub.files("anna/x").keys() == {".gitattributes"}
    assert hub.files("anna/x", "v2").keys() >= NAMES
    assert hub.repos["anna/x"].titles == ["initial commit", "Second try"]


def test_pushing_again_uploads_what_changed(hub: HubServer, run: Path) -> None:
    push_run(run, "anna/x")
    uploads = len([request for request in hub.requests if request.startswith("PUT")])
    (run / "metrics.json").write_text(json.dumps(evaluation(seconds=600.0)))
    push_run(run, "anna/x")
    assert b"10.0 minutes" in hub.files("anna/x")["README.md"]
    assert len([request for request in hub.requests if request.startswith("PUT")]) == uploads


def test_shards_replace_the_single_file_that_would_be_loaded_instead(hub: HubServer, run: Path) -> None:
    push_run(run, "anna/x")
    whole = load_file(run / "model.safetensors")
    (run / "model.safetensors").unlink()
    tiny_detr().save_pretrained(run, max_shard_size="500KB")
    shards = {path.name for path in run.glob("model-*.safetensors")}
    push_run(run, "anna/x")
    files = hub.files("anna/x")
    assert files.keys() - {".gitattributes"} == NAMES - {"model.safetensors"} | shards | {
        "model.safetensors.index.json"
    }
    assert json.loads(files["model.safetensors.index.json"])["weight_map"].keys() == whole.keys()
    (run / min(shards)).unlink()
    with pytest.raises(DataError, match=f"missing {min(shards)}"):
        push_run(run, "anna/x")


# Cards that people wrote


def put_card(hub: HubServer, repo_id: str, text: str) -> None:
    repo = hub.repos.get(repo_id) or hub.create(repo_id)
    repo.commit("main", {**repo.trees[repo.branches["main"]], "README.md": text.encode()}, "by hand")


def test_a_card_written_on_the_hub_stays(hub: HubServer, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_card(hub, "anna/x", "# By hand\n")
    with caplog.at_level(logging.WARNING, "hf_detr_ft"):
        push_run(run, "anna/x")
    assert hub.files("anna/x")["README.md"] == b"# By hand\n"
    assert "model.safetensors" in hub.files("anna/x")
    assert "README.md was written by hand there and stays" in caplog.text
    push_run(run, "anna/x", overwrite_card=True)
    assert b"**AP 0.583" in hub.files("anna/x")["README.md"]


def test_a_card_edited_on_the_hub_after_a_push_stays(hub: HubServer, run: Path) -> None:
    push_run(run, "anna/x")
    edited = hub.files("anna/x")["README.md"].decode().replace("## Limits", "## What I saw")
    put_card(hub, "anna/x", edited)
    push_run(run, "anna/x")
    assert hub.files("anna/x")["README.md"].decode() == edited


def test_a_local_card_of_a_person_goes_up_and_can_be_edited_further(hub: HubServer, run: Path) -> None:
    card = write_model_card(run)
    card.write_text(card.read_text().replace("## Limits", "## What I saw"))
    push_run(run, "anna/x")
    card.write_text(card.read_text().replace("## What I saw", "## What I saw later"))
    local = card.read_text()
    push_run(run, "anna/x")
    there = hub.files("anna/x")["README.md"].decode()
    assert "## What I saw later" in there
    assert 'pipeline("object-detection", "anna/x")' in there
    assert card.read_text() == local
    card.unlink()  # another run, with a generated card, must not replace that text
    push_run(run, "anna/x")
    assert hub.files("anna/x")["README.md"].decode() == there


def test_the_licence_picked_on_the_hub_is_kept(hub: HubServer, run: Path) -> None:
    put_card(hub, "anna/x", "---\nlicense: mit\nlanguage:\n- de\ndatasets:\n- some/old\n---\n")
    for _ in range(2):
        push_run(run, "anna/x")
        data = ModelCard(hub.files("anna/x")["README.md"].decode()).data
        assert (data["license"], data["language"], data["datasets"]) == ("mit", ["de"], None)
        assert data["eval_results"][0].metric_value == METRICS["map"]
    push_run(run, "anna/x", license="apache-2.0")
    assert ModelCard(hub.files("anna/x")["README.md"].decode()).data["license"] == "apache-2.0"


# What goes wrong


def refused(run: Path, repo_id: str = "anna/x", kind: type[InputError] = InputError, **arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        push_run(run, repo_id, **arguments)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    assert ANNA not in message
    assert BERT not in message
    return message


def test_an_incomplete_folder_lists_all_that_is_missing(hub: HubServer, run: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "metrics.json"):
        (run / name).unlink()
    message = refused(run, kind=DataError)
    assert f"{run}: not a complete run folder, missing model.safetensors, config.json, metrics.json;" in message
    assert "no such run folder" in refused(tmp_path / "nowhere", kind=DataError)
    assert hub.requests == []


@pytest.mark.parametrize("repo_id", ["a/b/c", "anna/", "anna/de tr", "anna/x--y", "", "anna/x.git", "runs/../x"])
def test_a_name_that_is_none_is_refused_before_the_network(hub: HubServer, run: Path, repo_id: str) -> None:
    assert f"repository {repo_id!r}: expected user/name" in refused(run, repo_id, RecipeError)
    assert hub.requests == []


def test_no_token(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "no Hub token was found; run `hf auth login` or set HF_TOKEN" in refused(run)
    assert "x: no Hub token was found; run `hf auth login`" in refused(run, "x")
    assert hub.repos == {}


def test_a_wrong_token(hub: HubServer, run: Path) -> None:
    message = refused(run, token="hf_wrong")
    assert "(401: Invalid username or password): the token is wrong or has expired" in message
    assert "the token is wrong or has expired" in refused(run, "x", token="hf_wrong")
    assert hub.repos == {}


def test_the_namespace_of_another(hub: HubServer, run: Path) -> None:
    message = refused(run, "bert/x")
    assert "refused bert/x (403" in message
    assert "the token may not write there" in message
    hub.create("bert/x")
    assert "refused bert/x (403" in refused(run, "bert/x")
    assert hub.files("bert/x").keys() == {".gitattributes"}


def test_access_is_known_before_training(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_access("anna/x") == "anna/x"
    assert check_access("anna-lab/x") == "anna-lab/x"
    assert check_access("x", token=BERT) == "bert/x"
    with pytest.raises(InputError, match=r"bert/x: the token may not write there; it belongs to anna, anna-lab$"):
        check_access("bert/x")
    with pytest.raises(InputError, match="the token is wrong or has expired"):
        check_access("anna/x", token="hf_wrong")
    hub.role = "read"
    with pytest.raises(InputError, match="the token of anna may only read"):
        check_access("anna/x")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="no Hub token was found"):
        check_access("anna/x")
    assert hub.repos == {}


def test_a_public_repository_is_not_taken_for_a_private_one(hub: HubServer, run: Path) -> None:
    hub.create("anna/x")
    assert "is public already, but private was asked for" in refused(run, private=True)
    assert hub.files("anna/x").keys() == {".gitattributes"}


def test_nothing_is_overwritten_that_came_in_between(hub: HubServer, run: Path) -> None:
    hub.before_commit = lambda repo: repo.commit("main", {"README.md": b"# By hand\n"}, "by hand")
    assert "(412: A commit has happened since" in refused(run)
    assert hub.files("anna/x") == {"README.md": b"# By hand\n"}


@pytest.mark.parametrize(
    ("where", "refusal", "expected"),
    [
        ("POST /api/repos/create", Refusal(500, "Internal error"), "(500: Internal error): the Hub is in trouble"),
        ("POST /api/repos/create", Refusal(429, "Slow down"), "too many requests; wait some minutes"),
        ("POST /api/validate-yaml", Refusal(400, "x", errors=[{"message": "bad licence"}]), "bad licence"),
        ("PUT /lfs-storage/.*", Refusal(507, "Full"), "(507: Full): the Hub is in trouble"),
        ("PUT /lfs-storage/.*", Refusal(403, "Signature expired"), "(403: Signature expired)"),
        ("POST .*/commit/main", Refusal(404, "Repository not found", "RepoNotFound"), "no such repository or branch"),
        ("POST .*/commit/main", Refusal(400, "Too big"), "(400: Too big): the run was not pushed"),
    ],
)
def test_what_the_hub_says_is_passed_on(hub: HubServer, run: Path, where: str, refusal: Refusal, expected: str) -> None:
    hub.refusals.append((where, refusal))
    assert expected in refused(run)
    assert not any("README.md" in hub.files(repo_id) for repo_id in hub.repos)


def test_an_upload_that_breaks_anywhere_ends_complete_when_it_is_repeated(run: Path, hub: HubServer) -> None:
    """Each request of an upload fails once, in turn."""
    (run / "plots").mkdir()
    (run / "plots" / "errors.png").write_bytes(b"\x89PNG large")
    push_run(run, "anna/whole")
    expected = hub.files("anna/whole")
    steps = list(dict.fromkeys(request for request in hub.requests if not request.startswith("GET /api/agent")))
    assert len(steps) > 5
    for number, step in enumerate(steps):
        repo_id = f"anna/x{number}"
        hub.large.clear()
        hub.refusals.append((re.escape(step.replace("anna/whole", repo_id)), Refusal(403, "It broke")))
        with suppress(InputError):  # some requests, such as for the card's metadata, are not needed
            push_run(run, repo_id)
        stored = dict(hub.large)
        hub.refusals.clear()
        hub.requests.clear()
        push_run(run, repo_id)
        assert {name: text for name, text in hub.files(repo_id).items() if name != "README.md"} == {
            name: text for name, text in expected.items() if name != "README.md"
        }
        assert "README.md" in hub.files(repo_id)
        again = [request for request in hub.requests if request.startswith("PUT")]
        assert len(again) == 2 - len(stored), "what is there is not sent again"


def test_no_network(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for repo_id in ("anna/x", "x"):
        assert "http://127.0.0.1:9 cannot be reached" in refused(run, repo_id)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached" in refused(run)
    assert "HF_HUB_OFFLINE" in refused(run)


def test_collecting_needs_no_network_and_leaves_the_folder_alone(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    files = collect_files(run, "anna/x")
    assert files.keys() == NAMES
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
