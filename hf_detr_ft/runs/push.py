"""`hf-detr-ft push RUN REPO`: publish a run folder on the Hugging Face Hub."""

from pathlib import Path

from hf_detr_ft.hub import check_run_folder, collect_files, push_run, resolve_repo_id
from hf_detr_ft.hub.upload_files import list_sizes


def push(
    run: Path,
    repo_id: str,
    private: bool | None = None,
    overwrite_card: bool = False,
    license: str | None = None,
    revision: str | None = None,
    dry_run: bool = False,
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

    Returns:
        0; everything that goes wrong is an InputError.
    """
    check_run_folder(run)
    repo_id = resolve_repo_id(repo_id, ask=not dry_run)
    print(f"{run} {'would go' if dry_run else 'goes'} to {repo_id}:")
    print(*list_sizes(collect_files(run, repo_id, license)), sep="\n")
    if dry_run:
        print("Nothing was sent.")
        return 0
    url = push_run(run, repo_id, private=private, revision=revision, license=license, overwrite_card=overwrite_card)
    print(f"Published: {url}")
    return 0
