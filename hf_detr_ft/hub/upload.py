"""The upload: one commit with the files of a run, and one clear line where the Hub does not take it."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from hf_detr_ft.errors import InputError, RecipeError
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.hub.card_author import choose_card
from hf_detr_ft.hub.example_photos import OURS
from hf_detr_ft.hub.upload_files import Files, check_run_folder, collect_files
from hf_detr_ft.run_folder import CARD, WEIGHTS

logger = logging.getLogger(__name__)

NO_TOKEN = "no Hub token was found; run `hf auth login` or set HF_TOKEN"
MADE_BY_THE_HUB = {".gitattributes", CARD}
"""Files of a new repository."""
NOUNS = {"space": ("Space", "docker", "Upload a demo"), "dataset": ("data set", None, "Upload a data set")}
"""Words for a repository, what it runs on, and title of the commit."""
REMEDIES = {
    401: "the token is wrong or has expired; run `hf auth login` or set HF_TOKEN to a new one",
    403: "the token may not write there; use one with write access, or a name under your own account",
    404: "no such repository or branch for this token; check the name and the token's account",
    412: "the repository changed meanwhile; push again",
    429: "too many requests; wait some minutes and push again",
}
"""Advice for each status of the Hub's answer."""


def resolve_repo_id(repo_id: str, token: str | None = None, ask: bool = True) -> str:
    """Completes a repository's name to "user/name"; a bare name goes to the token's account, if the Hub may be asked.

    Raises:
        RecipeError: it is not a repository name.
        InputError: the Hub did not say whose account it is.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RecipeError(f"repository {repo_id!r}: expected user/name, such as anna/detr-balloon. {error}") from None
    return repo_id if "/" in repo_id or not ask else f"{_whoami(repo_id, token)['name']}/{repo_id}"


def check_access(repo_id: str, token: str | None = None) -> str:
    """Finds out before a long training whether a push could work. Creates nothing.

    Returns:
        `repo_id` as "user/name".

    Raises:
        RecipeError: it is not a repository name.
        InputError: there is no network or no valid token, or the token may not write there.
    """
    whole = resolve_repo_id(repo_id, token)
    account = _whoami(whole, token)
    namespaces = [account["name"], *(organisation["name"] for organisation in account.get("orgs", []))]
    if whole.split("/")[0] not in namespaces:
        raise InputError(f"{whole}: the token may not write there; it belongs to {', '.join(namespaces)}")
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise InputError(f"{whole}: the token of {account['name']} may only read; use one with write access")
    return whole


def _whoami(repo_id: str, token: str | None) -> dict[str, Any]:
    api = HfApi(token=token)
    try:
        return api.whoami()
    except (HTTPError, OSError) as error:
        raise _explain(error, api, repo_id) from error


def push_run(
    run: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a run",
    license: str | None = None,
    overwrite_card: bool = False,
    examples: Mapping[str, bytes] | None = None,
) -> str:
    """Uploads what `collect_files` lists, in one commit, and returns the repository's URL.

    A README.md on the Hub is replaced where it came from a push or is only metadata (which are kept), and left alone
    where a person wrote or edited it there, unless `overwrite_card`.

    Args:
        run: the run folder.
        repo_id: "user/name", or a name under the token's account. Created where it does not exist.
        private: visibility of a new repository; None leaves it to the account's default.
        token: None takes `HF_TOKEN` or the one that `hf auth login` stored.
        revision: branch, created where it does not exist; None is `main`.
        commit_message: title of the commit.
        license: for the card's metadata.
        overwrite_card: replace a README.md on the Hub whoever wrote it.
        examples: photos to try the model on, as `read_examples` gives them, in place of those that are there; the card
            keeps those where none are given.

    Raises:
        InputError: the folder is incomplete, the Hub cannot be reached or refuses; one line with the remedy.
    """
    check_run_folder(run)
    repo_id = resolve_repo_id(repo_id, token)
    files = collect_files(run, repo_id, license, token, examples, revision)
    api = HfApi(token=token)
    try:
        url = str(api.create_repo(repo_id, private=private, exist_ok=True))
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        info = api.model_info(repo_id, revision=revision)
        _check_private(private, info, url)
        present = {sibling.rfilename for sibling in info.siblings or []}
        if CARD in present:
            files = _reconcile_card(files, _remote_card(api, repo_id, info.sha), overwrite_card, url)
        operations: list[CommitOperationAdd | CommitOperationDelete] = []
        operations += [CommitOperationAdd(name, content) for name, content in files.items()]
        if WEIGHTS in present and WEIGHTS not in files:
            operations.append(CommitOperationDelete(WEIGHTS))  # it would be loaded instead of the new shards
        if examples:
            old = (name for name in present - files.keys() if OURS.fullmatch(name))
            operations += [CommitOperationDelete(name) for name in sorted(old)]
        api.create_commit(repo_id, operations, commit_message=commit_message, revision=revision, parent_commit=info.sha)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _explain(error, api, repo_id) from error
    return url if revision is None else f"{url}/tree/{revision}"


def push_files(
    files: Files,
    repo_id: str,
    kind: Literal["space", "dataset"],
    *,
    private: bool | None = None,
    overwrite: bool = False,
    token: str | None = None,
) -> str:
    """Uploads the files of a data set, or of a Space that runs a Dockerfile, in one commit, and returns its URL.

    Args:
        files: all of them.
        repo_id: "user/name". Created where it does not exist.
        kind: of the repository.
        private: visibility of a new one; None leaves it to the account's default.
        overwrite: replace what is there: of a data set its Parquet files, too, that are no longer among the files.
            Others stay.
        token: see `push_run`.

    Raises:
        InputError: it holds files already, or the Hub cannot be reached or refuses.
    """
    api = HfApi(token=token)
    noun, sdk, title = NOUNS[kind]
    try:
        url = str(api.create_repo(repo_id, repo_type=kind, space_sdk=sdk, private=private, exist_ok=True))
        info: Any = api.repo_info(repo_id, repo_type=kind)
        _check_private(private, info, url)
        present = {sibling.rfilename for sibling in info.siblings or []} - MADE_BY_THE_HUB
        if present and not overwrite:
            raise InputError(
                f"{url}: holds {pluralize(len(present), 'file')} already, such as {min(present)}. Name another {noun}, "
                "or give --overwrite."
            )
        operations: list[CommitOperationAdd | CommitOperationDelete] = []
        operations += [CommitOperationAdd(name, content) for name, content in files.items()]
        old = {name for name in present - files.keys() if kind == "dataset" and name.endswith(".parquet")}
        operations += [CommitOperationDelete(name) for name in sorted(old)]
        api.create_commit(repo_id, operations, commit_message=title, repo_type=kind, parent_commit=info.sha)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _explain(error, api, repo_id) from error
    return url


def _check_private(private: bool | None, info: Any, url: str) -> None:
    if private and info.private is False:
        raise InputError(f"{url} is public already, but private was asked for; make it private there or rename")


def _remote_card(api: HfApi, repo_id: str, commit: str | None) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo_id, CARD, revision=commit, cache_dir=folder)
        return Path(path).read_text(encoding="utf-8")


def _reconcile_card(files: Files, remote: str, overwrite: bool, url: str) -> Files:
    """Puts the card that may go up among the files: none where it would replace a person's work on the Hub."""
    content = files[CARD]
    assert isinstance(content, bytes), "collect_files gives the card as content"
    card = choose_card(content.decode(), remote, overwrite)
    if card is not None:
        return {**files, CARD: card.encode()}
    logger.warning(
        "%s: %s was written by hand there and stays, so check its numbers; overwrite_card replaces it", url, CARD
    )
    return {name: entry for name, entry in files.items() if name != CARD}


def _explain(error: Exception, api: HfApi, repo_id: str) -> InputError:
    """Makes one line out of whatever the client raised, with advice."""
    if isinstance(error, LocalTokenNotFoundError):
        return InputError(f"{api.endpoint}, {repo_id}: {NO_TOKEN}")
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    refusal = next((cause for cause in chain if isinstance(cause, HfHubHTTPError)), None)
    if refusal is None:
        said = " ".join(str(error).split()) or type(error).__name__
        if any(isinstance(cause, HTTPError | ConnectionError) for cause in chain):
            return InputError(f"{api.endpoint} cannot be reached ({said}); nothing is lost, push again with a network")
        return InputError(f"pushing to {repo_id} failed: {said}")
    status = refusal.response.status_code
    said = " ".join((refusal.server_message or "").split()).rstrip(".")
    remedy = REMEDIES.get(
        status, "the Hub is in trouble; push again later" if status >= 500 else "the run was not pushed"
    )
    if status == 401 and not (api.token or get_token()):
        remedy = NO_TOKEN
    return InputError(f"{api.endpoint} refused {repo_id} ({status}{': ' + said if said else ''}): {remedy}")
