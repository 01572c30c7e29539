"""Writing files so that nobody ever reads half of one."""

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Writes beside `path`, then renames; nothing is left behind where the disk refuses.

    Raises:
        OSError: the disk refuses.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", newline="")  # line ends as given: a CSV has its own
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Strict JSON, without NaN; see `write_text`."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")
