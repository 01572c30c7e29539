"""Images in the training folder that no entry of the annotations names."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from hf_detr_ft.data.find_images import walk
from hf_detr_ft.data.images import upright_size
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import join_limited, pluralize


def find_unlabelled(images_dir: Path, named: Iterable[tuple[Path, Any]]) -> list[str]:
    """Images below a folder, as names relative to it, sorted, without those that some COCO dict names.

    Args:
        images_dir: the folder.
        named: each folder that names are relative to, and its COCO dict.
    """
    if not images_dir.is_dir():
        return []
    base = Path(os.path.realpath(images_dir))
    taken = {
        os.path.normpath(f"{root}/{image['file_name']}")
        for root, coco in ((Path(os.path.realpath(folder)), coco) for folder, coco in named)
        for image in coco["images"]
        if isinstance(image, dict) and isinstance(image.get("file_name"), str)
    }
    found = map(str, walk(base, base / ".none"))
    return sorted(Path(path).relative_to(base).as_posix() for path in found if path not in taken)


def use_unlabelled(
    coco: dict[str, Any], images_dir: Path, names: list[str], use: Literal["background", "ignore", "refuse"], file: str
) -> tuple[dict[str, Any], str]:
    """The COCO dict with these images, where they are background, and the words for what was done.

    Raises:
        DataError: they are to be refused, or cannot be read.
    """
    if not names:
        return coco, ""
    found = f"{pluralize(len(names), 'image')} in {images_dir} that {file} does not name"
    if use == "refuse":
        raise DataError(
            f"{images_dir}: expected {file} to name every image, found {len(names)} that it does not: "
            f"{join_limited(names, 3)}. Annotate or remove them, or set data.unlabelled to background or ignore."
        )
    if use == "ignore":
        return coco, f"{found}: ignored; with data.unlabelled background they train as images without objects"
    ids = [image["id"] for image in coco["images"] if isinstance(image, dict) and type(image.get("id")) is int]
    added = []
    for id_, name in enumerate(names, max(ids, default=0) + 1):
        height, width = upright_size(images_dir / name)
        added.append({"id": id_, "file_name": name, "width": width, "height": height})
    return {**coco, "images": [*coco["images"], *added]}, f"{found}: background, trained as without objects"
