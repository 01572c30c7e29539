"""`python -m tests.families.by_heart PHOTOS [FAMILY …] [--curves PNG]`: each family learns four photos by heart.

All train by `recipes/overfit.yaml` on four photos of the balloon data set in the folder PHOTOS. They start from its
ImageNet weights, but for RF-DETR and LW-DETR, whose vision transformers are their own: these start from random weights.
They and DAB-DETR, the slowest learner, train twice as long.
"""

import contextlib
import io
import json
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from safetensors.torch import load_file
from transformers.utils import logging

from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.plots.training_curves import read_series
from hf_detr_ft.run_folder import WEIGHTS, RunFolder
from hf_detr_ft.runs.train import train
from hf_detr_ft.yaml12 import parse_yaml
from tests.distributed.table import REPOSITORY
from tests.families import SETTINGS, write_checkpoint
from tests.fixtures import as_flags

RECIPE = REPOSITORY / "recipes" / "overfit.yaml"
ENOUGH = 0.8
"""AP that every family has to reach."""
SHOWN = (50, 100, 150, 200, 250, 300)
"""Steps of the evaluations in the table."""
COLUMNS = (
    *("family", "start", "parameters", f"AP after {', '.join(map(str, SHOWN))} steps", f"{ENOUGH} reached"),
    *("steps", "minutes", "AP"),
)


def own_settings(family: str) -> dict[str, Any]:
    """Fields of the config of a model whose backbone is its own, of about the size of the others."""
    backbone = SETTINGS[family]["backbone_config"] | {
        **{"image_size": 224, "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "mlp_ratio": 4},
        **({"out_features": ["stage3", "stage6"]} if family == "rf_detr" else {"out_indices": [3, 6]}),
    }
    return {
        **{"d_model": 128, "decoder_ffn_dim": 512, "decoder_layers": 3, "num_queries": 20, "backbone_config": backbone},
        **{"decoder_self_attention_heads": 8, "decoder_cross_attention_heads": 8},
    }


def start(family: str, folder: Path) -> dict[str, Any]:
    """Fields of the recipe that make it train this family; a model of random weights goes into the folder."""
    longer = {"training.max_steps": 600}
    if not FAMILIES[family].timm_backbone:
        write_checkpoint(folder, family, **own_settings(family))
        without = {"model.backbone": "null", "model.backbone_weights": "null", "model.config": "{}"}
        return {**without, **longer, "model.checkpoint": folder, "training.backbone_learning_rate": 4e-4}
    config = parse_yaml(RECIPE.read_text())["model"]["config"]
    if family == "dab-detr":
        config["hidden_size"] = config.pop("d_model")
        return {**longer, "model.family": family, "model.config": json.dumps(config)}
    return {"model.family": family, "model.config": json.dumps(config)}


def learn(family: str, photos: Path, folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """CPU minutes and AP of the evaluations, `[N]` each, and the row of the table."""
    run = RunFolder(folder / family)
    settings = {
        **start(family, folder / f"{family}_start"),
        **{"data.root": photos, "training.output_dir": run.path},
        **{"training.use_cpu": "true", "speed.cpu_threads": 1},
        **{"training.disable_tqdm": "true", "report.enabled": "false"},
    }
    started = time.process_time()  # of one thread, whatever else the machine does
    with contextlib.redirect_stdout(io.StringIO()):
        train(RECIPE, as_flags(settings))
    steps, scores = read_series(run.read_history(), "eval_map")  # all photos are in a step, so that it is an epoch
    minutes = steps / steps[-1] * (time.process_time() - started) / 60
    parameters = sum(tensor.numel() for tensor in load_file(run.path / WEIGHTS).values())
    reached = next((i for i, score in enumerate(scores) if score >= ENOUGH), None)
    row = [
        *(family, "ImageNet" if FAMILIES[family].timm_backbone else "random", f"{parameters:,}"),
        ", ".join(f"{scores[steps.tolist().index(step)]:.3f}" for step in SHOWN),
        "never" if reached is None else f"{steps[reached]:.0f} steps, {minutes[reached]:.1f} min",
        *(f"{steps[-1]:.0f}", f"{minutes[-1]:.1f}", f"{scores[-1]:.3f}"),
    ]
    evaluations = (f"{step:.0f}: {score:.3f}" for step, score in zip(steps, scores, strict=True))
    print(f"{family}: {', '.join(evaluations)}", file=sys.stderr)
    return minutes, scores, row


def plot_curves(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """AP over minutes of all families."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, (family, (minutes, scores)) in enumerate(curves.items()):
        axes.plot(minutes, scores, color=f"C{number}", marker=".", label=family)
    axes.axhline(ENOUGH, color="black", linewidth=1, linestyle=":")
    axes.set(xlabel="CPU minutes, one core", ylabel="AP on the four photos", xlim=(0, None), ylim=(0, 1.02))
    axes.legend(fontsize="small")
    return figure


def main() -> None:
    """Prints the table, and every evaluation beside it; the exit status is 1 where a family does not reach the AP."""
    parser = ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--curves", type=Path)
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    curves = {}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with TemporaryDirectory() as name:
        for family in given.families:
            minutes, scores, row = learn(family, given.photos, Path(name))
            curves[family] = (minutes, scores)
            print(f"| {' | '.join(row)} |", flush=True)
    if given.curves:
        plot_curves(curves).savefig(given.curves, dpi=150)
    raise SystemExit(0 if all(scores.max() >= ENOUGH for _, scores in curves.values()) else 1)


if __name__ == "__main__":
    main()
