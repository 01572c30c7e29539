"""`hf-detr-ft push RUN REPO`: publish a run folder on the Hugging Face Hub."""

from collections.abc import Sequence
from pathlib import Path

from hf_detr_ft.hub import check_run_folder, collect_files, push_run, read_examples, resolve_repo_id
from hf_detr_ft.hub.example_photos import FOLDER, LONGEST_SIDE
from hf_detr_ft.hub.upload_files import list_sizes


def push(
    run: Path,
    repo_id: str,
    private: bool | None = None,
    overwrite_card: bool = False,
    license: str | None = None,
    revision: str | None = None,
    dry_run: bool = False,
    example: Sequence[Path] | None = None,
) -> int:
    """Lists what goes up, uploads it and prints the URL; the token is the one of `hf auth login` or `HF_TOKEN`.

    Args:
        run: the run folder.
        repo_id: "user/name", or a name under one's own account.
        private: visibility of a new repository; None leaves it to the account's default.
        overwrite_card: replace a README.md on the Hub even where it was written by hand there.
        license: for the model card, such as "apache-2.0".
        revision: branch; None is `main`.
        dry_run: list the files and their sizes, and send nothing.
        example: photos that the model's page offers to try it on: made upright, scaled down, without their metadata.

    Returns:
        0; everything that goes wrong is an InputError.
    """
    check_run_folder(run)
    examples = read_examples(example or ())
    repo_id = resolve_repo_id(repo_id, ask=not dry_run)
    print(f"{run} {'would go' if dry_run else 'goes'} to {repo_id}:")
    files = collect_files(run, repo_id, license, examples=examples, revision=revision)
    print(*list_sizes(files), sep="\n")
    if examples:
        print(f"The photos in {FOLDER}/ are upright, at most {LONGEST_SIDE} pixels a side, and without EXIF.")
    if dry_run:
        print("Nothing was sent.")
        return 0
    url = push_run(
        run,
        repo_id,
        private=private,
        revision=revision,
        license=license,
        overwrite_card=overwrite_card,
        examples=examples,
    )
    print(f"Published: {url}")
    return 0
