"""Figures of a benchmark over its rounds, and their table for the terminal."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hf_detr_ft.benchmark.stopwatch import Measurement


@dataclass
class Row:
    """One variant over all rounds."""

    name: str
    rounds: list[Measurement] = field(default_factory=list)
    failure: str | None = None

    def images_per_second(self) -> list[float]:
        """Images per second of each round."""
        return [one.images / one.seconds for one in self.rounds]

    def as_dict(self, baseline: "Row", peak: float) -> dict[str, Any]:
        """The figures of the table.

        Args:
            baseline: to compare with.
            peak: arithmetic operations a second that the device does in this precision at best.
        """
        rates = self.images_per_second()
        if not rates:
            return {"name": self.name, "failure": self.failure}
        ratios = [ours / theirs for ours, theirs in zip(rates, baseline.images_per_second(), strict=False)]
        total = sum(one.seconds for one in self.rounds)
        return {
            "name": self.name,
            "seconds_per_step": statistics.median(one.seconds / one.steps for one in self.rounds),
            "images_per_second": statistics.median(rates),
            "least": min(rates),
            "most": max(rates),
            "ratio_to_stock": statistics.median(ratios) if ratios else None,
            "waiting_share": sum(one.waiting_seconds for one in self.rounds) / total,
            "padding_share": 1 - sum(one.image_pixels for one in self.rounds) / sum(one.pixels for one in self.rounds),
            "arithmetic_share": sum(one.flops for one in self.rounds) / total / peak,
            "peak_bytes": max(one.peak_bytes for one in self.rounds),
            "rounds": [asdict(one) for one in self.rounds],
        }


def render_timings(figures: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal: the job, the device, the table, and the profile where there is one."""
    job = figures["job"]
    square = job.get("square_edge")
    size = f"squares of {square} pixels" if square else f"short side {job['short_side']}"
    lines = [
        f"{job['images']} training images of '{job['data']}', {job['model']}, {size}, "
        f"batches of {job['batch_size']}; {job['rounds']} rounds of {job['steps']} steps in turn",
        f"{job['device']}, {job['threads']} threads; a large matrix product does "
        + ", ".join(f"{flops / 1e12:.2f} TFLOP/s in {name}" for name, flops in figures["peak_flops"].items()),
        table(figures["variants"]),
    ]
    for row in figures.get("profile", ()):
        lines.append(f"{row['share']:6.1%}  {row['operator']}  ({row['calls_per_step']:.0f} calls a step)")
    return lines


def table(figures: Sequence[Mapping[str, Any]]) -> str:
    """The variants as rows, aligned for the terminal."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "": lambda row: row["name"],
        "s/step": lambda row: f"{row['seconds_per_step']:.3f}",
        "images/s": lambda row: f"{row['images_per_second']:.2f}",
        "(least - most)": lambda row: f"{row['least']:.2f} - {row['most']:.2f}",
        "x stock": lambda row: "-" if row["ratio_to_stock"] is None else f"{row['ratio_to_stock']:.2f}",
        "padding": lambda row: f"{row['padding_share']:.0%}",
        "waiting": lambda row: f"{row['waiting_share']:.0%}",
        "of peak": lambda row: f"{row['arithmetic_share']:.0%}",
        "memory": lambda row: f"{row['peak_bytes'] / 2**30:.2f} GiB",
    }
    lines = [list(columns)]
    for row in figures:
        if "failure" in row:
            lines.append([row["name"], f"fails: {row['failure']}"])
        else:
            lines.append([show(row) for show in columns.values()])
    widths = [max(len(line[i]) for line in lines if len(line) > 2) for i in range(len(columns))]
    widths[0] = max(len(line[0]) for line in lines)
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    if len(line) == 2:
        return f"{line[0].ljust(widths[0])}  {line[1]}"
    return "  ".join([line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True))])
