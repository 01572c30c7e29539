"""Compares ours with the originals' code: `python -m tests.parity CHECKOUTS [--only PART …] [--write]`.

CHECKOUTS is a folder with a checkout of each repository of `originals.py`, under its name without the owner. Prints a
table for each part; `--write` also writes what the originals gave, which the tests here hold ours to without them.
`evaluation` trains a model for some minutes, on the balloon photos, too: it is left out without `--balloon FOLDER`.
"""

import argparse
import json
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.parity import original_augment, original_evaluation, original_training
from tests.parity.cases import COUNTS, FAMILIES, fingerprint, losses_and_gradients, ours, random_case
from tests.parity.original_models import (
    KINDS,
    MODEL_ANSWERS,
    MODELS,
    Model,
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
    """Prints a line for each of DETR's models and each precision."""
    answers = {}
    print(f"| model | precision | {' | '.join(KINDS)} |")
    print(f"|---|---|{'---|' * len(KINDS)}")
    for name, model in MODELS.items():
        tensors = random_tensors(model)
        for precision, fp64 in (("fp32", False), ("fp64", True)):
            with imports_from(checkouts / "detr", empty=()) as load:
                theirs = run_original(load, model, tensors, fp64)
            found = model_differences(run_converted(model, tensors, fp64), theirs)
            answers[name] = shown(theirs)
            values = (f"{found[kind]:.1e}" if kind in found else "–" for kind in KINDS)
            print(f"| {name} | {precision} | {' | '.join(values)} |")
    if write:
        MODEL_ANSWERS.write_text(json.dumps(answers) + "\n")


def compare_augmentation(checkouts: Path, write: bool) -> None:
    """Prints what the same draws give for all images, and for those that keep their shape below the longest side."""
    module = original_augment
    cases = [module.random_case(number) for number in range(module.COUNT)]
    with imports_from(checkouts / "detr", empty=()) as load:
        theirs = [module.ask_original(load, case) for case in cases]
    mine = [module.ask_ours(case) for case in cases]
    pairs = list(zip(mine, theirs, strict=True))
    sizes = Counter(module.size_difference(*pair) for pair in pairs)
    levels = [module.level_differences(*pair) for pair in pairs if pair[0].size == pair[1].size]
    print("| draws | crops | flips | same ranges | same objects | objects left | boxes | final sizes | 8-bit levels |")
    print(f"|{'---|' * 9}")
    print(
        f"| {len(cases)} | {sum(case.draws.crop is not None for case in cases)} "
        f"| {sum(case.draws.flip for case in cases)} | {sum(own.ranges == other.ranges for own, other in pairs)} "
        f"| {sum(own.kept == other.kept for own, other in pairs)} | {sum(len(own.kept) for own in mine)} "
        f"| {max(module.box_difference(*pair) for pair in pairs):.1e} "
        f"| {', '.join(f'{count} by {pixels} px' for pixels, count in sorted(sizes.items()))} "
        f"| {max(most for most, _ in levels):.0f}, in {sum(share for _, share in levels) / len(levels):.2%} |"
    )
    if write:
        answers = [
            [answer.kept, [float(f"{number:.7g}") for number in answer.boxes_cxcywh_rel.flatten()], answer.size]
            for answer in theirs
        ]
        module.AUGMENT_ANSWERS.write_text("[\n" + ",\n".join(map(json.dumps, answers)) + "\n]\n")


def compare_steps(checkouts: Path, write: bool) -> None:
    """Prints a line for each backbone and precision."""
    module = original_training
    print("| backbone | precision | largest move of a parameter | largest difference | mean move | mean difference |")
    print(f"|{'---|' * 6}")
    for backbone in ("resnet18", "resnet50"):
        for fp64 in (False, True):
            with TemporaryDirectory() as name:
                folder, model = Path(name), Model(backbone)
                module.write_photos(folder)
                before = module.write_start(folder / "start.pth", model)
                theirs = module.moves(module.train_original(checkouts / "detr", folder, model, fp64), before)
                with redirect_stdout(sys.stderr):
                    mine = module.moves(module.train_ours(folder, model, fp64), before)
            moved = torch.cat([value.flatten().abs() for value in theirs.values()])
            apart = torch.cat([(mine[name] - value).flatten().abs() for name, value in theirs.items()])
            print(
                f"| {backbone} | {'fp64' if fp64 else 'fp32'} | {moved.max():.1e} | {apart.max():.1e} "
                f"| {moved.mean():.1e} | {apart.mean():.1e} |"
            )
            if write and fp64 and backbone == module.TESTED.backbone:
                lines = [f"{json.dumps(name)}: {values}" for name, values in module.shown(theirs).items()]
                module.STEP_ANSWERS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def compare_evaluation(checkouts: Path, balloon: Path, folder: Path) -> None:
    """Trains a model in a new folder and prints the twelve numbers of both, for each set of photos."""
    module = original_evaluation
    folder.mkdir(parents=True)
    with redirect_stdout(sys.stderr):
        module.write_sets(balloon, folder)
        run = module.learn_by_heart(folder)
        results = {photos: module.evaluate_all(checkouts / "detr", run, folder / photos) for photos in module.PHOTOS}
    print(f"| photos | by | {' | '.join(module.NAMES)} |")
    print(f"|---|---|{'---|' * len(module.NAMES)}")
    for photos, by_whom in results.items():
        for by, numbers in by_whom.items():
            print(f"| {photos} | {by} | {' | '.join(f'{number:.4f}' for number in numbers)} |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "evaluation"], default=[*PARTS, "evaluation"])
    parser.add_argument("--balloon", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/parity"), help="new, of the evaluation")
    arguments = parser.parse_args()
    for name, compare in PARTS.items():
        if name in arguments.only:
            compare(arguments.checkouts, arguments.write)
    if "evaluation" in arguments.only and arguments.balloon is not None:
        compare_evaluation(arguments.checkouts, arguments.balloon, arguments.folder)


PARTS = {
    "criteria": compare_criteria,
    "models": compare_models,
    "augmentation": compare_augmentation,
    "steps": compare_steps,
}

if __name__ == "__main__":
    main()
