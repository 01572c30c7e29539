"""Rules that keep a model card which a person wrote from being replaced by a generated one.

A card that goes up ends in a comment with its own SHA-256: where the two disagree, somebody edited it since.
"""

import hashlib
import re
from typing import Literal

import yaml
from huggingface_hub import ModelCard

Author = Literal["generated", "edited", "person"]
"""This program; a person, whose card came from a run folder; a person, and nothing else is known."""

_MARK = re.compile(r"\n*<!-- hf_detr_ft (generated|edited) sha256:[0-9a-f]{64} -->\s*\Z")
_OF_THE_WEIGHTS = ("base_model", "datasets", "metrics", "model-index")


def sign(card: str, author: Literal["generated", "edited"]) -> str:
    """The card with the closing comment that `card_author` checks; an older one is replaced."""
    body = _MARK.sub("", card).replace("\r\n", "\n").rstrip() + "\n"
    return f"{body}\n<!-- hf_detr_ft {author} sha256:{hashlib.sha256(body.encode()).hexdigest()} -->\n"


def card_author(card: str) -> Author:
    """The author of a card; an empty one is nobody's and counts as generated."""
    mark = _MARK.search(card)
    author: Literal["generated", "edited"] = "edited" if mark and mark[1] == "edited" else "generated"
    text = card.replace("\r\n", "\n").rstrip()
    return author if not text or (mark and sign(text, author).rstrip() == text) else "person"


def choose_card(card: str, remote: str, overwrite: bool) -> str | None:
    """The card to upload; None where it would replace a person's work on the Hub.

    Args:
        card: of the run, signed.
        remote: README.md on the Hub. One that is nothing but metadata gives them to a generated card.
        overwrite: replace a README.md whoever wrote it.
    """
    ours, theirs = card_author(card), card_author(remote)
    previous = _parse(remote)
    if theirs == "generated" or (previous is not None and not previous.text.strip()):
        return _adopt_metadata(card, previous) if ours == "generated" and previous is not None else card
    return card if overwrite or ours == theirs == "edited" else None


def _parse(card: str) -> ModelCard | None:
    """A card with a block of metadata, which the Hub makes when a licence is picked in the browser; else None."""
    try:
        return ModelCard(card, ignore_metadata_errors=True) if card.lstrip().startswith("---") else None
    except (ValueError, yaml.YAMLError):
        return None


def _adopt_metadata(card: str, previous: ModelCard) -> str:
    """The card with those metadata that it lacks (licence, language, …), but for those about the earlier weights."""
    new = ModelCard(_MARK.sub("", card))
    for key, value in previous.data.to_dict().items():
        if key not in new.data.to_dict() and key not in _OF_THE_WEIGHTS:
            new.data[key] = value
    return sign(str(new), "generated")
