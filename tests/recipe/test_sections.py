"""The recipe's fields: documented, with DETR's values, and right on any machine."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest
import transformers

from hf_detr_ft import recipe
from hf_detr_ft.formatting import did_you_mean
from hf_detr_ft.recipe.fields import LIGHT_SECTIONS
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import DataConfig
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments

SOURCES = [Path(recipe.__path__[0]) / name for name in ("sections.py", "training_arguments.py")]
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))

NOT_IN_DETR = {
    "DataConfig": {
        *("name", "root"),
        *(f"synthetic_{field}" for field in ("images", "val_images", "classes", "seed", "short_side")),
    },
    "AugmentConfig": set(),
    "ModelConfig": {"checkpoint", "revision", "backbone_weights"},
    "EvaluationConfig": {"backend"},
    "SpeedConfig": {"cpu_threads"},
    "DetrTrainingArguments": {
        "output_dir",
        "overwrite",
        "per_device_eval_batch_size",
        "save_strategy",
        "save_total_limit",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
        "logging_steps",
        "remove_unused_columns",
        "report_to",
        "ddp_find_unused_parameters",
    },
}
"""Fields for which facebookresearch/detr has no value to compare with."""


def field_docstrings(source: str) -> dict[str, dict[str, str | None]]:
    """Class to field to the text under it, in the section classes."""
    found: dict[str, dict[str, str | None]] = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.ClassDef) and node.name in NOT_IN_DETR):
            continue
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(statement, ast.AnnAssign):
                continue
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            found.setdefault(node.name, {})[statement.target.id] = following.value.value if is_text else None
    return found


def test_every_field_is_documented_with_detrs_value():
    documented = field_docstrings("\n".join(source.read_text(encoding="utf-8") for source in SOURCES))
    assert documented.keys() == NOT_IN_DETR.keys()
    lacking = [
        f"{name}.{field}: {text!r}"
        for name, texts in documented.items()
        for field, text in texts.items()
        if not text
        or len(text) < 20
        or not text.rstrip().endswith(".")
        or ("(DETR" in text) == (field in NOT_IN_DETR[name])
    ]
    assert not lacking, "\n".join(lacking)
    gone = [(name, field) for name, known in NOT_IN_DETR.items() for field in known - documented[name].keys()]
    assert not gone


def test_a_field_without_a_docstring_is_seen():
    source = 'class DataConfig:\n    """Doc."""\n    a: int = 1\n    b: int = 2\n    """Text."""\n'
    assert field_docstrings(source) == {"DataConfig": {"a": None, "b": "Text."}}


def test_our_sections_share_no_field_with_each_other():
    names = [field.name for config in LIGHT_SECTIONS.values() for field in fields(config)]
    assert len(names) == len(set(names)), "a flag without its section could not be told apart in hints"


def test_training_arguments_start_from_detrs_values():
    args = DetrTrainingArguments(output_dir="run", use_cpu=True)
    original = {
        "learning_rate": 1e-4,
        "backbone_learning_rate": 1e-5,
        "weight_decay": 1e-4,
        "max_grad_norm": 0.1,
        "lr_scheduler_type": "constant",
    }
    assert {name: getattr(args, name) for name in original} == original
    assert args.optim == "adamw_torch_fused"
    assert (args.metric_for_best_model, args.greater_is_better, args.load_best_model_at_end) == ("map", True, True)


def test_training_arguments_are_transformers_whole_and_keep_what_detr_needs():
    inherited = {field.name for field in fields(transformers.TrainingArguments)}
    assert inherited < {field.name for field in fields(DetrTrainingArguments)}
    args = DetrTrainingArguments(output_dir="run", use_cpu=True)
    assert args.label_names == ["labels"]
    assert args.remove_unused_columns is False
    assert args.n_gpu <= 1, "DataParallel would cut the labels' tensors"
    assert args.report_to == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"eval_strategy": "no"}, {"load_best_model_at_end": False}),
        ({"num_train_epochs": 3, "greater_is_better": False}, {"num_train_epochs": 3, "greater_is_better": False}),
        ({"dataloader_num_workers": 3}, {"dataloader_num_workers": 3}),
        ({}, {"dataloader_num_workers": 0}),
        ({"bf16": False}, {"bf16": False}),
    ],
)
def test_what_is_asked_for_holds(settings: dict, expected: dict):
    args = DetrTrainingArguments(output_dir="run", use_cpu=True, **settings)
    assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lerning_rate", " (did you mean 'learning_rate'?)"), ("zzz", ""), ("learning_rate", "")],
)
def test_nearest_names_what_was_probably_meant(name: str, expected: str):
    known = ["learning_rate", "weight_decay"]
    assert did_you_mean(name, [k for k in known if k != name]) == expected


def test_paths_of_the_data_are_relative_to_its_root(tmp_path: Path):
    config = DataConfig(root=str(tmp_path), val_images=str(tmp_path / "elsewhere"))
    assert config.path("train_annotations") == tmp_path / "annotations/custom_train.json"
    assert config.path("val_images") == tmp_path / "elsewhere"
    assert DataConfig().path("train_images") == Path("train2017")
    assert DataConfig(root="~/x").path("train_images") == Path.home() / "x/train2017"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_says_how_to_run_it(path: Path):
    recipe = load_recipe(path)
    assert (recipe.model.checkpoint is None) != (recipe.model.backbone is None)
    assert recipe.data.root or recipe.data.synthetic_images, "the command line sets it, but its place has to be visible"
    assert recipe.training.output_dir == f"runs/{path.stem}"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    header = text[: text.index("\ndata:")]
    assert "train" in header
    assert (f"recipes/{path.name}" in header) or path.stem == "custom"


def test_the_recipes_that_the_readme_names_are_there():
    families = {"balloon_dfine", "balloon_rtdetr_v2", "balloon_rfdetr", "balloon_deformable"}
    assert families | {"balloon", "balloon_tiny", "custom", "original", "overfit", "pretrain_tiny", "quickstart"} <= {
        path.stem for path in RECIPES
    }
