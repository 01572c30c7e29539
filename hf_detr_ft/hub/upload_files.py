"""The files of a run that go up: its model card and an allow list, without anything private.

The run folder itself keeps its files as they are. A card that a person wrote or edited there is theirs: it is neither
replaced on disk nor by a generated one in the push.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_detr_ft.atomic import write_text
from hf_detr_ft.errors import DataError
from hf_detr_ft.hub.card_author import card_author, sign
from hf_detr_ft.hub.example_photos import list_addresses
from hf_detr_ft.hub.model_card import TASKS, render_model_card, snippet_call
from hf_detr_ft.hub.redact import holds_token, remove_private
from hf_detr_ft.recipe.entries import read_sections
from hf_detr_ft.run_folder import (
    CARD,
    CONFIG,
    EXPORTS,
    METRICS,
    PLOTS,
    PROCESSOR,
    RECIPE,
    RESULTS,
    RunFolder,
    read_object,
    weight_files,
)
from hf_detr_ft.yaml12 import dump_yaml

logger = logging.getLogger(__name__)

PUBLIC_PLOTS = (
    *("average-precision*", "loss*", "class-error*", "cardinality-error*", "learning-rates", "gradient-norm"),
    *("precision-recall*", "f1*", "calibration", "errors", "confusion"),
    *("objects-per-image", "object-sizes", "resized-sides", "aspect-ratios", "image-sizes", "positions-*"),
    "class-balance",
)
"""Names of figures without images, which are not the model's to publish."""
NOT_FOR_OTHERS = ("resume_from_checkpoint", "overwrite", "push_to_hub", "hub_model_id")
"""Fields of `training` that mean nothing to others: a checkpoint, a run to replace, an account."""
PACKAGE = "hf_detr_ft"
"""Folder of this package's source, which a Space holds a copy of."""
PLACEHOLDER = "your-name"
"""The user in a card that was written before it is known where the run goes."""

Files = dict[str, Path | bytes]
"""Path in the repository, to a file that goes up as it is or the content of one."""


def build_model_card(
    run: Path, repo_id: str | None = None, license: str | None = None, examples: Sequence[str] = ()
) -> str:
    """The card of a run, from its metrics.json, config.json and (where there is one) recipe.yaml.

    Args:
        run: the run folder.
        repo_id: "user/name"; None takes the recipe's `training.hub_model_id`, else a placeholder.
        license: the Hub's identifier, such as "apache-2.0"; left out of the card unless given.
        examples: addresses of photos to try the model on.

    Raises:
        DataError: metrics.json is missing, or it or config.json is not what a run writes.
        RecipeError: recipe.yaml is not what a run writes.
    """
    metrics, recipe = read_object(run / METRICS), _read_recipe(run)
    if not isinstance(metrics.get("best"), dict) or not isinstance(metrics["best"].get("metrics"), dict):
        raise DataError(
            f"{run / METRICS}: expected best and in it metrics, found {', '.join(metrics) or 'nothing'}; "
            "it was edited or is of another program, evaluate the run again"
        )
    model = recipe.get("model") or {"checkpoint": metrics.get("base_model")}
    return render_model_card(
        remove_private(metrics),
        remove_private(read_object(run / CONFIG)),
        remove_private(recipe),
        repo_id=repo_id or _expected_repo_id(run, recipe),
        base_model=_hub_id(model.get("checkpoint"), run),
        dataset_id=_hub_id((metrics.get("data") or {}).get("name"), run),
        license=license,
        examples=examples,
        exports=RunFolder(run).read_exports(),
    )


def _expected_repo_id(run: Path, recipe: Mapping[str, Any]) -> str:
    name = (recipe.get("training") or {}).get("hub_model_id") or RunFolder(run).name
    return name if "/" in name else f"{PLACEHOLDER}/{name}"


def write_model_card(run: Path, repo_id: str | None = None) -> Path:
    """Writes `run/README.md`, unless a person wrote or edited the one that is there; returns its path."""
    path = run / CARD
    if path.is_file() and card_author(path.read_text(encoding="utf-8")) != "generated":
        logger.info("%s was written or edited by hand: kept as it is (delete it to have a new one)", path)
        return path
    write_text(path, build_model_card(run, repo_id))
    return path


def _hub_id(name: Any, run: Path) -> str | None:
    """Returns a name that can only be a Hub id: "user/name", and no such folder here or beside the run; else None."""
    if not isinstance(name, str) or name.count("/") != 1:
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    folders = (Path.cwd(), *run.resolve().parents)
    return None if any(os.path.exists(folder / name) for folder in folders) else name


