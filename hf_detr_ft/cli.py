"""The command line: arguments in, one function of `runs/` called, an exit status out."""

import argparse
import errno
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from hf_detr_ft import __version__
from hf_detr_ft.errors import InputError, Interrupted
from hf_detr_ft.formatting import printable, printable_lines
from hf_detr_ft.importing import large_imports
from hf_detr_ft.run_folder import CARD, REPORT
from hf_detr_ft.say_once import explain, has_launcher, say_once

RECIPE_VERBS = ("train", "check")
FLAG_VERBS = ("evaluate", "report", "benchmark")
"""Verbs that take a recipe's flags behind their own arguments."""
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ELOOP)
"""Errors of the system for a full disk, a folder that is not the user's, or links that lead round in circles."""
DESCRIPTION = """Fine-tune DETR on your own images.

  hf-detr-ft train RECIPE [--section.key VALUE ...]     train, evaluate, write a run folder
  hf-detr-ft launch --num_processes N RECIPE ...        the same in several processes, by Accelerate's launcher
  hf-detr-ft check RECIPE [--section.key VALUE ...]     data, model and memory, before any training
  hf-detr-ft evaluate RUN                               the 12 COCO numbers
  hf-detr-ft report RUN [RUN ...]                       one HTML page of a run, or of several side by side
  hf-detr-ft benchmark RECIPE                           training steps of stock Transformers and of ours, timed
  hf-detr-ft predict RUN PHOTO_OR_FOLDER ...            drawn images and a COCO results JSON
  hf-detr-ft push RUN USER/NAME                         publish on the Hugging Face Hub
  hf-detr-ft convert via SOURCE DESTINATION             VGG Image Annotator to COCO
  hf-detr-ft get balloon FOLDER                         download the balloon data set
  hf-detr-ft get synthetic FOLDER                       draw a data set, without a network

RECIPE is a YAML file, or the name of one that comes with the package: quickstart, balloon, coco, custom, overfit.
RUN is a run folder or a Hub id. `hf-detr-ft train --help` lists every field of a recipe.
Exit status: 0 done, 1 the job failed or check found errors, 2 the recipe or the arguments are wrong, 130 Ctrl-C,
143 ended by SIGTERM, its checkpoint saved."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: without the program's name; those of the process where not given.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.setLogRecordFactory(PrintableRecord)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        with redirect_stdout(PrintableOutput(sys.stdout)):
            return report_errors(lambda: run(arguments))
    finally:
        gc.unfreeze()  # else some libraries say at the end that they leak


class PrintableOutput:
    """A stream for text that may hold names of strangers, whose control codes a terminal must not obey.

    Args:
        stream: takes the text, and is asked for all else.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes lines as `printable_lines` has them."""
        self.stream.write(printable_lines(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class PrintableRecord(logging.LogRecord):
    """An entry of a log, ours or a library's, without control codes."""

    def getMessage(self) -> str:
        """The text."""
        return printable_lines(super().getMessage())


def report_errors(work: Callable[[], int]) -> int:
    """The exit status of some work; what the user got wrong is printed in words, not as a traceback."""
    try:
        return work()
    except InputError as error:
        say_error(f"error: {message_of(error)}")
        return error.exit_status
    except KeyboardInterrupt as stop:
        say_error(f"interrupted{f'. {stop}' if str(stop) else ''}")
        return stop.exit_status if isinstance(stop, Interrupted) else 130
    except Exception as error:
        refusal = describe_refusal(error)
        if not refusal and not has_launcher():
            raise
        say_error(refusal or explain(error))
        return 1


def describe_refusal(error: Exception) -> str:
    """Words for a full disk or a folder that is not the user's; empty for any other error."""
    if not isinstance(error, OSError) or error.errno not in REFUSALS:
        return ""
    return f"error: {printable(error.filename or 'a file')}: the system refused: {error.strerror}"


def say_error(text: str) -> None:
    """Prints to standard error, in one of all processes of a job."""
    say_once(lambda: print(printable_lines(text), file=sys.stderr, flush=True))


def message_of(error: InputError) -> str:
    """An error's own words.

    What a data loader's process raises, torch raises again with the whole traceback of that process as its text.
    """
    text = str(error)
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(name)[2].strip() if text.startswith("Caught ") else text


def run(arguments: list[str]) -> int:
    """Calls the verb with its arguments under their names, and with the recipe's flags where it takes some."""
    if arguments and arguments[0] in RECIPE_VERBS:
        return run_recipe(arguments[0], arguments[1:])
    if arguments and arguments[0] == "launch":
        return load_verb("launch", "launch")(arguments[1:])
    parser = build_parser()
    options, flags = parser.parse_known_args(arguments)
    given = {name: value for name, value in vars(options).items() if name not in ("verb", "function")}
    if options.verb in FLAG_VERBS:
        given["flags"] = flags
    elif flags:
        parser.error(f"unrecognized arguments: {printable(' '.join(flags))}")
    return load_verb(options.verb, getattr(options, "function", options.verb))(**given)


