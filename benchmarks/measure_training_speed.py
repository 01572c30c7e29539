"""Measures how fast full-size models train, beside Transformers' own training, and keeps the figures for the page.

    python benchmarks/measure_training_speed.py cpu --data.root balloon       # DETR-R50
    python benchmarks/measure_training_speed.py gpu --data.root balloon       # the same on a GPU
    python benchmarks/measure_training_speed.py families --data.root balloon  # RT-DETRv2-R18 and D-FINE-S

Each size of images and batch is one `hf-detr-ft benchmark` in a process of its own; its figures go to
benchmarks/results/KIND_SIZE_BATCH.json, from which scripts/build_performance_page.py makes the tables of
docs/performance.md. What is there already is not measured again; delete a file to have it anew.

Without images: --data.root null --data.synthetic_images 64 --data.synthetic_short_side "[800,1000]".
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).parent.parent
FIGURES = REPOSITORY / "benchmarks" / "results"
LONGEST = {480: 800, 800: 1333}
SETTINGS: dict[str, dict[str, Any]] = {
    "cpu": {"sides": (480, 800), "batches": (2, 4, 8), "images": {480: 32, 800: 8}, "rounds": {480: 3, 800: 2}},
    "gpu": {"sides": (800,), "batches": (8, 16), "images": {800: 320}, "rounds": {800: 5}},
}
BREAKDOWN = {("cpu", 480, 4), ("gpu", 800, 8), ("gpu", 800, 16)}
"""Jobs that also run the baseline in our precision, and ours without each of its measures and under the profiler."""
LIGHT = ("--augment.preset", "light")
"""Images are flipped and recoloured and keep the size that the row names, which DETR's crops would make smaller."""
MODEL = ("--model.checkpoint", "null", "--model.backbone", "resnet50")
"""Random weights take as long as trained ones."""
SQUARE = 640
REAL_TIME = {"hidden_expansion": 0.5, "decoder_layers": 3}
RESNET_18 = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
HGNET_B0 = {
    "hidden_sizes": [128, 256, 512, 1024],
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "rt_detr_v2": {
        **REAL_TIME,
        "encoder_in_channels": [128, 256, 512],
        "backbone_config": {"model_type": "rt_detr_resnet", "out_indices": [2, 3, 4], **RESNET_18},
    },
    "d_fine": {
        **REAL_TIME,
        "encoder_in_channels": [256, 512, 1024],
        "depth_mult": 0.34,
        "decoder_n_points": [3, 6, 3],
        "backbone_config": {"model_type": "hgnet_v2", "out_indices": [2, 3, 4], **HGNET_B0},
    },
}
"""Configs of RT-DETRv2-R18, 20.1 M parameters, and D-FINE-S, 10.2 M, as in the published checkpoints."""


def command(output: Path, batch: int, rounds: int, steps: int, flags: list[str]) -> list[str]:
    """Command of one benchmark."""
    return [
        *(sys.executable, "-m", "hf_detr_ft.cli", "benchmark", str(REPOSITORY / "recipes" / "balloon.yaml"), *LIGHT),
        *("--training.per_device_train_batch_size", str(batch), "--output", str(output)),
        *("--rounds", str(rounds), "--steps", str(steps), *flags),
    ]


def detr_commands(device: str, flags: list[str]) -> list[list[str]]:
    """Commands whose figures are missing, for DETR-R50."""
    settings = SETTINGS[device]
    commands = []
    for side in settings["sides"]:
        for batch in settings["batches"]:
            output = FIGURES / f"{device}_{side}_{batch}.json"
            size = ("--model.shortest_edge", str(side), "--model.longest_edge", str(LONGEST[side]))
            rounds, steps = settings["rounds"][side], max(2, settings["images"][side] // batch)
            detail = "--profile" if (device, side, batch) in BREAKDOWN else "--no-breakdown"
            if not output.exists():
                commands.append(command(output, batch, rounds, steps, [*MODEL, *size, detail, *flags]))
    return commands


def family_commands(folder: Path, flags: list[str]) -> list[list[str]]:
    """Commands whose figures are missing, for other families, with their weights in a folder and no average of them."""
    from hf_detr_ft.model.detector import detector_class
    from hf_detr_ft.model.families import FAMILIES as KNOWN

    commands = []
    for name, config in FAMILIES.items():
        output = FIGURES / f"families_{name}_{SQUARE}_4.json"
        if not output.exists():
            model = detector_class(KNOWN[name])(KNOWN[name].config_class(**config))
            KNOWN[name].initialise(model)
            model.save_pretrained(folder / name)
            own = ["--model.checkpoint", str(folder / name), "--model.square_edge", str(SQUARE), "--profile"]
            commands.append(command(output, 4, 2, 2, [*own, "--training.ema_decay", "null", *flags]))
    return commands


def main() -> None:
    """Runs the benchmarks whose figures are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*SETTINGS, "families"])
    options, flags = parser.parse_known_args()
    FIGURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        if options.kind == "families":
            commands = family_commands(Path(folder), flags)
        else:
            commands = detr_commands(options.kind, flags)
        for each in commands:
            subprocess.run(each, check=True)


if __name__ == "__main__":
    main()
