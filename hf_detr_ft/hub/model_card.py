"""The model card as text: metadata for the Hub and a page for people. Nothing here reads or writes files."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from hf_detr_ft import __version__
from hf_detr_ft.hub.authorship import stamp

COCO_ROWS = (
    ("map", "AP", "IoU 0.50:0.95, all sizes"),
    ("map_50", "AP50", "IoU 0.50, all sizes"),
    ("map_75", "AP75", "IoU 0.75, all sizes"),
    ("map_small", "AP small", "area below 32² pixels"),
    ("map_medium", "AP medium", "area from 32² to 96² pixels"),
    ("map_large", "AP large", "area above 96² pixels"),
    ("mar_1", "AR 1", "1 detection an image"),
    ("mar_10", "AR 10", "10 detections an image"),
    ("mar_100", "AR 100", "100 detections an image"),
    ("mar_small", "AR small", "area below 32² pixels"),
    ("mar_medium", "AR medium", "area from 32² to 96² pixels"),
    ("mar_large", "AR large", "area above 96² pixels"),
)
"""Key in metrics.json, name, meaning; COCO's twelve numbers in COCO's order."""

PUBLISHED = ("map", "map_50", "map_75")
CLASSES_SHOWN = 30
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
    "bf16",
    "fp16",
    "seed",
)


def build_model_card(
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    *,
    repo_id: str,
    base_model: str | None = None,
    dataset_id: str | None = None,
    license: str | None = None,
) -> str:
    """The whole card, stamped. Everything that comes in must be free of secrets and local paths already.

    Args:
        metrics: metrics.json.
        config: config.json.
        recipe: recipe.yaml, None where the run has none.
        repo_id: "user/name", for the title and the snippet.
        base_model: Hub id of the model that was fine-tuned, None where it was not from the Hub.
        dataset_id: Hub id of the data set, None where it is not on the Hub.
        license: the Hub's identifier ("apache-2.0"); None leaves it out.
    """
    if (recipe or {}).get("training", {}).get("load_best_model_at_end") is False and metrics.get("last"):
        metrics = {**metrics, "best": metrics["last"]}  # what was published are the last weights
    data = _metadata(metrics, repo_id, base_model, dataset_id, license)
    parts = [
        _introduction(metrics, config, recipe or {}, repo_id, base_model, dataset_id),
        _results(metrics),
        _use(metrics, config, repo_id),
        _training(metrics, config, recipe, base_model),
    ]
    return stamp(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts), "generated")


def _metadata(
    metrics: Mapping[str, Any], repo_id: str, base_model: str | None, dataset_id: str | None, license: str | None
) -> ModelCardData:
    data = metrics.get("data", {})
    name = str(data.get("name") or "custom")
    best = metrics["best"]["metrics"]
    results = [
        EvalResult(
            task_type="object-detection",
            task_name="Object Detection",
            dataset_type=dataset_id or (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "custom"),
            dataset_name=name,
            dataset_split=data.get("split", "validation"),
            metric_type=key,
            metric_name=title,
            metric_value=best[key],
        )
        for key, title, _ in COCO_ROWS
        if key in PUBLISHED and best.get(key, -1) >= 0
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="object-detection",
        tags=["detr", "object-detection", "vision", "hf_detr_ft"],
        base_model=base_model,
        datasets=[dataset_id] if dataset_id else None,
        license=license,
        model_name=repo_id.split("/")[-1],
        eval_results=results or None,
    )


def _introduction(
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    recipe: Mapping[str, Any],
    repo_id: str,
    base_model: str | None,
    dataset_id: str | None,
) -> str:
    names = [str(name) for name in config.get("id2label", {}).values()]
    listed = ", ".join(map(_escape, names[:10])) + (", …" if len(names) > 10 else "")
    model = recipe.get("model") or {"checkpoint": metrics.get("base_model")}
    if base_model:
        origin = f"fine-tuned from [{base_model}](https://huggingface.co/{base_model})"
    elif model.get("checkpoint"):
        origin = f"fine-tuned from a local checkpoint ({_escape(str(model['checkpoint']))})"
    elif model.get("backbone"):
        origin = f"built on the backbone {_escape(str(model['backbone']))} and trained"
    else:
        origin = "trained"
    name = _escape(str(metrics.get("data", {}).get("name") or "a custom data set"))
    dataset = f"[{name}](https://huggingface.co/datasets/{dataset_id})" if dataset_id else name
    best = metrics["best"]
    counted = f" ({best['images']} images, {best['objects']} objects)" if {"images", "objects"} <= best.keys() else ""
    numbers = ", ".join(f"{title} {_number(best['metrics'].get(key))}" for key, title, _ in COCO_ROWS[:3])
    return (
        f"# {repo_id.split('/')[-1]}\n\n"
        f"A [DETR](https://huggingface.co/docs/transformers/model_doc/detr) object detector for {len(names)} "
        f"{'class' if len(names) == 1 else 'classes'} ({listed}), {origin} on {dataset}.\n\n"
        f"**{numbers}** on the {metrics.get('data', {}).get('split', 'validation')} split{counted}."
    )


def _results(metrics: Mapping[str, Any]) -> str:
    best = metrics["best"]
    rows = [(title, meaning, _number(best["metrics"].get(key))) for key, title, meaning in COCO_ROWS]
    when = f" of epoch {best['epoch']:g}, step {best['step']}" if {"epoch", "step"} <= best.keys() else ""
    text = (
        f"## Results\n\nCOCO's twelve numbers for the published weights{when}; "
        "the unrounded values are in `metrics.json`.\n\n" + _table(("", "over", "value"), rows)
    )
    classes = sorted(best.get("per_class", []), key=lambda row: -row["objects"])
    if classes:
        shown = classes[:CLASSES_SHOWN]
        cut = f"; the {len(shown)} most frequent of {len(classes)}" if len(shown) < len(classes) else ""
        per_class = [
            (_escape(str(row["name"])), str(row["objects"]), _number(row["ap"]), _number(row["ap_50"])) for row in shown
        ]
        text += f"\n\nPer class{cut}:\n\n" + _table(("class", "objects", "AP", "AP50"), per_class)
    return text


def snippet_call(repo_id: str) -> str:
    """The one place of a card's snippet that names the repository."""
    return f'pipeline("object-detection", "{repo_id}")'