def load_verb(verb: str, function: str) -> Callable[..., int]:
    """A function of `runs/`."""
    with large_imports():
        loaded: Callable[..., int] = getattr(import_module(f"hf_detr_ft.runs.{verb}"), function)
    return loaded


def run_recipe(verb: str, arguments: list[str]) -> int:
    """Calls `train` or `check`: a recipe first, then flags. What is wrong is said before libraries are imported."""
    from hf_detr_ft.data.coco import require_annotations
    from hf_detr_ft.recipe.fields import print_help
    from hf_detr_ft.recipe.files import check_early

    if {"-h", "--help"} & set(arguments):
        print_help(verb)
        return 0
    recipe = Path(arguments.pop(0)) if arguments and not arguments[0].startswith("--") else None
    given: dict[str, Any] = {}
    if verb == "check":
        given = {"report": take_report(arguments), "headers_only": "--headers-only" in arguments}
        arguments = [argument for argument in arguments if argument != "--headers-only"]
    check_early(recipe, arguments, require_annotations("train", "val"))
    return load_verb(verb, verb)(recipe, arguments, **given)


def take_report(flags: list[str]) -> Path | None:
    """Takes `--report` or `--report FILE` out of the flags of `check`; the file is check.html where none is named."""
    for index, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name == "--report":
            named = not equals and index + 1 < len(flags) and not flags[index + 1].startswith("--")
            value = flags[index + 1] if named else value
            del flags[index : index + 1 + named]
            return Path(value or "check.html")
    return None


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the verbs that take no recipe first."""
    parser = argparse.ArgumentParser(
        prog="hf-detr-ft", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"hf-detr-ft {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in (*RECIPE_VERBS, "launch"):
        verbs.add_parser(verb, add_help=False)
    for add in (add_evaluate, add_report, add_benchmark, add_predict, add_push, add_convert, add_get):
        add(verbs)
    return parser


def add_evaluate(verbs: Any) -> None:
    """Arguments of `evaluate`."""
    parser = verbs.add_parser("evaluate", help="the 12 COCO numbers of a run, a folder or a Hub id")
    parser.add_argument("source", metavar="RUN")
    parser.add_argument("--recipe", type=Path, help="whose validation split to use; the run's own by default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")


def add_report(verbs: Any) -> None:
    """Arguments of `report`."""
    parser = verbs.add_parser("report", help="one HTML page of a run, or of several side by side")
    parser.add_argument(
        "sources", nargs="+", metavar="RUN", help="flags such as --data.root FOLDER behind it go over its recipe"
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
    parser = verbs.add_parser("predict", help="drawn images and a COCO results JSON")
    parser.add_argument("source", metavar="RUN")
    parser.add_argument("inputs", nargs="+", metavar="IMAGE", help="files, folders or quoted patterns")
    parser.add_argument("--threshold", type=float, default=0.5, help="keep scores above it, 0 to 1 (default: 0.5)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the results go (default: predictions)")
    parser.add_argument("--batch-size", type=int, default=8, help="images at once (default: 8)")
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of the backbone; auto: bf16 where that is faster (default: auto)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")


def add_push(verbs: Any) -> None:
    """Arguments of `push`."""
    parser = verbs.add_parser("push", help="publish a run on the Hugging Face Hub")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("repo_id", metavar="USER/NAME")
    parser.add_argument("--private", action="store_const", const=True, help="make a new repository private")
    parser.add_argument("--overwrite-card", action="store_true", help=f"replace a {CARD} that a person wrote there")
    parser.add_argument("--license", metavar="ID", help="licence on the model card, such as apache-2.0")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")


def add_convert(verbs: Any) -> None:
    """Arguments of `convert`."""
    parser = verbs.add_parser("convert", help="annotations of another format to COCO")
    parser.add_argument("format", choices=["via"])
    parser.add_argument("source", type=Path, help="the annotation file, or the folder with via_region_data.json")
    parser.add_argument("destination", type=Path, help="the COCO JSON to write")
    parser.add_argument("--images", type=Path, help="folder of the images (default: that of the annotations)")
    parser.add_argument("--class-attribute", help="region attribute that holds the class")
    parser.add_argument("--class-name", help="the one class of all regions (default: object)")
    parser.add_argument(
        "--categories-from",
        type=Path,
        metavar="FILE",
        help="a COCO JSON whose ids and names to keep to (the other split)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DESTINATION")


def add_get(verbs: Any) -> None:
    """Arguments of `get`."""
    parser = verbs.add_parser("get", help="download or draw a data set")
    names = parser.add_subparsers(required=True, metavar="NAME")
    balloon = names.add_parser("balloon", help="61 + 13 photos of balloons, downloaded")
    balloon.set_defaults(function="get_balloon")
    balloon.add_argument("destination", type=Path, metavar="FOLDER")
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


if __name__ == "__main__":
    sys.exit(main())
