"""`hf-detr-ft compare A B`: whether one of two recipes is better, on the same images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_detr_ft.atomic import check_output_file, write_json
from hf_detr_ft.formatting import pluralize, printable
from hf_detr_ft.importing import large_imports
from hf_detr_ft.recipe.files import check_early

if TYPE_CHECKING:
    from hf_detr_ft.evaluation.groups import Comparison, Difference


def compare(a: str, b: str, flags: Sequence[str] = (), split: str = "val", output: Path | None = None) -> int:
    """Prints the differences of AP with their limits, and what they say.

    Args:
        a: a run, a folder of runs such as `train --seeds` makes, another folder of a model, or a Hub id.
        b: likewise.
        flags: over the runs' recipes, such as `--data.root` where the data have moved.
        split: "val" or "test".
        output: a JSON file for the numbers.
    """
    check_output_file(output)
    check_early(None, flags)
    with large_imports():
        from hf_detr_ft.evaluation.groups import compare_groups
        from hf_detr_ft.report.read_group import find_runs, read_group

    groups, notes = zip(*(read_group(find_runs(source), flags, split) for source in (a, b)), strict=True)
    comparison = compare_groups(*groups)
    names = {"A": a, "B": b}
    for name, group in zip(names, groups, strict=True):
        print(f"{name}  {printable(names[name])}  ({pluralize(len(group), 'training')})")
    print(f"\n{tabulate(comparison)}\n\n{say_verdict(comparison)}")
    for note in dict.fromkeys([*notes[0], *notes[1]]):
        print(f"note      {note}")
    if output is not None:
        write_json(output, {"a": a, "b": b, "split": split, **comparison.as_dict()})
        print(f"written: {output}")
    return 0


def tabulate(comparison: "Comparison") -> str:
    """Lines of the differences, AP first; a star where a difference is told apart from none."""
    rows = [comparison.overall, *comparison.others]
    width = max(len(printable(row.name)) for row in rows)
    lines = [f"{'':{width}}      A      B   B - A   95 % limits"]
    for row in rows:
        limits = "n/a" if row.interval is None else f"{row.interval.low:+.3f} to {row.interval.high:+.3f}"
        star = " *" if row.is_told_apart else ""
        lines.append(f"{printable(row.name):{width}}  {row.a:.3f}  {row.b:.3f}  {row.value:+.3f}   {limits}{star}")
    return "\n".join(lines)


def say_verdict(comparison: "Comparison") -> str:
    """Better, worse, or not to be told apart, and what that rests on."""
    row, images = comparison.overall, pluralize(comparison.images, "image")
    spread = f"AP differs by {comparison.spread:.3f} between seeds (standard deviation)"
    if comparison.trainings == (1, 1):
        spread += ", which is assumed: one training each cannot tell. `hf-detr-ft train RECIPE --seeds 3` measures it"
    if row.interval is None:
        return f"Not to be told apart: drawing from these {images} says nothing."
    if row.is_told_apart:
        better = "better" if row.value > 0 else "worse"
        return f"B is {better} than A by {abs(row.value):.3f} AP, as far as {images} tell.\n{spread}."
    return f"Not to be told apart with {images}. {_more_images(row, comparison.images)}\n{spread}."


def _more_images(row: "Difference", images: int) -> str:
    if row.images_needed is None:
        return "More images alone would not tell: more seeds would, or it makes no difference."
    return (
        f"If the difference is {abs(row.value):.3f} AP indeed, about {row.images_needed:,} images of the kind would "
        f"tell it four times out of five: {row.images_needed - images:,} more."
    )