def _use(metrics: Mapping[str, Any], config: Mapping[str, Any], repo_id: str) -> str:
    threshold = metrics["best"].get("best_f1", {}).get("threshold", -1)
    known = isinstance(threshold, int | float) and 0 <= threshold < 1
    shown = f"{threshold:g}" if known else "0.5"
    origin = "the score threshold of the best F1 on the validation split" if known else "a usual score threshold"
    queries = config.get("num_queries")
    limit = f"- At most {queries} objects are found in one image.\n" if queries else ""
    return (
        "## Use\n\n```python\nfrom PIL import Image\nfrom transformers import pipeline\n\n"
        f"detector = {snippet_call(repo_id)}\n"
        'image = Image.new("RGB", (640, 480))  # yours: Image.open("photo.jpg").convert("RGB")\n'
        f"for found in detector(image, threshold={shown}):\n"
        '    print(found["label"], round(found["score"], 3), found["box"])\n```\n\n'
        f"{shown} is {origin}.\n\n## Limits\n\n"
        "- `pipeline` cuts box corners to whole pixels. For exact boxes call the model and its processor's\n"
        "  `post_process_object_detection`; the numbers above were computed that way.\n"
        f"{limit}"
        "- It knows the classes above and photos like those it was trained on, nothing else.\n"
        "- The fewer images the validation split has, the less its numbers say about other photos."
    )


def _training(
    metrics: Mapping[str, Any], config: Mapping[str, Any], recipe: Mapping[str, Any] | None, base_model: str | None
) -> str:
    versions = {"hf_detr_ft": __version__, "transformers": config.get("transformers_version")}
    made_with = (recipe or {}).get("made_with") or {}
    versions |= made_with.get("versions") or {}
    listed = ", ".join(
        f"{name} {version}" for name, version in versions.items() if version not in (None, "not installed")
    )
    text = "## Training\n\n"
    settings = _settings(recipe or {})
    if settings:
        text += _table(("setting", "value"), settings) + "\n\n"
    if isinstance(metrics.get("seconds"), int | float):
        device = f" on {made_with['device']}" if made_with.get("device") else ""
        text += f"Training took {metrics['seconds'] / 60:.1f} minutes{device}. "
    text += f"Versions: {listed}."
    if recipe:
        drawn = (recipe.get("data") or {}).get("synthetic_images") is not None
        local = (recipe.get("model") or {}).get("checkpoint") and not base_model
        flags = ("" if drawn else " --data.root FOLDER") + (" --model.checkpoint FOLDER" if local else "")
        where = "; local folders are\nreduced to their names, so say where things lie" if flags else ""
        text += (
            f"\n\n## Reproduce\n\n`recipe.yaml` in this repository is the resolved recipe of the run{where}:\n\n"
            f"```bash\nhf-detr-ft train recipe.yaml{flags}\n```"
        )
    return text


def _settings(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The recipe's model and augmentation, and those training settings that shape the result; unset ones left out."""
    training = recipe.get("training") or {}
    chosen = [key for key in training if key in TRAINING_KEYS or "learning_rate" in key or key.startswith("lr_")]
    pairs = [(f"training.{key}", training[key]) for key in chosen]
    for section in ("model", "augment"):
        for key, value in (recipe.get(section) or {}).items():
            inner = value if isinstance(value, dict) else {"": value}
            pairs += [(f"{section}.{key}.{name}".rstrip("."), entry) for name, entry in inner.items()]
    return [(f"`{key}`", f"`{_plain(value)}`") for key, value in pairs if _plain(value)]


def _plain(value: object) -> str:
    """A scalar or a list of scalars as text; nothing for what is unset or nested."""
    if isinstance(value, list) and value and not any(isinstance(entry, list | dict) for entry in value):
        return _escape(", ".join(map(str, value)))
    return "" if value is None or isinstance(value, list | dict) else _escape(str(value))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None) -> str:
    """Three decimals; a dash where COCO has none (-1: no such objects)."""
    return "-" if value is None or value < 0 else f"{value:.3f}"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
