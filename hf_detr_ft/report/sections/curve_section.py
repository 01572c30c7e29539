"""The section Curves: how the training went, of one run or of several laid over each other."""

from collections.abc import Sequence

from hf_detr_ft.plots.training_curves import (
    LOSS_TITLES,
    METRIC_TITLES,
    Histories,
    plot_average_precision,
    plot_gradient_norm,
    plot_layers,
    plot_learning_rates,
    plot_losses,
)
from hf_detr_ft.report.blocks import Block, Collapsible, Heading, Note, Plot, Section, Text
from hf_detr_ft.report.load_run import LoadedRun
from hf_detr_ft.run_folder import LOG

LAYERED = ("loss_ce", "loss_bbox", "loss_giou")
SIZES = ("map_small", "map_medium", "map_large")


def describe_curves(runs: Sequence[LoadedRun]) -> Section:
    """Curves of one run, whose AP over all sizes stands at the page's top, or of several."""
    histories = {run.name: run.history for run in runs if run.history}
    missing = [run.name for run in runs if not run.history]
    blocks: list[Block] = []
    if missing:
        text = f"{', '.join(missing)}: no log of the training ({LOG}), so there are no curves."
        blocks.append(Note(text))
    if histories:
        blocks += [*_precision(runs, histories), *_losses(histories), *_steps(runs, histories)]
    return Section("Curves", "curves", blocks)


def _precision(runs: Sequence[LoadedRun], histories: Histories) -> list[Block]:
    if not any("eval_map" in entry for history in histories.values() for entry in history):
        return [Note("No evaluation took place during the training (training.eval_strategy: no): there is no AP.")]
    if len(histories) > 1:
        plots = [Plot(f"ap-{name}", plot_average_precision(histories, [name])) for name in METRIC_TITLES]
        return [Heading("Average precision on the validation images"), *plots]
    plot = Plot("average-precision-by-size", plot_average_precision(histories, SIZES))
    return [Heading("Average precision on the validation images, by the objects' size"), plot]


def _losses(histories: Histories) -> list[Block]:
    entries = [entry for history in histories.values() for entry in history]
    parts = [part for part in LOSS_TITLES if any(part in entry or f"eval_{part}" in entry for entry in entries)]
    blocks: list[Block] = [Heading("Losses and errors")]
    blocks.append(Text("Parts of the loss are those of the last decoder layer, before they are weighted and added up."))
    blocks += [Plot(part.replace("_", "-"), plot_losses(histories, part)) for part in parts]
    if len(histories) > 1:
        return blocks
    (history,) = histories.values()
    layered = [part for part in LAYERED if any(f"{part}_0" in entry for entry in entries)]
    plots = [Plot(f"{part.replace('_', '-')}-layers", plot_layers(history, part)) for part in layered]
    return [*blocks, Collapsible("Each decoder layer", plots)] if plots else blocks


def _steps(runs: Sequence[LoadedRun], histories: Histories) -> list[Block]:
    limits = {run.setting("training", "max_grad_norm") for run in runs if run.history}
    limit = limits.pop() if len(limits) == 1 else None
    return [
        Heading("Steps"),
        Plot("learning-rates", plot_learning_rates(histories)),
        Plot("gradient-norm", plot_gradient_norm(histories, limit)),
    ]
