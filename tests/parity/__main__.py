"""Compares our criteria with the originals', and DETR's whole models: `python -m tests.parity CHECKOUTS [--write]`.

CHECKOUTS is a folder with a checkout of each repository of `originals.py`, under its name without the owner. Prints two
tables; `--write` also writes what the originals gave, which `test_criteria.py` and `test_models.py` hold ours to
without them. `--models` leaves out the criteria.
"""

import argparse
import json
from pathlib import Path

import torch

from tests.parity.cases import COUNTS, FAMILIES, fingerprint, losses_and_gradients, ours, random_case
from tests.parity.original_models import (
    KINDS,
    MODEL_ANSWERS,
    MODELS,
    model_differences,
    random_tensors,
    run_converted,
    run_original,
    shown,
)
from tests.parity.originals import ORIGINALS, imports_from
from tests.parity.test_criteria import ANSWERS, differences


def ask_original(name: str, checkouts: Path, counts: list[int]) -> dict[str, torch.Tensor]:
    """Losses and gradients of a family's original criterion."""
    original = ORIGINALS[name]
    with imports_from(checkouts / original.repository.split("/")[1] / original.below) as load:
        return losses_and_gradients(original.make(load), *random_case(name, counts))


def compare_criteria(checkouts: Path, write: bool) -> None:
    """Prints a line a family and case."""
    answers = {}
    print("| family | repository | commit | case | loss parts | largest difference | of a gradient |")
    print("|---|---|---|---|---|---|---|")
    for name in FAMILIES:
        for case, counts in COUNTS.items():
            theirs = ask_original(name, checkouts, counts)
            of_parts, of_gradients = differences(losses_and_gradients(ours(name), *random_case(name, counts)), theirs)
            answers[f"{name}, {case}"] = {
                key: fingerprint(value) if key.startswith("d ") else value.item() for key, value in theirs.items()
            }
            original = ORIGINALS[name]
            print(
                f"| {name} | {original.repository} | {original.commit[:7]} | {case} | {len(of_parts)} "
                f"| {max(of_parts.values()):.1e} | {max(of_gradients.values()):.1e} |"
            )
    if write:
        ANSWERS.write_text(json.dumps(answers, indent=1) + "\n")


def compare_models(checkouts: Path, write: bool) -> None:
    """Prints a line for each of DETR's models."""
    answers = {}
    print(f"| model | {' | '.join(KINDS)} |")
    print(f"|---|{'---|' * len(KINDS)}")
    for name, model in MODELS.items():
        tensors = random_tensors(model)
        with imports_from(checkouts / "detr", empty=()) as load:
            theirs = run_original(load, model, tensors)
        answers[name] = shown(theirs)
        found = model_differences(run_converted(model, tensors), theirs)
        print(f"| {name} | {' | '.join(f'{found[kind]:.1e}' if kind in found else '–' for kind in KINDS)} |")
    if write:
        MODEL_ANSWERS.write_text(json.dumps(answers) + "\n")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--models", action="store_true")
    arguments = parser.parse_args()
    if not arguments.models:
        compare_criteria(arguments.checkouts, arguments.write)
    compare_models(arguments.checkouts, arguments.write)


if __name__ == "__main__":
    main()
