"""From a run folder to what goes up: its model card, and an allow list of files, cleaned.

The run folder itself keeps its files as they are. A card that a person wrote or edited there is theirs: it is neither
replaced on disk nor by a generated one in the push.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_detr_ft.atomic import write_text
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.hub import model_card as card
from hf_detr_ft.hub.authorship import card_author, stamp
from hf_detr_ft.hub.redact import clean_text, find_private, holds_secret, sanitise_recipe

logger = logging.getLogger(__name__)

CARD = "README.md"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIGS = ("config.json", "preprocessor_config.json", "metrics.json")
PHOTOS = ("predictions.png",)
"""Of the plots, those that show the user's photos, which are not the model's to publish."""
PLACEHOLDER = "your-name"
"""The user in a card that was written before it is known where the run goes."""

Files = dict[str, Path | bytes]
"""By its path in the repository: a file that goes up as it is, or the cleaned content of one."""


def build_model_card(run: Path, repo_id: str | None = None, license: str | None = None) -> str:
    """The card of a run, from its metrics.json, config.json and (where there is one) recipe.yaml.

    Args:
        run: the run folder.
        repo_id: "user/name"; None takes the recipe's `training.hub_model_id`, else a placeholder.
        license: the Hub's identifier, such as "apache-2.0"; left out of the card unless given.

    Raises:
        DataError: metrics.json or config.json is missing or not what a run writes.
    """
    metrics, recipe = _load_json(run / "metrics.json"), _load_recipe(run)
    if not isinstance(metrics.get("best"), dict) or not isinstance(metrics["best"].get("metrics"), dict):
        raise DataError(
            f"{run / 'metrics.json'}: expected best and in it metrics, found {', '.join(metrics) or 'nothing'}; "
            "it was edited or is of another program, evaluate the run again"
        )
    sections = recipe or {}
    model = sections.get("model") or {"checkpoint": metrics.get("base_model")}
    return card.build_model_card(
        sanitise_recipe(metrics),
        sanitise_recipe(_load_json(run / "config.json")),
        None if recipe is None else sanitise_recipe(recipe),
        repo_id=repo_id or _expected_repo_id(run, sections),
        base_model=_hub_id(model.get("checkpoint"), run),
        dataset_id=_hub_id((metrics.get("data") or {}).get("name"), run),
        license=license,
    )


def _expected_repo_id(run: Path, recipe: Mapping[str, Any]) -> str:
    name = (recipe.get("training") or {}).get("hub_model_id") or run.resolve().name
    return name if "/" in name else f"{PLACEHOLDER}/{name}"


def write_model_card(run: Path, repo_id: str | None = None, license: str | None = None) -> Path:
    """Writes `run/README.md`, unless a person wrote or edited the one that is there; returns its path."""
    path = run / CARD
    if path.is_file() and card_author(path.read_text(encoding="utf-8")) != "generated":
        logger.info("%s was written or edited by hand: kept as it is (delete it to have a new one)", path)
        return path
    write_text(path, build_model_card(run, repo_id, license))
    return path


def _hub_id(name: Any, run: Path) -> str | None:
    """`name` where it can only be a Hub id: "user/name", and no such folder here or beside the run."""
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
    missing = [name for name in (*_weights(run), *CONFIGS) if not (run / name).is_file()]
    if missing:
        raise DataError(
            f"{run}: not a complete run folder, missing {', '.join(missing)}; training writes the weights and "
            "metrics.json at its first evaluation"
        )


def collect_files(run: Path, repo_id: str, license: str | None = None, token: str | None = None) -> Files:
    """All that goes up.

    An allow list: weights, config.json, preprocessor_config.json, recipe.yaml, README.md, metrics.json, results.csv and
    plots/*.png but for those of `PHOTOS`. Never report.html and plots/photos, which show the user's photos; nor
    checkpoints, optimizer states, detections, logs or training_args.bin (which holds the token).

    Raises:
        DataError: the folder is incomplete, or a file still holds what looks like an access token.
    """
    check_run_folder(run)
    metrics, recipe = _load_json(run / "metrics.json"), _load_recipe(run)
    secrets, paths = find_private([metrics, recipe])
    secrets |= {token} if token else set()
    files: Files = {}
    for name in CONFIGS:
        content = _load_json(run / name)
        clean = sanitise_recipe(content)
        files[name] = run / name if clean == content else (json.dumps(clean, indent=2) + "\n").encode()
    if recipe is not None:
        files["recipe.yaml"] = yaml.safe_dump(_public_recipe(recipe), sort_keys=False, allow_unicode=True).encode()
    paths |= {str(run.absolute()), str(run.resolve()), str(Path.home())} - {"/"}
    if (run / "results.csv").is_file():
        text = (run / "results.csv").read_text(encoding="utf-8")
        files["results.csv"] = clean_text(text, secrets, paths).encode()
    plots = (plot for plot in sorted((run / "plots").glob("*.png")) if plot.name not in PHOTOS and plot.is_file())
    files |= {f"plots/{plot.name}": plot for plot in plots}
    files[CARD] = _card_to_push(run, repo_id, license).encode()
    _check_no_secret(run, files, secrets)
    return {**{name: run / name for name in _weights(run)}, **files}


def _public_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The sanitised recipe for others: it resumes from no checkpoint, replaces no run and pushes to no account."""
    clean = sanitise_recipe(recipe)
    if isinstance(clean.get("training"), dict):
        for key in ("resume_from_checkpoint", "overwrite", "push_to_hub", "hub_model_id"):
            clean["training"].pop(key, None)
    return clean


def _card_to_push(run: Path, repo_id: str, license: str | None) -> str:
    path = run / CARD
    local = path.read_text(encoding="utf-8") if path.is_file() else ""
    if card_author(local) == "generated":
        return build_model_card(run, repo_id, license)
    expected = _expected_repo_id(run, _load_recipe(run) or {})
    return stamp(local.replace(card.snippet_call(expected), card.snippet_call(repo_id)), "edited")


def _check_no_secret(run: Path, files: Files, secrets: Iterable[str]) -> None:
    for name, source in files.items():
        if holds_secret(source if isinstance(source, bytes) else source.read_bytes(), secrets):
            raise DataError(
                f"{run / name}: holds what looks like an access token, nothing was uploaded; remove it from the file, "
                "and if others may have seen it revoke it at https://huggingface.co/settings/tokens"
            )


def _weights(run: Path) -> list[str]:
    """The weight files by name; what `from_pretrained` would take where there are both kinds."""
    if (run / WEIGHTS).is_file() or not (run / INDEX).is_file():
        return [WEIGHTS]
    return [INDEX, *sorted(set(_load_json(run / INDEX).get("weight_map", {}).values()))]


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; training writes it at its first evaluation") from None
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, but {error}; it was cut off or edited, evaluate again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found a {type(content).__name__}; evaluate the run again")
    return content


def _load_recipe(run: Path) -> dict[str, Any] | None:
    path = run / "recipe.yaml"
    if not path.is_file():
        return None
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: expected YAML, but {' '.join(str(error).split())}; correct or delete it") from None
    if not isinstance(recipe, dict):
        raise RecipeError(
            f"{path}: expected sections such as data and training, found {type(recipe).__name__}; correct or delete it"
        )
    return recipe
