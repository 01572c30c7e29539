"""Measures inference beside `pipeline("object-detection")`, and AP beside pycocotools.

    python benchmarks/measure_evaluation.py inference MODEL FOLDER_OF_IMAGES [--exports]
    python benchmarks/measure_evaluation.py ap

MODEL is what `hf-detr-ft predict` takes; `resnet50` makes a DETR-R50 with random weights and a short side of 480.
Everything that is compared runs in turn, in one process; the ratio is the median over the rounds.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transformers import pipeline, set_seed

from hf_detr_ft.data.find_images import find_images
from hf_detr_ft.data.images import decode_rgb
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.export.formats import FORMATS
from hf_detr_ft.export.measure import ExportedModel
from hf_detr_ft.export.network import Network, describe
from hf_detr_ft.inference.detect import ImageDetections, load_detector, prepare
from hf_detr_ft.inference.detect_files import Look, detect_ahead, sort_by_shape
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.checkpoint import resolve_source
from hf_detr_ft.model.speed.bf16_backbone import use_bf16_backbone
from hf_detr_ft.recipe.sections import ModelConfig
from hf_detr_ft.training.data_pipeline import build_processor

ROUNDS = 3
IMAGES, PER_IMAGE, OBJECTS, CLASSES = 5000, 100, 7, 80
"""Sizes of COCO's validation split, roughly."""


def in_turn(jobs: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each job by round, and what it returned last."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    results = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            started = time.perf_counter()
            results[name] = job()
            seconds[name].append(time.perf_counter() - started)
    return seconds, results


def print_times(seconds: dict[str, list[float]], reference: str, images: int) -> None:
    """Prints a line for each job."""
    for name, times in seconds.items():
        ratio = statistics.median(theirs / ours for ours, theirs in zip(times, seconds[reference], strict=True))
        print(
            f"{name:<28} {statistics.median(times):8.2f} s  {images / statistics.median(times):8.2f} images/s  "
            f"{ratio:5.2f} x  (rounds: {', '.join(f'{value:.2f}' for value in times)})"
        )


def measure_inference(model: str, folder: Path, made: Path, rounds: int, exports: bool) -> None:
    """Seconds for all images of the folder, decoding included, and the distance of the boxes from the pipeline's."""
    source = make_resnet50(made) if model == "resnet50" else resolve_source(model, "model")
    files = find_images([str(folder)], Path("predictions"))
    detector = pipeline("object-detection", source, device="cpu", dtype=torch.float32)
    precise, processor = load_detector(source)
    rounded, _ = load_detector(source)
    use_bf16_backbone(rounded)

    def baseline() -> list:
        return [detector(str(path), threshold=0.0) for path in files]

    def ours(network: Any) -> dict[Path, ImageDetections]:
        look = Look(network, processor, 8)
        return {path: found for path, _, found in detect_ahead(look, sort_by_shape(files, print), decode_rgb)}

    jobs = {"pipeline": baseline, "ours, fp32": lambda: ours(precise), "ours, backbone in bf16": lambda: ours(rounded)}
    if exports:
        some = [prepare(decode_rgb(path), processor).numpy() for path in files[:16]]
        exported = export_all(load_detector(source)[0], processor, some, made)
        jobs |= {name: partial(ours, network) for name, network in exported.items()}
    in_turn(jobs, 1)  # warms up
    seconds, results = in_turn(jobs, rounds)
    print_times(seconds, "pipeline", len(files))
    exact, nearly = results["ours, fp32"], results["ours, backbone in bf16"]
    pipeline_boxes = {path: boxes_of(detector, path) for path in files}
    for path, found in zip(files, results["pipeline"], strict=True):
        cut = [list(entry["box"].values()) for entry in found]
        assert np.array_equal(np.trunc(pipeline_boxes[path]), cut), "these are the boxes of the pipeline"
    for name, boxes in (("fp32", exact), ("bf16", nearly)):
        moved = np.concatenate([np.abs(boxes[path].boxes_xyxy_px - pipeline_boxes[path]).max(axis=1) for path in files])
        sure = moved[np.concatenate([exact[path].scores > 0.5 for path in files])]
        above = f"; of {len(sure)} above a score of 0.5 at most {sure.max():.4f}" if len(sure) else ""
        print(
            f"{name}: {len(moved)} boxes, from the pipeline's (before it cuts them to whole pixels) "
            f"{np.median(moved):.4f} pixels (median), {moved.max():.4f} (most){above}"
        )


def export_all(model: Any, processor: Any, some: list[np.ndarray], made: Path) -> dict[str, ExportedModel]:
    """A model in files of other runtimes; prepared images calibrate int8."""
    network, opened = Network(model), {}
    for kind, precision in (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "int8")):
        path = made / f"{precision}{FORMATS[kind].suffix}"
        FORMATS[kind].write(network, path, describe(model, processor, "model", precision), lambda: iter(some))
        opened[f"{FORMATS[kind].runtime}, {precision}"] = ExportedModel(FORMATS[kind].open(path), network)
    return opened


