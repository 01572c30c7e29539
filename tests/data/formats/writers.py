"""One drawn data set, and small writers of it in every format, which share no code with the readers."""

import csv
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ["cone", "mug"]
"""In the order in which readers without an order of their own list them."""
Box = tuple[str, float, float, float, float]
"""Class, left, top, width and height in pixels."""
DRAWN: dict[str, dict[str, tuple[int, int, list[Box]]]] = {
    "train": {
        "a.png": (40, 30, [("mug", 2, 3, 10, 12), ("cone", 20.5, 5.25, 8, 9.5)]),
        "b.png": (30, 44, [("cone", 0, 0, 30, 44)]),
        "c.png": (33, 21, []),
        "d.png": (64, 48, [("mug", 63, 47, 1, 1), ("mug", 1, 1, 20, 20), ("cone", 30, 10, 12, 30)]),
    },
    "val": {
        "e.png": (40, 40, [("cone", 4, 8, 16, 20)]),
        "f.png": (50, 20, [("mug", 10.5, 2.5, 30, 15)]),
    },
}
"""Width, height and objects of each image, by split."""


def draw(folder: Path, split: str) -> None:
    """Writes the images of a split, each of another grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (width, height, _)) in enumerate(DRAWN[split].items()):
        grey = 40 + 50 * number + 20 * (split == "val")
        Image.fromarray(np.full((height, width, 3), grey, dtype=np.uint8)).save(folder / name)


def read_back(cocos: dict[str, dict]) -> dict[str, dict[str, tuple[int, int, list[Box]]]]:
    """COCO dicts as `DRAWN` is written."""
    back: dict[str, Any] = {}
    for split, coco in cocos.items():
        names = {category["id"]: category["name"] for category in coco["categories"]}
        files = {image["id"]: re.sub(r"^(.*/)?(\d{6}_)?", "", image["file_name"]) for image in coco["images"]}
        back[split] = {files[i["id"]]: (i["width"], i["height"], []) for i in coco["images"]}
        for entry in coco["annotations"]:
            back[split][files[entry["image_id"]]][2].append((names[entry["category_id"]], *entry["bbox"]))
    return back


def coco_dict(split: str, start: int = 1) -> dict:
    images, annotations = [], []
    for number, (name, (width, height, boxes)) in enumerate(DRAWN[split].items()):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for label, x, y, w, h in boxes:
            entry = {"image_id": number, "category_id": CLASSES.index(label) + start, "bbox": [x, y, w, h]}
            annotations.append({"id": len(annotations) + 1, "area": w * h, "iscrowd": 0, **entry})
    categories = [{"id": index + start, "name": name} for index, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(root: Path) -> None:
    """COCO's own layout."""
    (root / "annotations").mkdir(parents=True)
    for split in DRAWN:
        draw(root / f"{split}2017", split)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(coco_dict(split)))
        (root / f"annotations/captions_{split}2017.json").write_text(json.dumps({"images": [], "annotations": []}))


def roboflow(root: Path) -> None:
    """Roboflow's: the JSON beside its images, class 0 above all others."""
    for split, folder in (("train", "train"), ("val", "valid")):
        draw(root / folder, split)
        content = coco_dict(split)
        for category in content["categories"]:
            category["supercategory"] = "things"
        content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        (root / folder / "_annotations.coco.json").write_text(json.dumps(content))


def cvat(root: Path) -> None:
    """CVAT's: images in a folder of the split's name, ids from 1, areas and attributes."""
    (root / "annotations").mkdir(parents=True)
    for split, name in (("train", "train"), ("val", "validation")):
        draw(root / "images" / name, split)
        content = {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {"year": ""}, **coco_dict(split)}
        for entry in content["annotations"]:
            entry |= {"segmentation": [], "attributes": {"occluded": False}}
        (root / f"annotations/instances_{name}.json").write_text(json.dumps(content))


def _yolo_line(label: str, x: float, y: float, w: float, h: float, width: int, height: int) -> str:
    values = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
    return f"{CLASSES.index(label)} " + " ".join(f"{value:.6f}" for value in values)


def _yolo(images: Path, labels: Path, split: str, outlines: bool = False) -> None:
    draw(images, split)
    labels.mkdir(parents=True, exist_ok=True)
    for name, (width, height, boxes) in DRAWN[split].items():
        lines = [_yolo_line(*box, width, height) for box in boxes]
        if outlines:
            lines = [
                f"{CLASSES.index(label)} {x / width} {y / height} {(x + w) / width} {y / height} "
                f"{(x + w) / width} {(y + h) / height} {x / width} {(y + h) / height}"
                for label, x, y, w, h in boxes
            ]
        if lines:
            (labels / name).with_suffix(".txt").write_text("\n".join(lines) + "\n")


