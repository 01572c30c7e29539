"""Arguments of verbs that make or pass on data sets."""

from pathlib import Path
from typing import Any, get_args

from hf_detr_ft.recipe.sections import Format


def add_get(verbs: Any) -> None:
    """Arguments of `get`."""
    parser = verbs.add_parser("get", help="download or draw a data set")
    names = parser.add_subparsers(required=True, metavar="NAME")
    balloon = names.add_parser("balloon", help="61 + 13 photos of balloons, downloaded")
    balloon.set_defaults(function="get_balloon")
    balloon.add_argument("destination", type=Path, metavar="FOLDER")
    nucleus = names.add_parser("nucleus", help="670 images of nuclei, downloaded, or from what you have")
    nucleus.set_defaults(function="get_nucleus")
    nucleus.add_argument("destination", type=Path, metavar="FOLDER")
    nucleus.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="ARCHIVE_OR_FOLDER",
        help="stage1_train.zip of the Data Science Bowl 2018, or a folder with its content (default: downloaded)",
    )
    synthetic = names.add_parser("synthetic", help="drawn photos of 11 classes, without a network")
    synthetic.set_defaults(function="get_synthetic")
    synthetic.add_argument("destination", type=Path, metavar="FOLDER")
    synthetic.add_argument("--images", type=int, default=200, help="training photos (default: 200)")
    synthetic.add_argument("--val-images", type=int, help="validation photos (default: a fifth as many)")
    synthetic.add_argument("--seed", type=int, default=0, help="other photos for each (default: 0)")
    synthetic.add_argument("--classes", type=lambda text: text.split(","), help="such as balloon,star (default: all)")
    synthetic.add_argument(
        "--short-side",
        type=int,
        nargs=2,
        default=(240, 320),
        metavar=("LEAST", "MOST"),
        help="pixels (default: 240 320)",
    )
    synthetic.add_argument(
        "--workers", type=int, help="processes; the photos are the same (default: one for each core)"
    )


def add_convert(verbs: Any) -> None:
    """Arguments of `convert`."""
    parser = verbs.add_parser("convert", help="annotations of any format to COCO, YOLO or Pascal VOC")
    formats = get_args(Format)
    parser.add_argument("format", nargs="?", choices=formats, metavar="FORMAT", help="found out where not given")
    parser.add_argument("source", type=Path, metavar="SRC", help="the folder or file with the annotations")
    parser.add_argument("destination", type=Path, metavar="DST", help="the folder to make, or the COCO JSON of VIA's")
    parser.add_argument("--to", choices=["coco", "yolo", "voc"], default="coco", help="(default: coco)")
    parser.add_argument("--file-names", choices=["exact", "similar"], default="exact", help="as data.file_names")
    parser.add_argument("--exif", choices=["upright", "stored"], default="upright", help="as data.exif")
    parser.add_argument("--images", type=Path, help="folder of VIA's images (default: that of the annotations)")
    parser.add_argument("--class-attribute", help="VIA's region attribute that holds the class")
    parser.add_argument("--class-name", help="the one class of all regions of VIA (default: object)")
    parser.add_argument(
        "--categories-from",
        type=Path,
        metavar="FILE",
        help="a COCO JSON whose ids and names to keep to (the other split)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DESTINATION")


def add_push_data(verbs: Any) -> None:
    """Arguments of `push-data`."""
    parser = verbs.add_parser("push-data", help="publish a data set on the Hugging Face Hub, as Parquet")
    parser.set_defaults(function="push_data")
    parser.add_argument("source", metavar="FOLDER", help="the folder or file with the annotations, in any format")
    parser.add_argument("repo_id", metavar="USER/NAME")
    parser.add_argument("--format", choices=get_args(Format), metavar="FORMAT", help="found out where not given")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the files there instead")
    parser.add_argument("--dry-run", action="store_true", help="list the files and their sizes; send nothing")
    parser.add_argument("--private", action="store_const", const=True, help="make a new repository private")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is there")
    parser.add_argument("--license", metavar="ID", help="licence on the card, such as cc-by-4.0")
