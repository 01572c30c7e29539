import copy
import json
from pathlib import Path

import pytest

from hf_detr_ft.data.class_names import map_classes, require_classes
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import DataConfig
from tests.fixtures import write_coco_folder

COCO = {
    "images": [],
    "categories": [{"id": id_, "name": name} for id_, name in ((9, "Cat"), (2, "tomcat"), (5, "cat"), (7, "dog"))],
    "annotations": [{"id": number, "category_id": id_} for number, id_ in enumerate((9, 2, 5, 7, 7))],
}


def ids(coco: dict) -> list[int]:
    return [annotation["category_id"] for annotation in coco["annotations"]]


def test_classes_are_merged_into_the_one_that_has_the_name() -> None:
    before = copy.deepcopy(COCO)
    mapped = map_classes(COCO, {"Cat": "cat", "tomcat": "cat"})
    assert mapped["categories"] == [{"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert ids(mapped) == [5, 5, 5, 7, 7]
    assert before == COCO


def test_where_nothing_has_the_name_the_lowest_id_stays_and_names_can_be_swapped() -> None:
    mapped = map_classes(COCO, {"Cat": "animal", "cat": "animal", "dog": "animal"})
    assert mapped["categories"] == [{"id": 2, "name": "tomcat"}, {"id": 5, "name": "animal"}]
    assert ids(mapped) == [5, 2, 5, 5, 5]
    swapped = map_classes(COCO, {"cat": "dog", "dog": "cat"})
    assert [(entry["id"], entry["name"]) for entry in swapped["categories"]] == [
        (9, "Cat"),
        (2, "tomcat"),
        (5, "dog"),
        (7, "cat"),
    ]
    assert ids(swapped) == ids(COCO)


def test_classes_are_left_out_with_their_objects() -> None:
    mapped = map_classes(COCO, {"dog": None, "Cat": None})
    assert [entry["name"] for entry in mapped["categories"]] == ["tomcat", "cat"]
    assert ids(mapped) == [2, 5]


def test_what_is_no_category_stays_for_the_checks() -> None:
    broken = {**COCO, "categories": [5, {"id": "a"}, *COCO["categories"]], "annotations": [None, {"category_id": [1]}]}
    assert map_classes(broken, {"dog": None})["categories"][:2] == [5, {"id": "a"}]
    assert map_classes(broken, {"dog": None})["annotations"] == [None, {"category_id": [1]}]


def test_names_that_are_not_there_are_refused() -> None:
    with pytest.raises(DataError, match=r"found 'Dog' \(did you mean 'dog'\?\)"):
        require_classes(COCO, {"Dog": "dog"}, "a.json")
    with pytest.raises(DataError, match="expected at least one class of a.json to stay"):
        require_classes(COCO, dict.fromkeys(["Cat", "tomcat", "cat", "dog"]), "a.json")


def test_a_recipe_maps_classes_of_all_splits(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path)
    splits = load_splits(DataConfig(root=str(root), classes={"mug": "cup", "cone": "cup"}))
    assert splits.label_map.names == ("cup",)
    assert splits.label_map.category_ids == (3,)
    assert {annotation["category_id"] for annotation in splits.truth["annotations"]} == {3}
    counts = json.loads((root / "annotations" / "custom_val.json").read_text())["annotations"]
    assert len(splits.truth["annotations"]) == len(counts)
    assert splits.notes == ("classes are mapped by data.classes: mug, cone",)


def test_the_recipe_takes_names_from_yaml_and_flags(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {classes: {Cat: cat, lion: null}}\ntraining: {use_cpu: true}\n")
    assert load_recipe(tmp_path / "a.yaml").data.classes == {"Cat": "cat", "lion": None}
    assert load_recipe(tmp_path / "a.yaml", ["--data.classes.Cat", "null"]).data.classes == {"Cat": None, "lion": None}
