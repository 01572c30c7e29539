"""The model card as text: metadata for the Hub and a page for people. Nothing here reads or writes a run's files."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, Template

from hf_detr_ft import __version__
from hf_detr_ft.evaluation.coco_result import COCO_METRICS, metric_rows
from hf_detr_ft.formatting import printable
from hf_detr_ft.hub.card_author import sign

TEMPLATE = "model_card.md"
PUBLISHED = ("map", "map_50", "map_75")
CLASSES_SHOWN = 30
LEAST_OBJECTS = 10
"""Objects of a class whose AP says something."""
TASKS = ("object-detection", "image-segmentation")
"""Pipelines of Transformers, without and with a mask head."""
_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
"""Signs that are markup somewhere in a page, `_` only at the end of a word; `<` and `&` are written as in HTML."""
TRAINING_KEYS = (
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "max_grad_norm",
    "ema_decay",
    "bf16",
    "fp16",
    "seed",
)


def render_model_card(
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    *,
    repo_id: str,
    base_model: str | None = None,
    dataset_id: str | None = None,
    license: str | None = None,
    examples: Sequence[str] = (),
    exports: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole card, signed. Everything that comes in must be free of secrets and local paths already.

    Args:
        metrics: metrics.json.
        config: config.json.
        recipe: recipe.yaml, None where the run has none.
        repo_id: "user/name", for the title and the snippet.
        base_model: Hub id of the model that was fine-tuned, None where it was not from the Hub.
        dataset_id: Hub id of the data set, None where it is not on the Hub.
        license: the Hub's identifier ("apache-2.0"); None leaves it out.
        examples: addresses of photos that the page offers to try the model on.
        exports: what was measured of each exported file.
    """
    sections = recipe or {}
    if sections.get("training", {}).get("load_best_model_at_end") is False and metrics.get("last"):
        metrics = {**metrics, "best": metrics["last"]}  # what was published are the last weights
    best, data = metrics["best"], metrics.get("data", {})
    model = sections.get("model") or {"checkpoint": metrics.get("base_model")}
    made_with = sections.get("made_with") or {}
    seconds = metrics.get("seconds")
    card = _load_template().render(
        metadata=_build_metadata(
            metrics, repo_id, base_model, dataset_id, license, _model_type(config), examples
        ).to_yaml(),
        title=repo_id.split("/")[-1],
        family=str(metrics.get("family") or "DETR"),
        model_type=_model_type(config),
        classes=list(config.get("id2label", {}).values()),
        base_model=base_model,
        model=model,
        dataset=data.get("name") or "a custom data set",
        dataset_id=dataset_id,
        split=data.get("split", "validation"),
        best=best,
        test=metrics.get("test"),
        exports=exports,
        rows=metric_rows(best["metrics"]),
        per_class=sorted(best.get("per_class", []), key=lambda row: -row["objects"]),
        shown=CLASSES_SHOWN,
        call=snippet_call(repo_id, _task(metrics)),
        mask_rows=[(f"mask_{key}", f"{name} of masks", meaning) for key, name, meaning in COCO_METRICS],
        threshold=_format_threshold(best),
        seen_limits=_list_limits(best),
        most_detections=metrics.get("most_detections") or config.get("num_queries"),
        settings=_list_settings(sections),
        skipped=" and ".join(f"{len(ids)} of {split}" for split, ids in (metrics.get("skipped") or {}).items()),
        minutes=seconds / 60 if isinstance(seconds, int | float) else None,
        device=made_with.get("device"),
        versions=_list_versions(config, made_with),
        recipe=sections,
        flags=_missing_folders(sections, base_model),
    )
    return sign(card, "generated")


def _task(metrics: Mapping[str, Any]) -> str:
    """The pipeline of Transformers that opens the model."""
    return TASKS[bool(metrics["best"].get("mask_metrics"))]


def snippet_call(repo_id: str, task: str) -> str:
    """The one place of a card's snippet that names the repository."""
    return f'pipeline("{task}", {printable(json.dumps(repo_id, ensure_ascii=False))})'


@cache
def _load_template() -> Template:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"metric": _format_metric, "escape_markdown": escape_markdown, "code": _code}
    return environment.get_template(TEMPLATE)


def _build_metadata(
    metrics: Mapping[str, Any],
    repo_id: str,
    base_model: str | None,
    dataset_id: str | None,
    license: str | None,
    model_type: str,
    examples: Sequence[str],
) -> ModelCardData:
    data = metrics.get("data", {})
    name = printable(data.get("name") or "custom")
    task, evaluations = _task(metrics), [(data.get("split", "validation"), metrics["best"])]
    evaluations += [("test", metrics["test"])] if metrics.get("test") else []
    of_split = [(split, {**(e.get("mask_metrics") or {}), **e["metrics"]}) for split, e in evaluations]
    numbers = list(zip(("", "mask_"), ("", "Mask "), TASKS, strict=True))
    results = [
        EvalResult(
            task_type=of_task,
            task_name=of_task.replace("-", " ").title(),
            dataset_type=dataset_id or (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "custom"),
            dataset_name=name,
            dataset_split=printable(split),
            metric_type=f"{prefix}{key}",
            metric_name=f"{kind}{title}",
            metric_value=values[f"{prefix}{key}"],
        )
        for split, values in of_split
        for prefix, kind, of_task in numbers
        for key, title, _ in COCO_METRICS
        if key in PUBLISHED and values.get(f"{prefix}{key}", -1) >= 0
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        tags=[model_type, task, "vision", "hf_detr_ft"],
        base_model=base_model,
        datasets=[dataset_id] if dataset_id else None,
        license=license,
        model_name=printable(repo_id.split("/")[-1]),
        eval_results=results or None,
        widget=[{"src": address} for address in examples] or None,
    )


