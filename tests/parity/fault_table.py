"""Prints what faults of losses come to, Transformers' and ours: `python -m tests.parity.fault_table`."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from tests.parity import faults
from tests.parity.cases import FAMILIES, UNEVEN, UNLIKE, Run, config_of, ours, random_case
from tests.parity.stock import stock_criterion

MEASURES: dict[str, tuple[Callable[[Run, str], float], Callable[[str], bool]]] = {
    "6: proposals' gradient": (faults.taught_proposals, lambda name: FAMILIES[name].encoder_queries > 0),
    "8: outputs without gradient": (faults.outputs_without_gradient, lambda name: True),
    "9: box loss of perfect": (faults.box_loss_of_perfect_evaluation, lambda name: FAMILIES[name].groups > 1),
    "10: finite in bf16": (faults.is_finite_when_sure, lambda name: True),
    "12: untaught layers": (faults.untaught_layers, lambda name: FAMILIES[name].bins > 0),
}


def stock(name: str) -> Run:
    """Transformers' criterion of a family."""
    return lambda predictions, labels: stock_criterion(name, predictions, labels, config_of(name))


def growth_in_two_processes(folder: Path) -> dict[str, str]:
    """L1 loss of each family in two processes over that in one, Transformers' and ours (faults 1 and 7)."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no"]
    subprocess.run([*command, "-m", "tests.parity.shares", str(folder)], check=True)
    halves = [load_file(folder / f"{rank}.safetensors") for rank in range(2)]
    growth = {}
    for name in FAMILIES:
        wholes = [run(name)(*random_case(name, UNEVEN, UNLIKE))[1]["loss_bbox"].item() for run in (stock, ours)]
        averaged = sum(half[f"{name}/stock/loss_bbox"].item() for half in halves) / 2 / wholes[0]
        added = sum(half[f"{name}/loss_bbox"].item() for half in halves) / wholes[1]
        growth[name] = f"x {averaged:.2f}, x {added:.2f}"
    return growth


def show(measure: Callable[[Run, str], float], run: Run, name: str) -> str:
    """A measure as text, or the kind of error that it ended in."""
    try:
        value = measure(run, name)
    except (KeyError, RuntimeError, TypeError) as error:
        return type(error).__name__
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:.3g}"


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        growth = growth_in_two_processes(Path(folder))
    print(f"| family | 1, 7: two processes | {' | '.join(MEASURES)} |")
    print("|---|---|" + "---|" * len(MEASURES))
    for name in FAMILIES:
        cells = [growth[name]]
        for measure, concerns in MEASURES.values():
            runs = (stock, ours) if concerns(name) else ()
            cells.append(", ".join(show(measure, run(name), name) for run in runs) or "–")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
