import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from transformers import DetrForObjectDetection, DetrImageProcessor, pipeline
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

from hf_detr_ft.data.collate import collate
from hf_detr_ft.errors import CheckpointError, DataError
from hf_detr_ft.inference.detect import (
    ImageDetections,
    detect,
    detect_prepared,
    load_detector,
    post_process,
    prepare,
)
from hf_detr_ft.model.families.d_fine import D_FINE
from hf_detr_ft.model.families.deformable_detr import DEFORMABLE_DETR
from hf_detr_ft.model.families.detr import DETR
from hf_detr_ft.model.families.rt_detr import RT_DETR
from tests.fixtures import (
    CLASSES,
    plain_image,
    tiny_config,
    tiny_detr_with_spread_weights,
    tiny_processor,
)
from tests.hub.hub_server import HubServer
from tests.legacy import write_legacy_checkpoint

SHAPES = ((90, 150), (150, 90), (90, 150), (64, 64), (40, 200), (1, 1), (200, 333))


@pytest.fixture(scope="module")
def model() -> DetrForObjectDetection:
    return tiny_detr_with_spread_weights()


@pytest.fixture
def copy(spread_run: Path, tmp_path: Path) -> Path:
    """A run folder to break."""
    return Path(shutil.copytree(spread_run, tmp_path / "balloon"))


def assert_equal(one: ImageDetections, other: ImageDetections, size: tuple[int, int]) -> None:
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.boxes_xyxy_px, other.boxes_xyxy_px, atol=1e-5 * max(size))


# post_process


def test_post_process_is_what_transformers_does_without_a_threshold():
    torch.manual_seed(0)
    logits, pred_boxes = torch.randn(3, 10, 6) * 3, torch.rand(3, 10, 4)
    sizes = torch.tensor([[480, 640], [333, 100], [1, 1]])
    scores, labels, boxes = post_process(logits, pred_boxes, sizes)
    expected = DetrImageProcessor().post_process_object_detection(
        DetrObjectDetectionOutput(logits=logits, pred_boxes=pred_boxes), threshold=0, target_sizes=sizes
    )
    for index, image in enumerate(expected):
        torch.testing.assert_close(scores[index], image["scores"])
        assert torch.equal(labels[index], image["labels"])
        torch.testing.assert_close(boxes[index], image["boxes"])


def test_post_process_by_hand():
    """Height and width are not mixed up, and the last class is "no object"."""
    logits = torch.log(torch.tensor([[[0.1, 0.3, 0.6]]]))
    scores, labels, boxes = post_process(logits, torch.tensor([[[0.5, 0.5, 0.2, 0.4]]]), torch.tensor([[100, 1000]]))
    torch.testing.assert_close(scores, torch.tensor([[0.3]]))
    assert labels.tolist() == [[1]]
    torch.testing.assert_close(boxes, torch.tensor([[[400.0, 30.0, 600.0, 70.0]]]))


def test_a_box_whose_sides_cross_has_no_area():
    """COCO's numbers know no negative widths, and an evaluation in the middle of a training stopped at one."""
    crossed = torch.tensor([[[0.5, 0.5, -0.2, 0.4], [0.5, 0.5, 0.2, -0.4]]])
    _, _, boxes = post_process(torch.zeros(1, 2, 1), crossed, torch.tensor([[100, 1000]]), D_FINE)
    torch.testing.assert_close(boxes, torch.tensor([[[500.0, 30.0, 500.0, 70.0], [400.0, 50.0, 600.0, 50.0]]]))


def test_post_process_keeps_as_many_as_are_wanted_where_scores_are_sigmoids():
    logits, pred_boxes, sizes = torch.randn(2, 300, 2), torch.rand(2, 300, 4), torch.tensor([[50, 60], [70, 80]])
    counts = {
        family: [post_process(logits, pred_boxes, sizes, family, wanted)[0].shape[1] for wanted in (0, 50, 500, 900)]
        for family in (DETR, DEFORMABLE_DETR, RT_DETR)
    }
    assert counts == {DETR: [300] * 4, DEFORMABLE_DETR: [100, 100, 500, 600], RT_DETR: [300] * 4}


def test_post_process_computes_in_fp32():
    logits, pred_boxes = torch.randn(1, 5, 3), torch.rand(1, 5, 4)
    size = torch.tensor([[1000, 1500]])
    low = post_process(logits.bfloat16(), pred_boxes.bfloat16(), size)
    high = post_process(logits.bfloat16().float(), pred_boxes.bfloat16().float(), size)
    for one, other in zip(low, high, strict=True):
        assert torch.equal(one, other)
    assert low[0].dtype == low[2].dtype == torch.float32


# detect


