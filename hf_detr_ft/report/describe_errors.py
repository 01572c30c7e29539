"""Sentences about an analysis: the state of things and what stands out, no more than its numbers carry."""

from collections.abc import Iterator

import numpy as np

from hf_detr_ft.evaluation.analysis import Analysis
from hf_detr_ft.evaluation.coco_result import beyond_coco
from hf_detr_ft.formatting import join_limited, pluralize

MOST_SENTENCES = 5
UNLIKELY = 0.05
"""A difference that chance makes less often than this is one (Fisher's exact test)."""
FEW = 5
"""Fewer cases than this are not spoken of as a pattern."""
LOST = 0.1
"""Recall that a size has less than the others, from which on it is mentioned."""
WORTH_FIXING = 0.05
"""AP50 from which on what fixing would gain is mentioned."""
WIDE = 0.03
"""Half an interval of AP that is wider than this is mentioned."""
MISCALIBRATED = 0.1
"""Mean score less share of right detections that is mentioned."""

_WRONG = {
    "classification": "have the class wrong",
    "localisation": "are on an object of their class but with IoU below 0.5",
    "both": "have class and box wrong",
    "duplicate": "are duplicates of one already found",
    "background": "are on background",
}
_FIXED = {
    "classification": "the right class for every box on an object of another class",
    "localisation": "better boxes for detections near an object of their class",
    "both": "leaving out what has class and box wrong",
    "duplicate": "leaving out duplicates",
    "background": "leaving out detections on background",
    "missed": "finding the missed objects",
}


def describe_result(analysis: Analysis) -> list[str]:
    """Lists at most five sentences, the most important first: the state of things, then what stands out."""
    result = analysis.result
    if not result.objects:
        there = f"{pluralize(result.images, 'image')}, {pluralize(result.detections, 'detection')}"
        return [f"There are no objects, so there is no AP ({there})."]
    if not result.detections:
        return [f"There are no detections: {pluralize(result.objects, 'object')} missed."]
    sentences = [_state(analysis)]
    for more in (_unpredicted, _interval, _sizes, _wrong, _worth_fixing, _mistaken, _boxes, _scores):
        sentences += more(analysis)
    return sentences[:MOST_SENTENCES]


def _state(analysis: Analysis) -> str:
    objects, kept = analysis.result.objects, analysis.calibration.kept
    found = sum(recall.found for recall in analysis.recall.values())
    if not analysis.result.metrics["map_50"]:
        nothing = _of(0, pluralize(objects, "object"))
        return f"{nothing.capitalize()} found: no detection has IoU 0.5 with an object of its class."
    some = f"{_of(found, pluralize(objects, 'object'))} found"
    wrong = f" and {_of(kept - found, pluralize(kept, 'detection'))} wrong" if kept else ""
    return f"With scores {_above(analysis)}, {some}{wrong}."


def _unpredicted(analysis: Analysis) -> Iterator[str]:
    """Classes with objects that no detection has: at all, or else above the threshold."""
    curves = analysis.thresholds
    kept = analysis.confusion.counts[:, :-1].sum(axis=0).tolist()
    pairs = list(zip(curves.names, curves.classes, kept, strict=True))
    for never, when in (
        ([(n, c.objects) for n, c, _ in pairs if c.objects and not c.detections], "never predicted"),
        (
            [(n, c.objects) for n, c, k in pairs if c.objects >= FEW and c.detections and not k],
            f"never predicted with a score {_above(analysis)}",
        ),
    ):
        if never and len(never) < sum(c.objects > 0 for c in curves.classes):
            never.sort(key=lambda row: -row[1])
            names = join_limited([f"'{name}' ({pluralize(objects, 'object')})" for name, objects in never], 3)
            yield f"The class {names} is {when}." if len(never) == 1 else f"{len(never)} classes are {when}: {names}."


def _interval(analysis: Analysis) -> Iterator[str]:
    """Few images leave AP open."""
    interval = analysis.intervals["map"]
    if interval is not None and (interval.high - interval.low) / 2 >= WIDE:
        images, half = pluralize(analysis.result.images, "image"), (interval.high - interval.low) / 2
        between = f"between {interval.low:.2f} and {interval.high:.2f}"
        yield f"{images} are few: AP is known to ± {half:.2f} only ({between} with 95 % confidence)."


