"""Removal of what a run's files must not publish: tokens, and where things lie on this machine."""

import re
from collections.abc import Mapping
from typing import Any

HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
TOKEN_FIELDS = ("hub_token", "push_to_hub_token")
"""Fields of a recipe that hold a secret."""
CLASS_NAME_FIELDS = ("id2label", "label2id", "per_class")
"""Fields with names of classes, which stay even where one looks like a path."""
_PATH = re.compile(r"(?:file:)?(?:~[\w.-]*|\.\.|/?[A-Za-z]:)?[/\\]")
"""The beginning of a path that is absolute, leaves its folder or lies in a home folder."""


def remove_private(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a recipe, metrics.json or config.json without tokens, each path reduced to its last component."""
    return {
        key: value if key in CLASS_NAME_FIELDS else _remove_from(value)
        for key, value in content.items()
        if key not in TOKEN_FIELDS
    }


def _remove_from(value: Any) -> Any:
    if isinstance(value, Mapping):
        return remove_private(value)
    if isinstance(value, list | tuple):
        return [_remove_from(entry) for entry in value]
    if isinstance(value, str) and _PATH.match(value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def holds_token(content: bytes, token: str | None) -> bool:
    """True where a file's content has the given token, or anything with the form of a Hub token, in it."""
    return bool(HUB_TOKEN.search(content.decode("latin-1"))) or (bool(token) and str(token).encode() in content)
