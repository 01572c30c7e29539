"""Measures prediction: small objects of a large image, a video, and the way from a process's start to the first box.

    python benchmarks/measure_predict.py slices   # a drawn image of 4,000 pixels, whole and in slices
    python benchmarks/measure_predict.py video    # a drawn video of 10 seconds: boxes, ids, frames a second
    python benchmarks/measure_predict.py start    # pipeline() and Detector in a script, hf-detr-ft predict, in turn

The model is the packaged tiny D-FINE, and everything is drawn: nothing is downloaded.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou

import hf_detr_ft
from hf_detr_ft import Detector
from hf_detr_ft.inference.video import DrawnVideo
from hf_detr_ft.machine import count_cores
from hf_detr_ft.runs.predict import predict
from hf_detr_ft.synthetic.backgrounds import apply_camera, draw_background
from hf_detr_ft.synthetic.render import render
from hf_detr_ft.synthetic.scene import Placed, compose, draw_layer, place
from hf_detr_ft.synthetic.shapes import SHAPES

MODEL = "package:hf_detr_ft/tiny_dfine"
FOLDER = str(Path(hf_detr_ft.__file__).with_name("tiny_dfine"))
EXTENTS = (30, 120)
"""Least and largest extent in pixels of the small objects."""
LIGHT = np.array([0.3, -0.6, 0.74])


def draw_large(
    seed: int, objects: int, names: list[str], size: tuple[int, int] = (3000, 4000)
) -> tuple[Image.Image, np.ndarray, list[str]]:
    """An image, height and width `size`, of small objects, their boxes `[N, 4]` xyxy in pixels and their classes."""
    rng = np.random.default_rng(seed)
    placed: list[Placed] = []
    for _ in range(objects):
        name = names[rng.integers(len(names))]
        draw, lean = SHAPES[name]
        extent = float(np.exp(rng.uniform(*np.log(EXTENTS))))
        place(rng, placed, draw_layer(rng, draw, name, extent, lean, LIGHT), size)
    boxes = []
    for item in placed:
        rows, columns = (np.flatnonzero(item.visible.any(axis)) for axis in (1, 0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    image = apply_camera(rng, compose(rng, draw_background(rng, size), placed))
    return Image.fromarray(image), np.array(boxes, dtype=float), [str(item.layer.name) for item in placed]


def count_found(boxes_xyxy_px: np.ndarray, names: list[str], found: dict) -> tuple[int, int, int]:
    """Objects that are found (IoU above 0.5, their class), doubles of them, and other detections."""
    overlaps = box_iou(torch.from_numpy(boxes_xyxy_px), torch.from_numpy(found["boxes"]).double()).numpy()
    hits = (overlaps > 0.5) & (np.array(names)[:, None] == np.array(found["names"], dtype=str))
    return int(hits.any(1).sum()), int((hits.sum(1) - 1).clip(0).sum()), int((~hits.any(0)).sum())


def measure_slices() -> None:
    """Prints what is found of 80 small objects, whole and in slices of some sizes."""
    detector = Detector.from_pretrained(MODEL, device="cpu")
    image, boxes, names = draw_large(0, 80, detector.names)
    print(f"{image.width} x {image.height} pixels, {len(names)} objects of {EXTENTS[0]} to {EXTENTS[1]} pixels")
    for side in (None, 256, 384, 512):
        started = time.perf_counter()
        found = detector(image, slices=side, batch_size=16)
        seconds = time.perf_counter() - started
        hits, doubles, others = count_found(boxes, names, found)
        how = f"slices of {side}" if side else "whole"
        print(f"{how}: recall {hits / len(names):.2f}, {doubles} doubles, {others} others, {seconds:.1f} s")


def draw_video(path: Path, seconds: int = 10, rate: int = 25, size: tuple[int, int] = (360, 480)) -> list[str]:
    """Writes a video in which objects move over a background, each on a path of its own, and returns their classes."""
    rng = np.random.default_rng(3)
    background = render(7, size=size, classes=["balloon"]).image.astype(np.float32) / 255
    names = ["star", "mug", "ring", "cube"]
    layers = [draw_layer(rng, SHAPES[name][0], name, 80, 0.2, LIGHT) for name in names]
    centres = np.array([(110, 115), (250, 115), (110, 365), (250, 365)], dtype=float)
    with DrawnVideo(path) as video:
        for frame in range(seconds * rate):
            scene, turn = background.copy(), 2 * np.pi * frame / (5 * rate)
            for number, (layer, centre) in enumerate(zip(layers, centres, strict=True)):
                moved = centre + 25 * np.array([np.sin(turn + number), np.cos(turn * (1 + number % 2))])
                top, left = (moved - np.array(layer.alpha.shape) / 2).round().astype(int)
                spot = np.s_[top : top + layer.alpha.shape[0], left : left + layer.alpha.shape[1]]
                scene[spot] = scene[spot] * (1 - layer.alpha[..., None]) + layer.colour
            video.add(Image.fromarray((scene * 255).clip(0, 255).astype(np.uint8)), frame / rate)
    return names


def measure_video() -> None:
    """Prints for each object of the video in how many frames it is found, and under how many ids."""
    with TemporaryDirectory() as folder:
        names = draw_video(Path(folder, "drawn.mp4"))
        predict(MODEL, [f"{folder}/drawn.mp4"], output=Path(folder, "out"), track=True)
        results = json.loads(Path(folder, "out", "detections.json").read_text())
    frames = len({entry["frame"] for entry in results})
    by_track = defaultdict(list)
    for entry in results:
        by_track[entry["track_id"]].append(entry)
    gc.unfreeze()
    detector = Detector.from_pretrained(MODEL, device="cpu")
    classes = dict(zip(detector.category_ids, detector.names, strict=True))
    print(f"{frames} of 250 frames have boxes; {count_cores()} cores of {processor()}")
    for name in names:
        tracks = [len(t) for t in by_track.values() if classes[t[0]["category_id"]] == name]
        print(f"{name}: in {max(tracks, default=0)} frames under one id, in {sum(tracks)} under {len(tracks)} ids")


def processor() -> str:
    """Name of the CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "an unknown CPU")


