"""A small Hugging Face Hub on 127.0.0.1 that answers the calls which the real `huggingface_hub` client makes.

It holds repositories as commits of whole trees in memory, checks tokens, stores large files by their SHA-256 as Git LFS
does, and checks a model card's metadata. What it does not know it answers with 501 and remembers in `unknown`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

ANNA, BERT = "hf_" + "a1B2" * 8, "hf_" + "z9Y8" * 8
"""Tokens of two users, in the form of real ones."""
LARGE = (".safetensors", ".bin", ".png", ".parquet")
SCHEMA_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
FIRST_COMMIT = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


class Refusal(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: object) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **body}


@dataclass
class Repo:
    """Branches by name, trees by commit; the content of large files is in the server's `large`."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)

    def commit(self, branch: str, tree: dict[str, bytes], title: str) -> str:
        sha = hashlib.sha1(f"{len(self.trees)} {title}".encode()).hexdigest()
        self.trees[sha], self.branches[branch] = tree, sha
        self.titles.append(title)
        return sha


class HubServer:
    """Use as a context manager; `url` goes into `HF_ENDPOINT`."""

    def __init__(self) -> None:
        self.tokens = {ANNA: "anna", BERT: "bert"}
        self.role = "write"
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.refusals: list[tuple[str, Refusal]] = []
        """Pairs of a pattern for "METHOD /path" and what to answer there, whatever was asked."""
        self.before_commit: Callable[[Repo], object] | None = None
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.storage = self.url.replace("127.0.0.1", "localhost")
        """Large files have a host of their own, as on the Hub, which no token may be sent to."""
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def create(self, repo_id: str, private: bool = False) -> Repo:
        repo = self.repos[repo_id] = Repo(private)
        repo.commit("main", dict(FIRST_COMMIT), "initial commit")
        return repo

    def files(self, repo_id: str, branch: str = "main") -> dict[str, bytes]:
        """The content of a branch, large files included."""
        repo = self.repos[repo_id]
        return {path: self.content(stored) for path, stored in repo.trees[repo.branches[branch]].items()}

    def content(self, stored: bytes) -> bytes:
        return self.large[stored[4:].decode()] if stored.startswith(b"lfs:") else stored

    def stored_bytes(self) -> bytes:
        """All that was ever uploaded, in any commit or none."""
        trees = [tree for repo in self.repos.values() for tree in repo.trees.values()]
        return b"\n".join([*self.large.values(), *(content for tree in trees for content in tree.values())])


