"""`hf-detr-ft check RECIPE`: data, model and memory, before any training."""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from tqdm.auto import tqdm

from hf_detr_ft.atomic import check_output_file
from hf_detr_ft.data.checks.problems import Problem, list_problems, tabulate_problems
from hf_detr_ft.data.dataset import most_objects
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.repaired_copy import CHANGES, require_new, write_repaired
from hf_detr_ft.data.splits import Splits, build_splits, check_data
from hf_detr_ft.errors import InputError
from hf_detr_ft.formatting import pluralize, printable
from hf_detr_ft.model.build import find_family
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.stages import feature_stride
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.rules import require_sound
from hf_detr_ft.recipe.sections import ModelConfig, Recipe
from hf_detr_ft.report.arguments import check_page, is_page
from hf_detr_ft.report.collect import collect_data_summary
from hf_detr_ft.report.pages import build_check_page
from hf_detr_ft.report.sections.data_section import DataSummary
from hf_detr_ft.report.svg import report_style
from hf_detr_ft.report.write_report import write_page
from hf_detr_ft.training.choose_preset import apply_preset
from hf_detr_ft.training.job import prepare_trial
from hf_detr_ft.training.job_summary import describe_job
from hf_detr_ft.training.model_defaults import model_defaults
from hf_detr_ft.training.trial_batches import describe_matching, try_largest_batches

SHOWN = 5
"""Problems of each kind that are printed."""


def check(
    path: Path | None,
    flags: Sequence[str] = (),
    report: Path | None = None,
    *,
    headers_only: bool = False,
    as_json: bool = False,
    fix: Path | None = None,
) -> int:
    """Decodes every image, checks every annotation, builds the model and runs one batch of the largest shapes.

    Args:
        path: the recipe.
        flags: over it.
        report: where to write what was found, as an HTML page; an earlier page of ours is replaced.
        headers_only: read no image beyond its header: finds all but near-duplicates, truncated and nearly black ones.
        as_json: print what is wrong as JSON instead, and build no model.
        fix: write a repaired copy of the data to this folder, which is not there yet, and build no model.

    Returns:
        0, or 1 where the data have errors.
    """
    recipe = load_recipe(path, flags, model_defaults)
    require_sound(recipe)
    if report is not None:
        check_output_file(report, "--report")
        check_page(report, overwrite=is_page(report), flag="--report")
    if fix is not None:
        require_new(fix)
    sources, problems = check_data(
        recipe.data,
        ImageSize.from_config(recipe.model),
        decode=not headers_only,
        progress=lambda images: tqdm(images, "reading headers" if headers_only else "decoding images"),
        stride=finest_stride(recipe.model),
        masks=recipe.masks,
    )
    if as_json:
        print(json.dumps(summarise_problems(problems), indent=2))
        return int(any(problem.severity == "error" for problem in problems))
    if problems:
        print(f"{tabulate_problems(problems)}\n\n{list_problems(problems, SHOWN)}\n")
    if fix is not None:
        print(describe_changes(write_repaired(sources, fix, ImageSize.from_config(recipe.model)), fix))
        return 0
    counts = Counter(problem.severity for problem in problems)
    print(f"data      {counts['error']} errors, {counts['warning']} warnings")
    data, notes = None, list[str]()
    if not counts["error"]:
        data, notes = try_out(recipe, build_splits(recipe.data, sources, problems), report is not None)
    if report is not None:
        write_data_page(report, recipe.data.name, problems, data, notes)
    if counts["error"]:
        return 1
    command = ["hf-detr-ft", "train", *([str(path)] if path else []), *flags]
    print(f"nothing stands in the way of: {shlex.join(command)}")
    return 0


def try_out(recipe: Recipe, splits: Splits, for_page: bool) -> tuple[DataSummary | None, list[str]]:
    """Builds the model, runs batches of the largest shapes, and tells of them.

    Returns:
        What the page shows of the data, and what it cannot show, where there is to be one.
    """
    print(describe_splits(splits))
    recipe = apply_preset(recipe, splits, prepare_trial)
    with TemporaryDirectory() as folder:  # the Trainer makes its folder
        job = prepare_trial(recipe.with_training(output_dir=folder), splits)
        print(describe_job(replace(job, recipe=recipe)))
        for trial in try_largest_batches(job.trainer):
            print(trial)
        print(describe_matching(job.trainer))
    if not for_page:
        return None, []
    stride = feature_stride(cast(Detector, job.trainer.model))
    return collect_data_summary(recipe, splits, stride, cast(Any, job.trainer.processing_class))


def finest_stride(config: ModelConfig) -> int:
    """Pixels of the image per step of the finest feature map that a recipe's model reads, as far as it is known."""
    try:
        strides = find_family(config).strides
    except InputError:  # which is told once the data are sound
        strides = ()
    return min(strides) if len(strides) > 1 else config.backbone_stride


def describe_changes(changes: Sequence[dict[str, str]], folder: Path) -> str:
    """Numbers of changes by kind, and what to do next, for the terminal."""
    kinds = Counter(change["kind"] for change in changes)
    lines = [f"{count:>9,} {kind}" for kind, count in kinds.most_common()]
    said = f"written: {folder}, with {pluralize(len(changes), 'change')}, listed in {folder / CHANGES}"
    return "\n".join([*lines, said, f"look at it: hf-detr-ft check --data.root {shlex.quote(str(folder))}"])


def summarise_problems(problems: Sequence[Problem]) -> dict[str, Any]:
    """Problems for machines: how many of each severity and kind, and each of them with its fields."""
    kinds: Counter[str] = Counter()
    severities = Counter(problem.severity for problem in problems)
    for problem in problems:
        kinds[problem.kind] += problem.count
    return {
        "errors": severities["error"],
        "warnings": severities["warning"],
        "kinds": dict(kinds),
        "problems": [asdict(problem) for problem in problems],
    }


def describe_splits(splits: Splits) -> str:
    """Counts of images and objects, a line for each split."""
    lines = []
    for name, dataset in (("training", splits.train), ("validation", splits.val)):
        split = splits.statistics[name]
        most, file_name = most_objects(dataset)
        lines.append(
            f"          {name}: {split.images} images, {split.objects} objects, "
            f"{(split.objects_per_image == 0).sum()} images without objects, at most {most} on one "
            f"({printable(file_name)})"
        )
    return "\n".join(lines)


def write_data_page(
    target: Path, name: str, problems: Sequence[Problem], data: DataSummary | None = None, notes: Sequence[str] = ()
) -> None:
    """Writes the page of a data set and says where it lies; see `build_check_page`."""
    with report_style():
        write_page(build_check_page(name, problems, data, notes), target)
    print(f"written: {target}")