SCRIPTS = {
    "pipeline": f"""
from transformers import pipeline
print(pipeline("object-detection", {FOLDER!r}, dtype="float32")("photo.jpg", threshold=0.5)[0])
""",
    "Detector": f"""
from hf_detr_ft import Detector
print(Detector.from_pretrained({FOLDER!r})("photo.jpg", threshold=0.5)["boxes"][0])
""",
}


def measure_start(rounds: int) -> None:
    """Prints the medians of the seconds that whole processes take for one photo, in turn."""
    commands = {name: [sys.executable, "-c", script] for name, script in SCRIPTS.items()}
    commands["hf-detr-ft predict"] = [
        *(sys.executable, "-m", "hf_detr_ft.cli", "predict", FOLDER, "photo.jpg"),
        *("--output", "out", "--overwrite"),
    ]
    seconds = defaultdict(list)
    with TemporaryDirectory() as folder:
        Image.fromarray(render(1).image).save(Path(folder, "photo.jpg"))
        for number in range(rounds + 1):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                if number:  # the first round fills the disk's cache
                    seconds[name].append(time.perf_counter() - started)
    stock = statistics.median(seconds["pipeline"])
    print(f"{count_cores()} cores of {processor()}, medians of {rounds}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name}: {median:.2f} s, {median / stock:.2f} times pipeline(), {min(values):.2f} to {max(values):.2f}")


def main() -> None:
    """Measures one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["slices", "video", "start"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.what == "start":
        measure_start(options.rounds)
    else:
        {"slices": measure_slices, "video": measure_video}[options.what]()


if __name__ == "__main__":
    main()