def point_client_at(hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `hub` the Hub of this process, with nothing in `home` and Anna logged in, whatever the environment says."""
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_CACHE": str(home / "hub"),
        "AGENT_HARNESSES_PATH": str(home / "agents.json"),
    }.items():
        monkeypatch.setattr(constants, name, value, raising=False)
    # Transformers keeps a client, perhaps of a server of an earlier test, which it would ask again and again.
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", ANNA)


class _Handler(BaseHTTPRequestHandler):
    server_state: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: a test's output is its own."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self) -> None:
        hub, body, parts = self.server_state, self._body(), urlsplit(self.path)
        path = unquote(parts.path)
        with hub.lock:
            hub.requests.append(f"{self.command} {path}")
            try:
                for pattern, refusal in hub.refusals:
                    if re.fullmatch(pattern, f"{self.command} {path}"):
                        raise refusal
                for method, pattern, answer in ROUTES:
                    found = re.fullmatch(pattern, path)
                    if found and self.command in method.split():
                        status, headers, content = answer(hub, self, body, parse_qs(parts.query), **found.groupdict())
                        break
                else:
                    hub.unknown.append(f"{self.command} {self.path}")
                    raise Refusal(501, f"not spoken here: {self.command} {self.path}")
            except Refusal as refusal:
                headers = {
                    "X-Error-Message": str(refusal).splitlines()[0],
                    **({"X-Error-Code": refusal.code} if refusal.code else {}),
                }
                status, content = refusal.status, refusal.body
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if asked and status == 200:
            start, end = int(asked[1]), min(int(asked[2]) + 1, len(raw))
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(raw)}"}
            status, raw = 206, raw[start:end]
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json; charset=utf-8"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def user(self) -> str | None:
        """The account of the request's token; None without a token."""
        given = self.headers.get("Authorization")
        if given is None:
            return None
        name = self.server_state.tokens.get(given.removeprefix("Bearer "))
        if name is None:
            raise Refusal(401, "Invalid username or password.")
        return name


Answer = tuple[int, dict[str, str], Any]


def _repo(hub: HubServer, request: _Handler, repo_id: str, write: bool = False) -> Repo:
    user = request.user()
    repo = hub.repos.get(repo_id)
    owner = repo_id.split("/")[0]
    if user is None and (repo is None or repo.private or write):
        raise Refusal(401, "Invalid username or password.")
    if repo is None or (repo.private and user != owner):
        raise Refusal(404, "Repository not found", "RepoNotFound")
    if write and user != owner:
        raise Refusal(403, f"Forbidden: pass a token with write access to {owner}")
    return repo


def _commit(repo: Repo, revision: str) -> str:
    sha = repo.branches.get(revision, revision)
    if sha not in repo.trees:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return sha


def _whoami(hub: HubServer, request: _Handler, body: bytes, query: dict) -> Answer:
    name = request.user()
    if name is None:
        raise Refusal(401, "Invalid username or password.")
    auth = {"type": "access_token", "accessToken": {"displayName": "laptop", "role": hub.role}}
    return 200, {}, {"type": "user", "name": name, "orgs": [{"name": f"{name}-lab"}], "auth": auth}


def _agents(hub: HubServer, request: _Handler, body: bytes, query: dict) -> Answer:
    return 200, {}, {"standardEnvVars": [], "harnesses": {}}


def _create(hub: HubServer, request: _Handler, body: bytes, query: dict) -> Answer:
    asked, user = json.loads(body), request.user()
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    owner = asked.get("organization") or user
    if owner != user or hub.role == "read":
        raise Refusal(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
    repo_id = f"{owner}/{asked['name']}"
    place = {"space": "spaces/", "dataset": "datasets/"}.get(asked.get("type"), "")
    if repo_id in hub.repos:
        raise Refusal(409, "You already created this model repo", url=f"{hub.url}/{place}{repo_id}")
    private = asked.get("visibility") == "private" or asked.get("private") is True
    hub.create(repo_id, private)
    return 200, {}, {"url": f"{hub.url}/{place}{repo_id}", "name": repo_id, "id": "0" * 24}


def _branch(hub: HubServer, request: _Handler, body: bytes, query: dict, repo_id: str, branch: str) -> Answer:
    repo = _repo(hub, request, repo_id, write=True)
    if branch in repo.branches:
        raise Refusal(409, f"Reference already exists: refs/heads/{branch}")
    start = (json.loads(body) if body else {}).get("startingPoint", "main")
    repo.branches[branch] = _commit(repo, start)
    return 200, {}, {}


def _validate(hub: HubServer, request: _Handler, body: bytes, query: dict) -> Answer:
    asked = json.loads(body)
    errors = CHECKS[asked["repoType"]](asked["content"])
    listed = [{"message": message} for message in errors]
    return (400 if errors else 200), {}, {"errors": listed, "warnings": []}


def check_card(content: str) -> list[str]:
    """Faults of a model card's metadata, by the Hub's documented format."""
    found = re.match(r"\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", content, re.DOTALL)
    if found is None:
        return ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return [f"bad yaml: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be an object"]
    errors = []
    for key in ("base_model", "datasets", "license", "library_name", "pipeline_tag"):
        values = data.get(key, [])
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, str) or not SCHEMA_ID.fullmatch(value):
                errors.append(f'"{key}" with value {value!r} is not valid')
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        errors.append('"tags" must be texts')
    for entry in data.get("widget", []):
        if not isinstance(entry, dict) or not str(entry.get("src")).startswith("https://"):
            errors.append(f'"widget" with value {entry!r} is not valid')
    for index, model in enumerate(data.get("model-index", [])):
        errors += _check_results(f"model-index[{index}]", model)
    return errors


def check_space(content: str) -> list[str]:
    """Faults of a Space's README.md."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    data = yaml.safe_load(found[1]) if found else {}
    right = data.get("sdk") in ("gradio", "docker", "static") and isinstance(data.get("title"), str)
    return [] if right else ['"sdk" and "title" are required']


def check_data_card(content: str) -> list[str]:
    """Faults of a data set card's metadata: what its viewer needs."""
    data = yaml.safe_load(content.split("---")[1])
    return [f"{key} is missing" for key in ("task_categories", "configs") if not data.get(key)]


CHECKS = {"model": check_card, "space": check_space, "dataset": check_data_card}


def _check_results(where: str, model: dict) -> list[str]:
    errors = [] if isinstance(model.get("name"), str) else [f'"{where}.name" is required']
    if not model.get("results"):
        errors.append(f'"{where}.results" is required')
    for number, result in enumerate(model.get("results") or []):
        place = f"{where}.results[{number}]"
        for part, keys in (("task", ("type",)), ("dataset", ("type", "name"))):
            for key in keys:
                if not isinstance(result.get(part, {}).get(key), str):
                    errors.append(f'"{place}.{part}.{key}" is required')
        for metric in result.get("metrics") or [{}]:
            if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), int | float | str):
                errors.append(f'"{place}.metrics" need type and value')
    return errors


