"""The albumentations pipeline of a recipe: what is let in, what is said of what is not, and that it survives."""

import json
from pathlib import Path
from typing import Any

import albumentations as A
import pytest

from hf_detr_ft.cli import main
from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe.augment_pipeline import ALLOWED, GROUPS, build_pipeline, read_pipeline
from hf_detr_ft.recipe.files import load_recipe, save_recipe
from hf_detr_ft.recipe.sections import AugmentConfig
from hf_detr_ft.yaml12 import parse_yaml
from tests.data.test_augment import GRID, assert_sound, coloured_image

NEEDED: dict[str, dict[str, Any]] = {
    **{key: {"height": 60, "width": 80} for key in ("AtLeastOneBBoxRandomCrop", "CenterCrop", "RandomCrop")},
    **{key: {"height": 90, "width": 70} for key in ("RandomSizedBBoxSafeCrop", "Resize")},
    **{key: {"max_size": 100} for key in ("LongestMaxSize", "SmallestMaxSize")},
    "Affine": {"rotate": 20, "translate_percent": 0.1, "fit_output": True},
    "Crop": {"x_max": 100, "y_max": 70},
    "CropAndPad": {"percent": 0.1, "keep_size": False},
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 5},
    "PadIfNeeded": {"min_height": 300, "min_width": 330},
    "RandomResizedCrop": {"size": [64, 64]},
    "RandomSizedCrop": {"min_max_height": [40, 80], "size": [64, 64]},
    "XYMasking": {"num_masks_x": 2, "mask_x_length": 10},
    **{key: {"transforms": [{"Blur": {"p": 1}}, {"VerticalFlip": {"p": 0.5}}]} for key in GROUPS},
}
"""Arguments without which a step cannot be, or does nothing."""
READABLE = """
- HorizontalFlip
- GaussNoise: {std_range: [0.05, 0.1], p: 0.3}
- OneOf:
    p: 0.4
    transforms:
    - MotionBlur: {blur_limit: 5}
    - RandomGamma
- SomeOf:
    n: 1
    transforms: [{Affine: {rotate: [-10, 10]}}, RandomRotate90]
"""


def given(name: str) -> dict[str, Any]:
    return {name: {"p": 1, **NEEDED.get(name, {})}}


@pytest.mark.parametrize("name", ALLOWED)
def test_every_step_that_is_let_in_works_on_images_with_boxes_and_with_none(name: str) -> None:
    assert given(name)[name]
    crop = {"random_crop": 0.5, "min_visibility": 0.0}
    augmentation = build_augmentation(AugmentConfig(preset="none", pipeline=[given(name)], **crop), 100)
    assert read_pipeline([given(name)]).problems == []
    for seed in range(2):
        for boxes in (GRID, []):
            assert_sound(augmentation(coloured_image(), boxes, seed), len(boxes))


