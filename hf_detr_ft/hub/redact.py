"""What may not leave the machine: secrets, absolute paths, host and user names."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")

_SECRET_KEY = re.compile(r"(token|secret|password|passwd|credentials?)$|(api|access|secret|private)_?key")
_MACHINE_KEYS = ("logging_dir", "hostname", "host", "user", "username", "cwd")
_LITERAL_KEYS = ("id2label", "label2id", "per_class")
"""Hold class names, which are not ours to change, even where one looks like a path."""
_URL_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_PATH_START = r"(?:~[\w.-]*[/\\]|/(?=[^\s/])|[A-Za-z]:[\\/]|\\\\)"
_WHOLE_PATH = re.compile(rf"(?:file://)?(?:/?{_PATH_START}|\.\.[/\\])")
_PATH_INSIDE = re.compile(rf"(?:file://(?=/)|(?<![\w/.~-])){_PATH_START}[^\s\"'<>|,;)\]}}]*")
_SHORTEST = 6
"""Strings below this length are not searched for in other text: they occur in it by chance."""


def sanitise_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without secrets and without this machine: for recipe.yaml, metrics.json and config.json alike.

    Texts under a name like token, password or key are dropped, and so are host and user names. Absolute paths, paths
    in the home folder and paths that climb (`../`) become their last component, `output_dir` always does; Hub tokens
    and logins inside other strings are cut out. Numbers and class names stay as they are.
    """
    clean: dict[str, Any] = {}
    for key, value in recipe.items():
        if _is_private(str(key), value):
            continue
        if key in _LITERAL_KEYS:
            clean[key] = value
        elif key == "output_dir" and isinstance(value, str):
            clean[key] = _last_component(value)
        else:
            clean[key] = _sanitise(value)
    return clean


def _is_private(key: str, value: Any) -> bool:
    if value is not None and not isinstance(value, str):
        return False  # a switch such as `use_mask_token: true`
    return bool(_SECRET_KEY.search(key.lower())) or key.lower() in _MACHINE_KEYS


def _sanitise(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sanitise_recipe(value)
    if isinstance(value, list | tuple):
        return [_sanitise(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if _WHOLE_PATH.match(value):
        value = _last_component(value)
    value = _URL_LOGIN.sub("", HUB_TOKEN.sub("***", value))
    return _PATH_INSIDE.sub(lambda found: _last_component(found[0]), value)


def _last_component(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def find_private(value: Any, key: str = "") -> tuple[set[str], set[str]]:
    """The secrets and the absolute paths among a recipe's values, to look for in text that may repeat them."""
    secrets: set[str] = set()
    paths: set[str] = set()
    if isinstance(value, Mapping):
        found = [find_private(entry, str(name)) for name, entry in value.items() if name not in _LITERAL_KEYS]
    elif isinstance(value, list | tuple):
        found = [find_private(entry, key) for entry in value]
    else:
        found = []
        if isinstance(value, str) and len(value) >= _SHORTEST:
            if _SECRET_KEY.search(key.lower()):
                secrets.add(value)
            elif _WHOLE_PATH.match(value):
                paths.add(value.rstrip("/\\"))
    return secrets.union(*(pair[0] for pair in found)), paths.union(*(pair[1] for pair in found))


def clean_text(text: str, secrets: Iterable[str], paths: Iterable[str]) -> str:
    """HTML or CSV without the given secrets and paths. Exact strings only: embedded images hold any characters."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = HUB_TOKEN.sub("***", text)
    for path in sorted(paths, key=len, reverse=True):
        inside = re.compile(
            r"(?:(?<![A-Za-z0-9+/])|(?<=file://))" + re.escape(path) + r"(?:[/\\][^\s\"'<>&|,;:)\]}]*|(?![\w.-]))"
        )
        text = inside.sub(lambda found: _last_component(found[0]), text)
    return text


def holds_secret(content: bytes, secrets: Iterable[str]) -> bool:
    """Whether one of the secrets, or anything with the form of a Hub token, is in there."""
    return any(secret.encode() in content for secret in secrets) or bool(HUB_TOKEN.search(content.decode("latin-1")))
