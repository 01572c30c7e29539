"""Arguments of verbs that use a model or pass it on."""

import argparse
from pathlib import Path
from typing import Any

from hf_detr_ft.run_folder import CARD, EXPORTS


def add_predict(verbs: Any) -> None:
    """Arguments of `predict`."""
    parser = verbs.add_parser("predict", help="detections in images, videos or a camera: drawn, a table, or a data set")
    parser.add_argument("source", metavar="RUN")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IMAGE",
        help="images, videos, folders or quoted patterns; or one camera, as 0 or /dev/video0, until Ctrl-C",
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="keep scores above it, 0 to 1 (default: 0.5)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the results go (default: predictions)")
    parser.add_argument("--batch-size", type=int, default=8, help="images at once (default: 8)")
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of the backbone; auto: bf16 where that is faster, of 8 images or more (default: auto)",
    )
    parser.add_argument(
        "--format",
        choices=["json", "csv", "coco", "yolo", "voc"],
        default="json",
        help="json, csv: drawn images and a table; others: a data set to correct and to train on (default: json)",
    )
    parser.add_argument(
        "--slice",
        dest="slice_side",
        type=int,
        metavar="PIXELS",
        help="also look at overlapping slices of each image: small objects",
    )
    parser.add_argument("--track", action="store_true", help="objects of a video keep an id over its frames")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth frame of a video (default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")


def add_demo(verbs: Any) -> None:
    """Arguments of `demo`."""
    parser = verbs.add_parser("demo", help="a page in the browser: drop a photo, see boxes")
    parser.add_argument("source", metavar="RUN")
    parser.add_argument("other", nargs="?", metavar="RUN", help="a second model, side by side with the first")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others reach it (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="0: any that is free (default: 7860)")
    parser.add_argument("--space", metavar="USER/NAME", help="publish the page as a Space of the Hub instead")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="with --space: write its files here instead")
    parser.add_argument("--dry-run", action="store_true", help="with --space: list files and sizes, and do no more")
    parser.add_argument("--private", action="store_const", const=True, help="make a new Space private")
    parser.add_argument("--overwrite", action="store_true", help="replace files of a Space that is there")


def add_export(verbs: Any) -> None:
    """Arguments of `export`."""
    parser = verbs.add_parser("export", help="a file for another runtime, with the AP it has there")
    parser.add_argument("source", metavar="RUN")
    formats = ["onnx", "openvino", "torchscript", "exported-program"]
    parser.add_argument("--format", choices=formats, default="onnx", help="(default: onnx)")
    parser.add_argument(
        "--precision",
        choices=["fp32", "fp16", "int8", "int8-dynamic"],
        default="fp32",
        help="int8: convolutions, calibrated on training images; int8-dynamic: matrix products (default: fp32)",
    )
    parser.add_argument("--tolerance", type=float, default=0.005, help="AP that the file may lose (default: 0.005)")
    parser.add_argument("--force", action="store_true", help="keep a file that has lost more")
    parser.add_argument("--recipe", type=Path, help="whose images to use; the run's own by default")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"default: RUN/{EXPORTS}")


def add_push(verbs: Any) -> None:
    """Arguments of `push`."""
    parser = verbs.add_parser("push", help="publish a run on the Hugging Face Hub")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("repo_id", metavar="USER/NAME")
    parser.add_argument("--private", action="store_const", const=True, help="make a new repository private")
    parser.add_argument("--overwrite-card", action="store_true", help=f"replace a {CARD} that a person wrote there")
    parser.add_argument("--license", metavar="ID", help="licence on the model card, such as apache-2.0")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")
    parser.add_argument(
        "--example",
        type=Path,
        action="append",
        metavar="PHOTO",
        help="a photo of yours that the model's page offers to try it on, without its EXIF; again for more",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the files and their sizes; send nothing")


def add_convert_checkpoint(verbs: Any) -> None:
    """Arguments of `convert-checkpoint`."""
    parser = verbs.add_parser("convert-checkpoint", help="weights of facebookresearch/detr, both ways")
    parser.set_defaults(function="convert_checkpoint")
    parser.add_argument("source", metavar="SRC", help="a .pth; with --to a run folder, another one or a Hub id")
    parser.add_argument("destination", type=Path, metavar="DST", help="the folder to make; with --to the file")
    parser.add_argument("--to", choices=["original", "detectron2"], help="the other way: write a .pth of this form")
    parser.add_argument("--drop-masks", action="store_true", help="leave out the mask head of a panoptic model")
    parser.add_argument(
        "--dilation",
        action=argparse.BooleanOptionalAction,
        help="the backbone is dilated, DC5 (default: by the file's arguments, or else by dc5 in its name)",
    )
    parser.add_argument(
        "--categories-from",
        type=Path,
        metavar="FILE",
        help="a COCO JSON with the names of the classes (default: COCO's, where there are as many)",
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="with --to original: rows of the class head without no object (default: 91, main.py's, or more)",
    )
