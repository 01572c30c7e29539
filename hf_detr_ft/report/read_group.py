"""A group of trainings: a run, or a folder of runs that differ by seeds, by folds or by both."""

from collections.abc import Sequence

from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.groups import Group
from hf_detr_ft.evaluation.matching import MatchedDetections, match_detections
from hf_detr_ft.evaluation.truth import read_truth
from hf_detr_ft.formatting import join_limited, pluralize
from hf_detr_ft.report.load_run import Validation
from hf_detr_ft.report.read_inputs import read_evaluated
from hf_detr_ft.run_folder import RunFolder


def find_runs(source: str) -> list[str]:
    """The runs of a group, by name: the folder itself where it is no folder of runs, or a Hub id."""
    own = RunFolder(source)
    if own.is_run or not own.path.is_dir():
        return [source]
    below = sorted(path for path in own.path.iterdir() if path.is_dir() and RunFolder(path).is_run)
    return [str(path) for path in below] or [source]


def read_group(sources: Sequence[str], flags: Sequence[str] = (), split: str = "val") -> tuple[Group, list[str]]:
    """Detections of each training of a group, and what has to be said of them.

    Runs that validate on different images are folds: their detections and their truth become those of one training over
    all images, whose AP is that of the pooled detections. The first run of each fold goes with the first of the others,
    and so on.

    Args:
        sources: run folders, other folders of models, or Hub ids, see `find_runs`.
        flags: over each run's recipe, such as `--data.root`.
        split: "val" or "test".

    Raises:
        InputError: truth or detections cannot be had, or the folds have unlike numbers of runs.
    """
    folds: dict[tuple[int, ...], list[Validation]] = {}
    notes: list[str] = []
    for run in sources:
        validation, said = read_evaluated(run, flags, split)
        notes += [f"{run}: {note}" for note in said]
        folds.setdefault(tuple(sorted(image["id"] for image in validation.truth["images"])), []).append(validation)
    counts = {len(runs) for runs in folds.values()}
    if len(counts) > 1:
        found = join_limited([pluralize(len(images), "image") + f" by {len(runs)}" for images, runs in folds.items()])
        raise DataError(
            f"{join_limited(sources)}: expected as many runs for each fold, found validation splits of {found}."
        )
    pooled = [image for images in folds for image in images]
    if len(set(pooled)) < len(pooled):
        raise DataError(
            f"{join_limited(sources)}: expected runs that validate on the same images, or on folds without an image in "
            "common, found some that share a part of theirs."
        )
    return [_pool(run) for run in zip(*folds.values(), strict=True)], notes


def _pool(folds: Sequence[Validation]) -> MatchedDetections:
    """One training over the images of all folds."""
    if len(folds) == 1:
        return folds[0].matched
    truth = dict(folds[0].truth)
    for key in ("images", "annotations"):
        truth[key] = [entry for fold in folds for entry in fold.truth[key]]
    detections = Detections.concat(fold.detections for fold in folds)
    return match_detections(read_truth(truth), detections, folds[0].max_detections)