def _info(hub: HubServer, request: _Handler, body: bytes, query: dict, repo_id: str, revision: str = "main") -> Answer:
    repo = _repo(hub, request, repo_id)
    sha = _commit(repo, revision or "main")
    siblings = [{"rfilename": path} for path in repo.trees[sha]]
    content = {"_id": "0" * 24, "id": repo_id, "modelId": repo_id, "sha": sha, "private": repo.private, "tags": []}
    return 200, {}, {**content, "pipeline_tag": "object-detection", "siblings": siblings}


def _entry(hub: HubServer, path: str, stored: bytes) -> dict[str, Any]:
    content = hub.content(stored)
    entry = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(stored)}
    if stored.startswith(b"lfs:"):
        entry["lfs"] = {"oid": stored[4:].decode(), "size": len(content), "pointerSize": 134}
    return entry


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _tree(
    hub: HubServer, request: _Handler, body: bytes, query: dict, repo_id: str, revision: str, under: str
) -> Answer:
    repo = _repo(hub, request, repo_id)
    tree = repo.trees[_commit(repo, revision)]
    prefix = f"{under}/" if under else ""
    inside = {path: stored for path, stored in tree.items() if path.startswith(prefix)}
    if not inside:
        raise Refusal(404, f"{under} does not exist", "EntryNotFound")
    if query.get("recursive", ["false"])[0].lower() == "true":
        return 200, {}, [_entry(hub, path, stored) for path, stored in inside.items()]
    folders = {prefix + path[len(prefix) :].split("/")[0] for path in inside if "/" in path[len(prefix) :]}
    files = [_entry(hub, path, stored) for path, stored in inside.items() if "/" not in path[len(prefix) :]]
    return 200, {}, [*({"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders), *files]


def _preupload(hub: HubServer, request: _Handler, body: bytes, query: dict, repo_id: str, revision: str) -> Answer:
    repo = _repo(hub, request, repo_id, write=True)
    tree = repo.trees[_commit(repo, revision)]
    files = []
    for asked in json.loads(body)["files"]:
        stored = tree.get(asked["path"])
        oid = None if stored is None else stored[4:].decode() if stored.startswith(b"lfs:") else _git_oid(stored)
        mode = "lfs" if asked["path"].endswith(LARGE) else "regular"
        files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return 200, {}, {"files": files}


def _lfs_batch(hub: HubServer, request: _Handler, body: bytes, query: dict, repo_id: str) -> Answer:
    _repo(hub, request, repo_id, write=True)
    objects = []
    for asked in json.loads(body)["objects"]:
        upload = {
            "upload": {"href": f"{hub.storage}/lfs-storage/{asked['oid']}"},
            "verify": {"href": f"{hub.url}/{repo_id}.git/info/lfs/verify"},
        }
        objects.append({**asked, **({} if asked["oid"] in hub.large else {"actions": upload})})
    return 200, {}, {"transfer": "basic", "objects": objects}


def _refuse_token(request: _Handler) -> None:
    if request.headers.get("Authorization"):
        raise Refusal(400, "storage takes signed addresses, not tokens")


def _lfs_put(hub: HubServer, request: _Handler, body: bytes, query: dict, oid: str) -> Answer:
    _refuse_token(request)
    if hashlib.sha256(body).hexdigest() != oid:
        raise Refusal(400, "content does not match its address")
    hub.large[oid] = body
    return 200, {}, b""


def _lfs_verify(hub: HubServer, request: _Handler, body: bytes, query: dict, repo_id: str) -> Answer:
    asked = json.loads(body)
    if len(hub.large.get(asked["oid"], b"")) != asked["size"]:
        raise Refusal(404, "no such object")
    return 200, {}, {}


def _post_commit(hub: HubServer, request: _Handler, body: bytes, query: dict, repo_id: str, revision: str) -> Answer:
    repo = _repo(hub, request, repo_id, write=True)
    if hub.before_commit is not None:
        hub.before_commit(repo)
    head = _commit(repo, revision)
    lines = [json.loads(line) for line in body.splitlines() if line]
    header = lines[0]["value"]
    if header.get("parentCommit", head) != head:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(repo.trees[head])
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            tree[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            if value["oid"] not in hub.large:
                raise Refusal(400, f"{value['path']}: its content was not uploaded")
            tree[value["path"]] = b"lfs:" + value["oid"].encode()
        elif line["key"] == "deletedFile":
            del tree[value["path"]]
        else:
            raise Refusal(501, f"not spoken here: {line['key']}")
    sha = repo.commit(revision, tree, header["summary"])
    return 200, {}, {"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{repo_id}/commit/{sha}"}


def _resolve(
    hub: HubServer, request: _Handler, body: bytes, query: dict, repo_id: str, revision: str, path: str
) -> Answer:
    repo = _repo(hub, request, repo_id)
    sha = _commit(repo, revision)
    stored = repo.trees[sha].get(path)
    if stored is None:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    if not stored.startswith(b"lfs:"):
        return 200, {"ETag": f'"{_git_oid(stored)}"', "X-Repo-Commit": sha}, stored
    oid = stored[4:].decode()
    linked = {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(hub.large[oid])), "X-Repo-Commit": sha}
    return 302, {**linked, "Location": f"{hub.storage}/lfs-storage/{oid}"}, b""


def _lfs_get(hub: HubServer, request: _Handler, body: bytes, query: dict, oid: str) -> Answer:
    _refuse_token(request)
    if oid not in hub.large:
        raise Refusal(404, "no such object")
    return 200, {"ETag": f'"{oid}"'}, hub.large[oid]


_ID = r"(?P<repo_id>[\w.-]+/[\w.-]+?)"
_REVISION = r"(?P<revision>refs/\w+/\w+|[^/]+)"
ROUTES = (
    ("GET", r"/api/agent-harnesses", _agents),
    ("GET", r"/api/whoami-v2", _whoami),
    ("POST", r"/api/repos/create", _create),
    ("POST", r"/api/validate-yaml", _validate),
    ("GET", rf"/api/(?:models|spaces|datasets)/{_ID}", _info),
    ("GET", rf"/api/(?:models|spaces|datasets)/{_ID}/revision/(?P<revision>.+)", _info),
    ("GET", rf"/api/(?:models|spaces|datasets)/{_ID}/tree/{_REVISION}/?(?P<under>.*)", _tree),
    ("POST", rf"/api/(?:models|spaces|datasets)/{_ID}/branch/(?P<branch>.+)", _branch),
    ("POST", rf"/api/(?:models|spaces|datasets)/{_ID}/preupload/(?P<revision>.+)", _preupload),
    ("POST", rf"/api/(?:models|spaces|datasets)/{_ID}/commit/(?P<revision>.+)", _post_commit),
    ("POST", rf"/(?:spaces/|datasets/)?{_ID}\.git/info/lfs/objects/batch", _lfs_batch),
    ("POST", rf"/(?:spaces/|datasets/)?{_ID}\.git/info/lfs/verify", _lfs_verify),
    ("PUT", r"/lfs-storage/(?P<oid>[0-9a-f]{64})", _lfs_put),
    ("GET HEAD", r"/lfs-storage/(?P<oid>[0-9a-f]{64})", _lfs_get),
    ("GET HEAD", rf"/(?:datasets/)?{_ID}/resolve/{_REVISION}/(?P<path>.+)", _resolve),
)
