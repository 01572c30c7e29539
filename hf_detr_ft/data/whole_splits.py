"""All splits of a data set in any format, checked, with their outlines: to be written in another one."""

from typing import NamedTuple

from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.checks.problems import list_problems
from hf_detr_ft.data.coco import with_polygon_areas
from hf_detr_ft.data.formats.layout import SPLITS, Layout
from hf_detr_ft.data.formats.write_data import WholeSplit
from hf_detr_ft.data.split_source import load_source
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.recipe.sections import DataConfig


class WholeData(NamedTuple):
    """A data set that was read."""

    splits: dict[str, WholeSplit]
    notes: list[str]
    """Words for what was taken to be so or mended."""

    def count_crowds(self) -> int:
        """Number of crowd regions."""
        return sum(bool(entry.get("iscrowd")) for split in self.splits.values() for entry in split.coco["annotations"])


def load_whole_splits(config: DataConfig, layout: Layout) -> WholeData:
    """All splits that a layout has.

    Raises:
        DataError: something cannot be read, or its check finds errors.
    """
    splits, notes, problems = {}, list[str](), []
    for split in (name for name in SPLITS if name in layout.splits):
        found = load_source(config, split, masks=True, layout=layout)
        folder = found.images_dir
        assert folder is not None, "only drawn images are no files"
        problems += check_coco(found.coco, found.annotations, folder, decode=False)
        photos = {image["file_name"]: folder / image["file_name"] for image in found.coco["images"]}
        splits[split] = WholeSplit(found.coco, photos)
        notes += found.notes[1:]
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        count = pluralize(len(errors), "error")
        raise DataError(f"{config.root}: {count}, nothing was written:\n{list_problems(errors)}")
    splits = {split: whole._replace(coco=with_polygon_areas(whole.coco)[0]) for split, whole in splits.items()}
    return WholeData(splits, list(dict.fromkeys(notes)))
