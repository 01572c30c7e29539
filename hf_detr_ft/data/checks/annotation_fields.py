"""The entries of a COCO file with their fields' types checked once, so that no later check has to."""

import reprlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.segmentation_area import is_number
from hf_detr_ft.formatting import has_half_characters

SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict, SHORT.maxstring, SHORT.maxother, SHORT.maxlong = 2, 6, 4, 80, 60, 30


class Entry(NamedTuple):
    """One object of `images`, `annotations` or `categories`."""

    fields: dict[str, Any]
    """Fields whose type and range are right, and where all of them are, those that nobody asks for."""
    place: int
    """Position in its list."""
    describe: Callable[[int, dict[str, Any]], str]
    """Makes the name of place and fields."""

    @property
    def name(self) -> str:
        """Name in messages, made when it is asked for: of millions of entries few have anything wrong with them."""
        return self.describe(self.place, self.fields)


@dataclass(frozen=True)
class Entries:
    """All entries of a file, and what is wrong with their fields."""

    images: list[Entry]
    annotations: list[Entry]
    categories: list[Entry]
    problems: list[Problem]

    def count_by_category(self, crowd: bool | None = None) -> Counter[int | None]:
        """Annotations by category id: the crowd regions, those that are none, or all."""
        counts: Counter[int | None] = Counter()
        for (category_id, is_crowd), count in self._counts.items():
            if crowd is None or bool(is_crowd) == crowd:
                counts[category_id] += count
        return counts

    @cached_property
    def _counts(self) -> Counter[tuple[int | None, int | None]]:
        """Annotations by category id and `iscrowd`."""
        return Counter([(fields.get("category_id"), fields.get("iscrowd")) for fields, _, _ in self.annotations])


class Field(NamedTuple):
    """Rule for a field of an entry."""

    holds: Callable[[Any], bool]
    expected: str
    required: bool = True


def _is_id(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_side(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value and not has_half_characters(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


ID = Field(_is_id, "a whole number without quotes")
TEXT = Field(_is_text, "a text that is not empty, of whole characters")
SIDE = Field(_is_side, "a whole number of pixels above 0")
IMAGE_FIELDS = {"id": ID, "file_name": TEXT, "width": SIDE, "height": SIDE}
CATEGORY_FIELDS = {"id": ID, "name": TEXT}
ANNOTATION_FIELDS = {
    "id": ID,
    "image_id": ID,
    "category_id": ID,
    "bbox": Field(_is_box, "[left, top, width, height], four finite numbers in pixels"),
    "area": Field(lambda value: is_number(value) and value >= 0, "a finite number of square pixels, 0 or more", False),
    "iscrowd": Field(lambda value: value in (0, 1), "0 or 1", False),
    "segmentation": Field(lambda value: value is not None, "anything: faults in it are not the entry's", False),
}


def read_entries(coco: dict[str, Any], file: str) -> Entries:
    """Sorts right fields from wrong ones; `coco`'s three lists must be lists, their entries may be anything."""
    problems: list[Problem] = []

    def read(key: str, rules: dict[str, Field], name: Callable[[dict[str, Any]], str]) -> list[Entry]:
        def describe(index: int, fields: dict[str, Any]) -> str:
            return name(fields) if "id" in fields else f"{key}[{index}]"

        entries = []
        for index, raw in enumerate(coco[key]):
            if _is_right(raw, rules):
                entries.append(Entry(raw, index, describe))
            else:
                entry, found = _read_entry(raw, rules, Entry({}, index, describe), file)
                problems.extend(found)
                entries.append(entry)
        return entries

    images = read("images", IMAGE_FIELDS, lambda fields: f"image id {fields['id']}{_suffix(fields, 'file_name')}")
    categories = read(
        "categories", CATEGORY_FIELDS, lambda fields: f"category id {fields['id']}{_suffix(fields, 'name')}"
    )
    file_names = {image.fields.get("id"): image.fields.get("file_name") for image in reversed(images)}

    def annotation_name(fields: dict[str, Any]) -> str:
        file_name = file_names.get(fields["image_id"]) if "image_id" in fields else None
        return f"annotation id {fields['id']}" + (f" (image {file_name!r})" if file_name else "")

    annotations = read("annotations", ANNOTATION_FIELDS, annotation_name)
    return Entries(images, annotations, categories, problems)


def _suffix(fields: dict[str, Any], key: str) -> str:
    return f" ({fields[key]!r})" if key in fields else ""


def _is_right(raw: object, rules: dict[str, Field]) -> bool:
    """True where all fields of the rules are right as they are."""
    return isinstance(raw, dict) and all(
        rule.holds(raw[key]) if key in raw else not rule.required for key, rule in rules.items()
    )


def _read_entry(raw: object, rules: dict[str, Field], empty: Entry, file: str) -> tuple[Entry, list[Problem]]:
    if not isinstance(raw, dict):
        message = f"expected an object with {', '.join(rules)}, found {SHORT.repr(raw)}"
        return empty, [Problem("error", "entry", file, empty.name, message, "correct or remove it")]
    fields: dict[str, Any] = {}
    wrong: list[tuple[str, str, str]] = []
    for key, rule in rules.items():
        # Exporters write null for what they do not know; for an optional field that is the same as leaving it out.
        if key not in raw or (raw[key] is None and not rule.required):
            if rule.required:
                wrong.append(("missing-field", f"expected {key!r}, {rule.expected}, found none", f"add {key!r}"))
        elif rule.holds(raw[key]):
            fields[key] = raw[key]
        else:
            found = f"expected {key!r} to be {rule.expected}, found {SHORT.repr(raw[key])}"
            wrong.append(("field", found, f"correct {key!r}"))
    entry = empty._replace(fields=fields)
    return entry, [Problem("error", kind, file, entry.name, message, remedy) for kind, message, remedy in wrong]
