"""The section How it was made: recipe, versions, machine, time, memory, and the commands to run it again."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hf_detr_ft.report.blocks import Block, Cell, Code, Collapsible, Note, Section, Table, Text
from hf_detr_ft.report.load_run import LoadedRun
from hf_detr_ft.run_folder import RECIPE

SECTIONS = ("data", "augment", "model", "evaluation", "speed", "report", "training")


def describe_run_details(run: LoadedRun) -> Section:
    """Describes how one run was made."""
    title, anchor = "How it was made", "making"
    if not run.recipe:
        return Section(title, anchor, [Note(f"{run.name} has no {RECIPE}, which would say how it was made.")])
    made_with = run.recipe.get("made_with") or {}
    blocks: list[Block] = [Table("making", "This run", ["", ""], _facts(run, made_with))]
    if run.exports:
        head = ["File", "Runtime", "AP", "AP of PyTorch", "Boxes, pixels", "Images/s", "Of PyTorch"]
        blocks.append(Table("exports", "Exported files, each run on the validation split", head, _exports(run.exports)))
    if run.folder is not None:
        blocks.append(Code("Commands, from the folder that the training was started in", _commands(run.folder)))
    versions = [(name, str(version)) for name, version in (made_with.get("versions") or {}).items()]
    if versions:
        blocks.append(Collapsible("Versions", [Table("versions", "Packages", ["Package", "Version"], versions)]))
    blocks.append(Collapsible("The recipe as resolved", [Code(RECIPE, run.recipe_text)]))
    return Section(title, anchor, blocks)


def compare_recipes(runs: Sequence[LoadedRun]) -> Section:
    """Lists the fields in which the recipes of several runs differ."""
    title, anchor = "What differs", "making"
    with_recipe = [run for run in runs if run.recipe]
    blocks: list[Block] = []
    if len(with_recipe) < len(runs):
        without = ", ".join(run.name for run in runs if not run.recipe)
        blocks.append(Note(f"No {RECIPE} in {without}."))
    fields = {run.name: _flat(run.recipe) for run in with_recipe}
    keys = dict.fromkeys(key for flat in fields.values() for key in flat)
    rows = [(key, *(flat.get(key, "not set") for flat in fields.values())) for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1 and row[0] != "training.output_dir"]
    if rows:
        blocks.append(Table("differences", "Fields of the recipes that differ", ["Field", *fields], rows))
    elif len(with_recipe) > 1:
        blocks.append(Text("The recipes are the same."))
    return Section(title, anchor, blocks)


def _exports(measured: Sequence[Mapping[str, Any]]) -> list[tuple[Cell, ...]]:
    """File, runtime, AP, largest distance of a box's side from PyTorch's, and speed."""
    keys = ("ap", "ap_pytorch", "box_difference_px", "images_per_second", "images_per_second_pytorch")
    return [(str(row["files"][0]), str(row["runtime"]), *(f"{row[key]:.4g}" for key in keys)) for row in measured]


def _facts(run: LoadedRun, made_with: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    metrics = run.metrics
    facts = {
        "Data": run.setting("data", "name"),
        "Started from": run.setting("model", "checkpoint") or run.setting("model", "backbone"),
        "Machine": made_with.get("device"),
        "Processor cores": made_with.get("cores"),
        "Processes": made_with.get("processes"),
        "Time": _duration(metrics.get("seconds")),
        "Peak memory": _gibibytes(metrics.get("peak_memory_bytes")),
        "Commit of the folder it was started in": made_with.get("git"),
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None]


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _gibibytes(count: int | None) -> str | None:
    return None if count is None else f"{count / 2**30:.2f} GiB on the first process"


def _commands(folder: str) -> str:
    recipe = shlex.quote(f"{folder}/{RECIPE}")
    run, again = shlex.quote(folder), shlex.quote(f"{folder}_again")
    return "\n".join(
        [
            "# the same training once more",
            f"accelerate launch train.py {recipe} --training.output_dir {again}",
            "# the numbers of the weights in the run folder",
            f"hf-detr-ft evaluate {run}",
            "# this page once more",
            f"hf-detr-ft report {run}",
        ]
    )


def _flat(recipe: Mapping[str, Any]) -> dict[str, str]:
    """`section.key` to the value as text; without what only says where and when."""
    flat = {f"{name}.{key}": str(value) for name in SECTIONS for key, value in (recipe.get(name) or {}).items()}
    made_with = recipe.get("made_with") or {}
    flat |= {f"version of {name}": str(version) for name, version in (made_with.get("versions") or {}).items()}
    flat |= {
        f"annotations {name}": str(digest)[:12] for name, digest in (made_with.get("annotations_sha256") or {}).items()
    }
    return flat | {"machine": str(made_with.get("device", "unknown"))}
