"""The image files that the `file_name` entries of a COCO JSON probably mean, where no file has that very name."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.find_images import is_image

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{6,8}-(?=.)")
"""The random beginning that labelling servers give an uploaded file."""


class ImageNames:
    """Names of all image files below a folder, to be found by names that are written in another way.

    A name is compared by its last part alone, its folders decide between several files of that name: apart from
    slashes, percent signs, Unicode form and case; else apart from the suffix; else apart from the beginning that a
    labelling server adds.

    Args:
        images_dir: searched with all its folders, but for hidden ones.
    """

    def __init__(self, images_dir: Path) -> None:
        self.images_dir = images_dir
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._files: set[str] = set()
        for root, folders, files in os.walk(images_dir):
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            for file in sorted(files):
                if is_image(file) and not file.startswith("."):
                    name = Path(root, file).relative_to(images_dir).as_posix()
                    last = _parts(name)[-1]
                    self._files.add(name)
                    self._by_name[last].append(name)
                    self._by_stem[_stem(last)].append(name)

    def has(self, file_name: str) -> bool:
        """True where an image file has that very name, or some other file."""
        return file_name in self._files or (not leaves_folder(file_name) and _is_file(self.images_dir / file_name))

    def find(self, file_name: str) -> list[str]:
        """Names of the files that may be meant, relative to the folder, with "/": one where it is clear which."""
        *folders, last = _parts(file_name) or [""]
        shorter = UPLOAD_PREFIX.sub("", last)
        for found in (self._by_name.get(last), self._by_stem.get(_stem(last)), self._by_name.get(shorter)):
            if found:
                depths = [_common_end(folders, _parts(name)[:-1]) for name in found]
                return [name for name, depth in zip(found, depths, strict=True) if depth == max(depths)]
        return []

    def read_all(self, file_names: Sequence[str]) -> dict[str, str] | None:
        """The one file that each name means, by name; None where some mean none or several, or two mean the same."""
        meant = {}
        for file_name in file_names:
            found = [file_name] if self.has(file_name) else self.find(file_name)
            if len(found) != 1:
                return None
            meant[file_name] = found[0]
        return meant if len(set(meant.values())) == len(meant) else None


def resolve_file_names(coco: dict[str, Any], images_dir: Path) -> dict[str, Any]:
    """The COCO dict with the names of the files that its entries mean, where it is clear which; the rest stays.

    Args:
        coco: as `read_coco` returns it; left as it is.
        images_dir: the folder that `file_name` is relative to.
    """
    names, images = ImageNames(images_dir), []
    for image in coco["images"]:
        file_name = image.get("file_name") if isinstance(image, dict) else None
        if isinstance(file_name, str) and not names.has(file_name):
            found = names.find(file_name)
            image = {**image, "file_name": found[0]} if len(found) == 1 else image
        images.append(image)
    return {**coco, "images": images}


def describe_difference(written: str, meant: str) -> str:
    """Parts in which two names of one file differ: "slashes", "folder and suffix"."""
    differences = ["slashes"] if "\\" in written else []
    if unquote(written) != written:
        differences.append("percent signs")
    (folder, name), (meant_folder, meant_name) = map(os.path.split, (unquote(written).replace("\\", "/"), meant))
    if folder != meant_folder:
        differences.append("folder")
    if name != meant_name:
        one, other = (unicodedata.normalize("NFC", text) for text in (name, meant_name))
        same_case, same_stem = one.casefold() == other.casefold(), _stem(one).casefold() == _stem(other).casefold()
        differences.append(
            "Unicode form"
            if one == other
            else "upper and lower case"
            if same_case
            else "suffix"
            if same_stem
            else "name"
        )
    return " and ".join(differences)


def _parts(file_name: str) -> list[str]:
    """Folders and name in one spelling."""
    text = unicodedata.normalize("NFC", unquote(file_name)).casefold().replace("\\", "/")
    return [part for part in text.split("/") if part not in ("", ".", "..")]


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
