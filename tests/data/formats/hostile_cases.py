"""Broken and hostile data sets of every format: what is done to a sound one, and the words of its refusal."""

import gzip
import io
import json
import os
import re
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
ENTITIES = '<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;&x;&x;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


class Case(NamedTuple):
    """One thing that is wrong with a data set."""

    name: str
    base: str
    """Writer of the sound one."""
    damage: Callable[[Path], object]
    words: str
    """Pattern that the message has."""


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(content.encode() if isinstance(content, str) else content)


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Puts something in the place of the first match of a pattern."""

    def damage(root: Path) -> None:
        text = (root / name).read_text()
        changed = re.sub(old, lambda found: new, text, count=1)
        assert changed != text, f"{old} is not in {name}"
        (root / name).write_text(changed)

    return damage


def change(name: str, edit_value: Callable[[Any], object]) -> Callable[[Path], object]:
    """Changes a parsed JSON in place."""

    def damage(root: Path) -> None:
        value = json.loads((root / name).read_text())
        edit_value(value)
        (root / name).write_text(json.dumps(value))

    return damage


def fill_notes(root: Path) -> None:
    for path in root.glob("*/*.json"):
        path.write_text(path.read_text().replace('"note": ""', '"note": "x"'))


def pipe(name: str) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        (root / name).unlink()
        os.mkfifo(root / name)

    return damage


def grow(name: str, size: int) -> Callable[[Path], object]:
    return lambda root: os.truncate(root / name, size)


def cut(name: str, share: float) -> Callable[[Path], object]:
    return lambda root: os.truncate(root / name, int((root / name).stat().st_size * share))


def remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def link_outside(name: str) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        (root / name).unlink()
        (root / name).symlink_to("nowhere")

    return damage


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that nothing is there of."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", b""), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def shard(members: list[tuple[str, bytes, bytes]], compress: bool = False) -> Callable[[Path], object]:
    """A shard in the place of the training one: names, types and contents."""

    def damage(root: Path) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, kind, content in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "/etc/passwd"
                member.size = len(content) if kind == tarfile.REGTYPE else 0
                archive.addfile(member, io.BytesIO(content))
        (root / "train-000000.tar").unlink()
        content = gzip.compress(out.getvalue()) if compress else out.getvalue()
        (root / f"train-000000.tar{'.gz' if compress else ''}").write_bytes(content)

    return damage


def table_of(columns: dict[str, list]) -> Callable[[Path], object]:
    """A Parquet file in the place of the training one."""

    def damage(root: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), root / PARQUET)

    return damage


def archive_alone(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()
    (root / "export.zip").write_bytes(b"PK\x03\x04")


def image_alone(root: Path) -> None:
    for path in root.glob("*/*.csv"):
        path.unlink()


def region(**changes: Any) -> Callable[[Any], object]:
    return lambda via: via["a.png99"]["regions"]["0"].update(changes)


LABELS = "labels/train/a.txt"
VIA = "train/via_region_data.json"
LABELME = "labels/train/a.json"
CREATEML = "train/_annotations.createml.json"
OPEN_IMAGES = "train-annotations-bbox.csv"
CSV = "train/_annotations.csv"
PARQUET = "data/train-00000-of-00001.parquet"
XML = "Annotations/a.xml"
ROW = "train/metadata.jsonl"
PIXEL = png_of(4, 4)
REGULAR, SYMLINK = tarfile.REGTYPE, tarfile.SYMTYPE
SAMPLE = ("0.png", REGULAR, PIXEL)

CASES = [
    Case("yaml-bomb", "yolo", lambda r: write("data.yaml", BOMB + "names: *j")(r), "more than 100,000 values"),
    Case("yaml-deep", "yolo", write("data.yaml", "names: " + "[" * 5000), "nested more than 100 deep"),
    Case(
        "yaml-code", "yolo", write("data.yaml", "names: !!python/object/apply:os.system [ls]"), "tag .*has no meaning"
    ),
    Case("yaml-pipe", "yolo", pipe("data.yaml"), "data.yaml: cannot be read: it is a pipe"),
    Case("yaml-huge", "yolo", grow("data.yaml", 1 << 25), "data.yaml: cannot be read: it has 33.6 MB"),
    Case("yaml-list", "yolo", write("data.yaml", "- names: 1"), "found no mapping"),
    Case(
        "yaml-names",
        "yolo",
        write("data.yaml", "train: images/train\nnames: 7"),
        "list or a mapping of classes, found 7",
    ),
    Case("yaml-gap", "yolo", edit("data.yaml", "1: mug", "2: mug"), "numbered from 0, each once"),
    Case("yaml-empty-name", "yolo", edit("data.yaml", "1: mug", "1: ' '"), "expected the name of a class"),
    Case("yaml-keypoints", "yolo", edit("data.yaml", "names:", "kpt_shape: 17\nnames:"), "'kpt_shape' to be"),
    Case("yaml-climbs", "yolo", edit("data.yaml", "images/train", "../../../../etc"), "expected a folder or a list of"),
    Case("yaml-absolute", "yolo", edit("data.yaml", "images/train", "/etc"), "expected a folder or a list of"),
    Case("yaml-no-folders", "yolo", write("data.yaml", "names: [a]"), "expected folders or lists of images as 'train'"),
    Case("yaml-list-gone", "yolo_lists", edit("data.yaml", "train.txt", "tra.txt"), "mine/tra.txt', which is"),
    Case("yaml-list-of-numbers", "yolo_lists", edit("data.yaml", "images/more", "7"), "as 'val', found 7, which is"),
    Case("list-pipe", "yolo_lists", pipe("train.txt"), "as 'train', found '/datasets/mine/train.txt'"),
    Case("list-huge", "yolo_lists", grow("train.txt", 1 << 25), "train.txt: cannot be read: it has 33.6 MB"),
    Case("list-unknown", "yolo_lists", write("train.txt", "a\n./images/train/z.png"), "txt, line 2: expected"),
    Case("list-climbs", "yolo_lists", write("train.txt", "../../z.png"), "'../../z.png', which leaves it"),
    Case("yolo-words", "yolo", write(LABELS, "a b c d e"), r"a.txt, line 1: expected a class's number"),
    Case("yolo-class", "yolo", write(LABELS, "7 .5 .5 .1 .1"), "expected a class from 0 to 1, found 7"),
    Case("yolo-negative-class", "yolo", write(LABELS, "-1 .5 .5 .1 .1"), "expected a class's number"),
    Case("yolo-nan", "yolo", write(LABELS, "0 nan .5 .1 .1"), "expected a class's number, then numbers"),
    Case("yolo-infinite", "yolo", write(LABELS, "0 1e999 .5 .1 .1"), "expected a class's number, then numbers"),
    Case("yolo-pixels", "yolo", write(LABELS, "0 100 100 20 20"), "relative to the image, from 0 to 1, found 100"),
    Case("yolo-score", "yolo", write(LABELS, "0 .5 .5 .1 .1 .9"), "detections with a score are no labels"),
    Case("yolo-odd", "yolo", write(LABELS, "0 .5 .5 .1 .1 .9 .2 .3"), "an outline of three points or more"),
    Case("yolo-short", "yolo", write(LABELS, "0 .5 .5"), "found 3 values"),
    Case("yolo-negative-side", "yolo", write(LABELS, "0 .5 .5 -.1 .1"), "width and height of 0 or more"),
    Case("yolo-pipe", "yolo", pipe(LABELS), "a.txt: cannot be read|a.txt: .*it is a pipe"),
    Case("yolo-huge", "yolo", grow(LABELS, 1 << 25), "expected 16.8 MB at most"),
    Case("yolo-no-image", "yolo", write("images/train/a.png", "<html>"), "a web page or another XML"),
    Case("yolo-bomb-image", "yolo", write("images/train/a.png", png_of(90_000, 90_000)), "too many pixels"),
    Case(
        "yolo-dangling-link", "yolo", link_outside("images/train/a.png"), "a.png: expected an image, found no such file"
    ),
    Case("xml-bomb", "voc", edit(XML, "<annotation>", f"{ENTITIES}<annotation>&y;"), "document type or entities"),
    Case("xml-file", "voc", edit(XML, "<annotation>", f"{OUTSIDE}<annotation>&x;"), "document type or entities"),
    Case("xml-cut", "voc", cut(XML, 0.5), "a.xml: no XML"),
    Case("xml-other", "voc", write(XML, "<svg/>"), "expected <annotation>, found <svg>"),
    Case("xml-encoding", "voc", write(XML, '<?xml version="1.0" encoding="none"?><annotation/>'), "a.xml: no XML"),
    Case("xml-huge", "voc", grow(XML, 1 << 25), "expected 16.8 MB at most"),
    Case("xml-pipe", "voc", pipe(XML), "a.xml: cannot be read: it is a pipe"),
    Case("xml-no-name", "voc", edit(XML, "<name>mug</name>", ""), "a.xml, object 1: expected the name of a class"),
    Case("xml-no-box", "voc", edit(XML, "<bndbox>.*?</bndbox>", ""), "'mug' has no <bndbox>"),
    Case("xml-words", "voc", edit(XML, "<xmin>2</xmin>", "<xmin>two</xmin>"), "four finite numbers"),
    Case("xml-infinite", "voc", edit(XML, "<xmin>2</xmin>", "<xmin>-inf</xmin>"), "four finite numbers"),
    Case("xml-turned", "voc", edit(XML, "<xmin>2</xmin>", "<xmin>99</xmin>"), "left <= right"),
    Case(
        "xml-climbs",
        "voc",
        lambda root: (edit(XML, "a.png", "../../secret.png")(root), remove("JPEGImages/a.png")(root)),
        "'../../secret.png', which leaves it",
    ),
    Case("voc-list-climbs", "voc", write("ImageSets/Main/train.txt", "../../x\n"), "names of images without a folder"),
    Case("voc-list-unknown", "voc", write("ImageSets/Main/train.txt", "zebra\n"), "zebra.xml: expected an XML file"),
    Case(
        "via-regions",
        "via_1",
        change(VIA, lambda v: v["a.png99"].update(regions=5)),
        "'regions' must",
    ),
    Case(
        "via-point",
        "via_1",
        change(VIA, region(shape_attributes={"name": "point"})),
        "has no box",
    ),
    Case("via-no-class", "via_1", change(VIA, region(region_attributes={})), "'kind' is missing"),
    Case(
        "via-climbs",
        "via_1",
        edit(VIA, '"filename": "a.png"', '"filename": "../../a.png"'),
        "leaves",
    ),
    Case("via-deep", "via_1", lambda r: write(VIA, '{"_via_": ' + "[" * 99_999)(r), "too deeply"),
    Case("via-which-class", "via_1", fill_notes, "expected one region attribute"),
    Case("via-csv-json", "via_csv", edit("train/via_region_data.csv", '"{""name""', '"{name'), "line 2: not a JSON"),
    Case(
        "via-csv-short", "via_csv", edit("train/via_region_data.csv", "a.png.*", "a.png,1"), "expected 7 cells, found 2"
    ),
    Case("labelme-shapes", "labelme", change(LABELME, lambda v: v.update(shapes={})), "'shapes', a list"),
    Case("labelme-path", "labelme", change(LABELME, lambda v: v.update(imagePath=3)), "'imagePath', a text"),
    Case(
        "labelme-climbs",
        "labelme",
        change(LABELME, lambda v: v.update(imagePath="/etc/x.png")),
        "which leaves",
    ),
    Case(
        "labelme-point",
        "labelme",
        change(LABELME, lambda v: v["shapes"][0].update(shape_type="point")),
        "has no box",
    ),
    Case(
        "labelme-words",
        "labelme",
        change(LABELME, lambda v: v["shapes"][0].update(points=[["a", 1]])),
        "finite",
    ),
    Case(
        "labelme-nan",
        "labelme",
        edit(LABELME, r"\[\[\d+", "[[NaN"),
        "shape 0: expected 'points' of finite",
    ),
    Case(
        "labelme-label",
        "labelme",
        change(LABELME, lambda v: v["shapes"][0].update(label=None)),
        "name of a class",
    ),
    Case(
        "createml-object",
        "createml",
        change(CREATEML, lambda v: v[0].update(annotations={})),
        "entry 0",
    ),
    Case(
        "createml-number",
        "createml",
        change(CREATEML, lambda v: v.insert(0, 7)),
        "expected an object",
    ),
    Case(
        "createml-side",
        "createml",
        edit(CREATEML, '"width": 10', '"width": -10'),
        "'coordinates' to be",
    ),
    Case(
        "createml-label",
        "createml",
        edit(CREATEML, '"label": "mug"', '"label": []'),
        "name of a class",
    ),
    Case(
        "createml-climbs",
        "createml",
        edit(CREATEML, "a.png", "/etc/a.png"),
        "which leaves it",
    ),
    Case(
        "open-images-pixels",
        "openimages",
        edit(OPEN_IMAGES, "1,0.05,", "1,2,"),
        "relative to the image",
    ),
    Case("open-images-turned", "openimages", edit(OPEN_IMAGES, "1,0.05,", "1,0.9,"), "left <= right"),
    Case(
        "open-images-short",
        "openimages",
        edit(OPEN_IMAGES, "\na,.*", "\na,x"),
        "expected 11 cells, found 2",
    ),
    Case("open-images-unknown", "openimages", edit(OPEN_IMAGES, "\na,", "\nzebra,"), "zebra, found none"),
    Case("csv-short", "csv", edit(CSV, "a.png,.*", "a.png,1,2"), "expected 8 cells, found 3"),
    Case("csv-words", "csv", edit(CSV, "mug,2,3", "mug,two,3"), "four numbers as the box"),
    Case(
        "csv-turned",
        "csv",
        edit(CSV, "mug,2,3", "mug,99,3"),
        "if the last two are width and height",
    ),
    Case("csv-no-class", "csv", edit(CSV, "mug,2,3", ",2,3"), "expected the name of a class"),
    Case("csv-climbs", "csv", edit(CSV, "a.png", "../../../etc/passwd"), "passwd', which leaves it"),
    Case("csv-unknown", "csv", edit(CSV, "a.png", "zebra.png"), "zebra.png, found none"),
    Case("csv-prefix", "csv", edit(CSV, "a.png", "1a2b3c4d-a.png"), "'a.png' is probably meant"),
    Case("csv-quote", "csv", edit(CSV, "a.png", '"a.png'), "expected|no table"),
    Case(
        "csv-two",
        "csv",
        write("train/other.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,1,1,2,2,x\n"),
        "found several",
    ),
    Case("csv-pipe", "csv", pipe(CSV), "no such split|found none|cannot be read|expected a split"),
    Case("nothing", "csv", image_alone, "found none among 6 files, 6 of them images"),
    Case("archive", "csv", archive_alone, "unpack export.zip first"),
    Case("rows-words", "imagefolder", write(ROW, "{"), "line 1: not a JSON"),
    Case("rows-list", "imagefolder", write(ROW, "[1]"), "line 1: expected an object with 'file_name'"),
    Case("rows-name", "imagefolder", write(ROW, '{"file_name": 3, "objects": {}}'), "expected a text 'file_name'"),
    Case("rows-climb", "imagefolder", write(ROW, '{"file_name": "../../a.png", "objects": {}}'), "which leaves it"),
    Case(
        "rows-no-boxes",
        "imagefolder",
        write(ROW, '{"file_name": "a.png", "objects": {"x": 1}}'),
        "expected a list of boxes",
    ),
    Case("rows-unequal", "imagefolder", edit(ROW, '"mug", ', ""), "one as long of classes"),
    Case("rows-three", "imagefolder", edit(ROW, r"\[2, 3, 12, 15\]", "[2, 3, 12]"), "a box of four finite numbers"),
    Case(
        "rows-no-form",
        "imagefolder",
        lambda root: (
            write(ROW, '{"file_name": "a.png", "objects": {"bbox": [[-50, 90, 20, 10]], "category": ["x"]}}')(root),
            remove("val/metadata.jsonl")(root),
        ),
        "leave their images as xywh, as xyxy and as cxcywh",
    ),
    Case("rows-turned", "imagefolder", edit(ROW, r"\[2, 3, 12, 15\]", "[12, 3, 2, 15]"), "'a.png': .*as xyxy"),
    Case("parquet-cut", "parquet", cut(PARQUET, 0.6), "no Parquet file that can be read"),
    Case("parquet-text", "parquet", write(PARQUET, "a"), "no Parquet file|cannot be read"),
    Case("parquet-columns", "parquet", table_of({"text": ["a"]}), "expected the columns image and objects, found text"),
    Case(
        "parquet-no-bytes", "parquet", table_of({"image": [None], "objects": [None]}), "expected the bytes of an image"
    ),
    Case("parquet-no-image", "parquet", table_of({"image": [b"no image"], "objects": [[]]}), "expected an image"),
    Case(
        "parquet-class",
        "parquet",
        table_of({"image": [PIXEL], "objects": [{"bbox": [[1.0, 1.0, 1.0, 1.0]], "category": [None]}]}),
        "row 0: expected the name of a class",
    ),
    Case(
        "parquet-nameless",
        "parquet",
        table_of({"image": [PIXEL], "objects": [{"bbox": [[1.0, 1.0, 1.0, 1.0]], "category": [1]}]}),
        "row 0: expected classes that the features of the files name, cone, mug, found 1",
    ),
    Case("shard-text", "webdataset", write("train-000000.tar", "no tar" * 200), "no tar archive that can be read"),
    Case("shard-cut", "webdataset", cut("train-000000.tar", 0.3), "no tar archive|found one alone"),
    Case("shard-lone", "webdataset", shard([SAMPLE]), "found one alone of '/0'"),
    Case("shard-json", "webdataset", shard([SAMPLE, ("0.json", REGULAR, b"{")]), "not a JSON"),
    Case("shard-deep", "webdataset", shard([SAMPLE, ("0.json", REGULAR, b"[" * 99_999)]), "too deeply"),
    Case("shard-link", "webdataset", shard([("0.png", SYMLINK, b""), ("0.json", REGULAR, b"[]")]), "found one alone"),
    Case(
        "shard-bomb",
        "webdataset",
        shard([("0.bin", REGULAR, bytes(40_000_000)), SAMPLE], compress=True),
        "more than 100 times its size",
    ),
]
