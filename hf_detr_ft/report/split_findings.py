"""Sentences about the data: objects too small to be seen, and splits that are not alike."""

from collections.abc import Sequence

import numpy as np

from hf_detr_ft.data.statistics import SplitStatistics
from hf_detr_ft.formatting import percent

SIGNIFICANCE = 0.01
"""Largest probability of a difference by chance alone that counts as one, over all classes together."""
SHARE_RATIO, COUNT_RATIO, SIZE_RATIO = 1.5, 1.5, 1.25
"""Least ratio of two splits at which a difference matters, however certain it is."""
LISTED = 10
"""Classes that a sentence names."""


def describe_split_findings(statistics: SplitStatistics, name: str) -> list[str]:
    """Lists what stands out in one split.

    Args:
        statistics: of it.
        name: of the split, "training" say.
    """
    if not statistics.images:
        return [f"There are no {name} images."]
    if not statistics.objects:
        crowd = f", only crowd regions ({statistics.crowd_regions:,})" if statistics.crowd_regions else ""
        return [f"None of the {statistics.images:,} {name} images has an object{crowd}."]
    findings = []
    if statistics.below_cell:
        findings.append(
            f"{_count_objects(statistics.below_cell, statistics, name)} a short side of less than {statistics.stride} "
            "pixels once the photo is resized: less than a step of the feature map, where DETR finds little. A larger "
            "model.shortest_edge or model.square_edge, a smaller stride or photos cut into tiles help."
        )
    empty = int((~statistics.placed).sum())
    if empty:
        what = "a box without any area in the image, from which nothing can be learned."
        findings.append(f"{_count_objects(empty, statistics, name)} {what}")
    return findings


def compare_splits(train: SplitStatistics, val: SplitStatistics) -> list[str]:
    """Lists where validation differs from training by more than chance, as far as it matters.

    Objects of one image are alike, so images are what is counted: the images that show a class, an image's median
    object, the objects on an image. Shares are compared by Fisher's exact test, the others by Mann and Whitney's.
    """
    if not train.objects or not val.objects:
        return []  # one split's to say
    return [
        *_compare_presence(train, val),
        *_compare_classes(train, val),
        *_compare_sizes(train, val),
        *_compare_counts(train, val),
        *_compare_shapes(train, val),
    ]


def _compare_presence(train: SplitStatistics, val: SplitStatistics) -> list[str]:
    """Classes that have objects in one split alone, or in none."""
    train_counts, val_counts = _by_category(train, train.objects_per_class), _by_category(val, val.objects_per_class)
    names = dict(zip(val.label_map.category_ids, val.label_map.names, strict=True))
    names |= dict(zip(train.label_map.category_ids, train.label_map.names, strict=True))
    only_val = [names[id_] for id_ in sorted(names) if not train_counts.get(id_) and val_counts.get(id_)]
    only_train = [names[id_] for id_ in sorted(names) if train_counts.get(id_) and not val_counts.get(id_)]
    neither = [names[id_] for id_ in sorted(names) if not train_counts.get(id_) and not val_counts.get(id_)]
    findings = []
    if only_val:
        findings.append(f"Only in validation, so the model cannot learn it: {_listed(only_val)}.")
    if only_train:
        findings.append(f"Only in training, so no AP can be measured: {_listed(only_train)}.")
    if neither:
        findings.append(f"Without any object, though listed as a class: {_listed(neither)}.")
    return findings


def _compare_classes(train: SplitStatistics, val: SplitStatistics) -> list[str]:
    """Classes that many more of one split's images show."""
    train_images, val_images = _by_category(train, train.images_per_class), _by_category(val, val.images_per_class)
    totals = [int((split.objects_per_image > 0).sum()) for split in (train, val)]
    found = []
    for id_, name in zip(train.label_map.category_ids, train.label_map.names, strict=True):
        shown = (train_images[id_], totals[0]), (val_images.get(id_, 0), totals[1])
        if min(shown[0][0], shown[1][0]) and _shares_differ(*shown, len(train_images)):
            gap = abs(np.log(_share(*shown[0]) / _share(*shown[1])))
            found.append((gap, f"{name} ({percent(_share(*shown[0]))} and {percent(_share(*shown[1]))})"))
    if not found:
        return []
    found.sort(key=lambda entry: -entry[0])
    texts = _listed([text for _, text in found])
    return [f"Shown by unlike shares of the training and validation images that have objects: {texts}."]


