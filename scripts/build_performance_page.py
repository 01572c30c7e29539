"""Puts the figures of benchmarks/results/*.json into docs/performance.md: `python scripts/build_performance_page.py`.

The page has the tables between `<!-- NAME -->` and `<!-- end -->`; all else in it is written by hand.
"""

import json
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
"""Kinds of operators in the profile, and parts of their names."""


def load(pattern: str) -> Iterator[dict[str, Any]]:
    """Figures of each file, in the order of short sides and batch sizes."""
    found = [json.loads(path.read_text()) for path in (REPOSITORY / "benchmarks" / "results").glob(pattern)]
    return iter(sorted(found, key=lambda figures: (figures["job"]["short_side"], figures["job"]["batch_size"])))


def row_of(figures: dict[str, Any], name: str) -> dict[str, Any]:
    """Figures of one variant."""
    (row,) = (row for row in figures["variants"] if row["name"] == name)
    return row


def speed_table(pattern: str) -> list[str]:
    """Rows of the baseline beside ours, one for each size and batch."""
    lines = [
        "| short side | batch | stock, images/s | ours, images/s | times stock | padding, stock → ours "
        "| waiting for data | of peak arithmetic, stock → ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for figures in load(pattern):
        job, baseline, ours = figures["job"], row_of(figures, "stock"), row_of(figures, "ours")
        rates = [f"{row['images_per_second']:.2f} ({row['least']:.2f}–{row['most']:.2f})" for row in (baseline, ours)]
        lines.append(
            f"| {job['short_side']} | {job['batch_size']} | {rates[0]} | {rates[1]} | **{ours['ratio_to_stock']:.2f}** "
            f"| {baseline['padding_share']:.0%} → {ours['padding_share']:.0%} | {ours['waiting_share']:.0%} "
            f"| {baseline['arithmetic_share']:.0%} → {ours['arithmetic_share']:.0%} |"
        )
    return lines


def breakdown_table(name: str) -> list[str]:
    """Rows of all variants of one benchmark."""
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
    """Shares of our steps' time, by kinds of operators; those beyond the longest ones are "other"."""
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
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, found, rest = page.partition(begin)
        assert found, f"docs/performance.md lacks a place for the table '{name}'"
        page = "\n".join([before + begin + "\n".join(table()), end + rest.partition(end)[2]])
    return page


if __name__ == "__main__":
    path = REPOSITORY / "docs" / "performance.md"
    path.write_text(build_page(path.read_text()))
