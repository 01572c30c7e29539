"""The section Data: what there is to learn from, and what the model sees of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.statistics import SplitStatistics
from hf_detr_ft.plots.data_plots import (
    plot_aspect_ratios,
    plot_class_balance,
    plot_image_sizes,
    plot_object_sizes,
    plot_objects_per_image,
    plot_positions,
    plot_resized_sides,
)
from hf_detr_ft.report.blocks import Block, Bullets, Cell, Collapsible, Heading, Number, Picture, Plot, Section, Table
from hf_detr_ft.report.sections.problem_section import describe_problems
from hf_detr_ft.report.split_findings import compare_splits, describe_split_findings

MOST_CLASSES = 1000
"""Rows of a table."""


@dataclass(frozen=True, eq=False)
class DataSummary:
    """Contents of the section.

    Attributes:
        statistics: of the splits `training` and `validation`.
        images: training images with their true boxes, and their names.
        samples: the same as the model gets them, augmented, drawn back from the tensors.
        problems: what the checks found.
    """

    statistics: Mapping[str, SplitStatistics]
    images: Sequence[tuple[str, Image.Image]]
    samples: Sequence[tuple[str, Image.Image]]
    problems: Sequence[Problem]


def describe_data(summary: DataSummary) -> Section:
    """Describes both splits: numbers, figures, images, problems."""
    splits = summary.statistics
    findings = [text for name, split in splits.items() for text in describe_split_findings(split, name)]
    findings += compare_splits(*splits.values())
    blocks: list[Block] = [_counts(splits)]
    if findings:
        blocks.append(Bullets(findings))
    blocks += [
        Plot("objects-per-image", plot_objects_per_image(splits)),
        Plot("object-sizes", plot_object_sizes(splits)),
        Plot("resized-sides", plot_resized_sides(splits)),
        Plot("aspect-ratios", plot_aspect_ratios(splits)),
        Plot("image-sizes", plot_image_sizes(splits)),
        *(Plot(f"positions-{name}", plot_positions(split, name)) for name, split in splits.items()),
        Plot("class-balance", plot_class_balance(splits)),
        _classes(splits),
    ]
    for title, pictures in (
        ("Training photos with their true boxes", summary.images),
        ("The same as the model sees them: augmented, resized, drawn back from its input", summary.samples),
    ):
        if pictures:
            blocks += [Heading(title), *(Picture(image, name) for name, image in pictures)]
    problems = describe_problems(summary.problems)
    blocks.append(Collapsible(f"Problems that the checks found ({len(summary.problems)})", problems.blocks))
    return Section("Data", "data", blocks)


def _counts(splits: Mapping[str, SplitStatistics]) -> Table:
    rows: list[Sequence[Cell]] = [
        ("images", *(Number(split.images) for split in splits.values())),
        ("without objects", *(Number(int((split.objects_per_image == 0).sum())) for split in splits.values())),
        ("objects", *(Number(split.objects) for split in splits.values())),
        ("regions that do not count (crowd)", *(Number(int(split.crowd_regions)) for split in splits.values())),
    ]
    for title, sizes in (
        ("", [split.sizes for split in splits.values()]),
        (" after resizing", [split.resized_sizes for split in splits.values()]),
    ):
        rows += [
            (f"{size} objects{title}", *(Number(int(counts[size])) for counts in sizes))
            for size in ("small", "medium", "large")
        ]
    rows.append(("narrower than a cell of the feature map", *(Number(split.below_cell) for split in splits.values())))
    return Table("data", "What there is", ["", *splits], rows)


def _classes(splits: Mapping[str, SplitStatistics]) -> Table:
    """Objects of each class; the classes are those of the training split."""
    described = [{row["category_id"]: row for row in split.as_dict()["classes"]} for split in splits.values()]
    names = {category_id: row["name"] for rows in reversed(described) for category_id, row in rows.items()}
    rows: list[Sequence[Cell]] = [
        (name, *(Number(rows.get(category_id, {}).get("objects", 0)) for rows in described))
        for category_id, name in names.items()
    ]
    shown = f"Objects by class, the first {MOST_CLASSES}" if len(rows) > MOST_CLASSES else "Objects by class"
    return Table("data-classes", shown, ["Class", *splits], rows[:MOST_CLASSES], sortable=len(rows) > 1)
