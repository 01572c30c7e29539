"""Compares our criteria with the originals': `python -m tests.parity CHECKOUTS [--write]`.

CHECKOUTS is a folder with a checkout of each repository of `originals.py`, under its name without the owner. Prints a
table; `--write` also writes what the originals gave, which `test_criteria.py` holds ours to without them.
"""

import argparse
import json
from pathlib import Path

import torch

from tests.parity.cases import COUNTS, FAMILIES, fingerprint, losses_and_gradients, ours, random_case
from tests.parity.originals import ORIGINALS, imports_from
from tests.parity.test_criteria import ANSWERS, differences


def ask_original(name: str, checkouts: Path, counts: list[int]) -> dict[str, torch.Tensor]:
    """Losses and gradients of a family's original criterion."""
    original = ORIGINALS[name]
    with imports_from(checkouts / original.repository.split("/")[1] / original.below) as load:
        return losses_and_gradients(original.make(load), *random_case(name, counts))


def main() -> None:
    """Prints a line a family and case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    answers = {}
    print("| family | repository | commit | case | loss parts | largest difference | of a gradient |")
    print("|---|---|---|---|---|---|---|")
    for name in FAMILIES:
        for case, counts in COUNTS.items():
            theirs = ask_original(name, arguments.checkouts, counts)
            of_parts, of_gradients = differences(losses_and_gradients(ours(name), *random_case(name, counts)), theirs)
            answers[f"{name}, {case}"] = {
                key: fingerprint(value) if key.startswith("d ") else value.item() for key, value in theirs.items()
            }
            original = ORIGINALS[name]
            print(
                f"| {name} | {original.repository} | {original.commit[:7]} | {case} | {len(of_parts)} "
                f"| {max(of_parts.values()):.1e} | {max(of_gradients.values()):.1e} |"
            )
    if arguments.write:
        ANSWERS.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