def _model_type(config: Mapping[str, Any]) -> str:
    """Name of the kind of model, which Transformers' page on it has, too."""
    return re.sub(r"[^a-z0-9_-]+", "", str(config.get("model_type") or "detr"))


def _list_limits(best: Mapping[str, Any]) -> list[str]:
    """Weak points that the evaluation saw, a sentence each: what is missed and wrong, sizes and classes."""
    found, metrics, limits = best.get("best_f1") or {}, best["metrics"], []
    threshold = _format_threshold(best)
    if threshold and all(isinstance(found.get(key), int | float) for key in ("recall", "precision")):
        missed, wrong = (f"{100 * (1 - found[key]):.0f} %" for key in ("recall", "precision"))
        limits.append(f"Above {threshold} it misses {missed} of the objects, and {wrong} of its boxes are wrong.")
    sizes = {size: metrics.get(f"map_{size}", -1) for size in ("small", "medium", "large")}
    known = {size: ap for size, ap in sizes.items() if isinstance(ap, int | float) and ap >= 0}
    if len(known) > 1:
        weakest, strongest = (choose(known, key=lambda size: known[size]) for choose in (min, max))
        limits.append(
            f"It is weakest on {weakest} objects: AP {known[weakest]:.3f}, {known[strongest]:.3f} on {strongest} ones."
        )
    often = [row for row in best.get("per_class") or [] if row["objects"] >= LEAST_OBJECTS and row["ap"] >= 0]
    if len(often) > 3:
        worst = sorted(often, key=lambda row: row["ap"])[:3]
        named = ", ".join(f"{escape_markdown(row['name'])} ({row['ap']:.3f})" for row in worst)
        limits.append(f"The classes of {LEAST_OBJECTS} or more objects with the lowest AP are {named}.")
    return limits


def _format_threshold(best: Mapping[str, Any]) -> str | None:
    """The threshold of the best F1 as text, None where there is none."""
    threshold = best.get("best_f1", {}).get("threshold", -1)
    return f"{threshold:g}" if isinstance(threshold, int | float) and 0 <= threshold < 1 else None


def _list_versions(config: Mapping[str, Any], made_with: Mapping[str, Any]) -> dict[str, str]:
    versions = {"hf_detr_ft": __version__, "transformers": config.get("transformers_version")}
    versions |= made_with.get("versions") or {}
    return {name: version for name, version in versions.items() if version not in (None, "not installed")}


def _missing_folders(recipe: Mapping[str, Any], base_model: str | None) -> str:
    """Flags for the folders that whoever trains again has to name."""
    drawn = (recipe.get("data") or {}).get("synthetic_images") is not None
    local = (recipe.get("model") or {}).get("checkpoint") and not base_model
    return ("" if drawn else " --data.root FOLDER") + (" --model.checkpoint MODEL_FOLDER" if local else "")


def _list_settings(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The recipe's model and augmentation, and those training settings that shape the result; unset ones left out."""
    training = recipe.get("training") or {}
    chosen = [key for key in training if key in TRAINING_KEYS or "learning_rate" in key or key.startswith("lr_")]
    pairs = [(f"training.{key}", training[key]) for key in chosen]
    for section in ("model", "augment"):
        for key, value in (recipe.get(section) or {}).items():
            inner = value if isinstance(value, dict) else {"": value}
            pairs += [(f"{section}.{key}.{name}".rstrip("."), entry) for name, entry in inner.items()]
    return [(key, _format_setting(value)) for key, value in pairs if _format_setting(value)]


def _format_setting(value: object) -> str:
    """A scalar or a list as text, one with more in it as JSON; nothing for what is unset or else nested."""
    if isinstance(value, list) and value:
        is_nested = any(isinstance(entry, list | dict) for entry in value)
        return json.dumps(value, ensure_ascii=False) if is_nested else ", ".join(map(str, value))
    return "" if value is None or isinstance(value, list | dict) else str(value)


def _format_metric(value: object) -> str:
    """Three decimals; a dash where COCO has none (-1: no such objects)."""
    return f"{value:.3f}" if isinstance(value, int | float) and value >= 0 else "-"


def escape_markdown(text: object) -> str:
    """Text that is shown as it is: it makes no link, no markup, no HTML and no other cell of a table."""
    shown = printable(" ".join(str(text).split())).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKUP.sub(r"\\\g<0>", shown)


def _code(text: object) -> str:
    """Text in letters of one width, in backticks that it does not close, in a cell of a table that it does not end."""
    shown = printable(" ".join(str(text).split())).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    edge = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{edge}{shown}{edge}{fence}"
