"""Tables in text: commas, semicolons or tabs between the columns, a heading or none."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hf_detr_ft.data.formats.annotation_text import decode_text, load_text
from hf_detr_ft.data.formats.layout import read_head
from hf_detr_ft.errors import DataError

DELIMITERS = ",;\t|"
MOST_FIELD = 1 << 24
"""Characters of the largest cell; outlines are long."""


class Table(NamedTuple):
    """Rows of a text file."""

    heading: list[str]
    """Names of the columns in small letters; empty where the first row looks like all others."""
    rows: list[tuple[int, list[str]]]
    """Cells of each row that is not empty, stripped, with the number of its line."""
    decimal_comma: bool
    """True where semicolons stand between columns, so that 1,5 is a number."""


def load_table(path: Path, *, may_have_heading: bool = True) -> Table:
    """Reads a whole file. Raises DataError where it cannot be read or is no table."""
    return parse_table(load_text(path), path, may_have_heading=may_have_heading)


def load_head(path: Path) -> Table:
    """Heading and first rows of a file, of which no more is read; nothing where it is no table."""
    text = decode_text(read_head(path, 1 << 16))
    try:
        return parse_table(text.rpartition("\n")[0] or text, path)
    except DataError:
        return Table([], [], False)


def parse_table(text: str, path: Path, *, may_have_heading: bool = True) -> Table:
    """The table of a text.

    Args:
        text: of the file.
        path: of the file, for messages.
        may_have_heading: False where the first row is one like all others.

    Raises:
        DataError: a cell is larger than any label, or a quote is never closed.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    rows = []
    csv.field_size_limit(MOST_FIELD)
    reader = csv.reader(_lines(text), delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: no table: {error}") from error
    heading = []
    first_cells = rows[0][1] if rows and may_have_heading else []
    if len(first_cells) > 1 and all(first_cells[1:]) and not any(map(_is_number, first_cells)):
        heading = [cell.lower().lstrip("\ufeff#") for cell in rows.pop(0)[1]]
    return Table(heading, rows, delimiter == ";")


def _lines(text: str) -> Iterator[str]:
    """Lines as a file would give them, without those that other signs of Unicode end."""
    yield from (line + "\n" for line in text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True
