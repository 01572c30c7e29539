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
MACHINES = {"cpu": "AMX, bf16", "epyc": "AVX512-BF16, bf16", "avx2": "AVX2, fp32"}
"""What a CPU computes with and the precision that it trains in, by the beginnings of files' names."""
DETAILED = ("cpu", "avx2")
"""Machines with a breakdown and a profile."""
FAMILIES = {"rt_detr_v2": "RT-DETRv2-R18", "d_fine": "D-FINE-S"}


def load(pattern: str) -> Iterator[dict[str, Any]]:
    """Figures of each file, in the order of short sides and batch sizes."""
    found = [json.loads(path.read_text()) for path in (REPOSITORY / "benchmarks" / "results").glob(pattern)]
    return iter(sorted(found, key=size_of))


def size_of(figures: dict[str, Any]) -> tuple[int, int]:
    """Short side and batch size of a job."""
    return figures["job"]["short_side"], figures["job"]["batch_size"]


def row_of(figures: dict[str, Any], name: str) -> dict[str, Any]:
    """Figures of one variant."""
    (row,) = (row for row in figures["variants"] if row["name"] == name)
    return row


def speed_table() -> list[str]:
    """Rows of the baseline beside ours, one for each size, batch and machine."""
    lines = [
        "| short side | batch | CPU | stock, images/s | ours, images/s | times stock | padding, stock → ours "
        "| waiting for data | of peak arithmetic, stock → ours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    found = [(figures, machine) for key, machine in MACHINES.items() for figures in load(f"{key}_*.json")]
    for figures, machine in sorted(
        found, key=lambda pair: (pair[0]["job"]["short_side"], pair[0]["job"]["batch_size"])
    ):
        job, baseline, ours = figures["job"], row_of(figures, "stock"), row_of(figures, "ours")
        lines.append(
            f"| {job['short_side']} | {job['batch_size']} | {machine} | {rate_of(baseline)} | {rate_of(ours)} "
            f"| **{ours['ratio_to_stock']:.2f}** | {baseline['padding_share']:.0%} → {ours['padding_share']:.0%} "
            f"| {ours['waiting_share']:.0%} | {baseline['arithmetic_share']:.0%} → {ours['arithmetic_share']:.0%} |"
        )
    return lines


def rate_of(row: dict[str, Any]) -> str:
    """Images per second with the least and the most."""
    return f"{row['images_per_second']:.2f} ({row['least']:.2f}–{row['most']:.2f})"


def breakdown_table() -> list[str]:
    """Rows of all variants of one benchmark, columns of the machines."""
    found = [next(load(f"{key}_480_4.json")) for key in DETAILED]
    lines = [
        "| | " + " | ".join(f"{MACHINES[key]}: s/step | times stock" for key in DETAILED) + " |",
        "|---" * (1 + 2 * len(DETAILED)) + "|",
    ]
    for name in dict.fromkeys(row["name"] for figures in found for row in figures["variants"]):
        rows = [next((row for row in figures["variants"] if row["name"] == name), None) for figures in found]
        cells = [f"{row['seconds_per_step']:.2f} | {row['ratio_to_stock']:.2f}" if row else "– | –" for row in rows]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def profile_table() -> list[str]:
    """Shares of our steps' time, by kinds of operators; those beyond the longest ones are "other"."""
    columns = []
    for key in DETAILED:
        shares = dict.fromkeys(KINDS, 0.0)
        for row in next(load(f"{key}_480_4.json"))["profile"]:
            kind = next((kind for kind, parts in KINDS.items() if any(part in row["operator"] for part in parts)), None)
            if kind is not None:
                shares[kind] += row["share"]
        columns.append({**shares, "other": 1 - sum(shares.values())})
    header = "| share of a step | " + " | ".join(MACHINES[key] for key in DETAILED) + " |"
    lines = [header, "|---" * (1 + len(DETAILED)) + "|"]
    kinds = [*sorted(KINDS, key=lambda kind: -columns[0][kind]), "other"]
    return lines + [f"| {kind} | " + " | ".join(f"{column[kind]:.0%}" for column in columns) + " |" for kind in kinds]


def family_table() -> list[str]:
    """Rows of the families, columns of stock and ours in two precisions."""
    names = ("stock", "stock, bf16", "ours, fp32", "ours")
    lines = [
        "| images/s | stock, fp32 | stock, bf16 | ours, fp32 | ours, bf16 | times stock | of peak, stock → ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, name in FAMILIES.items():
        (figures,) = load(f"families_{key}_640_4.json")
        rows = [row_of(figures, each) for each in names]
        shares = f"{rows[0]['arithmetic_share']:.0%} → {rows[-1]['arithmetic_share']:.0%}"
        lines.append(f"| {name} | {' | '.join(map(rate_of, rows))} | **{rows[-1]['ratio_to_stock']:.2f}** | {shares} |")
    return lines


TABLES = {"cpu": speed_table, "breakdown": breakdown_table, "profile": profile_table, "families": family_table}


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
