"""Weights of facebookresearch/detr as a folder of Transformers, and back (`hf-detr-ft convert-checkpoint SRC DST`)."""

from pathlib import Path
from typing import Literal

from hf_detr_ft.atomic import check_output_file, is_free, write_folder
from hf_detr_ft.data.formats.coco_json import load_categories
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.importing import large_imports


def convert_checkpoint(
    source: str,
    destination: Path,
    to: Literal["original", "detectron2"] | None = None,
    drop_masks: bool = False,
    dilation: bool | None = None,
    categories_from: Path | None = None,
    num_classes: int | None = None,
) -> int:
    """Writes `destination`, which must not be there yet, and prints what was taken to be so. Returns the exit status.

    Args:
        source: a `.pth` of facebookresearch/detr or of its detectron2 wrapper; with `to` a folder or Hub id of a DETR.
        destination: the folder to make, which `pipeline()` and `model.checkpoint` open; with `to` the file.
        to: `original` or `detectron2` for the way back.
        drop_masks: leave out the mask head of a panoptic model.
        dilation: the last stage of the backbone is dilated (DC5); None: as the file's arguments or its name say.
        categories_from: a COCO JSON whose categories name the rows of the class head by their ids.
        num_classes: rows of the class head that is written, without "no object".

    Raises:
        RecipeError: the arguments contradict each other.
        DataError: the destination is there already, or cannot be written.
        CheckpointError: the source cannot be read, or is of another model.
    """
    given = {"--drop-masks": drop_masks, "--dilation": dilation is not None, "--categories-from": categories_from}
    wrong = [flag for flag, value in given.items() if value] if to else ["--num-classes"] * (num_classes is not None)
    if wrong:
        way = "from a .pth" if to else "with --to original"
        raise RecipeError(f"{wrong[0]}: goes with the way {way} alone; leave it out.")
    if destination.exists() if to else not is_free(destination):
        raise DataError(f"{destination}: expected a place where nothing is yet, found something. Give another name.")
    if to:
        check_output_file(destination, "convert-checkpoint")
    categories = None if categories_from is None else load_categories(categories_from)
    names = None if categories is None else {category["id"]: category["name"] for category in categories}
    with large_imports():
        from transformers.utils import logging as transformers_logging

        from hf_detr_ft.model.original.from_original import convert_original
        from hf_detr_ft.model.original.to_original import write_as_original

    transformers_logging.disable_progress_bar()  # of single weights, which take no time
    if to:
        notes = write_as_original(source, destination, to, num_classes)
    else:
        converted = convert_original(Path(source), masks=not drop_masks, dilation=dilation, names=names)
        with write_folder(destination) as folder:
            converted.save(folder)
        notes = [f"{type(converted.model).__name__} of {converted.model.num_parameters():,} parameters"]
        notes += converted.notes
    for note in notes:
        print(note)
    print(f"written: {destination}")
    return 0