def test_what_is_written_by_hand_and_what_to_dict_gives_are_the_same_steps() -> None:
    written = parse_yaml(READABLE)
    by_hand = build_pipeline(written)
    assert [type(step).__name__ for step in by_hand.steps] == ["HorizontalFlip", "GaussNoise", "OneOf", "SomeOf"]
    assert by_hand.steps[1].p == 0.3 and by_hand.steps[1].std_range == (0.05, 0.1) and by_hand.reshapes
    assert [type(step).__name__ for step in by_hand.steps[2].transforms] == ["MotionBlur", "RandomGamma"]
    boxes = A.BboxParams(format="pascal_voc", label_fields=["names"], clip=True)
    content = A.to_dict(A.Compose(by_hand.steps, bbox_params=boxes))
    (again,) = build_pipeline(json.loads(json.dumps(content))).steps
    assert [A.to_dict(step) for step in again.transforms] == [A.to_dict(step) for step in by_hand.steps]
    named = build_pipeline({"HorizontalFlip": {"p": 0.1}, "Blur": None}).steps
    assert [A.to_dict(step) for step in named] == [A.to_dict(step) for step in (A.HorizontalFlip(p=0.1), A.Blur())]
    assert build_pipeline([{"OneOf": ["Blur", "ToGray"]}]).steps[0].p == 0.5
    assert not build_pipeline(["Blur", "HorizontalFlip"]).reshapes and build_pipeline(None).steps == []


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("HorizontalFlip", "augment.pipeline: expected a list of steps, such as [HorizontalFlip: {p: 0.5}]"),
        ([3], "augment.pipeline[0]: expected a step, such as HorizontalFlip: {p: 0.5}, found 3"),
        ([{"Blur": 3}], "augment.pipeline[0]: expected a step, such as HorizontalFlip: {p: 0.5}, found {'Blur': 3}"),
        ([{"Blur": {}, "Flip": {}}], "augment.pipeline[0]: expected a step"),
        (["HorizontalFlp"], "found 'HorizontalFlp' (did you mean 'HorizontalFlip'?)"),
        (["os.system"], "augment.pipeline[0].os.system: expected a step of albumentations that is let in"),
        (["Blur", {"Lambda": {"image": "x"}}], "augment.pipeline[1].Lambda: expected another step: this one runs code"),
        ([{"FDA": {"reference_images": ["/etc/passwd"]}}], "FDA: expected another step: this one takes other images"),
        ([{"__class_fullname__": "albumentations.x.TextImage"}], "this one takes other images or files"),
        (["Normalize"], "this one does what the model's image processor does"),
        (["MaskDropout"], "this one needs more than an image and its boxes"),
        ([{"Blur": {"limit": 3}}], "augment.pipeline[0].Blur: unknown argument 'limit' (did you mean 'blur_limit'?)"),
        ([{"Equalize": {"mask": "x"}}], "augment.pipeline[0].Equalize: unknown argument 'mask'"),
        ([{"HorizontalFlip": {"p": 1.5}}], "[0].HorizontalFlip.p: expected less than or equal to 1, found 1"),
        ([{"HorizontalFlip": {"p": "often"}}], "HorizontalFlip.p: expected a valid number, unable to parse string"),
        ([{"RandomCrop": {"width": 4}}], "augment.pipeline[0].RandomCrop.height: expected a value, found none"),
        ([{"OneOf": {"transforms": ["Blr"]}}], "augment.pipeline[0].OneOf[0].Blr: expected a step of albumentations"),
        ([{"OneOf": {"p": 2, "transforms": ["Blur"]}}], "[0].OneOf.p: expected a number from 0 to 1, found 2"),
        ([{"OneOf": {"prob": 1, "transforms": []}}], "augment.pipeline[0].OneOf: unknown argument 'prob'"),
        ([{"SomeOf": {"n": 0, "transforms": ["Blur"]}}], "[0].SomeOf.n: expected a whole number from 1"),
        ([{"OneOf": {}}], "augment.pipeline[0].OneOf: expected a list of steps"),
        ([{"OneOf": []}], "augment.pipeline[0].OneOf: expected a list of steps"),
        ([{"OneOf": [{"Blur": {"p": 0}}]}], "augment.pipeline[0].OneOf: albumentations refuses it: "),
        (
            {"transform": {"__class_fullname__": "Compose", "transforms": [], "bbox_params": {"min_visibility": 0.3}}},
            "Compose.bbox_params: expected no min_visibility. Leave it out, and set augment.min_visibility",
        ),
        (
            {"__class_fullname__": "Compose", "transforms": ["Blur"], "additional_targets": {"image2": "image"}},
            "Compose.additional_targets: expected none",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_entry(written: Any, expected: str) -> None:
    with pytest.raises(RecipeError) as error:
        build_pipeline(written)
    assert expected in str(error.value)


def test_arguments_that_the_schema_stumbles_over_are_not_replaced_by_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise TypeError("odd")

    monkeypatch.setattr(A.Blur.InitSchema, "model_dump", stumble)
    assert read_pipeline([{"Blur": {"p": 1}}]).problems == ["augment.pipeline[0].Blur: albumentations refuses it: odd"]


def test_all_of_it_comes_at_once_with_the_recipes_other_problems(tmp_path: Path, capsys: Any) -> None:
    recipe = tmp_path / "my.yaml"
    recipe.write_text("augment:\n  pipeline:\n  - Blr\n  - GaussNoise: {p: 2}\n")
    flags = ["--training.use_cpu", "true", "--training.metric_for_best_model", "mapp"]
    assert main(["check", str(recipe), "--data.synthetic_images", "2", *flags]) == 2
    said = capsys.readouterr().err
    for part in ("[0].Blr", "[1].GaussNoise.p", "training.metric_for_best_model"):
        assert part in said


def test_it_survives_flags_and_the_resolved_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "my.yaml"
    recipe.write_text("augment:\n  pipeline:" + READABLE.replace("\n", "\n  ").rstrip() + "\n")
    cpu = ["--training.use_cpu", "true"]
    loaded = load_recipe(recipe, cpu)
    assert loaded.augment.pipeline == parse_yaml(READABLE)
    save_recipe(loaded, tmp_path / "resolved.yaml", {})
    assert load_recipe(tmp_path / "resolved.yaml", cpu).augment.pipeline == parse_yaml(READABLE)
    for text, wanted in (
        ("[Blur, {GaussNoise: {std_range: [1e-2, 0.1]}}]", ["Blur", {"GaussNoise": {"std_range": [0.01, 0.1]}}]),
        ("{Blur: {p: 0.5}}", {"Blur": {"p": 0.5}}),
        ("null", None),
        ("[]", []),
    ):  # fmt: skip
        assert load_recipe(recipe, [*cpu, "--augment.pipeline", text]).augment.pipeline == wanted
    assert load_recipe(None, [*cpu, "--augment.pipeline.Blur", "{p: 0.5}"]).augment.pipeline == {"Blur": {"p": 0.5}}
