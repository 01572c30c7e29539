"""Arguments of the verbs of the command line, told without importing anything large."""

import argparse
from pathlib import Path
from typing import Any, get_args

from hf_detr_ft import __version__
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe.sections import Format
from hf_detr_ft.run_folder import CARD, EXPORTS, REPORT

RECIPE_VERBS = ("train", "check")
"""Verbs that take a recipe and its flags, without a parser of their own."""
FLAG_VERBS = ("evaluate", "compare", "average", "diagnose", "report", "benchmark", "export")
"""Verbs that take a recipe's flags behind their own arguments."""
DESCRIPTION = """Fine-tune DETR on your own images.

  hf-detr-ft train RECIPE [--section.key VALUE ...]     train, evaluate, write a run folder
  hf-detr-ft train RECIPE --seeds 3 | --folds 5         several such runs, and what they come to together
  hf-detr-ft launch --num_processes N RECIPE ...        the same in several processes, by Accelerate's launcher
  hf-detr-ft check RECIPE [--section.key VALUE ...]     data, model and memory, before any training
  hf-detr-ft diagnose RECIPE|RUN                        why AP is 0: the first cause that explains it
  hf-detr-ft evaluate RUN                               the 12 COCO numbers
  hf-detr-ft compare RUN RUN                            whether one is better, as far as its images tell
  hf-detr-ft average RUN [--last K]                     the mean of the weights of its last checkpoints, evaluated
  hf-detr-ft report RUN [RUN ...]                       one HTML page of a run, or of several side by side
  hf-detr-ft benchmark RECIPE                           training steps of stock Transformers and of ours, timed
  hf-detr-ft predict RUN PHOTO_VIDEO_OR_FOLDER ...      detections: drawn, as JSON or CSV, or as a data set
  hf-detr-ft demo RUN [RUN]                             a page in the browser: drop a photo, see boxes
  hf-detr-ft export RUN [--format onnx|openvino|…]      a file for another runtime, with the AP it has there
  hf-detr-ft push RUN USER/NAME                         publish on the Hugging Face Hub
  hf-detr-ft push-data FOLDER USER/NAME                 a data set of any format, as Parquet that the Hub shows
  hf-detr-ft convert SRC DST [--to coco|yolo|voc]       a data set of any format to another one
  hf-detr-ft convert-checkpoint FILE.pth FOLDER         a model of facebookresearch/detr, and back with --to original
  hf-detr-ft get balloon FOLDER                         download the balloon data set
  hf-detr-ft get nucleus FOLDER                         the nuclei of the Data Science Bowl 2018
  hf-detr-ft get synthetic FOLDER                       draw a data set, without a network

RECIPE is a YAML file, or the name of one that comes with the package: quickstart, balloon, coco, custom, overfit.
RUN is a run folder or a Hub id. `hf-detr-ft train --help` lists every field of a recipe.
Exit status: 0 done, 1 the job failed or check found errors, 2 the recipe or the arguments are wrong, 130 Ctrl-C,
143 ended by SIGTERM, its checkpoint saved."""


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the verbs that take no recipe first."""
    parser = argparse.ArgumentParser(
        prog="hf-detr-ft", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"hf-detr-ft {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in (*RECIPE_VERBS, "launch"):
        verbs.add_parser(verb, add_help=False)
    for add in (
        add_diagnose,
        add_evaluate,
        add_compare,
        add_average,
        add_report,
        add_benchmark,
        add_predict,
        add_demo,
        add_export,
        add_push,
        add_push_data,
        add_convert,
        add_convert_checkpoint,
        add_get,
    ):
        add(verbs)
    return parser


def add_diagnose(verbs: Any) -> None:
    """Arguments of `diagnose`."""
    parser = verbs.add_parser("diagnose", help="why AP is 0: the first cause that explains it")
    parser.add_argument("source", metavar="RECIPE|RUN", help="flags such as --data.root FOLDER behind it go over it")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="of scores, at which nothing was seen (default: 0.5)"
    )


def add_evaluate(verbs: Any) -> None:
    """Arguments of `evaluate`."""
    parser = verbs.add_parser("evaluate", help="the 12 COCO numbers of a run, a folder or a Hub id")
    parser.add_argument("source", metavar="RUN")
    parser.add_argument("--recipe", type=Path, help="whose images to use; the run's own by default")
    parser.add_argument(
        "--split", choices=["val", "test"], default="val", help="test: data.test_annotations (default: val)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")


def add_compare(verbs: Any) -> None:
    """Arguments of `compare`."""
    parser = verbs.add_parser("compare", help="whether one of two runs, or groups of runs, is better")
    for name in ("a", "b"):
        parser.add_argument(name, metavar=name.upper(), help="a run, or a folder of runs as `train --seeds` makes it")
    parser.add_argument("--split", choices=["val", "test"], default="val", help="(default: val)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the numbers as JSON")


def add_average(verbs: Any) -> None:
    """Arguments of `average`."""
    parser = verbs.add_parser("average", help="the mean of the weights of a run's last checkpoints, evaluated")
    parser.add_argument("source", type=Path, metavar="RUN")
    parser.add_argument("--last", type=int, metavar="K", help="checkpoints to take (default: all that are kept)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="a new folder (default: RUN_average)")


def add_report(verbs: Any) -> None:
    """Arguments of `report`."""
    parser = verbs.add_parser("report", help="one HTML page of a run, or of several side by side")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="RUN",
        help="flags such as --data.root FOLDER behind it go over its recipe; also a folder of facebookresearch/detr, "
        "by its log",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: RUN/{REPORT}; of several, {REPORT}")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    parser.add_argument(
        "--attention",
        type=Path,
        metavar="IMAGE",
        help="draw what the model attends to in a photo, instead",
    )
    parser.add_argument("--plots", action="store_true", help="write each figure as a PNG, too, into plots/")


def add_benchmark(verbs: Any) -> None:
    """Arguments of `benchmark`."""
    parser = verbs.add_parser("benchmark", help="training steps of stock Transformers and of ours, timed in turn")
    parser.add_argument("path", type=Path, metavar="RECIPE", help="flags such as --model.shortest_edge 480 go over it")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (default: 3)")
    parser.add_argument("--steps", type=int, default=8, help="that are timed in each round (default: 8)")
    parser.add_argument(
        "--no-breakdown", dest="breakdown", action="store_false", help="leave out ours without each of its measures"
    )
    parser.add_argument("--profile", action="store_true", help="also list where the time of our steps goes")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the figures as JSON")


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


CHECK_OPTIONS = {"--report": "check.html", "--fix": "", "--model": "", "--output": "suspects"}
"""Options of `check` that take a value, and the value where none is given."""
CHECK_SWITCHES = {"--headers-only": "headers_only", "--json": "as_json"}


def take_check_options(flags: list[str]) -> dict[str, Any]:
    """Takes the options of `check` out of its flags: its function's arguments, or those of `check_model` with `source`.

    Raises:
        RecipeError: a value is missing, or an option that goes with it.
    """
    taken: dict[str, Any] = {name: switch in flags for switch, name in CHECK_SWITCHES.items()}
    flags[:] = [flag for flag in flags if flag not in CHECK_SWITCHES]
    for option, default in CHECK_OPTIONS.items():
        value = _take_value(flags, option)
        if value is not None and not (value or default):
            raise RecipeError(f"{option}: expected a {'run' if option == '--model' else 'folder'} behind it")
        given = None if value is None else value or default
        taken[option.removeprefix("--")] = given if given is None or option == "--model" else Path(given)
    source, output = taken.pop("model"), taken.pop("output")
    if source is not None:
        return {"source": source, "output": output or Path(CHECK_OPTIONS["--output"])}
    if output is not None:
        raise RecipeError("--output: expected --model RUN beside it, found none. Leave it out, or name a run.")
    return taken


def take_series_options(flags: list[str]) -> dict[str, int]:
    """Takes `--seeds N` and `--folds N` out of the flags of `train`, by name; empty where there are none.

    Raises:
        RecipeError: a value is no number, or too small.
    """
    taken = {}
    for option, least in (("--seeds", 1), ("--folds", 2)):
        value = _take_value(flags, option)
        if value is None:
            continue
        if not value.isdecimal() or int(value) < least:
            raise RecipeError(f"{option}: expected a number, {least} or more, found '{value}'")
        taken[option.removeprefix("--")] = int(value)
    return taken


def _take_value(flags: list[str], option: str) -> str | None:
    """Takes an option and its value out of flags; None where it is not there, and empty where it has no value."""
    for index, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name == option:
            named = not equals and index + 1 < len(flags) and not flags[index + 1].startswith("--")
            value = flags[index + 1] if named else value
            del flags[index : index + 1 + named]
            return value
    return None
