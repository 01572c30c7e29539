"""Puts the figures of benchmarks/results/*.json into docs/performance.md: `python scripts/build_performance_page.py`.

The page has the tables between `<!-- NAME -->` and `<!-- end -->`; all else in it is written by hand.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
KINDS = {
    "convolutions": ("convolution",),
    "attention": ("attention",),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear"),
    "element by element (ReLU, residual sums, copies, dropout)": (
        *("aten::add", "aten::copy_", "aten::clamp", "aten::threshold", "aten::mul", "aten::bernoulli", "aten::div"),
    ),
    "optimizer and gradient clipping": ("adamw", "vector_norm"),
    "data": ("DataLoader",),
}
"""Kinds of operators, by parts of their names, for the profile."""


def load(pattern: str) -> Iterator[dict[str, Any]]:
    """The figures of each file, by short side and batch size."""
    found = [json.loads(path.read_text()) for path in (REPOSITORY / "benchmarks" / "results").glob(pattern)]
    return iter(sorted(found, key=lambda figures: (figures["job"]["short_side"], figures["job"]["batch_size"])))


def row_of(figures: dict[str, Any], name: str) -> dict[str, Any]:
    """A variant of a benchmark."""
    (row,) = (row for row in figures["variants"] if row["name"] == name)
    return row


def speed_table(pattern: str) -> list[str]:
    """Stock beside ours, a row for each size and batch."""
    lines = [
        "| short side | batch | stock, images/s | ours, images/s | times stock | padding, stock → ours "
        "| waiting for data | of peak arithmetic, stock → ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for figures in load(pattern):
        job, stock, ours = figures["job"], row_of(figures, "stock"), row_of(figures, "ours")
        rates = [f"{row['images_per_second']:.2f} ({row['least']:.2f}–{row['most']:.2f})" for row in (stock, ours)]
        lines.append(
            f"| {job['short_side']} | {job['batch_size']} | {rates[0]} | {rates[1]} | **{ours['ratio_to_stock']:.2f}** "
            f"| {stock['padding_share']:.0%} → {ours['padding_share']:.0%} | {ours['waiting_share']:.0%} "
            f"| {stock['arithmetic_share']:.0%} → {ours['arithmetic_share']:.0%} |"
        )
    return lines


def breakdown_table(name: str) -> list[str]:
    """All variants of one benchmark."""
    (figures,) = load(name)
    ours = row_of(figures, "ours")["images_per_second"]
    lines = ["| | s/step | images/s | times stock | of ours |", "|---|---|---|---|---|"]
    for row in figures["variants"]:
        rate = f"{row['images_per_second']:.2f} ({row['least']:.2f}–{row['most']:.2f})"
        lines.append(
            f"| {row['name']} | {row['seconds_per_step']:.2f} | {rate} | {row['ratio_to_stock']:.2f} "
            f"| {row['images_per_second'] / ours:.0%} |"
        )
    return lines


def profile_table(name: str) -> list[str]:
    """Where the time of our steps goes, by kinds of operators; those beyond the longest ones are "other"."""
    (figures,) = load(name)
    shares = dict.fromkeys(KINDS, 0.0)
    for row in figures["profile"]:
        kind = next((kind for kind, parts in KINDS.items() if any(part in row["operator"] for part in parts)), None)
        if kind is not None:
            shares[kind] += row["share"]
    lines = ["| | share of a step |", "|---|---|"]
    lines += [f"| {kind} | {share:.0%} |" for kind, share in sorted(shares.items(), key=lambda item: -item[1])]
    return [*lines, f"| other | {1 - sum(shares.values()):.0%} |"]


TABLES = {
    "cpu": lambda: speed_table("cpu_*.json"),
    "breakdown": lambda: breakdown_table("cpu_480_4.json"),
    "profile": lambda: profile_table("cpu_480_4.json"),
}


def build_page(page: str) -> str:
    """The page with its tables made anew."""
    for name, table in TABLES.items():
        text = "\n".join(table())
        page, found = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=text: f"{m[1]}{t}\n{m[2]}", page, flags=re.DOTALL
        )
        assert found == 1, f"docs/performance.md lacks a place for the table '{name}'"
    return page


if __name__ == "__main__":
    path = REPOSITORY / "docs" / "performance.md"
    path.write_text(build_page(path.read_text()))
