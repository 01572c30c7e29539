"""Findings: a cause of a bad result, what shows it, and what to do about it."""

from dataclasses import dataclass

from hf_detr_ft.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One cause.

    Attributes:
        cause: what is wrong, in a few words.
        evidence: what shows it, with its numbers.
        remedy: what to do about it.
        is_sure: False where the evidence is only suggestive: it could look so in a sound set-up, too.
    """

    cause: str
    evidence: str
    remedy: str
    is_sure: bool = True

    @classmethod
    def of_error(cls, cause: str, error: InputError) -> "Finding":
        """A cause that stops a training, too, whose message has the remedy."""
        return cls(cause, str(error), "correct what the message names")