def _compare_sizes(train: SplitStatistics, val: SplitStatistics) -> list[str]:
    medians = _medians_per_image(train), _medians_per_image(val)
    typical = [float(np.median(values)) if values.size else 0.0 for values in medians]
    if not all(typical) or _ratio(*typical) < SIZE_RATIO or not _tend(*medians, typical[1] > typical[0]):
        return []
    return [
        f"Objects are {'smaller' if typical[1] < typical[0] else 'larger'} in validation than in training: on a "
        f"typical image the median object is {percent(typical[1])} of the image's size against "
        f"{percent(typical[0])} (square roots of the areas)."
    ]


def _compare_counts(train: SplitStatistics, val: SplitStatistics) -> list[str]:
    counts = [split.objects_per_image[split.objects_per_image > 0] for split in (train, val)]
    means = [float(values.mean()) for values in counts]
    findings = []
    if _ratio(*means) >= COUNT_RATIO and _tend(counts[0], counts[1], means[1] > means[0]):
        findings.append(
            f"Validation images that have objects have {'more' if means[1] > means[0] else 'fewer'} of them than "
            f"training's: {means[1]:.1f} on average against {means[0]:.1f}."
        )
    train_empty, val_empty = (train.images - len(counts[0]), train.images), (val.images - len(counts[1]), val.images)
    if _shares_differ(train_empty, val_empty):
        findings.append(
            f"{percent(_share(*val_empty))} of the validation images have no object, "
            f"{percent(_share(*train_empty))} of training's."
        )
    return findings


def _compare_shapes(train: SplitStatistics, val: SplitStatistics) -> list[str]:
    train_upright, val_upright = ((int((split.image_aspect_ratios < 1).sum()), split.images) for split in (train, val))
    if not _shares_differ(train_upright, val_upright):
        return []
    return [
        f"{percent(_share(*val_upright))} of the validation images are higher than wide, "
        f"{percent(_share(*train_upright))} of training's."
    ]


def _by_category(split: SplitStatistics, counts: np.ndarray) -> dict[int, int]:
    return dict(zip(split.label_map.category_ids, counts.tolist(), strict=True))


def _medians_per_image(split: SplitStatistics) -> np.ndarray:
    """The relative size of the median object, the larger of two, of each image that has any."""
    images = split.image_indices[split.placed]
    ordered = split.relative_sizes[np.lexsort((split.relative_sizes, images))]
    counts = np.bincount(images)
    counts = counts[counts > 0]
    return ordered[np.cumsum(counts) - counts + counts // 2]


def _tend(train: np.ndarray, val: np.ndarray, larger: bool) -> bool:
    """True where validation's values tend to be the larger (or the smaller) ones by more than chance."""
    alternative = "greater" if larger else "less"
    from scipy.stats import mannwhitneyu  # 0.3 s, which most pages do without

    return bool(mannwhitneyu(val, train, alternative=alternative).pvalue < SIGNIFICANCE / 2)


def _shares_differ(one: tuple[int, int], other: tuple[int, int], comparisons: int = 1) -> bool:
    """True where two shares, as counts and totals, are a ratio apart that matters and that is not by chance."""
    shares = _share(*one), _share(*other)
    if _ratio(*shares) < SHARE_RATIO:
        return False
    from scipy.stats import fisher_exact  # as above

    table = [[count, total - count] for count, total in (one, other)]
    return bool(fisher_exact(table).pvalue < SIGNIFICANCE / comparisons)


def _share(count: int, total: int) -> float:
    return count / total


def _ratio(one: float, other: float) -> float:
    """The larger over the smaller one; 1 for two zeros."""
    return 1.0 if one == other else max(one, other) / max(min(one, other), 1e-12)


def _count_objects(count: int, statistics: SplitStatistics, name: str) -> str:
    """`12 of 300 training objects (4 %) have`."""
    share = percent(count / statistics.objects)
    return f"{count:,} of {statistics.objects:,} {name} objects ({share}) {'has' if count == 1 else 'have'}"


def _listed(texts: Sequence[str]) -> str:
    rest = len(texts) - LISTED
    return ", ".join(texts[:LISTED]) + (f" and {rest:,} more" if rest > 0 else "")