def yolo(root: Path) -> None:
    """Ultralytics': `images/train`, `labels/train`, names as a mapping, a path of another machine."""
    for split in DRAWN:
        _yolo(root / "images" / split, root / "labels" / split, split)
    names = "\n".join(f"  {index}: {name}" for index, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: /datasets/mine\ntrain: images/train\nval: images/val\nnames:\n{names}\n")


def yolo_roboflow(root: Path) -> None:
    """Roboflow's: `train/images`, `../` in data.yaml, names as a list, outlines."""
    for split, folder in (("train", "train"), ("val", "valid")):
        _yolo(root / folder / "images", root / folder / "labels", split, outlines=True)
    (root / "data.yaml").write_text(f"train: ../train/images\nval: ../valid/images\nnc: 2\nnames: {CLASSES}\n")


def yolo_lists(root: Path) -> None:
    """Ultralytics' lists of images, relative to themselves or of another machine, and lists of folders and of lists."""
    yolo(root)
    (root / "images/more").mkdir()
    (root / "labels/more").mkdir()
    for folder, suffix in (("images", "png"), ("labels", "txt")):
        (root / folder / "val" / f"f.{suffix}").rename(root / folder / "more" / f"f.{suffix}")
    (root / "lists").mkdir()
    (root / "lists/val.txt").write_text("images/val/e.png\n")
    lines = "./images/train/a.png\nimages\\train\\b.png\n\n/datasets/mine/images/train/c.png\r\n../images/train/d.png"
    (root / "train.txt").write_text(lines)
    text = (root / "data.yaml").read_text().replace("train: images/train", "train: /datasets/mine/train.txt")
    (root / "data.yaml").write_text(text.replace("val: images/val", "val: [./lists/val.txt, images/more]"))


def yolo_plain(root: Path) -> None:
    """LabelImg's: labels beside the images, and classes.txt."""
    for split in DRAWN:
        _yolo(root / split, root / split, split)
    (root / "classes.txt").write_text("\n".join(CLASSES))


def _voc_xml(split: str, name: str) -> str:
    width, height, boxes = DRAWN[split][name]
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for label, x, y, w, h in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{name}</filename>{size}{objects}</annotation>"


def voc(root: Path) -> None:
    """The devkit's layout with lists."""
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets/Main").mkdir(parents=True)
    for split, images in DRAWN.items():
        draw(root / "JPEGImages", split)
        for name in images:
            (root / "Annotations" / name).with_suffix(".xml").write_text(_voc_xml(split, name))
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name[:-4]}\n" for name in images))


def voc_beside(root: Path) -> None:
    """LabelImg's: each XML beside its image, in a folder for each split."""
    for split, images in DRAWN.items():
        draw(root / split, split)
        for name in images:
            (root / split / name).with_suffix(".xml").write_text(_voc_xml(split, name))


def _table(split: str, row: Callable, heading: list[str] | None, empty: Callable, **dialect: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, **dialect)
    if heading:
        writer.writerow(heading)
    for name, (width, height, boxes) in DRAWN[split].items():
        for label, x, y, w, h in boxes:
            writer.writerow(row(name, width, height, label, x, y, w, h))
        if not boxes:
            writer.writerow(empty(name))
    return out.getvalue()


def table(root: Path) -> None:
    """TensorFlow's columns, a table for each split beside its images."""
    heading = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    for split in DRAWN:
        draw(root / split, split)
        text = _table(
            split,
            lambda name, width, height, label, x, y, w, h: [name, width, height, label, x, y, x + w, y + h],
            heading,
            lambda name: [name, "", "", "", "", "", "", ""],
        )
        (root / split / "_annotations.csv").write_text(text)


def table_relative(root: Path) -> None:
    """One table of left, top, width and height relative to the image, with a column of splits and semicolons."""
    draw(root / "images", "train")
    draw(root / "images", "val")
    out = ""
    for split, word in (("train", "TRAIN"), ("val", "VALIDATION")):
        out += _table(
            split,
            lambda name, W, H, label, x, y, w, h, word=word: [
                word,
                f"images/{name}",
                label,
                *(str(value).replace(".", ",") for value in (x / W, y / H, w / W, h / H)),
            ],
            ["split", "image_path", "label", "x", "y", "w", "h"] if split == "train" else None,
            lambda name, word=word: [word, f"images/{name}", "", "", "", "", ""],
            delimiter=";",
        )
    (root / "labels.csv").write_bytes(out.encode("utf-16"))


