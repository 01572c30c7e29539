"""`hf-detr-ft train RECIPE`: from a recipe to a run folder."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from accelerate import PartialState

from hf_detr_ft.atomic import write_json
from hf_detr_ft.data.splits import image_files
from hf_detr_ft.hub import check_access, push_run, write_model_card
from hf_detr_ft.machine import describe_environment, peak_memory
from hf_detr_ft.model.build import build_model
from hf_detr_ft.recipe.files import files_read, load_recipe, save_recipe
from hf_detr_ft.recipe.rules import require_one_gpu, require_sound
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.write_report import report_training
from hf_detr_ft.run_folder import REPLACED, RunFolder
from hf_detr_ft.training.callbacks import restore_detections
from hf_detr_ft.training.checkpoints import LAST, find_checkpoint
from hf_detr_ft.training.evaluate_model import evaluate_test
from hf_detr_ft.training.failures import explain_full_disk
from hf_detr_ft.training.interruption import explain_interruption
from hf_detr_ft.training.job import Job, ModelBuilder, prepare_job, train_model
from hf_detr_ft.training.job_summary import describe_job, summarise_job
from hf_detr_ft.training.model_defaults import model_defaults
from hf_detr_ft.training.output_folder import OutputFolder


def train(path: Path | None, flags: Sequence[str] = (), model_builder: ModelBuilder = build_model) -> int:
    """Trains, evaluates and writes the run folder.

    Args:
        path: the recipe.
        flags: over it, such as `--training.learning_rate 5e-5`.
        model_builder: makes the model of the recipe.

    Returns:
        0; everything that goes wrong is raised.
    """
    started = time.monotonic()
    recipe = load_recipe(path, flags, model_defaults)
    require_sound(recipe)
    require_one_gpu(recipe.training)
    is_first = PartialState().is_main_process
    run = OutputFolder(str(recipe.training.output_dir))
    works = run.path.exists() or recipe.training.resume_from_checkpoint not in LAST  # else there is nothing to lock
    with run.locked() if is_first and works else nullcontext():
        checkpoint = open_folder(run, recipe, path, is_first)
        job = prepare_job(recipe, checkpoint, model_builder)
        if is_first:
            print(describe_job(job))
            with explain_full_disk():
                begin_folder(run, checkpoint, job)
        with explain_interruption(run, job.stop), explain_full_disk():
            train_model(job, checkpoint)
            evaluate_test(job)
            if is_first:
                finish_folder(run, job, time.monotonic() - started)
            PartialState().wait_for_everyone()  # nobody waits for what follows
            if is_first:
                publish(run, recipe)
                for line in report_training(run, job):
                    print(line)
    return 0


def open_folder(run: OutputFolder, recipe: Recipe, path: Path | None, is_first: bool) -> Path | None:
    """The checkpoint to go on from; makes sure that the run folder is free or goes on, and writes nothing yet.

    Raises:
        InputError: the folder is taken, there is no whole checkpoint, or the Hub refuses what is to be published.
    """
    args = recipe.training
    if recipe.push and is_first:
        check_access(args.hub_model_id or run.name, args.hub_token)
    checkpoint, said = find_checkpoint(run, args.resume_from_checkpoint, bool(args.fsdp or args.deepspeed))
    if not run.holds(checkpoint):
        starts_over = checkpoint is None and bool(said)
        run.check_free(args.overwrite or starts_over)
        run.check_not_read([*files_read(recipe, None if starts_over else path), *([checkpoint] if checkpoint else [])])
    if said and is_first:
        print(said)
    return checkpoint


def begin_folder(run: OutputFolder, checkpoint: Path | None, job: Job) -> None:
    """Makes the folder, or takes it back to the checkpoint, and writes the resolved recipe."""
    if not run.holds(checkpoint):
        run.check_not_read(image_files(job.splits))
        if run.make():
            print(f"          the run that was there is in {run.path / REPLACED} until this one has weights")
    run.sweep()
    if checkpoint is not None:
        restore_detections(checkpoint, run)
    if job.splits.record is not None:
        write_json(run.splits, job.splits.record)
    save_recipe(job.recipe, run.recipe, describe_environment(job.splits.fingerprints))


def finish_folder(run: RunFolder, job: Job, seconds: float) -> None:
    """Writes what belongs to the weights: metrics and model card; prints the result and what to do next."""
    used = {"seconds": round(seconds, 1), "peak_memory_bytes": peak_memory(job.trainer.args.device)}
    job.results.about = {**job.results.about, **used}
    if job.results.best is not None:
        job.results.write(job.trainer.args, job.trainer.state)
        write_model_card(run.path)
    print(summarise_job(job, run, seconds))


def publish(run: RunFolder, recipe: Recipe) -> None:
    """Pushes the run, if the recipe asks for it."""
    args = recipe.training
    if recipe.push:
        url = push_run(
            run.path,
            args.hub_model_id or run.name,
            private=args.hub_private_repo,
            token=args.hub_token,
            revision=args.hub_revision,
        )
        print(f"published: {url}")
