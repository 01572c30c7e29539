"""AP of groups of models, such as trainings of one recipe with several seeds: its mean, and the difference of two.

Two things make it uncertain: the images, since others would give other numbers, and chance in the training, since
another seed would give other weights. The first is found by drawing images, the same ones for all models, so that what
makes an image hard for all of them cancels out of a difference. The second is found from several trainings alone.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.average_precision import weighted_average_precision
from hf_detr_ft.evaluation.bootstrap import Interval, draw_images, mean_of_defined
from hf_detr_ft.evaluation.coco_eval import SIZE_LIMITS
from hf_detr_ft.evaluation.matching import MatchedDetections

CONFIDENCE = 0.95
POWER = 0.8
"""Chance to tell two groups apart with as many images as `Difference.images_needed` says."""
ASSUMED_SPREAD = 0.005
"""Standard deviation of AP between seeds that is taken to be so where each of two groups has one training."""

Group = Sequence[MatchedDetections]
"""Detections of models that were trained alike, on the same images."""


@dataclass(frozen=True)
class Estimate:
    """AP of a group of trainings.

    Attributes:
        mean: over them.
        deviation: standard deviation between them; None of one.
        interval: 95 % limits of the mean over other images of the kind, and over other seeds where there are several
            trainings; None where drawing images says nothing.
    """

    mean: float
    deviation: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Difference:
    """AP of B less that of A.

    Attributes:
        name: what it is AP of: all ("AP"), one IoU, a size or a class.
        a: the mean of A.
        b: the mean of B.
        interval: 95 % limits of the difference; None where drawing images says nothing.
        images_needed: images of the kind with which a difference of this size would be told apart four times out of
            five; None where it is told apart or zero, or where more images alone would not do.
    """

    name: str
    a: float
    b: float
    interval: Interval | None
    images_needed: int | None

    @property
    def value(self) -> float:
        """B less A."""
        return self.b - self.a

    @property
    def is_told_apart(self) -> bool:
        """True where the interval leaves out zero."""
        return self.interval is not None and not self.interval.low <= 0 <= self.interval.high


@dataclass(frozen=True)
class Comparison:
    """Result of `compare_groups`.

    Attributes:
        overall: of AP.
        others: of AP50, AP75, and each size and class that has objects. Of 20 of them one is told apart by chance.
        images: that were drawn from.
        trainings: in A and in B.
        spread: standard deviation of AP between trainings of a group; `ASSUMED_SPREAD` with one each.
    """

    overall: Difference
    others: list[Difference]
    images: int
    trainings: tuple[int, int]
    spread: float

    def as_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        rows = [asdict(row) | {"difference": row.value} for row in (self.overall, *self.others)]
        return {**asdict(self), "overall": rows[0], "others": rows[1:]}


def estimate_ap(group: Group) -> dict[str, Estimate]:
    """Mean "AP" and "AP50" of a group of trainings with their intervals.

    Args:
        group: one training or more.

    Raises:
        DataError: they were not evaluated on the same images.
    """
    weights = _weights(group)
    values = [weighted_average_precision(one.of_coco(), weights) for one in group]
    estimates = {}
    for name, ious in (("AP", slice(None)), ("AP50", slice(0, 1))):
        drawn = _means(values, ious)
        deviation = float(drawn[:, 0].std(ddof=1)) if len(group) > 1 else None
        found = _Uncertain.of([drawn], [1], deviation or 0.0, len(weights))
        estimates[name] = Estimate(found.value, deviation, found.interval)
    return estimates


def compare_groups(a: Group, b: Group) -> Comparison:
    """Compares the mean AP of two groups of trainings on the same images.

    The limits are Student's. Their variance is that over drawn images and that between the trainings of a group by
    their number; the degrees of freedom are Welch's and Satterthwaite's. With one training each nothing is known of
    other seeds, and `ASSUMED_SPREAD` stands for it.

    Raises:
        DataError: they were not evaluated on the same images.
    """
    weights, truth = _weights([*a, *b]), a[0].truth
    freedom = len(a) + len(b) - 2

    def precision(limits: tuple[float, float] | None = None) -> list[list[np.ndarray]]:
        models = [[one.of_coco() if limits is None else one.of_coco().of_size(*limits) for one in g] for g in (a, b)]
        return [[weighted_average_precision(one, weights) for one in group] for group in models]

    def spread(drawn: Sequence[np.ndarray]) -> float:
        squares = sum(float(((group[:, 0] - group[:, 0].mean()) ** 2).sum()) for group in drawn)
        return math.sqrt(squares / freedom) if freedom else ASSUMED_SPREAD

    def difference(name: str, values: list[list[np.ndarray]], *place: Any) -> Difference:
        drawn = [_means(group, *place) for group in values]
        found = _Uncertain.of(drawn, [-1, 1], spread(drawn), len(weights))
        mean_a, mean_b = (float(group[:, 0].mean()) for group in drawn)
        return Difference(name, mean_a, mean_b, found.interval, found.images_needed)

    values = precision()
    others = [difference("AP50", values, slice(0, 1)), difference("AP75", values, slice(5, 6))]
    objects = ~truth.crowd
    for name, (least, most) in SIZE_LIMITS.items():
        if (objects & (truth.area >= least) & (truth.area <= most)).any():
            others.append(difference(f"AP {name}", precision((least, most))))
    classes = np.unique(truth.category[objects]).tolist()
    if len(classes) > 1:
        others += [difference(truth.names[c], values, slice(None), slice(c, c + 1)) for c in classes]
    of_seeds = spread([_means(group) for group in values])
    return Comparison(difference("AP", values), others, len(weights), (len(a), len(b)), of_seeds)


def _means(values: Sequence[np.ndarray], *place: Any) -> np.ndarray:
    """AP of each model, [model, 1 + R], from that of IoUs and classes, [IoU, class, 1 + R], or of some of these."""
    return np.stack([mean_of_defined(ap[place]) for ap in values])


@dataclass(frozen=True)
class _Uncertain:
    """A number with its variance, and Student's quantile for its limits."""

    value: float
    of_images: float
    of_seeds: float
    quantile: float
    images: int

    @classmethod
    def of(cls, drawn: Sequence[np.ndarray], signs: Sequence[int], spread: float, images: int) -> "_Uncertain":
        """A sum of the groups' means.

        Args:
            drawn: AP of each group, [model, 1 + R]: of the images as they are, and of R replicates.
            signs: of each group in the sum.
            spread: standard deviation of AP between seeds.
            images: that replicates were drawn from.
        """
        total = sum(sign * group.mean(axis=0) for sign, group in zip(signs, drawn, strict=True))
        replicates = total[1:][~np.isnan(total[1:])]
        of_images = float(np.var(replicates)) if images > 1 and len(replicates) else 0.0
        of_seeds = spread**2 * sum(1 / len(group) for group in drawn)
        trainings = sum(len(group) - 1 for group in drawn)
        parts = of_images**2 / max(1, images - 1) + (of_seeds**2 / trainings if trainings else 0.0)
        freedom = (of_images + of_seeds) ** 2 / parts if parts else math.inf
        return cls(float(total[0]), of_images, of_seeds, float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)), images)

    @property
    def interval(self) -> Interval | None:
        """95 % limits; None where every replicate gives the same, as where nothing is found."""
        if self.of_images < 1e-18:
            return None
        margin = self.quantile * math.sqrt(self.of_images + self.of_seeds)
        return Interval(self.value - margin, self.value + margin)

    @property
    def images_needed(self) -> int | None:
        """See `Difference.images_needed`."""
        interval = self.interval
        if interval is None or not interval.low <= 0 <= interval.high or not self.value:
            return None
        room = (self.value / (self.quantile + float(stats.norm.ppf(POWER)))) ** 2 - self.of_seeds
        return math.ceil(self.images * self.of_images / room) if room > 0 else None


def _weights(models: Sequence[MatchedDetections]) -> np.ndarray:
    """Weights of the images, as `draw_images` gives them.

    Raises:
        DataError: the truth is not the same for all models.
    """
    first = models[0].truth
    for model in models[1:]:
        for name in ("image_ids", "category_ids", "image", "category", "boxes_xywh_px", "crowd"):
            if not np.array_equal(getattr(first, name), getattr(model.truth, name)):
                images, objects = len(first.image_ids), len(first.area)
                raise DataError(
                    f"expected trainings that were evaluated on the same images and annotations, found {images} images "
                    f"with {objects} annotations and {len(model.truth.image_ids)} with {len(model.truth.area)}, whose "
                    f"{name} differ."
                )
    return draw_images(len(first.image_ids))
