"""The section Problems: what `check` found in the data, all of it."""

from collections.abc import Sequence

from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.report.blocks import Block, Collapsible, Section, Table, Text

MOST, FEW = 200, 10
"""Problems of a kind that are listed; up to which they are seen without a click."""


def describe_problems(problems: Sequence[Problem]) -> Section:
    """Errors first, a fold for each kind."""
    if not problems:
        return Section("Problems", "problems", [Text("None was found.")])
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in sorted(problems, key=lambda one: one.severity):
        kinds.setdefault((problem.severity, problem.kind), []).append(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    blocks: list[Block] = [Text(f"{pluralize(errors, 'error')}, {pluralize(warnings, 'warning')}.")]
    for (severity, kind), found in kinds.items():
        rows = [(problem.entry, problem.message, problem.remedy, problem.file) for problem in found[:MOST]]
        caption = f"{pluralize(len(found), 'time')}" + (f", the first {MOST}" if len(found) > MOST else "")
        table = Table(f"problem-{kind}", caption, ["Entry", "Problem", "Remedy", "File"], rows)
        blocks.append(Collapsible(f"{severity}: {kind} ({len(found):,})", [table], is_open=len(found) <= FEW))
    return Section("Problems", "problems", blocks)