def test_detections_do_not_depend_on_the_rest_of_the_batch(model: DetrForObjectDetection):
    processor = tiny_processor()
    images = [plain_image(height, width, seed) for seed, (height, width) in enumerate(SHAPES)]
    together = detect(model, processor, images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detect(model, processor, [image])
        assert_equal(found, alone, image.size)
    # The images are told apart at all, the two of one shape as well:
    assert np.abs(together[0].boxes_xyxy_px - together[2].boxes_xyxy_px).max() > 5
    for found in together[:2]:
        assert np.ptp(found.boxes_xyxy_px, axis=0).max() > 5


def test_padding_would_have_changed_them(model: DetrForObjectDetection):
    """Why `detect_prepared` groups by shape; fails if DETR ever becomes exact, and the grouping superfluous."""
    processor = tiny_processor()
    images = [plain_image(90, 150, 0), plain_image(150, 90, 1)]
    batch = collate([{"pixel_values": prepare(image, processor)} for image in images])
    with torch.inference_mode():
        padded = model(**batch)
    (alone,) = detect(model, processor, images[:1])
    _, _, boxes = post_process(padded.logits, padded.pred_boxes, torch.tensor([[90, 150], [150, 90]]))
    assert np.abs(boxes[0].numpy() - alone.boxes_xyxy_px).max() > 1e-3 * 150


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_as_the_pipeline_up_to_its_integers(spread_run: Path, shape: tuple[int, int]):
    model, processor = load_detector(str(spread_run))
    image = plain_image(*shape, seed=5)
    detector = pipeline("object-detection", model=str(spread_run))
    for threshold in (0.0, 0.3, 0.7):
        expected = detector(image, threshold=threshold)
        found = detect(model, processor, [image])[0]
        kept = found.scores > threshold
        assert [entry["label"] for entry in expected] == [CLASSES[label] for label in found.labels[kept]]
        np.testing.assert_allclose([entry["score"] for entry in expected], found.scores[kept], atol=1e-6)
        corners = np.array([list(entry["box"].values()) for entry in expected]).reshape(-1, 4)
        np.testing.assert_array_equal(corners, found.boxes_xyxy_px[kept].astype(int))


def test_above_sorts_and_leaves_the_threshold_itself_out():
    found = ImageDetections(
        np.array([0.2, 0.9, 0.5, 0.7], np.float32), np.array([3, 2, 1, 0]), np.arange(16.0).reshape(4, 4)
    )
    kept = found.above(0.5)
    assert len(kept) == 2
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])
    assert kept.labels.tolist() == [2, 0]
    assert kept.boxes_xyxy_px.tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]
    assert len(found.above(1.0)) == 0


def test_a_model_in_training_mode_detects_without_dropout():
    model = tiny_detr_with_spread_weights().train()
    first, second = (detect(model, tiny_processor(), [plain_image(90, 150, 0)])[0] for _ in range(2))
    np.testing.assert_array_equal(first.boxes_xyxy_px, second.boxes_xyxy_px)
    assert not model.training


def test_a_model_in_half_precision_gives_fp32():
    model = tiny_detr_with_spread_weights().bfloat16()
    (found,) = detect(model, tiny_processor(), [plain_image(90, 150, 0)], device="cpu")
    assert found.scores.dtype == found.boxes_xyxy_px.dtype == np.float32


def test_no_images_are_no_detections(model: DetrForObjectDetection):
    assert detect(model, tiny_processor(), []) == []
    assert detect_prepared(model, [], []) == []


def test_an_image_of_which_nothing_would_be_left(model: DetrForObjectDetection):
    with pytest.raises(DataError, match=r"line\.png: an image of 5000 x 1 pixels cannot be resized"):
        prepare(Image.new("RGB", (5000, 1)), tiny_processor(), "line.png")
    with pytest.raises(DataError, match="image 1 of the batch: an image of 1 x 5000 pixels"):
        detect(model, tiny_processor(), [plain_image(90, 150, 0), Image.new("RGB", (1, 5000))])


# load_detector


def test_a_run_folder_loads_ready_for_use(spread_run: Path):
    model, processor = load_detector(str(spread_run))
    assert not model.training
    assert model.dtype == torch.float32
    assert model.config.category_ids == [3, 7]
    assert processor.size["shortest_edge"] == 96
    reference = tiny_detr_with_spread_weights().state_dict()
    assert all(torch.equal(value, reference[name]) for name, value in model.state_dict().items())


def test_half_precision_on_disk_is_fp32_in_memory(copy: Path):
    DetrForObjectDetection.from_pretrained(copy, dtype=torch.float16).save_pretrained(copy)
    assert load_detector(str(copy))[0].dtype == torch.float32


