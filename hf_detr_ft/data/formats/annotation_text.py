"""Text of annotation files in the encodings that labelling tools write."""

import codecs
import json
import re
from pathlib import Path

from hf_detr_ft.errors import DataError
from hf_detr_ft.plain_files import largest_json, read_file

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Beginnings of files that name their encoding."""


def load_text(path: Path, most_bytes: int | None = None) -> str:
    """Text of an annotation file, see `decode_text`.

    Args:
        path: of the file.
        most_bytes: largest size; by default what this machine's memory could hold.

    Raises:
        DataError: it is not there, cannot be read, or is too large.
    """
    try:
        return decode_text(read_file(path, largest_json() if most_bytes is None else most_bytes))
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file with annotations, found none; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def decode_text(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32 with or without a mark, or else in Windows' Latin-1.

    Args:
        content: of a file.
    """
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    if b"\0" in content[:4]:
        return content.decode(json.detect_encoding(content), errors="replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def lines_of(text: str) -> list[tuple[int, str]]:
    """Lines that are not empty, with their numbers from 1; only line feeds and carriage returns end one."""
    lines = re.split("\r\n|\n|\r", text)
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
