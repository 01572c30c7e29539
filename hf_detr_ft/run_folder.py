"""A run's folder: names of its files, reading them, and its checkpoints.

No other module knows a file name of a run. Names that Transformers gives are here, too, since messages name them.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from hf_detr_ft.errors import DataError
from hf_detr_ft.yaml12 import parse_yaml

RECIPE = "recipe.yaml"
"""The recipe as resolved, with versions and fingerprints; it runs again as it is."""
METRICS = "metrics.json"
"""Best and last evaluation, that of a test split, and the numbers of the report."""
SPLITS = "splits.json"
"""File names of the training and the validation images, where the run divided them itself."""
SERIES = "series.json"
"""Recipe of the runs in a folder of runs, and what they come to together."""
RESULTS = "results.csv"
"""A row per evaluation."""
DETECTIONS = "detections.npz"
"""Detections of the evaluation whose weights lie beside it; in a checkpoint the same, at that time."""
LOG = "trainer_state.json"
"""Transformers' log of all logging steps."""
ORIGINAL_LOG = "log.txt"
"""The log as facebookresearch/detr writes it, a JSON object an epoch."""
REPORT = "report.html"
CARD = "README.md"
PLOTS = "plots"
"""The folder of the report's figures; those with images of the user's lie in `IMAGE_PLOTS` below it."""
IMAGE_PLOTS = "photos"
PREDICTIONS = "predictions.png"
"""File in `PLOTS`: validation images with truth and predictions."""
EXPORTS = "export"
"""The folder of files for other runtimes."""
MEASURED = ".json"
"""Ending, behind an exported file's name, of the file with its AP, its box difference and its speed."""
WEIGHTS = "model.safetensors"
RAW_WEIGHTS = "raw.safetensors"
"""Trained weights as they are, in a checkpoint whose `WEIGHTS` are their moving average; training goes on from them."""
INDEX = f"{WEIGHTS}.index.json"
ALL_WEIGHTS = (WEIGHTS, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that Transformers takes weights from; a pickled one is opened with `weights_only`."""
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
OPTIMIZER = "optimizer.pt"
SCHEDULER = "scheduler.pt"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
"""A checkpoint's folder, with its step."""
UNFINISHED = ".checkpoint-{step}.tmp"
"""The folder that a checkpoint is written in, until it is whole."""
REPLACED = "replaced"
"""The folder of the run that is being overwritten, until the new one has weights of its own."""
LOCK = "run.lock"
"""The process that works in the folder, and since when; it goes with the process."""
TENSORBOARD = "runs"
MADE_WITH = "made_with"
"""Section of a recipe that runs alone write: versions and fingerprints."""
WRITTEN = (
    *(
        RECIPE,
        METRICS,
        SPLITS,
        RESULTS,
        DETECTIONS,
        LOG,
        ORIGINAL_LOG,
        REPORT,
        CARD,
        LOCK,
        CONFIG,
        PROCESSOR,
        *ALL_WEIGHTS,
    ),
    *("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin", f"{REPLACED}/*"),
    *(f"checkpoint-[0-9]*/*.{suffix}" for suffix in ("json", "npz", "pt", "pth", "bin", "safetensors")),
    *(f"checkpoint-[0-9]*/{name}" for name in ("global_step*", "latest", "zero_to_fp32.py")),
    *(f"checkpoint-[0-9]*/{name}" for name in ("pytorch_model_fsdp_*", "optimizer_*", "*.distcp")),
    *(f"{EXPORTS}/model*{suffix}" for suffix in (".onnx", ".xml", ".bin", ".torchscript", ".pt2", MEASURED)),
    *(f"{PLOTS}/*.png", f"{TENSORBOARD}/*events.out.tfevents.*"),
    *(".*.tmp", ".*.tmp/*", "*/.*.tmp", "*/.*.tmp/*"),
)
"""Patterns of what runs write, below the folder; a star goes over slashes."""


class RunFolder:
    """A folder that a run writes, or wrote.

    Attributes:
        path: of the folder, which need not exist.
        name: its own, whatever the path is written like.
        recipe: path of the resolved recipe.
        metrics: path of the best and the last evaluation.
        splits: path of the record of splits that the run made.
        results: path of the table of evaluations.
        detections: path of what the weights that lie here found.
        log: path of Transformers' log.
        original_log: path of the log as facebookresearch/detr writes it.
        report: path of the page.
        card: path of the model card.
        plots: path of the folder of figures.
        predictions: path of the validation images with truth and predictions.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = os.path.basename(os.path.realpath(self.path))  # which, unlike pathlib's, ends where links go round
        self.recipe = self.path / RECIPE
        self.metrics = self.path / METRICS
        self.splits = self.path / SPLITS
        self.results = self.path / RESULTS
        self.detections = self.path / DETECTIONS
        self.log = self.path / LOG
        self.original_log = self.path / ORIGINAL_LOG
        self.report = self.path / REPORT
        self.card = self.path / CARD
        self.plots = self.path / PLOTS
        self.predictions = self.plots / PREDICTIONS

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_run(self) -> bool:
        """True where a run of this package wrote it."""
        return self.recipe.is_file() or self.metrics.is_file()

    @property
    def is_original(self) -> bool:
        """True where facebookresearch/detr wrote it, as far as its log tells."""
        return not self.is_run and self.original_log.is_file()

    @property
    def is_half_replaced(self) -> bool:
        """True where a run was ended while it set aside the run before it, whose recipe goes first."""
        return (self.path / REPLACED).is_dir() and not self.recipe.exists()

    def read_recipe(self) -> tuple[dict[str, Any], str]:
        """The resolved recipe, parsed as every recipe is, and its text; both empty where there is none.

        Raises:
            DataError: it is no YAML.
        """
        text = self.recipe.read_text(encoding="utf-8") if self.recipe.is_file() else ""
        try:
            recipe = parse_yaml(text)
        except yaml.YAMLError as error:
            raise DataError(f"{self.recipe}: expected YAML, but {' '.join(str(error).split())}; correct it") from error
        return (recipe if isinstance(recipe, dict) else {}), text

    def read_metrics(self) -> dict[str, Any]:
        """Best and last evaluation, and that of a test split; empty where there is none.

        Raises:
            DataError: it is no JSON object, or holds something else than evaluations.
        """
        content = read_object(self.metrics)
        for name in ("best", "last", "test"):
            evaluation = content.get(name)
            if evaluation is not None and not (
                isinstance(evaluation, dict) and isinstance(evaluation.get("metrics"), dict)
            ):
                raise DataError(
                    f"{self.metrics}: expected an evaluation with its metrics under '{name}', found something else; it "
                    "was edited, remove it"
                )
        return content

    def read_history(self) -> list[dict[str, Any]]:
        """The log's entries, those of the newest checkpoint where the run was interrupted; empty without any.

        Raises:
            DataError: the log is no JSON object.
        """
        logs = [folder / LOG for folder in (self.path, *self.checkpoints())]
        newest = next((log for log in logs if log.is_file()), None)
        return (read_object(newest).get("log_history") or []) if newest else []

    def read_exports(self) -> list[dict[str, Any]]:
        """Measurements of each exported file, by its name; empty where nothing was exported.

        Raises:
            DataError: it is no JSON object.
        """
        return [read_object(path) for path in sorted((self.path / EXPORTS).glob(f"model*{MEASURED}"))]

    def checkpoints(self) -> list[Path]:
        """The checkpoints' folders, whole or not, the newest first."""
        if not self.path.is_dir() or self.is_half_replaced:
            return []
        steps = {path: CHECKPOINT.fullmatch(path.name) for path in self.path.iterdir() if path.is_dir()}
        found = [(int(match[1]), path) for path, match in steps.items() if match]
        return [path for _, path in sorted(found, reverse=True)]

    def holds(self, checkpoint: Path | None) -> bool:
        """True of a checkpoint of this run."""
        return checkpoint is not None and os.path.dirname(os.path.realpath(checkpoint)) == os.path.realpath(self.path)


def weight_files(folder: Path) -> list[str]:
    """Names of the weight files; those that `from_pretrained` would take where there are both kinds."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [WEIGHTS]
    return [INDEX, *sorted(set(read_object(folder / INDEX).get("weight_map", {}).values()))]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is no file.

    Raises:
        DataError: it is no JSON, or something other than an object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: expected JSON, but {error}; it was cut off or edited, remove it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found a {type(content).__name__}; remove it")
    return content
