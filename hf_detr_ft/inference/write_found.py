"""Detections as files: COCO's results, a table, or a data set that can be corrected and trained on."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_detr_ft.atomic import explain_refusal, write_text
from hf_detr_ft.boxes import xyxy_to_xywh
from hf_detr_ft.data.formats.write_data import WholeSplit
from hf_detr_ft.errors import DataError
from hf_detr_ft.inference.detect_files import Seen

COLUMNS = (
    *("filename", "frame", "time", "track_id", "class", "score"),
    *("xmin", "ymin", "xmax", "ymax", "width", "height"),
)
"""Heading of the table; readers of tables know the names."""


def write_table(
    target: Path,
    seen: Mapping[Path, Sequence[Seen]],
    files: Sequence[Path],
    names: Sequence[str],
    category_ids: Sequence[int],
) -> None:
    """Writes COCO's results, or, where the file's name ends so, a CSV. Raises DataError where the disk refuses.

    Args:
        target: the file.
        seen: of each file that could be read its image, or its frames in their order.
        files: all of them.
        names: of the classes, by label.
        category_ids: the data set's category id of each label.
    """
    is_csv = target.suffix == ".csv"
    text = results_csv(seen, files, names) if is_csv else results_json(seen, files, category_ids)
    with explain_refusal(target):
        write_text(target, text)


def results_json(seen: Mapping[Path, Sequence[Seen]], files: Sequence[Path], category_ids: Sequence[int]) -> str:
    """COCO's results, a line each, with keys of ours beside COCO's: `file_name`, `frame`, `time` and `track_id`.

    Args:
        seen: see `write_table`.
        files: all of them. An image's id is its place among all images and frames, from 1.
        category_ids: see `write_table`.
    """
    lines, image_id = [], 0
    for path in files:
        frames = seen.get(path, [])
        lines += [
            json.dumps(entry)
            for place, one in enumerate(frames, start=image_id + 1)
            for entry in _to_results(one, place, category_ids)
        ]
        image_id += max(1, len(frames))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _to_results(seen: Seen, image_id: int, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    frame = {} if seen.frame is None else {"frame": seen.frame, "time": round(seen.time or 0, 6)}
    for score, label, box, own in _objects(seen):
        yield {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 2) for value in xyxy_to_xywh(box).tolist()],
            "score": score,
            **own,
            "file_name": seen.path.as_posix(),
            **frame,
        }


def _objects(seen: Seen) -> Iterator[tuple[float, int, np.ndarray, dict[str, Any]]]:
    """Score, label, box xyxy in pixels, and mask and track where there are any."""
    found = seen.found
    masks = [None] * len(found) if found.masks is None else found.masks.as_dicts()
    tracks = [None] * len(found) if found.tracks is None else found.tracks.tolist()
    for place, (mask, track) in enumerate(zip(masks, tracks, strict=True)):
        own = {"segmentation": mask, "track_id": track}
        yield (
            round(float(found.scores[place]), 6),
            int(found.labels[place]),
            found.boxes_xyxy_px[place],
            {key: value for key, value in own.items() if value is not None},
        )


def results_csv(seen: Mapping[Path, Sequence[Seen]], files: Sequence[Path], names: Sequence[str]) -> str:
    """A table with a row for each detection, and one without a box for an image or a frame without any."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for one in (one for path in files for one in seen.get(path, [])):
        time = None if one.time is None else round(one.time, 6)
        height, width = one.size
        image = {"filename": one.path.as_posix(), "frame": one.frame, "time": time, "width": width, "height": height}
        for score, label, box, own in _objects(one):
            corners = dict(zip(COLUMNS[6:10], (round(value, 2) for value in box.tolist()), strict=True))
            track = own.get("track_id")
            table.writerow({**image, **corners, "class": names[label], "score": score, "track_id": track})
        if not len(one.found):
            table.writerow(image)
    return text.getvalue()


def build_data_set(
    seen: Mapping[Path, Sequence[Seen]],
    files: Sequence[Path],
    frames: Mapping[tuple[Path, int], Path],
    names: Sequence[str],
    category_ids: Sequence[int],
) -> tuple[WholeSplit, int]:
    """Detections as annotations: boxes within their images, to hundredths of pixels.

    Args:
        seen: see `write_table`.
        files: all of them.
        frames: the image file of each frame of a video.
        names: of the classes, by label.
        category_ids: the data set's category id of each label.

    Returns:
        A split, whose images are named by their place below the folder that all have in common, and the number of
        detections that lie outside of their images and were left out.

    Raises:
        DataError: there is no image.
    """
    if not seen:
        raise DataError(f"{files[0]}: could not be read, nor could any other image; there is no data set to write")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    photos, outside = {}, 0
    named = _name_images([one for path in files for one in seen.get(path, [])])
    for image_id, (file_name, one) in enumerate(named.items(), start=1):
        height, width = one.size
        photos[file_name] = one.path if one.frame is None else frames[one.path, one.frame]
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for score, label, box, own in _objects(one):
            left, top, right, bottom = (round(v, 2) for v in np.clip(box, 0, [width, height] * 2).tolist())
            if right <= left or bottom <= top:
                outside += 1
                continue
            sides = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            about = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_ids[label], "iscrowd": 0}
            annotations.append({**about, **sides, **own, "score": score})
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)]
    return WholeSplit({"images": images, "annotations": annotations, "categories": categories}, photos), outside


def _name_images(seen: Sequence[Seen]) -> dict[str, Seen]:
    """Names of images and frames in a data set, no two alike: frames have their video's name and their number."""
    parents = [os.path.abspath(one.path.parent) for one in seen]
    common = os.path.commonpath(parents) if parents else ""
    named: dict[str, Seen] = {}
    for one, parent in zip(seen, parents, strict=True):
        name = Path(os.path.relpath(parent, common), one.path.name).as_posix()
        named[name if one.frame is None else f"{name.replace('.', '_')}/{one.frame:06d}.jpg"] = one
    return named
