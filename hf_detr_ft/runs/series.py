"""`hf-detr-ft train RECIPE --seeds 3` and `--folds 5`: runs of one recipe side by side, and their AP together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_detr_ft.atomic import write_json
from hf_detr_ft.errors import Interrupted, RecipeError
from hf_detr_ft.formatting import join_limited, pluralize
from hf_detr_ft.importing import large_imports
from hf_detr_ft.recipe.entries import find_recipe, place_values
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.run_folder import REPORT, SERIES, RunFolder, read_object

if TYPE_CHECKING:
    from hf_detr_ft.evaluation.groups import Estimate

POLL_SECONDS = 0.2
OWN = ("output_dir", "seed", "overwrite", "resume_from_checkpoint")
"""Fields of `training` in which the runs of a series differ, or which are asked for one time."""


@dataclass(frozen=True)
class Member:
    """One run of a series: its folder, and the flags that make it another one than the others."""

    folder: RunFolder
    flags: tuple[str, ...]

    @property
    def is_finished(self) -> bool:
        """True where its training came to its end."""
        return "seconds" in self.folder.read_metrics()


def train_series(
    path: Path | None, flags: Sequence[str] = (), seeds: int | None = None, folds: int | None = None
) -> int:
    """Trains a recipe with several seeds, on each fold of its data, or both, and writes what they come to together.

    Runs that are finished stay, one that was ended goes on from its last checkpoint. As many are trained at a time as
    there are GPUs, each on one; without GPUs one after the other.

    Args:
        path: the recipe.
        flags: over it.
        seeds: from `training.seed` on; one where not given.
        folds: as `data.folds`; the validation split of the recipe where not given.

    Returns:
        The exit status; that of the first run that failed, where one did.

    Raises:
        RecipeError: the folder has runs of another recipe, or the settings do not go with a series.
    """
    recipe = load_recipe(path, flags)
    require_series(recipe)
    base = Path(str(recipe.training.output_dir))
    members = list_members(base, recipe.training.seed, seeds, folds)
    check_record(base, given_values(path, flags), overwrite=recipe.training.overwrite)
    left = [member for member in members if recipe.training.overwrite or not member.is_finished]
    print(f"series    {pluralize(len(members), 'run')} in {base}, {len(left)} to train", flush=True)
    status = train_members(path, flags, left, devices=count_devices(recipe))
    if status == 0:
        summarise(base, members, folds)
    return status


def require_series(recipe: Recipe) -> None:
    """Refuses what does not go with several runs.

    Raises:
        RecipeError: says what, and what to do.
    """
    if recipe.training.world_size > 1:
        raise RecipeError(
            "--seeds and --folds: expected one process, which starts the runs itself, found "
            f"{recipe.training.world_size} of a launcher. Start `hf-detr-ft train` without it."
        )
    if recipe.push:
        raise RecipeError(
            "training.push_to_hub: expected false beside --seeds and --folds, whose runs have one name. Push the run "
            "that you choose: hf-detr-ft push RUN USER/NAME."
        )
    if recipe.training.eval_strategy == "no":
        raise RecipeError(
            "training.eval_strategy: expected evaluations beside --seeds and --folds, found 'no'. Set it to epoch."
        )


def list_members(base: Path, first_seed: int, seeds: int | None, folds: int | None) -> list[Member]:
    """The runs of a series, in folders below its own."""
    members = []
    for fold in range(1, folds + 1) if folds else [None]:
        for seed in range(first_seed, first_seed + (seeds or 1)):
            parts = [f"fold-{fold}-of-{folds}"] if folds else []
            parts += [f"seed-{seed}"] if seeds or not folds else []
            folder = RunFolder(base / "-".join(parts))
            divided = ("--data.folds", str(folds), "--data.fold", str(fold)) if folds else ()
            own = ("--training.seed", str(seed), "--training.output_dir", str(folder))
            members.append(Member(folder, (*divided, *own)))
    return members


def given_values(path: Path | None, flags: Sequence[str]) -> dict[str, Any]:
    """Values that recipe and flags give, by `section.key`, as JSON has it; without what is a run's own."""
    path, written, problems = find_recipe(path)
    values, _ = place_values(written, path, flags, problems)
    return {
        f"{section}.{key}": str(value)
        for section, keys in values.items()
        for key, value in keys.items()
        if not (section == "training" and key in OWN)
    }


def check_record(base: Path, given: dict[str, Any], *, overwrite: bool) -> None:
    """Makes sure that the runs in a series' folder are of this recipe, and notes the recipe of a new one.

    Raises:
        RecipeError: they are of another one.
    """
    record = base / SERIES
    before = read_object(record).get("recipe")
    if before is not None and not overwrite and before != given:
        differing = sorted(key for key in {*before, *given} if before.get(key) != given.get(key))
        raise RecipeError(
            f"training.output_dir: expected a folder of this recipe's runs, found those of another one in '{base}': "
            f"{join_limited(differing)} differ. Name another folder, or start over by --training.overwrite."
        )
    if RunFolder(base).is_run:
        raise RecipeError(
            f"training.output_dir: expected a folder of runs, found a run in '{base}'. Name another folder."
        )
    if base.exists() and not base.is_dir():
        raise RecipeError(f"training.output_dir: expected a folder, '{base}' is a file. Name another one.")
    base.mkdir(parents=True, exist_ok=True)
    write_json(record, {"recipe": given})


