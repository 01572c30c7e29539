"""Problems of a data set, and how they are listed and counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import printable

SHOWN = 20
"""Problems that an error lists before it only counts."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with annotations or images.

    Attributes:
        severity: an `error` stops a run, a `warning` is counted.
        kind: a short name, the same for all problems of one sort.
        file: the annotation file, or the image where it is the image that is wrong.
        entry: where in the file, such as "annotation id 17 (image 'a.jpg')".
        message: what was expected and what was found.
        remedy: what to do about it.
        count: things that are wrong in this way, where one problem stands for several.
    """

    severity: Literal["error", "warning"]
    kind: str
    file: str
    entry: str
    message: str
    remedy: str
    count: int = 1

    def __str__(self) -> str:
        line = f"{self.severity} [{self.kind}] {self.file}: {self.entry}: {self.message}; {self.remedy}"
        return printable(line)


def tabulate_problems(problems: Sequence[Problem]) -> str:
    """Number of problems of each kind, a line each: errors first, and what is most frequent."""
    counts: Counter[tuple[str, str]] = Counter()
    for problem in problems:
        counts[problem.severity, problem.kind] += problem.count
    order = sorted(counts, key=lambda key: (key[0], -counts[key], key[1]))
    width = max((len(kind) for _, kind in order), default=0)
    return "\n".join(f"{kind:{width}} {counts[severity, kind]:>9,}  {severity}" for severity, kind in order)


def list_problems(problems: list[Problem], shown: int = SHOWN) -> str:
    """The first `shown` problems of each kind, a line each, and how many more there are of it."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.severity, problem.kind), []).append(problem)
    lines = []
    for (severity, kind), found in kinds.items():
        lines += [str(problem) for problem in found[:shown]]
        if len(found) > shown:
            lines.append(f"{severity} [{kind}] … and {len(found) - shown} more of this kind")
    return "\n".join(lines)


def require_no_errors(problems: list[Problem]) -> None:
    """Raises DataError with every error among the problems; warnings pass."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise DataError(f"{len(errors)} errors in the data:\n{list_problems(errors)}")