def table_bare(root: Path) -> None:
    """Rows of path, corners and class without a heading."""
    for split in DRAWN:
        draw(root / split, split)
        text = _table(
            split,
            lambda name, width, height, label, x, y, w, h, split=split: [
                f"{split}/{name}",
                *(x, y, x + w, y + h, label),
            ],
            None,
            lambda name, split=split: [f"{split}/{name}", "", "", "", "", ""],
        )
        (root / f"{split}.csv").write_text(text)


def _via_regions(boxes: list[Box]) -> list[dict]:
    return [
        {
            "shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h},
            "region_attributes": {"kind": label, "note": ""},
        }
        for label, x, y, w, h in boxes
    ]


def via_1(root: Path) -> None:
    """VIA 1: regions in an object, `via_region_data.json` beside its images."""
    for split, images in DRAWN.items():
        draw(root / split, split)
        entries = {
            f"{name}99": {
                "filename": name,
                "size": 99,
                "regions": {str(number): region for number, region in enumerate(_via_regions(boxes))},
                "file_attributes": {},
            }
            for name, (_, _, boxes) in images.items()
        }
        (root / split / "via_region_data.json").write_text(json.dumps(entries))


def via_2(root: Path) -> None:
    """VIA 2: projects with the options of the attribute."""
    for split, images in DRAWN.items():
        draw(root / split, split)
        entries = {n: {"filename": n, "size": -1, "regions": _via_regions(b)} for n, (_, _, b) in images.items()}
        options = {label: label for label in CLASSES}
        project = {
            "_via_settings": {},
            "_via_img_metadata": entries,
            "_via_attributes": {"region": {"kind": {"type": "dropdown", "options": options}}},
        }
        (root / f"{split}.json").write_text(json.dumps(project))


def via_csv(root: Path) -> None:
    """VIA's CSV, JSON in two of its columns."""
    heading = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    for split, images in DRAWN.items():
        draw(root / split, split)
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow([*heading, "region_shape_attributes", "region_attributes"])
        for name, (_, _, boxes) in images.items():
            regions = _via_regions(boxes) or [{"shape_attributes": {}, "region_attributes": {}}]
            for number, region in enumerate(regions):
                cells = [json.dumps(region[key]) for key in ("shape_attributes", "region_attributes")]
                writer.writerow([name, 99, "{}", len(boxes), number, *cells])
        (root / split / "via_region_data.csv").write_text(out.getvalue())


