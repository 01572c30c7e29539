"""2,000 recipes and annotation files that were right and have been changed at random: words or a right result."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.checks.problems import list_problems
from hf_detr_ft.data.coco import LabelMap, read_coco
from hf_detr_ft.data.dataset import load_split, prepare_coco
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.formatting import printable_lines
from hf_detr_ft.recipe.entries import read_sections
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.yaml12 import dump_yaml, parse_yaml
from tests.fixtures import write_coco_folder

RECIPE = """
# a comment
data: {root: data, name: "mugs and cones", train_limit: 7, synthetic_classes: [balloon, 'star']}
augment:
  preset: light
  rotate: 7.5
model: &m
  checkpoint: null
  backbone: resnet18
  config: {dropout: 1e-1, num_queries: 20}
training:
  <<: {seed: 3}
  learning_rate: 1.e-4
  use_cpu: true
  bf16: false
  report_to: [none]
"""
PIECES = (
    *("\n", ": ", "- ", "  ", "\t", "&a ", "*a", "*m", "<<: ", "!!", "! ", "? ", "| ", "> ", "---\n", "...\n"),
    *("{", "}", "[", "]", ",", '"', "'", "#", "null", "~", ".nan", "-.inf", "1e999", "0x1f", "9" * 4400, "yes"),
    *("%YAML 9\n", '"\\x1b"', "\u202e", "\x85", "\ufeff", "é", "😀", "data:\n", "training:\n  ", "[" * 120, "\\"),
    *("\\ud800", "\x00", "\x1b"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 1e308, 5e-324, float("nan"), float("inf"), 0.5),
    *("", " ", "7", "a", "a\nb", "\x1b[2J", "\u202e", "\ud800", "\x00", "../x", "/etc/passwd", "C:\\x", "x" * 5000),
    *([], [[]], {}, {"id": 1}, [1, 2], [1, 2, 3, 4], [None] * 4, [[1, 2, 3, 4, 5, 6]], {"size": [1, 1], "counts": "x"}),
)


WHOLE = 50
"""Recipes that are not only read, but become settings with their types."""


def change_text(text: str, draw: random.Random) -> str:
    """Removes, doubles, moves or puts in pieces of a text."""
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(text) + 1)
        stop = min(len(text), start + draw.choice((0, 1, 1, 2, 8, 40)))
        piece = draw.choice((*PIECES, text[start:stop] * 2, "", chr(draw.randrange(1, 0x3000))))
        text = text[:start] + piece + text[stop:]
    return text


def places(value: Any) -> list[tuple[Any, Any]]:
    """All containers inside of a parsed JSON, each with its keys or indices."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def change_values(coco: Any, draw: random.Random) -> Any:
    """Replaces, removes or doubles entries at any depth."""
    for _ in range(draw.randint(1, 3)):
        container, key = draw.choice(places(coco) or [({"": 0}, "")])
        kind = draw.random()
        if kind < 0.75:
            container[key] = copy.deepcopy(draw.choice(VALUES))
        elif kind < 0.9:
            del container[key]
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[str(draw.choice(VALUES))] = container[key]
    return coco


def said(error: Exception) -> None:
    """Holds an error to having words that can be printed."""
    assert str(error).strip() and len(str(error)) < 20_000
    printable_lines(error).encode()


def test_recipes(tmp_path: Path) -> None:
    draw, path, taken = random.Random(0), tmp_path / "r.yaml", 0
    for _ in range(700):
        path.write_text(change_text(RECIPE, draw), encoding="utf-8", errors="surrogatepass")
        try:
            sections = read_sections(path)
        except RecipeError as error:
            said(error)
            continue
        taken += 1
        if taken <= WHOLE:
            try:
                load_recipe(path)
            except RecipeError as error:
                said(error)
        assert repr(parse_yaml(dump_yaml(sections))) == repr(sections)
    assert 70 < taken < 630


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four small images."""
    return write_coco_folder(tmp_path_factory.mktemp("data"), train_sizes=((32, 40), (40, 32), (32, 32)))


@pytest.mark.parametrize("change", [change_text, change_values])
def test_annotations(change: Callable, split: Path, tmp_path: Path) -> None:
    draw, path, images, taken = random.Random(0), tmp_path / "a.json", split / "train2017", 0
    text = (split / "annotations/custom_train.json").read_text()
    for _ in range(650):
        changed = change(text, draw) if change is change_text else json.dumps(change(json.loads(text), draw))
        path.write_text(changed, encoding="utf-8", errors="surrogatepass")
        try:
            coco = read_coco(path)
        except DataError as error:
            said(error)
            continue
        problems = check_coco(coco, path, images, decode=False)
        assert (listed := list_problems(problems)) == printable_lines(listed)
        if any(problem.severity == "error" for problem in problems):
            continue
        taken += 1
        rows = load_split(prepare_coco(coco, None), images, LabelMap.from_coco(coco))
        assert rows["image_id"] == [image["id"] for image in coco["images"]]
    assert 20 < taken < 630