def test_pickled_weights_load_and_pickled_code_does_not_run(copy: Path):
    weights = DetrForObjectDetection.from_pretrained(copy).state_dict()
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    assert torch.equal(
        load_detector(str(copy))[0].state_dict()["bbox_predictor.layers.0.weight"],
        weights["bbox_predictor.layers.0.weight"],
    )
    torch.save({"weight": Code(copy / "ran")}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="the weights cannot be loaded: it is no pickle of tensors alone"):
        load_detector(str(copy))
    assert not (copy / "ran").exists()


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("backbone_kwargs", [False, True])
def test_a_checkpoint_of_transformers_4_loads_without_asking_about_its_backbone(
    tmp_path: Path, hub: HubServer, backbone_kwargs: bool
):
    folder = write_legacy_checkpoint(tmp_path / "model", tiny_config(), labels=2, backbone_kwargs=backbone_kwargs)
    model, _ = load_detector(str(folder))
    assert model.config.backbone_config.backbone == "test_resnet"
    assert not hub.requests


@pytest.mark.parametrize(
    ("recipe", "folds", "channels_last"),
    [
        (None, True, True),
        ("speed: {fold_frozen_norms: false}", False, True),
        ("speed: {channels_last: false, a_field_of_another_version: 1}", True, False),
        ("speed: {fold_frozen_norms: false", True, True),
        ("[]", True, True),
        ("speed: fast", True, True),
    ],
)
@pytest.mark.parametrize("inside", ["", "checkpoint-3"])
def test_measures_for_speed_are_those_of_the_runs_recipe(
    spread_run: Path, tmp_path: Path, recipe: str | None, folds: bool, channels_last: bool, inside: str
):
    shutil.copytree(spread_run, tmp_path / inside, dirs_exist_ok=True)
    if recipe is not None:
        (tmp_path / "recipe.yaml").write_text(recipe)
    model, processor = load_detector(str(tmp_path / inside))
    convolution = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    seen = []
    convolution.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    detect(model, processor, [plain_image(90, 150, 0)])
    assert seen == [channels_last]
    assert any("cached_fold" in vars(module) for module in model.modules()) is folds


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def as_stopped_run(folder: Path) -> None:
    for number in (9, 10):
        (folder / f"checkpoint-{number}").mkdir()
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "found no config.json but model.safetensors, preproc"),
        (lambda folder: (folder / "model.safetensors").unlink(), "found no model.safetensors but config.json"),
        (
            as_stopped_run,
            "found no config.json and no model.safetensors but .*give its last checkpoint, .*checkpoint-10,",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        # Which of the two depends on how far Transformers gets with it.
        (
            lambda folder: (folder / "config.json").write_text("[]"),
            r"expected a DETR .* found None|config.json cannot be read",
        ),
        (lambda folder: edit_config(folder, model_type="yolos"), r"expected a DETR .* found 'yolos'"),
        (lambda folder: (folder / "config.json").write_text("{}"), r"expected a DETR .* found None"),
        (
            lambda folder: edit_config(folder, decoder_layers=3),
            r"shape are 'model.decoder.layers.2.* and 25 more",
        ),
        (
            lambda folder: edit_config(folder, num_queries=5),
            r"shape are 'model.query_position_embeddings.weight'\.",
        ),
        (lambda folder: edit_config(folder, d_model="wide"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "the weights cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs"), "cannot be loaded"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:9999]
            ),
            "the weights cannot be loaded",
        ),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "expected a preprocessor_config.json"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("{"), "expected a preprocessor_config.json"),
    ],
)
def test_a_broken_folder_says_what_is_wrong(copy: Path, damage, message: str):
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as error:
        load_detector(str(copy))
    assert str(error.value).startswith(f"'{copy}': ")


@pytest.mark.parametrize(
    "source", ["./runs/none", "/nowhere/at/all", "runs/a/b", "~/no-such-run", "a b/c", "runs/balloon/"]
)
def test_what_can_only_be_a_path_is_not_asked_for_on_the_hub(source: str, hub: HubServer):
    with pytest.raises(CheckpointError, match=f"'{source}': .*found no such folder"):
        load_detector(source)
    assert not hub.requests


def test_a_file_is_not_a_folder(copy: Path):
    with pytest.raises(CheckpointError, match=r"model.safetensors': expected a run folder or a Hub id, found a file"):
        load_detector(str(copy / "model.safetensors"))


def test_an_empty_folder(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"found no config\.json and no model.safetensors but an empty folder"):
        load_detector(str(tmp_path))


def test_a_hub_id_that_the_hub_does_not_know(hub: HubServer):
    with pytest.raises(CheckpointError, match="'runs/balloon': there is no such folder, and the Hub gave no config"):
        load_detector("runs/balloon")
    assert hub.requests


def test_a_hub_id_without_a_network(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"'anna/balloon': there is no such folder, .* the network"):
        load_detector("anna/balloon")
    assert not hub.requests