def boxes_of(detector: Any, path: Path) -> np.ndarray:
    """Boxes of the pipeline before it cuts them to whole pixels, `[Q, 4]`, xyxy in pixels."""
    image = decode_rgb(path)
    inputs = detector.image_processor(images=[image], return_tensors="pt")
    with torch.inference_mode():
        outputs = detector.model(**inputs)
    (found,) = detector.image_processor.post_process_object_detection(outputs, 0.0, [(image.height, image.width)])
    boxes: np.ndarray = found["boxes"].numpy()
    return boxes


def make_resnet50(folder: Path) -> str:
    """A DETR-R50 with random weights, which take as long as trained ones."""
    set_seed(0)
    config = ModelConfig(checkpoint=None, backbone="resnet50", shortest_edge=480, longest_edge=800)
    build_model(config, ["object"], [1]).save_pretrained(folder)
    build_processor(config).save_pretrained(folder)
    return str(folder)


def measure_ap() -> None:
    """Seconds of all of `evaluate_detections`, beside those of pycocotools' evaluate, accumulate and summarize."""
    coco, detections = draw_results()
    quiet = contextlib.redirect_stdout(io.StringIO())

    def reference() -> dict[str, float]:
        with quiet:
            truth = COCO()
            truth.dataset = coco
            truth.createIndex()
            evaluator = COCOeval(truth, truth.loadRes(detections.to_results()), "bbox")
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return {str(place): value for place, value in enumerate(evaluator.stats.tolist())}

    jobs = {"pycocotools": reference, "ours": lambda: evaluate_detections(coco, detections)}
    seconds, results = in_turn(jobs, ROUNDS)
    print(f"{IMAGES} images, {len(detections)} detections, {len(coco['annotations'])} objects of {CLASSES} classes")
    print_times(seconds, "pycocotools", IMAGES)
    ours = list(results["ours"].metrics.values())
    apart = max(abs(one - other) for one, other in zip(ours, results["pycocotools"].values(), strict=True))
    print(f"AP {ours[0]:.4f}; the 12 numbers differ by at most {apart:.1e}")


def draw_results() -> tuple[dict[str, Any], Detections]:
    """A COCO truth and detections of it: some near an object, most of them anywhere."""
    draws = np.random.default_rng(0)
    count = IMAGES * OBJECTS
    image_id, label = np.repeat(np.arange(1, IMAGES + 1), OBJECTS), draws.integers(1, CLASSES + 1, count)
    sides = np.exp(draws.uniform(np.log(8), np.log(300), (count, 2)))
    boxes = np.concatenate([draws.uniform(0, 1, (count, 2)) * (640 - sides), sides], axis=1)
    coco = {
        "images": [{"id": int(i), "width": 640, "height": 640} for i in range(1, IMAGES + 1)],
        "categories": [{"id": i, "name": str(i)} for i in range(1, CLASSES + 1)],
        "annotations": [
            {"id": i, "image_id": a, "category_id": b, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, (a, b, box) in enumerate(
                zip(image_id.tolist(), label.tolist(), boxes.tolist(), strict=True), start=1
            )
        ],
    }
    found = IMAGES * PER_IMAGE
    of = draws.integers(0, OBJECTS, found) + np.repeat(np.arange(IMAGES) * OBJECTS, PER_IMAGE)
    near = draws.random(found) < 0.15
    guesses = boxes[of] + draws.normal(0, 0.1, (found, 4)) * np.tile(boxes[of, 2:], 2)
    anywhere = boxes[draws.integers(0, count, found)]
    return coco, Detections(
        image_id=np.repeat(np.arange(1, IMAGES + 1), PER_IMAGE),
        category_id=np.where(near, label[of], draws.integers(1, CLASSES + 1, found)),
        score=np.where(near, draws.beta(5, 2, found), draws.beta(1, 5, found)),
        boxes_xywh_px=np.abs(np.where(near[:, None], guesses, anywhere)),
    )


def main() -> None:
    """Measures one of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    inference = what.add_parser("inference")
    inference.add_argument("model")
    inference.add_argument("folder", type=Path)
    inference.add_argument("--rounds", type=int, default=ROUNDS)
    inference.add_argument("--exports", action="store_true", help="ONNX Runtime and OpenVINO, too")
    what.add_parser("ap")
    options = parser.parse_args()
    if options.what == "ap":
        measure_ap()
    else:
        with TemporaryDirectory() as made:
            measure_inference(options.model, options.folder, Path(made), options.rounds, options.exports)


if __name__ == "__main__":
    main()
