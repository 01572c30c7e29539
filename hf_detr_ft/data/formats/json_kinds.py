"""JSON files of annotations told apart by their beginnings, however large they are."""

import re
from pathlib import Path

from hf_detr_ft.data.formats.annotation_text import decode_text
from hf_detr_ft.data.formats.layout import HEAD_BYTES, Tree, read_head

FEW = 3
"""Files of a folder that are looked into where it has many: these are one for each image."""
MANY = 40
COCO_KEYS = ("images", "annotations", "categories", "info", "licenses", "type")


def find_json_kinds(tree: Tree) -> dict[str, list[str]]:
    """JSON files of a folder by format: "coco", "via", "labelme" and "createml"; others are left out."""
    folders: dict[str, list[str]] = {}
    for name in tree.named(".json"):
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    kinds: dict[str, list[str]] = {}
    for names in folders.values():
        looked_into = names if len(names) <= MANY else names[:FEW]
        for name in looked_into:
            kind = json_kind(tree.root / name)
            if kind is not None:
                kinds.setdefault(kind, []).append(name)
    return kinds


def json_kind(path: Path) -> str | None:
    """The format of a JSON file by its beginning and its end."""
    head = decode_text(read_head(path)).lstrip("\ufeff \t\r\n")
    if head.startswith("["):
        is_createml = '"annotation' in head and re.search(r'"(image|imagefilename)"\s*:', head)
        return "createml" if is_createml else None
    if not head.startswith("{"):
        return None
    text = head + _tail(path)
    if '"_via_' in text or ('"regions"' in text and '"filename"' in text):
        return "via"
    if '"shapes"' in text and '"imagePath"' in text:
        return "labelme"
    first = re.match(r'\{\s*"(\w+)"', head)
    has_lists = re.search(r'"images"\s*:\s*\[', text) or re.search(r'"annotations"\s*:\s*\[', text)
    return "coco" if first and first[1] in COCO_KEYS and has_lists else None


def _tail(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size <= HEAD_BYTES:
            return ""
        with path.open("rb") as file:
            file.seek(max(HEAD_BYTES, size - HEAD_BYTES))
            return file.read(HEAD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