def check_run_folder(run: Path) -> None:
    """Raises DataError with all that `run` lacks before it can be published."""
    if not run.is_dir():
        raise DataError(f"{run}: no such run folder; give the folder that training wrote")
    missing = [name for name in (*weight_files(run), CONFIG, PROCESSOR, METRICS) if not (run / name).is_file()]
    if missing:
        raise DataError(
            f"{run}: not a complete run folder, missing {', '.join(missing)}; training writes the weights and "
            f"{METRICS} at its first evaluation"
        )


def collect_files(
    run: Path,
    repo_id: str,
    license: str | None = None,
    token: str | None = None,
    examples: Mapping[str, bytes] | None = None,
    revision: str | None = None,
) -> Files:
    """Collects all that goes up.

    An allow list: weights, exported files, config.json, preprocessor_config.json, recipe.yaml, README.md, metrics.json,
    results.csv and the figures of `PUBLIC_PLOTS`. Never report.html, plots/predictions.png and plots/photos, which show
    the user's images; nor checkpoints, optimizer states, detections, logs or training_args.bin (which holds the token).

    Raises:
        DataError: the folder is incomplete, or a file holds what looks like an access token.
    """
    check_run_folder(run)
    files: Files = {}
    for name in (CONFIG, PROCESSOR, METRICS):
        content = read_object(run / name)
        public = remove_private(content)
        files[name] = run / name if public == content else (json.dumps(public, indent=2) + "\n").encode()
    if recipe := _read_recipe(run):
        files[RECIPE] = dump_yaml(_make_public(recipe)).encode()
    if (run / RESULTS).is_file():
        files[RESULTS] = run / RESULTS
    plots = (path for path in sorted((run / PLOTS).glob("*.png")) if path.is_file())
    files |= {f"{PLOTS}/{path.name}": path for path in plots if is_public_plot(path.stem)}
    files |= examples or {}
    files[CARD] = _card_to_push(run, repo_id, license, list_addresses(examples or (), repo_id, revision)).encode()
    for name, source in files.items():
        if holds_token(source if isinstance(source, bytes) else source.read_bytes(), token):
            raise DataError(
                f"{run / name}: holds what looks like an access token, nothing was uploaded; remove it from the file, "
                "and if others may have seen it revoke it at https://huggingface.co/settings/tokens"
            )
    exported = [f"{EXPORTS}/{name}" for row in RunFolder(run).read_exports() for name in row["files"]]
    networks = [*weight_files(run), *(name for name in exported if (run / name).is_file())]
    return {**{name: run / name for name in networks}, **files}


def list_sizes(files: Files) -> list[str]:
    """Names and sizes of files, a line each, those of this package's source folder as one."""
    sizes: Counter[str] = Counter()
    for name, source in files.items():
        shown = f"{PACKAGE}/" if name.startswith(f"{PACKAGE}/") else name
        sizes[shown] += len(source) if isinstance(source, bytes) else source.stat().st_size
    return [f"  {name:<32}{_format_bytes(size):>10}" for name, size in sizes.items()]


def _format_bytes(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def is_public_plot(name: str) -> bool:
    """True for the name of a figure without images."""
    return any(fnmatch(name, pattern) for pattern in PUBLIC_PLOTS)


def _make_public(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe for others: without secrets and paths, resuming from nothing, replacing no run, pushing nowhere."""
    public = remove_private(recipe)
    training = public.get("training")
    if isinstance(training, dict):
        public["training"] = {key: value for key, value in training.items() if key not in NOT_FOR_OTHERS}
        if isinstance(training.get("output_dir"), str):
            public["training"]["output_dir"] = Path(training["output_dir"]).name
    return public


def _card_to_push(run: Path, repo_id: str, license: str | None, examples: Sequence[str]) -> str:
    path = run / CARD
    local = path.read_text(encoding="utf-8") if path.is_file() else ""
    if card_author(local) == "generated":
        return build_model_card(run, repo_id, license, examples)
    if examples:
        logger.warning(
            "%s: was written by hand and stays; to offer the examples, write into its metadata: widget: %s",
            path,
            json.dumps([{"src": address} for address in examples]),
        )
    expected = _expected_repo_id(run, _read_recipe(run))
    for task in TASKS:
        local = local.replace(snippet_call(expected, task), snippet_call(repo_id, task))
    return sign(local, "edited")


def _read_recipe(run: Path) -> dict[str, Any]:
    """The sections of the run's recipe; empty where there is none."""
    return read_sections(run / RECIPE) if (run / RECIPE).is_file() else {}
