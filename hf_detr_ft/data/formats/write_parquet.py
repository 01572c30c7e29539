"""Data sets written as Parquet, as the Hub shows them: images with their files' bytes, objects with named classes."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_detr_ft.data.formats.layout import SPLITS
from hf_detr_ft.data.formats.write_data import WholeSplit, objects_by_image

HUB_SPLITS = {split: "validation" if split == "val" else split for split in SPLITS}
"""Names of splits on the Hub, by ours."""
SHARD_BYTES = 500_000_000
"""Bytes of images in one file, as `datasets` has it."""
ROWS_AT_ONCE = 32


def write_parquet_folder(splits: Mapping[str, WholeSplit], folder: Path) -> None:
    """Writes `data/{split}-00000-of-00001.parquet`: boxes, and crowd regions where there are any.

    The columns are those of usual detection data sets of the Hub, such as cppe-5: `image_id`, `image`, `width`,
    `height`, and `objects` with `id`, `area`, `bbox` (xywh in pixels of the upright image) and `category`, the place of
    the class in its list of names. The same data makes the same bytes, so that an upload that broke off goes on.

    Raises:
        OSError: the disk refuses.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    crowds = any(entry.get("iscrowd") for split in splits.values() for entry in split.coco["annotations"])
    schema = _features([c["name"] for c in next(iter(splits.values())).coco["categories"]], crowds).arrow_schema
    (folder / "data").mkdir()
    for split, whole in splits.items():
        sizes = [os.path.getsize(whole.photos[image["file_name"]]) for image in whole.coco["images"]]
        shards = max(1, -(-sum(sizes) // SHARD_BYTES))
        per_shard = -(-len(sizes) // shards)
        rows = _rows(whole, crowds)
        for shard in range(shards):
            path = folder / "data" / f"{HUB_SPLITS[split]}-{shard:05d}-of-{shards:05d}.parquet"
            left = min(per_shard, len(sizes) - shard * per_shard)
            with pq.ParquetWriter(path, schema) as writer:
                while left > 0:
                    some = [next(rows) for _ in range(min(left, ROWS_AT_ONCE))]
                    writer.write_table(pa.Table.from_pylist(some, schema=schema))
                    left -= len(some)


def _features(names: list[str], crowds: bool) -> Any:
    from datasets import ClassLabel, Features, Image, List, Value

    objects: dict[str, Any] = {
        "id": List(Value("int64")),
        "area": List(Value("float64")),
        "bbox": List(List(Value("float64"), length=4)),
        "category": List(ClassLabel(names=names)),
    }
    if crowds:
        objects["iscrowd"] = List(Value("bool"))
    sides = {"width": Value("int32"), "height": Value("int32")}
    return Features({"image_id": Value("int64"), "image": Image(), **sides, "objects": objects})


def _rows(whole: WholeSplit, crowds: bool) -> Iterator[dict[str, Any]]:
    labels = {category["id"]: label for label, category in enumerate(whole.coco["categories"])}
    objects = objects_by_image(whole.coco, crowds=True)
    for image in whole.coco["images"]:
        own = objects[image["id"]]
        columns = {
            "id": [entry["id"] for entry in own],
            "area": [entry["area"] for entry in own],
            "bbox": [entry["bbox"] for entry in own],
            "category": [labels[entry["category_id"]] for entry in own],
        }
        if crowds:
            columns["iscrowd"] = [bool(entry.get("iscrowd")) for entry in own]
        content = whole.photos[image["file_name"]].read_bytes()
        yield {
            "image_id": image["id"],
            "image": {"bytes": content, "path": Path(image["file_name"]).name},
            "width": image["width"],
            "height": image["height"],
            "objects": columns,
        }
