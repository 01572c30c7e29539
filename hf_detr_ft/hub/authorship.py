"""Whose work a model card is, so that one that a person wrote is never overwritten without being asked.

A card ends in a comment with its own SHA-256: where the two disagree, somebody edited it.
"""

import hashlib
import re
from typing import Literal

import yaml
from huggingface_hub import ModelCard

Author = Literal["generated", "edited", "person"]
"""Who made a card: this program; a person, and it was uploaded with a run; a person, and nothing else is known."""

_STAMP = re.compile(r"\n*<!-- hf_detr_ft (generated|edited) sha256:([0-9a-f]{64}) -->\s*\Z")
_OF_THE_WEIGHTS = ("base_model", "datasets", "metrics", "model-index")


def stamp(text: str, author: Literal["generated", "edited"]) -> str:
    """`text` with the closing comment that `card_author` reads; an older one is replaced."""
    body = _STAMP.sub("", text).rstrip() + "\n"
    return f"{body}\n<!-- hf_detr_ft {author} sha256:{_digest(body)} -->\n"


def card_author(text: str) -> Author:
    """Tells whose work a card is; an empty one is nobody's and counts as generated."""
    found = _STAMP.search(text)
    body = _STAMP.sub("", text).rstrip() + "\n"
    if found and found[2] == _digest(body):
        return "generated" if found[1] == "generated" else "edited"
    return "person" if text.strip() else "generated"


def _digest(body: str) -> str:
    return hashlib.sha256(body.replace("\r\n", "\n").encode()).hexdigest()


def has_only_metadata(text: str) -> bool:
    """Whether a card is a YAML block and nothing else, as the Hub makes it when a licence is picked in the browser."""
    if not text.lstrip().startswith("---"):
        return False
    try:
        return not ModelCard(text, ignore_metadata_errors=True).text.strip()
    except (ValueError, yaml.YAMLError):
        return False


def adopt_metadata(card: str, previous: str) -> str:
    """`card` with those metadata of `previous` that it lacks (licence, language, …), stamped anew.

    What described the earlier weights (results, base model, data sets) is not taken over.
    """
    if not previous.lstrip().startswith("---"):
        return card
    try:
        old = ModelCard(previous, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, yaml.YAMLError):
        return card
    new = ModelCard(_STAMP.sub("", card))
    ours = new.data.to_dict()
    for key, value in old.items():
        if key not in ours and key not in _OF_THE_WEIGHTS:
            new.data[key] = value
    return stamp(str(new), "generated")
