import contextlib
import copy
import dataclasses
import io
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hf_detr_ft.data.masks import Masks, decode_masks, encode_segmentation
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation import matching
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.coco_result import BestF1, CocoResult
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.threshold_curves import THRESHOLDS

BACKENDS = ("faster-coco-eval", "pycocotools")
KEYS = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large"]
KEYS += ["mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]


def random_case(seed: int, categories: int = 6, images: int = 14) -> tuple[dict, Detections]:
    """Truth and detections with every oddity at once, on a coarse grid so that scores and IoUs tie.

    The last category has no object, the one before no detection; every fourth image has no object, every fifth no
    detection; image 3 has 250 detections, most of them of one class.
    """
    rng = np.random.default_rng(seed)
    category_ids = np.sort(rng.choice(1000, categories, replace=False))
    image_ids = rng.permutation(rng.choice(10**9, images, replace=False))
    annotations: list[dict] = []
    results: list[dict] = []
    for index, image_id in enumerate(image_ids.tolist()):
        for _ in range(int(rng.integers(1, 9)) if index % 4 else 0):
            x, y, w, h = (4 * rng.integers((0, 0, 1, 1), (60, 60, 50, 50))).tolist()
            area = w * h if rng.random() < 0.3 else float(rng.choice([32**2, 96**2, w * h * rng.uniform(0.3, 1)]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(category_ids[:-1])),
                    "bbox": [x, y, w, h],
                    "area": area,
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
        near = [entry for entry in annotations if entry["image_id"] == image_id]
        count = 250 if index == 3 else int(rng.integers(0, 30)) if index % 5 else 0
        for _ in range(count):
            box, category = 4 * rng.integers((0, 0, 1, 1), (60, 60, 50, 50)), int(rng.choice(category_ids))
            if near and rng.random() < 0.7:
                target = near[int(rng.integers(len(near)))]
                box = np.maximum(np.array(target["bbox"]) + 4 * rng.integers(-2, 3, 4), (0, 0, 1, 1))
                category = target["category_id"]
            category = int(category_ids[0]) if index == 3 and rng.random() < 0.8 else category
            if category != category_ids[-2]:
                score = round(float(rng.random()), 1 if rng.random() < 0.5 else 6)
                results.append({"image_id": image_id, "category_id": category, "bbox": box.tolist(), "score": score})
    coco = {
        "images": [{"id": image_id, "file_name": f"{image_id}.jpg"} for image_id in image_ids.tolist()],
        "categories": [{"id": int(c), "name": f"class {c}"} for c in rng.permutation(category_ids)],
        "annotations": [annotations[index] for index in rng.permutation(len(annotations))],
    }
    return coco, Detections.from_results([results[index] for index in rng.permutation(len(results))])


def official(coco: dict, detections: Detections, kind: str = "bbox") -> COCOeval:
    """Pycocotools as its own documentation uses it, on the dict itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(coco)
        truth.createIndex()
        results = detections.to_results()
        if kind == "segm":  # with boxes in them, it takes the area of these
            results = [{key: entry[key] for key in entry if key != "bbox"} for entry in results]
        evaluator = COCOeval(truth, truth.loadRes(results), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def brute_best_f1(coco: dict, detections: Detections, most: int = 100) -> BestF1:
    """Every threshold of three decimals that matters, each time matched from scratch, one box at a time."""

    def iou(a: list[float], b: list[float], crowd: bool) -> float:
        width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - width * height)

    results = detections.to_results()
    objects = sum(not entry["iscrowd"] for entry in coco["annotations"])
    best = BestF1(0.5, 0.0, 0.0, 0.0)
    below = {math.ceil(entry["score"] * 1000) - step for entry in results for step in (1, 2)}
    for threshold in sorted((place / 1000 for place in below if place >= 0), reverse=True):
        hits = wrong = 0
        for image in coco["images"]:
            for category in coco["categories"]:
                ids = (image["id"], category["id"])
                targets = [e for e in coco["annotations"] if (e["image_id"], e["category_id"]) == ids]
                kept = [e for e in results if (e["image_id"], e["category_id"]) == ids and e["score"] > threshold]
                used: set[int] = set()
                for entry in sorted(kept, key=lambda entry: -entry["score"])[:most]:
                    overlaps = [(iou(entry["bbox"], t["bbox"], bool(t["iscrowd"])), i) for i, t in enumerate(targets)]
                    free = [o for o in overlaps if o[0] >= 0.5 and not targets[o[1]]["iscrowd"] and o[1] not in used]
                    if free:
                        used.add(max(free)[1])
                        hits += 1
                    elif not any(o[0] >= 0.5 and targets[o[1]]["iscrowd"] for o in overlaps):
                        wrong += 1
        f1 = 2 * hits / (hits + wrong + objects) if hits else 0.0
        if f1 > best.f1:
            best = BestF1(threshold, f1, hits / (hits + wrong), hits / objects)
    return best


def truth_as_detections(coco: dict) -> Detections:
    listed = [entry for entry in coco["annotations"] if not entry.get("iscrowd")]
    return Detections.from_results(
        [{**{key: entry[key] for key in ("image_id", "category_id", "bbox")}, "score": 1.0} for entry in listed]
    )


def one_image(*annotations: dict, categories: int = 1) -> dict:
    return {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "categories": [{"id": index, "name": f"c{index}"} for index in range(categories)],
        "annotations": [{"id": n, "image_id": 5, "category_id": 0, **a} for n, a in enumerate(annotations, start=1)],
    }


def boxes(*rows: tuple[float, ...], image_id: int = 5, category_id: int = 0) -> Detections:
    """Rows of x, y, w, h, score."""
    values = np.array(rows, dtype=float).reshape(-1, 5)
    ids = np.full(len(values), image_id)
    return Detections(ids, np.full(len(values), category_id), values[:, 4], values[:, :4])


@pytest.mark.parametrize("seed", range(12))
def test_both_backends_agree_with_pycocotools_used_by_hand(seed: int) -> None:
    coco, detections = random_case(seed, categories=(3, 6, 40)[seed % 3])
    by_hand = official(coco, detections)
    fast, reference = (evaluate_detections(coco, detections, backend=backend) for backend in BACKENDS)

    assert list(fast.metrics) == KEYS
    assert 0 < fast.metrics["map"] < 1
    np.testing.assert_allclose(list(fast.metrics.values()), by_hand.stats, rtol=0, atol=1e-9)
    np.testing.assert_allclose(list(reference.metrics.values()), by_hand.stats, rtol=0, atol=1e-9)
    precision, recall = by_hand.eval["precision"], by_hand.eval["recall"]
    for index, (ours, theirs) in enumerate(zip(fast.per_class, reference.per_class, strict=True)):
        assert ours.category_id == theirs.category_id == by_hand.params.catIds[index]
        assert ours.name == f"class {ours.category_id}"
        expected = [
            precision[:, :, index, 0, 2].mean(),
            precision[0, :, index, 0, 2].mean(),
            recall[:, index, 0, 2].mean(),
        ]
        for result in (ours, theirs):
            np.testing.assert_allclose([result.ap, result.ap_50, result.ar_100], expected, rtol=0, atol=1e-9)
        entries = [a for a in coco["annotations"] if a["category_id"] == ours.category_id]
        assert ours.objects == sum(not entry["iscrowd"] for entry in entries)
    assert fast.per_class[-1].ap == fast.per_class[-1].ap_50 == fast.per_class[-1].ar_100 == -1
    assert fast.best_f1 == reference.best_f1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("pairs_at_once", [1_000_000, 50])
def test_best_f1_is_that_of_brute_force(seed: int, pairs_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", pairs_at_once)
    coco, detections = random_case(seed, categories=(3, 8)[seed % 2], images=8)
    best = evaluate_detections(coco, detections).best_f1
    expected = brute_best_f1(coco, detections)
    assert best.f1 > 0.05
    assert vars(best) == pytest.approx(vars(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("objects", "second", "hits"),
    [
        ((0, 15), -4, 1),  # the first, at 2, overlaps both objects and takes the nearer one, the second's only one
        ((15, 0), -4, 1),
        ((-8, 12), -12, 2),  # as near to both: the later in the file, as COCO does
        ((12, -8), -12, 1),
    ],
)
def test_a_detection_takes_the_object_it_overlaps_most(objects: tuple[int, int], second: int, hits: int) -> None:
    coco = one_image(*({"bbox": [x + 20, 0, 50, 50], "area": 2500, "iscrowd": 0} for x in objects))
    detections = boxes((2 + 20, 0, 50, 50, 0.9), (second + 20, 0, 50, 50, 0.8))
    assert official(coco, detections).eval["recall"][0, 0, 0, 2] == hits / 2
    assert evaluate_detections(coco, detections).best_f1.recall == hits / 2


@pytest.mark.parametrize("seed", range(4))
def test_best_f1_is_that_of_pycocotools_own_matches(seed: int) -> None:
    coco, detections = random_case(seed + 100)
    matched = [entry for entry in official(coco, detections).evalImgs if entry and entry["aRng"] == [0, 1e5**2]]
    counted = np.concatenate([~entry["dtIgnore"][0] for entry in matched])
    hits = np.concatenate([entry["dtMatches"][0] > 0 for entry in matched])
    score = np.concatenate([entry["dtScores"] for entry in matched])
    objects = sum((entry["gtIgnore"] == 0).sum() for entry in matched)

    best = evaluate_detections(coco, detections).best_f1
    kept = counted & (score > best.threshold)
    assert best.precision == pytest.approx(hits[kept].sum() / kept.sum())
    assert best.recall == pytest.approx(hits[kept].sum() / objects)
    f1s = [2 * hits[counted & (score > t)].sum() / ((counted & (score > t)).sum() + objects) for t in THRESHOLDS]
    assert best.f1 == pytest.approx(max(f1s))


@pytest.mark.parametrize("backend", BACKENDS)
def test_truth_fed_back_is_perfect_whatever_the_ids(backend: str) -> None:
    coco = random_case(0)[0]
    for index, entry in enumerate(coco["annotations"]):
        entry["id"] = index  # from 0 on, as many converters write it: both libraries alone take 0 for "not matched"
    result = evaluate_detections(coco, truth_as_detections(coco), backend=backend)
    assert result.metrics["map"] == pytest.approx(1)
    assert result.best_f1 == BestF1(threshold=0.999, f1=1, precision=1, recall=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_but_legal_truth(backend: str) -> None:
    entries = [{"bbox": [10, 10, 40, 40], "iscrowd": 0, "area": 1600}, {"bbox": [100, 10, 200, 200], "area": 40000}]
    plain = one_image(*entries)
    odd = one_image(
        {"bbox": [10, 10, 40, 40], "iscrowd": None, "area": None, "segmentation": [[1, 2, 3]], "score": "?"},
        {"bbox": [100, 10, 200.0, 200], "segmentation": {"counts": "@@", "size": [0]}, "iscrowd": False, "ignore": 1},
    )
    odd["images"][0] = {"id": 5, "file_name": 12, "height": None}
    odd["annotations"] += [
        {"id": 8, "image_id": 99, "category_id": 0, "bbox": [0, 0, 5, 5]},
        {"id": 9, "image_id": 5, "category_id": 99, "bbox": [0, 0, 5, 5]},
    ]
    detections = boxes((10, 10, 38, 40, 0.9), (110, 10, 200, 190, 0.8), (300, 300, 9, 9, 0.7))
    assert evaluate_detections(odd, detections, backend=backend) == evaluate_detections(
        plain, detections, backend=backend
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_says_nothing_and_leaves_the_dict_alone(
    backend: str, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    coco, detections = random_case(1)
    before, arrays = copy.deepcopy(coco), copy.deepcopy(detections)
    with caplog.at_level(logging.WARNING):
        evaluate_detections(coco, detections, backend=backend)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert coco == before
    assert detections.to_results() == arrays.to_results()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections(backend: str) -> None:
    result = evaluate_detections(random_case(2)[0], Detections.empty(), backend=backend)
    assert set(result.metrics.values()) == {0.0}
    assert result.detections == 0
    assert result.best_f1 == BestF1(threshold=0.5, f1=0.0, precision=0.0, recall=0.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("annotations", [None, [], [{"bbox": [0, 0, 50, 50], "iscrowd": 1}]])
def test_no_objects(backend: str, annotations: list[dict] | None) -> None:
    coco = one_image(*(annotations or ()))
    if annotations is None:
        del coco["annotations"]
    result = evaluate_detections(coco, boxes((0, 0, 50, 50, 0.9)), backend=backend)
    assert set(result.metrics.values()) == {-1.0}
    assert result.objects == 0
    assert result.sizes == {"small": 0, "medium": 0, "large": 0}
    assert result.best_f1 == BestF1(threshold=0.5, f1=0.0, precision=0.0, recall=0.0)
    assert "n/a, no detection matches an object" in result.table()


def test_images_without_detections_count() -> None:
    coco = one_image({"bbox": [0, 0, 50, 50]}, {"bbox": [0, 0, 50, 50], "image_id": 6})
    coco["images"].append({"id": 6, "file_name": "b.jpg"})
    result = evaluate_detections(coco, boxes((0, 0, 50, 50, 0.9)))
    assert result.images == 2
    assert result.metrics["mar_100"] == 0.5
    assert result.best_f1 == BestF1(threshold=0.899, f1=pytest.approx(2 / 3), precision=1.0, recall=0.5)


def test_best_f1_prefers_the_highest_of_equal_thresholds_and_keeps_ties_together() -> None:
    coco = one_image({"bbox": [0, 0, 50, 50]}, {"bbox": [100, 0, 50, 50]})
    # Down to 0.9: 1 hit, 0 wrong, 1 missed: 2/3. Down to 0.6, which two share: 2 hits, 2 wrong: 2/3 again.
    rows = ((0, 0, 50, 50, 0.9), (300, 0, 50, 50, 0.8), (100, 0, 50, 50, 0.6), (400, 0, 50, 50, 0.6))
    assert evaluate_detections(coco, boxes(*rows)).best_f1.threshold == 0.899
    assert evaluate_detections(coco, boxes(*rows[:3])).best_f1 == BestF1(0.599, pytest.approx(0.8), 2 / 3, 1.0)


def test_sizes_count_each_object_once_by_its_area() -> None:
    areas = (0, 1023.9, 1024, 9215.9, 9216, 10**6)
    coco = one_image(*({"bbox": [0, 0, 10, 10], "area": area} for area in areas))
    coco["annotations"].append({**coco["annotations"][0], "id": 7, "iscrowd": 1})
    result = evaluate_detections(coco, Detections.empty())
    assert result.sizes == {"small": 2, "medium": 2, "large": 2}
    assert (result.objects, result.images) == (6, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_detections(backend: str) -> None:
    """Of 200 objects 160 are found: COCO's numbers see 100 of them, under their own names, and so do both libraries."""
    coco = one_image(*({"bbox": [20 * (index % 20), 20 * (index // 20), 10, 10]} for index in range(200)))
    detections = boxes(*((20 * (i % 20), 20 * (i // 20), 10, 10, 0.99 - 0.001 * i) for i in range(160)))
    plain = evaluate_detections(coco, detections, backend=backend)
    result = evaluate_detections(coco, detections, backend=backend, max_detections=150)
    assert {name: result.metrics[name] for name in plain.metrics} == plain.metrics
    assert result.per_class == plain.per_class
    beyond = {"map_at_150": 76 / 101, "map_50_at_150": 76 / 101, "map_75_at_150": 76 / 101, "mar_150": 0.75}
    assert list(result.metrics)[12:] == list(beyond)
    assert {name: result.metrics[name] for name in beyond} == pytest.approx(beyond)
    assert (plain.metrics["map"], plain.metrics["mar_100"]) == pytest.approx((51 / 101, 0.5))
    assert (plain.best_f1.recall, result.best_f1.recall) == (0.5, 0.75)
    table = result.table()
    assert "(AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.505" in table
    assert "(AP) @[ IoU=0.50      | area=   all | maxDets=150 ] = 0.752" in table
    assert "(AR) @[ IoU=0.50:0.95 | area=   all | maxDets=150 ] = 0.750" in table
    shuffled = {**result.as_dict(), "metrics": dict(sorted(result.metrics.items()))}
    assert list(CocoResult.from_dict(shuffled).metrics) == list(result.metrics)
    for wrong in (99, 0):
        with pytest.raises(ValueError, match="100 or more, found"):
            evaluate_detections(coco, detections, max_detections=wrong)


def test_unknown_ids_are_listed() -> None:
    coco = one_image({"bbox": [0, 0, 50, 50]})
    wrong = Detections.concat([boxes((0, 0, 9, 9, 0.5), image_id=77), boxes((0, 0, 9, 9, 0.5), category_id=1)])
    with pytest.raises(
        DataError, match=r"image ids .* does not list: 77 .*category ids .* does not list: 1 \(it has 0\)"
    ):
        evaluate_detections(coco, wrong)
    many = Detections.concat([boxes((0, 0, 9, 9, 0.5), image_id=100 + index) for index in range(12)])
    with pytest.raises(DataError, match=r"109 … and 2 more"):
        evaluate_detections(coco, many)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0, 0, 9, np.nan, 0.5), "1 box not finite"),
        ((np.inf, 0, 9, 9, 0.5), "1 box not finite"),
        ((0, 0, -1, 9, 0.5), "negative width"),
        ((0, 0, 9, 9, np.nan), "scores that are not finite"),
        ((0, 0, 9, 9, -np.inf), "scores that are not finite"),
    ],
)
def test_numbers_that_cannot_be(row: tuple, message: str) -> None:
    with pytest.raises(DataError, match=rf"1\b.*{message}|{message}"):
        evaluate_detections(one_image({"bbox": [0, 0, 50, 50]}), boxes((0, 0, 9, 9, 0.5), row))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [0, 0, 5]}, "'bbox' must be 4 numbers .* not in 1 "),
        ({"bbox": None}, "'bbox' must be 4 numbers"),
        ({"bbox": [0, 0, -5, 5]}, "annotations: 1 box not finite or of negative width .*hf-detr-ft check"),
        ({"area": "big"}, "'area' must be a number"),
        ({"image_id": "5"}, "'image_id' must be an integer .*'5'"),
        ({"category_id": 0.5}, "'category_id' must be an integer"),
    ],
)
def test_truth_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_detections(one_image({"bbox": [0, 0, 5, 5]}, {"bbox": [0, 0, 5, 5], **change}), Detections.empty())


@pytest.mark.parametrize("key", ["images", "categories"])
def test_truth_without_images_or_categories(key: str) -> None:
    coco = one_image()
    coco[key] = []
    with pytest.raises(DataError, match=f"no {key}"):
        evaluate_detections(coco, Detections.empty())


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="backend must be"):
        evaluate_detections(one_image(), Detections.empty(), backend="coco")  # type: ignore[arg-type]


def test_as_dict_is_json_as_it_stands() -> None:
    coco, detections = random_case(3)
    result = evaluate_detections(coco, detections)
    read = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert list(read) == ["metrics", "per_class", "sizes", "best_f1", "images", "objects", "detections"]
    assert read == result.as_dict()
    assert {type(value) for value in result.as_dict()["metrics"].values()} == {float}
    assert list(read["per_class"][0]) == ["category_id", "name", "ap", "ap_50", "ar_100", "objects"]


def result_with(classes: int) -> CocoResult:
    coco = one_image({"bbox": [0, 0, 10, 10]}, {"bbox": [0, 0, 100, 100], "category_id": 1}, categories=classes)
    return evaluate_detections(coco, boxes((0, 0, 10, 10, 0.6543)))


def test_table_has_cocos_words_counts_and_no_minus_one() -> None:
    lines = result_with(3).table().splitlines()
    assert lines[0] == "1 image, 2 objects, 1 detection"
    assert lines[1] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.500"
    assert lines[2].startswith(" Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ]")
    assert lines[4].endswith("| area= small | maxDets=100 ] = 1.000  small (1 object)")
    assert lines[5].endswith("| area=medium | maxDets=100 ] =   n/a  medium (0 objects)")
    assert lines[7] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 0.500"
    assert lines[14:18] == [
        " class  objects     AP   AP50     AR",
        " c0           1  1.000  1.000  1.000",
        " c1           1  0.000  0.000  0.000",
        " c2           0    n/a    n/a    n/a",
    ]
    assert lines[-1] == (" Best F1 at IoU 0.50: 0.667 with scores above 0.654 (precision 1.000, recall 0.500)")


def test_table_stops_at_20_classes() -> None:
    assert " c19  " in result_with(20).table()
    assert "more" not in result_with(20).table()
    table = result_with(23).table()
    assert " c19  " in table
    assert " c20  " not in table
    assert " … and 3 more" in table


def test_detections_go_to_results_and_back() -> None:
    detections = random_case(4)[1]
    results = json.loads(json.dumps(detections.to_results()))
    assert list(results[0]) == ["image_id", "category_id", "bbox", "score"]
    back = Detections.from_results(results)
    for name in ("image_id", "category_id", "score", "boxes_xywh_px"):
        np.testing.assert_array_equal(getattr(back, name), getattr(detections, name))
    halves = [Detections.from_results(results[:7]), Detections.from_results(results[7:])]
    assert Detections.concat(halves).to_results() == results
    assert len(Detections.concat([])) == len(Detections.empty()) == len(Detections.from_results([])) == 0
    assert Detections.concat([Detections.empty()]).image_id.dtype == np.int64


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"image_id": 1}, "must be a list of entries, found dict"),
        (
            [{"category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}],
            "'image_id' must be an integer .* not in 0 .*'nothing'",
        ),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": "high"}], "'score' must be a number"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1], "score": 1}], "'bbox' must be 4 numbers"),
        ([3], "'image_id' must be an integer"),
    ],
)
def test_results_that_are_not_cocos(results: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Detections.from_results(results)  # type: ignore[arg-type]


def test_columns_must_be_of_one_length() -> None:
    with pytest.raises(ValueError, match=r"boxes_xywh_px must have the shape \(2, 4\), found \(1, 4\)"):
        Detections(np.zeros(2), np.zeros(2), np.zeros(2), np.zeros((1, 4)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_balloon_truth_fed_back_is_perfect(balloon: Path, backend: str) -> None:
    coco = json.loads((balloon / "annotations" / "custom_val.json").read_text())
    result = evaluate_detections(coco, truth_as_detections(coco), backend=backend)
    assert result.metrics["map"] == pytest.approx(1)
    assert (result.images, result.objects, sum(result.sizes.values())) == (13, 50, 50)
    assert result.best_f1.f1 == 1


def with_masks(coco: dict, detections: Detections, seed: int) -> tuple[dict, Detections]:
    """The same with ellipses and rectangles in the boxes as masks: polygons, crowd regions run lengths as in COCO."""
    rng, side = np.random.default_rng(seed), 480

    def outline(x: float, y: float, w: float, h: float) -> list[float]:
        angle = np.linspace(0, 2 * np.pi, 4 if rng.random() < 0.3 else 16, endpoint=False) + 0.3
        return np.stack([x + w / 2 * (1 + np.cos(angle)), y + h / 2 * (1 + np.sin(angle))], axis=1).ravel().tolist()

    for image in coco["images"]:
        image.update(height=side, width=side)
    for entry in coco["annotations"]:
        entry["segmentation"] = [outline(*entry["bbox"])]
        if entry["iscrowd"]:
            runs = np.diff(np.flatnonzero(np.diff(np.r_[-1, pixels(entry["segmentation"], side), -1]) != 0))
            entry["segmentation"] = {"size": [side, side], "counts": [int(run) for run in runs]}
    encoded = [encode_segmentation([outline(*box)], side, side) for box in detections.boxes_xywh_px.tolist()]
    return coco, dataclasses.replace(detections, masks=Masks.of(encoded))


def pixels(outline: list, side: int) -> np.ndarray:
    """A mask column by column."""
    counts = encode_segmentation(outline, side, side)["counts"]
    return decode_masks([counts], (side, side), (side, side))[0].T.ravel().astype(int)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_numbers_of_masks_are_those_of_pycocotools(seed: int, backend: str) -> None:
    """Crowd regions, images without objects or detections, ties of scores, 250 detections of one class among them."""
    coco, detections = with_masks(*random_case(seed), seed)
    result = evaluate_detections(coco, detections, backend=backend)
    expected = official(coco, detections, "segm").stats
    assert list(result.mask_metrics) == [f"mask_{key}" for key in KEYS]
    np.testing.assert_allclose(list(result.mask_metrics.values()), expected, atol=1e-6)
    np.testing.assert_allclose(list(result.metrics.values()), official(coco, detections).stats, atol=1e-6)
    assert abs(expected - list(result.metrics.values())).max() > 0.01
    again = CocoResult.from_dict(json.loads(json.dumps(result.as_dict(), sort_keys=True)))
    assert list(again.mask_metrics.items()) == list(result.mask_metrics.items())
    assert "\n masks:\n Average Precision" in again.table()


def test_masks_are_kept_with_detections() -> None:
    _, detections = with_masks(*random_case(0), 0)
    assert detections.masks is not None
    for again in (
        Detections.from_npz(detections.to_npz()),
        Detections.from_results(json.loads(json.dumps(detections.to_results()))),
    ):
        assert again.masks is not None and again.masks.as_dicts() == detections.masks.as_dicts()
    empty = dataclasses.replace(Detections.empty(), masks=Masks.empty())
    assert Detections.from_npz(empty.to_npz()).masks is not None
    assert Detections.from_npz(Detections.empty().to_npz()).masks is None
    results = detections.to_results()
    results[1]["segmentation"]["counts"] = "ooo"
    with pytest.raises(DataError, match="'segmentation' of entry 1 .* 'counts' are not in COCO's encoding"):
        Detections.from_results(results)


def test_masks_of_detections_want_those_of_objects() -> None:
    coco, detections = with_masks(*random_case(1), 1)
    del coco["annotations"][2]["segmentation"]
    with pytest.raises(DataError, match=r"expected a mask, .* none in 2 \(counted from 0\)"):
        evaluate_detections(coco, detections)
    result = evaluate_detections(coco, dataclasses.replace(detections, masks=None))
    assert result.mask_metrics == {} and "masks" not in result.table()