def labelme(root: Path) -> None:
    """Labelme: corners in any order, outlines, a path with backslashes."""
    for split, images in DRAWN.items():
        draw(root / "images" / split, split)
        (root / "labels" / split).mkdir(parents=True)
        for name, (width, height, boxes) in images.items():
            shapes: list[dict] = []
            for number, (label, x, y, w, h) in enumerate(boxes):
                corners = [[x + w, y], [x, y + h]]
                if number % 2:
                    corners = [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]
                kind = "polygon" if number % 2 else "rectangle"
                shapes.append({"label": label, "points": corners, "shape_type": kind, "group_id": None, "flags": {}})
            content = {
                "version": "5.4.1",
                "flags": {},
                "shapes": shapes,
                "imagePath": f"..\\..\\images\\{split}\\{name}",
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
            (root / "labels" / split / name).with_suffix(".json").write_text(json.dumps(content))


def createml(root: Path) -> None:
    """CreateML's list beside the images."""
    for split, images in DRAWN.items():
        draw(root / split, split)
        content = [
            {
                "image": name,
                "annotations": [
                    {"label": label, "coordinates": {"x": x + w / 2, "y": y + h / 2, "width": w, "height": h}}
                    for label, x, y, w, h in boxes
                ],
            }
            for name, (_, _, boxes) in images.items()
        ]
        (root / split / "_annotations.createml.json").write_text(json.dumps(content))


def open_images(root: Path) -> None:
    """Open Images' tables and list of classes; an image without objects has a row without a box."""
    codes = {"mug": "/m/02jvh9", "cone": "/m/0cone"}
    lines = [f"{code},{name}" for name, code in codes.items()]
    (root / "metadata").mkdir(parents=True)
    (root / "metadata/class-descriptions-boxable.csv").write_text("\n".join(lines))
    heading = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"
    for split, word in (("train", "train"), ("val", "validation")):
        draw(root / word, split)
        rows = [heading]
        for name, (width, height, boxes) in DRAWN[split].items():
            for label, x, y, w, h in boxes:
                places = f"{x / width},{(x + w) / width},{y / height},{(y + h) / height}"
                rows.append(f"{name[:-4]},xclick,{codes[label]},1,{places},0,0,0")
            if not boxes:
                rows.append(f"{name[:-4]},xclick,,,,,,,,,")
        (root / f"{word}-annotations-bbox.csv").write_text("\n".join(rows))


def image_folder(root: Path) -> None:
    """The Hub's imagefolder with `category` as text, corners under the key that says so."""
    for split, images in DRAWN.items():
        draw(root / split, split)
        rows = [
            {
                "file_name": name,
                "objects": {
                    "bbox_xyxy": [[x, y, x + w, y + h] for _, x, y, w, h in boxes],
                    "category": [box[0] for box in boxes],
                },
            }
            for name, (_, _, boxes) in images.items()
        ]
        (root / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def parquet(root: Path, form: str = "xywh") -> None:
    """Parquet as cppe-5 has it, classes by number, their names in the features."""
    from datasets import ClassLabel, Dataset, Features, Image, Sequence, Value

    objects = {"bbox": Sequence(Sequence(Value("float32"), length=4)), "category": Sequence(ClassLabel(names=CLASSES))}
    features = Features({"image_id": Value("int64"), "image": Image(), "objects": objects})
    (root / "data").mkdir(parents=True)
    for split, word in (("train", "train"), ("val", "validation")):
        draw(root / "drawn", split)
        rows = []
        for number, (name, (_, _, boxes)) in enumerate(DRAWN[split].items()):
            placed = {
                "xywh": [[x, y, w, h] for _, x, y, w, h in boxes],
                "xyxy": [[x, y, x + w, y + h] for _, x, y, w, h in boxes],
                "cxcywh": [[x + w / 2, y + h / 2, w, h] for _, x, y, w, h in boxes],
            }[form]
            content = (root / "drawn" / name).read_bytes()
            cell = {"bbox": placed, "category": [CLASSES.index(box[0]) for box in boxes]}
            rows.append({"image_id": number, "image": {"bytes": content, "path": name}, "objects": cell})
        Dataset.from_list(rows, features=features).to_parquet(root / f"data/{word}-00000-of-00001.parquet")
    for file in (root / "drawn").iterdir():
        file.unlink()
    (root / "drawn").rmdir()


def web_dataset(root: Path) -> None:
    """Shards of WebDataset, an object list in each JSON."""
    root.mkdir(parents=True, exist_ok=True)
    for split, images in DRAWN.items():
        with tarfile.open(root / f"{split}-000000.tar", "w") as shard:
            for name, (width, height, boxes) in images.items():
                picture = io.BytesIO()
                Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(picture, "PNG")
                label = json.dumps([{"bbox": [x, y, w, h], "category": label} for label, x, y, w, h in boxes])
                for suffix, content in (("png", picture.getvalue()), ("json", label.encode())):
                    member = tarfile.TarInfo(f"{name[:-4]}.{suffix}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))


def table_makesense(root: Path) -> None:
    """Makesense's, without a heading: class, left, top, width, height, name, width and height of the image."""
    for split in DRAWN:
        draw(root / split, split)
        text = _table(
            split,
            lambda name, width, height, label, x, y, w, h: [label, x, y, w, h, name, width, height],
            None,
            lambda name: ["", "", "", "", "", name, "", ""],
        )
        (root / split / "labels.csv").write_text(text)


WRITERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "coco": (coco, "coco"),
    "roboflow": (roboflow, "coco"),
    "cvat": (cvat, "coco"),
    "yolo": (yolo, "yolo"),
    "yolo_roboflow": (yolo_roboflow, "yolo"),
    "yolo_lists": (yolo_lists, "yolo"),
    "yolo_plain": (yolo_plain, "yolo"),
    "voc": (voc, "voc"),
    "voc_beside": (voc_beside, "voc"),
    "via_1": (via_1, "via"),
    "via_2": (via_2, "via"),
    "via_csv": (via_csv, "via"),
    "labelme": (labelme, "labelme"),
    "createml": (createml, "createml"),
    "openimages": (open_images, "openimages"),
    "imagefolder": (image_folder, "imagefolder"),
    "parquet": (parquet, "parquet"),
    "webdataset": (web_dataset, "webdataset"),
    "csv": (table, "csv"),
    "csv_relative": (table_relative, "csv"),
    "csv_bare": (table_bare, "csv"),
    "csv_makesense": (table_makesense, "csv"),
}
"""Writers by name, each with the format that is to be found."""
