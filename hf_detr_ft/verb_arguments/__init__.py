"""Arguments of the verbs of the command line, told without importing anything large."""

import argparse

from hf_detr_ft import __version__
from hf_detr_ft.verb_arguments.data_arguments import add_convert, add_get, add_push_data
from hf_detr_ft.verb_arguments.model_arguments import (
    add_convert_checkpoint,
    add_demo,
    add_export,
    add_predict,
    add_push,
)
from hf_detr_ft.verb_arguments.run_arguments import (
    add_average,
    add_benchmark,
    add_compare,
    add_diagnose,
    add_evaluate,
    add_report,
)

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
