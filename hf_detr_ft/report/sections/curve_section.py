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
    evaluated = set().union(*(entry for history in histories.values() for entry in history))
    of_masks = [name for name in METRIC_TITLES if name.startswith("mask_") and f"eval_{name}" in evaluated]
    if len(histories) > 1:
        names = [name for name in METRIC_TITLES if not name.startswith("mask_") or name in of_masks]
        plots = [Plot(f"ap-{name}", plot_average_precision(histories, [name])) for name in names]
        return [Heading("Average precision on the validation images"), *plots]
    plot = Plot("average-precision-by-size", plot_average_precision(histories, SIZES))
    blocks: list[Block] = [Heading("Average precision on the validation images, by the objects' size"), plot]
    if of_masks:
        blocks += [
            Heading("Average precision of masks"),
            Plot("average-precision-of-masks", plot_average_precision(histories, of_masks)),
        ]
    return blocks


def _losses(histories: Histories) -> list[Block]:
    entries = [entry for history in histories.values() for entry in history]
    names = set().union(*entries)
    parts = [part for part in LOSS_TITLES if part in names or f"eval_{part}" in names]
    blocks: list[Block] = [Heading("Losses and errors")]
    blocks.append(Text("Parts of the loss are those of the last decoder layer, before they are weighted and added up."))
    blocks += [Plot(part.replace("_", "-"), plot_losses(histories, part)) for part in parts]
    if len(histories) > 1:
        return blocks
    (history,) = histories.values()
    plots = []
    for part in LOSS_TITLES:
        name = part.replace("_", "-")
        if f"{part}_0" in names or f"{part}_enc" in names:
            plots.append(Plot(f"{name}-layers", plot_layers(history, part)))
        if f"{part}_dn_0" in names:
            plots.append(Plot(f"{name}-denoising", plot_layers(history, part, denoising=True)))
    title = "Each decoder layer"
    if any(name.endswith("_enc") for name in names):
        title += ", the encoder's proposals" + (
            " and denoising queries" if any("_dn_" in name for name in names) else ""
        )
    return [*blocks, Collapsible(title, plots)] if plots else blocks


def _steps(runs: Sequence[LoadedRun], histories: Histories) -> list[Block]:
    limits = {run.setting("training", "max_grad_norm") for run in runs if run.history}
    limit = limits.pop() if len(limits) == 1 else None
    return [
        Heading("Steps"),
        Plot("learning-rates", plot_learning_rates(histories)),
        Plot("gradient-norm", plot_gradient_norm(histories, limit)),
    ]