def _sizes(analysis: Analysis) -> Iterator[str]:
    """The size whose recall is furthest below that of the others."""
    worst = None
    for size, recall in analysis.recall.items():
        others = [r for name, r in analysis.recall.items() if name != size]
        rest, found = sum(r.objects for r in others), sum(r.found for r in others)
        if recall.objects < FEW or rest < FEW:
            continue
        gap = found / rest - recall.found / recall.objects
        table = [[recall.found, recall.objects - recall.found], [found, rest - found]]
        if gap >= LOST and _by_chance(table) < UNLIKELY and (worst is None or gap > worst[0]):
            some = f"{_of(recall.found, f'{recall.objects:,}')} found"
            worst = gap, f"{size} objects: {some}, of the others {found:,} of {rest:,}"
    if worst is not None:
        yield f"Recall is lost on {worst[1]}."


def _wrong(analysis: Analysis) -> Iterator[str]:
    """The kind that most wrong detections are."""
    counts = {name: kind.kept for name, kind in analysis.errors.kinds.items() if name != "missed"}
    name, most = max(counts.items(), key=lambda item: item[1])
    total = sum(counts.values())
    if total >= FEW and most > total / 2:
        yield f"Most wrong detections {_WRONG[name]}: {most:,} of {total:,}."


def _worth_fixing(analysis: Analysis) -> Iterator[str]:
    """The kind of error that costs the most AP50."""
    gains = {name: kind.gain for name, kind in analysis.errors.kinds.items() if kind.gain is not None}
    if not gains or analysis.errors.ap_50 is None:
        return
    name = max(gains, key=lambda kind: gains[kind])
    if gains[name] >= WORTH_FIXING:
        start = analysis.errors.ap_50
        ap_50 = f"AP50{beyond_coco(analysis.precision_recall.max_detections)}"
        yield f"The most would be gained by {_FIXED[name]}: {ap_50} {start + gains[name]:.2f} instead of {start:.2f}."


def _mistaken(analysis: Analysis) -> Iterator[str]:
    """The class that is most often taken for another."""
    for row, column, count in analysis.confusion.confused_pairs()[:1]:
        names, objects = analysis.confusion.names, int(analysis.confusion.counts[row].sum())
        if count >= FEW and count >= objects / 10:
            yield f"'{names[row]}' is taken for '{names[column]}': {count:,} of {pluralize(objects, 'object')}."


def _boxes(analysis: Analysis) -> Iterator[str]:
    """Objects are found, but not exactly."""
    loose, tight = (analysis.result.metrics[name] for name in ("map_50", "map_75"))
    if loose >= 0.2 and tight < loose / 2:
        yield f"Objects are found but their boxes are loose: AP {loose:.2f} at IoU 0.5, {tight:.2f} at 0.75."


def _scores(analysis: Analysis) -> Iterator[str]:
    """Kept detections are right more or less often than their scores say, by more than two standard errors."""
    scores = analysis.calibration
    if scores.kept_score is None or scores.kept_right is None or scores.kept < 4 * FEW:
        return
    gap = scores.kept_score - scores.kept_right
    error = float(np.sqrt(max(scores.kept_score * (1 - scores.kept_score), 0.0) / scores.kept))
    if abs(gap) >= MISCALIBRATED and abs(gap) > 2 * error:
        says = f"{100 * scores.kept_right:.0f} % of the kept detections are right, their mean score is"
        yield f"Scores are too {'high' if gap > 0 else 'low'}: {says} {scores.kept_score:.2f}."


def _above(analysis: Analysis) -> str:
    return f"above {analysis.threshold:.3f}"


def _of(count: int, total: str) -> str:
    """`12 of 17 are`, `1 of 17 is`, `none of 17 is`."""
    return f"{f'{count:,}' if count else 'none'} of {total} {'is' if count in (0, 1) else 'are'}"


def _by_chance(table: list[list[int]]) -> float:
    """Probability of a difference as large as that of a 2 x 2 table, or larger, by chance (Fisher's exact test)."""
    from scipy.stats import fisher_exact  # 0.3 s, which most pages do without

    return float(fisher_exact(table).pvalue)