def count_devices(recipe: Recipe) -> int:
    """Number of runs that can be trained at a time."""
    import torch

    return torch.cuda.device_count() if recipe.training.device.type == "cuda" else 1


def train_members(path: Path | None, flags: Sequence[str], members: Sequence[Member], devices: int) -> int:
    """Trains some runs in processes of their own; after one that failed no other is begun.

    Returns:
        0, or the exit status of the first that failed.
    """
    waiting, free, status = list(members), list(range(devices)), 0
    running: dict[int, subprocess.Popen] = {}
    with ended_with_this(running):
        while running or (waiting and not status):
            while waiting and free and not status:
                member, device = waiting.pop(0), free.pop(0)
                print(f"run       {member.folder}", flush=True)
                running[device] = start(path, flags, member, device if devices > 1 else None)
            time.sleep(POLL_SECONDS)
            for device, process in list(running.items()):
                if process.poll() is not None:
                    del running[device]
                    free.append(device)
                    status = status or process.returncode
    return status if status >= 0 else 128 - status


def start(path: Path | None, flags: Sequence[str], member: Member, device: int | None) -> subprocess.Popen:
    """Starts the training of one run; beside others its lines go to a log beside its folder."""
    begun = member.folder.is_run or member.folder.is_half_replaced
    resumes = begun and "--training.overwrite" not in flags
    own = [*member.flags, *(["--training.resume_from_checkpoint", "last"] if resumes else [])]
    command = [sys.executable, "-m", "hf_detr_ft.cli", "train", *([str(path)] if path else []), *flags, *own]
    if device is None:
        return subprocess.Popen(command)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if os.environ.get("CUDA_VISIBLE_DEVICES") else []
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible[device] if visible else str(device)}
    with Path(f"{member.folder}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


@contextmanager
def ended_with_this(running: dict[int, subprocess.Popen]) -> Iterator[None]:
    """Ends the processes, each after a checkpoint of its own, where this one is asked to end."""

    def stop(number: int, frame: object) -> None:
        raise Interrupted("", 128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        status = error.exit_status if isinstance(error, Interrupted) else 128 + signal.SIGINT
        raise Interrupted("To go on: the same command again", status) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def summarise(base: Path, members: Sequence[Member], folds: int | None) -> None:
    """Prints AP of each run and of all together, and writes both, as JSON and as a page.

    Args:
        base: folder of the series.
        members: its runs.
        folds: that the data were divided into; then AP of all together is that of the pooled detections.
    """
    with large_imports():
        from hf_detr_ft.evaluation.groups import estimate_ap
        from hf_detr_ft.report.load_run import read_runs
        from hf_detr_ft.report.pages import build_comparison_page
        from hf_detr_ft.report.read_group import read_group
        from hf_detr_ft.report.sections.result_section import describe_together
        from hf_detr_ft.report.svg import report_style
        from hf_detr_ft.report.write_report import write_page

    folders = [member.folder for member in members]
    group, notes = read_group([str(folder) for folder in folders])
    estimates = estimate_ap(group)
    runs = read_runs(folders)
    for run in runs:
        metrics = (run.evaluation or {})["metrics"]
        print(f"          {run.name:20} AP {metrics['map']:.3f}, AP50 {metrics['map_50']:.3f}")
    images, what = len(group[0].truth.image_ids), "pooled" if folds else "mean"
    print(f"together  {describe_estimates(estimates, what)}, {pluralize(images, 'image')}")
    for note in notes:
        print(f"note      {note}")
    numbers = {name: asdict(estimate) for name, estimate in estimates.items()}
    write_json(base / SERIES, {**read_object(base / SERIES), "runs": [run.name for run in runs], "together": numbers})
    failures: list[str] = []
    with report_style():
        together = describe_together(estimates, images, pooled=bool(folds))
        write_page(build_comparison_page(runs, [together]), base / REPORT, failures)
    for failure in failures:
        print(f"note      {failure}")
    print(f"the page  {base / REPORT}\nwritten:  {base / SERIES}")


def describe_estimates(estimates: "Mapping[str, Estimate]", what: str) -> str:
    """Mean, deviation between runs and 95 % limits of each number, in a line."""
    parts = []
    for name, found in estimates.items():
        deviation = "" if found.deviation is None else f" ± {found.deviation:.3f}"
        limits = (
            "" if found.interval is None else f" (95 % limits {found.interval.low:.3f} to {found.interval.high:.3f})"
        )
        parts.append(f"{what} {name} {found.mean:.3f}{deviation}{limits}")
    return ", ".join(parts)
