"""`hf-detr-ft demo RUN [RUN]`: a page in the browser that shows what one or two models find in a photo."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hf_detr_ft.atomic import is_free, write_folder
from hf_detr_ft.demo.page_server import open_server
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.importing import large_imports
from hf_detr_ft.model.checkpoint import Checkpoint


def demo(
    source: str,
    other: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    space: str | None = None,
    output: Path | None = None,
    dry_run: bool = False,
    private: bool | None = None,
    overwrite: bool = False,
) -> int:
    """Serves the page until Ctrl-C, or makes a Space of it.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        other: a second one, beside the first.
        host: address of this machine to listen at; by default others cannot reach it.
        port: 0 for any that is free.
        space: "user/name" of a Space that is made instead.
        output: a new folder for the Space's files, which are not uploaded then.
        dry_run: list the Space's files, and do no more.
        private: visibility of a new Space; None leaves it to the account's default.
        overwrite: replace files of a Space that holds some.

    Returns:
        0.

    Raises:
        RecipeError: an argument is wrong, or the address cannot be had.
        CheckpointError: a model cannot be loaded.
        DataError: a run cannot be read, or the output not be written.
        InputError: the Hub cannot be reached, or refuses.
    """
    sources = [source] if other is None else [source, other]
    for each in sources:
        Checkpoint(each).check_exists()
    if space is not None:
        return make_space(sources, space, output, dry_run, private, overwrite)
    if output is not None or dry_run or private or overwrite:
        raise RecipeError("--output, --dry-run, --private, --overwrite: expected --space USER/NAME beside them.")
    return serve(sources, host, port)


def serve(sources: Sequence[str], host: str, port: int) -> int:
    """Serves the page until Ctrl-C; see `demo`."""
    with open_server(host, port) as server:
        with large_imports():
            from hf_detr_ft.demo.photo_answers import PhotoAnswers

        server.answers = PhotoAnswers.load(sources)
        if not server.is_loopback:
            print("Whoever can reach this machine can use the page: it asks for no password.", file=sys.stderr)
        print(f"{server.address} shows what {' and '.join(sources)} find{'s' * (len(sources) == 1)}. Ctrl-C ends it.")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def make_space(
    sources: Sequence[str], repo_id: str, output: Path | None, dry_run: bool, private: bool | None, overwrite: bool
) -> int:
    """Lists the files of a Space, and writes or uploads them; see `demo`."""
    from hf_detr_ft.demo.space_files import collect_space
    from hf_detr_ft.hub import push_files, resolve_repo_id
    from hf_detr_ft.hub.upload_files import list_sizes

    if output is not None and not is_free(output):
        raise RecipeError(f"--output: '{output}' is not empty. Name another folder.")
    repo_id = resolve_repo_id(repo_id)
    files = collect_space(sources, repo_id)
    print(f"{' and '.join(sources)} go{'es' * (len(sources) == 1)} to the Space {repo_id}:")
    print(*list_sizes(files), sep="\n")
    if dry_run:
        return 0
    if output is None:
        url = push_files(files, repo_id, "space", private=private, overwrite=overwrite)
        print(f"Published: {url}")
        return 0
    with write_folder(output) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    print(f"{output}: the files of a Space, for `hf upload {repo_id} {output} --repo-type space`")
    return 0
