"""`hf-detr-ft report RUN`: one self-contained HTML page of a run, or of several beside each other."""

from collections.abc import Sequence
from pathlib import Path

from hf_detr_ft.atomic import check_output_file
from hf_detr_ft.data.images import require_image
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.importing import large_imports
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.recipe.files import check_early
from hf_detr_ft.report.arguments import check_page, require_data_flags
from hf_detr_ft.run_folder import METRICS, ORIGINAL_LOG, RECIPE, REPORT, RunFolder


def report(
    sources: Sequence[str],
    flags: Sequence[str] = (),
    output: Path | None = None,
    overwrite: bool = False,
    attention: Path | None = None,
    plots: bool = False,
) -> int:
    """Writes the page and prints where it lies.

    Args:
        sources: a run folder, another folder of a model, or a Hub id; several run folders are compared, among them
            such as facebookresearch/detr trained, with its log.txt.
        flags: over the run's recipe, such as `--data.root` where the data have moved.
        output: the file; by default report.html in the run folder, or here where there are several or none.
        overwrite: replace a file; the page in a run folder is always replaced.
        attention: an image; a picture of the model's attention over it is drawn instead of the page.
        plots: write each figure as a PNG, too, into `plots` beside the page.

    Returns:
        0, or 1 where the page could not be written.

    Raises:
        InputError: there is nothing to report on, or the arguments are wrong.
    """
    if attention is not None:
        refuse_others(sources, flags, plots)
        return _draw_attention(sources[0], attention, output, overwrite)
    check_output_file(output)
    runs = [RunFolder(source) for source in sources]
    target = output or Path(REPORT)
    replaces_own = len(runs) == 1 and output is None and runs[0].is_run
    if not replaces_own:
        check_page(target, overwrite)
    if len(runs) > 1 or runs[0].is_original:
        return _compare(runs, flags, target, plots)
    return _report_one(sources[0], flags, None if replaces_own else target, plots)


def refuse_others(sources: Sequence[str], flags: Sequence[str], plots: bool) -> None:
    """Refuses what a picture of a model's attention has no use for.

    Raises:
        RecipeError: there are several models, or other flags.
    """
    if len(sources) > 1 or flags or plots:
        found = [*sources, *flags, *(["--plots"] if plots else [])]
        raise RecipeError(f"--attention: expected one model and no other flags, found {found}.")


def _draw_attention(source: str, image: Path, output: Path | None, overwrite: bool) -> int:
    Checkpoint(source).check_exists()
    require_image(image)
    with large_imports():
        from hf_detr_ft.report.attention_sheet import draw_attention

    print(draw_attention(source, image, output, overwrite=overwrite))
    return 0


def _report_one(source: str, flags: Sequence[str], target: Path | None, plots: bool) -> int:
    run = RunFolder(source)
    check_early(None, flags)
    if not run.is_run:
        Checkpoint(source).check_exists()
        require_data_flags(source, flags)
    with large_imports():
        from hf_detr_ft.report.read_inputs import read_inputs
        from hf_detr_ft.report.write_report import write_report

    inputs = read_inputs(source, flags)
    written = write_report(
        run,
        inputs.recipe,
        inputs.splits,
        model=inputs.model,
        processor=inputs.processor,
        loaded=inputs.run,
        validation=inputs.validation,
        output=target,
        plots=plots,
        notes=inputs.notes,
    )
    for note in written.notes:
        print(f"note      {note}")
    if written.page is None:
        return 1
    print(f"written: {written.page}")
    return 0


def _compare(runs: Sequence[RunFolder], flags: Sequence[str], target: Path, plots: bool) -> int:
    if flags or plots:
        found = len(runs) if len(runs) > 1 else f"a {ORIGINAL_LOG} of facebookresearch/detr"
        raise RecipeError(f"argument '{[*flags, '--plots'][0]}': flags go with one run, found {found}.")
    require_runs(runs)
    with large_imports():
        from hf_detr_ft.report.load_run import read_runs
        from hf_detr_ft.report.pages import build_comparison_page
        from hf_detr_ft.report.svg import report_style
        from hf_detr_ft.report.write_report import write_page

    failures: list[str] = []
    with report_style():
        write_page(build_comparison_page(read_runs(runs)), target, failures)
    for failure in failures:
        print(f"note      {failure}")
    print(f"written: {target}")
    return 0


def require_runs(runs: Sequence[RunFolder]) -> None:
    """Makes sure that folders are of runs, and of different ones.

    Raises:
        RecipeError: one of them is no run folder, or is given twice.
    """
    no_runs = [str(run) for run in runs if not run.is_run and not run.is_original]
    if no_runs:
        found = f"no {METRICS} or {RECIPE} in {no_runs}, nor a {ORIGINAL_LOG} of facebookresearch/detr"
        raise RecipeError(f"expected run folders to compare, found {found}.")
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RecipeError(f"expected runs to compare, found one of them twice: {', '.join(map(str, runs))}.")
