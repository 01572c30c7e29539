"""Arguments of verbs that look at a recipe or at finished runs."""

from pathlib import Path
from typing import Any

from hf_detr_ft.run_folder import REPORT


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
