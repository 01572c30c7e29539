"""Files of a Space, the Hub's place for a page with a program behind it: the demo's page, and the models with it."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import requires, version
from pathlib import Path

import hf_detr_ft
from hf_detr_ft.hub.upload_files import PACKAGE, Files, collect_files
from hf_detr_ft.model.checkpoint import resolve_source
from hf_detr_ft.run_folder import CARD, RESULTS, RunFolder

SUFFIXES = (".py", ".typed", ".md", ".html", ".css", ".js")
"""Ends of the names of the package's files that a Space needs; the tiny models that come with it, it does not."""
PORT = 7860
APP = '''"""Shows what a detector finds in a photo. Written by `hf-detr-ft demo`."""

import sys

from hf_detr_ft.cli import main

sys.exit(main({arguments}))
'''
DOCKERFILE = """FROM python:{python}-slim
RUN useradd --create-home --uid 1000 user
USER user
ENV PATH=/home/user/.local/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /home/user/app
COPY --chown=user requirements.txt .
RUN pip install --no-cache-dir --user -r requirements.txt
COPY --chown=user . .
CMD ["python", "app.py"]
"""
README = """---
title: {title}
sdk: docker
app_port: {port}
{models}---

Drop a photo on the page and see what {names} finds: move the threshold, choose classes, click a box to see what
the model attended to. Photos are not kept.

`app.py` starts the page, which `hf_detr_ft/` holds; `requirements.txt` has the versions that it was tried with.
"""


def collect_space(sources: Sequence[str], repo_id: str) -> Files:
    """Files of a Space that shows models, without anything private.

    Runs and other folders go up with their weights, and what comes from the Hub is named.

    Args:
        sources: run folders, or Hub ids.
        repo_id: "user/name" of the Space.

    Raises:
        DataError: a folder is no complete run, or a file holds what looks like an access token.
    """
    files: Files = {}
    arguments, hub_ids = [], []
    for source in sources:
        path = Path(resolve_source(source, "model"))
        if not path.exists():
            arguments.append(source)
            hub_ids.append(source)
            continue
        place = f"models/{RunFolder(path).name}"
        place = f"{place}-2" if place in arguments else place
        arguments.append(place)
        of_model = collect_files(path, repo_id)
        files |= {
            f"{place}/{name}": of_model[name] for name in of_model if name not in (CARD, RESULTS) and "/" not in name
        }
    title, names = repo_id.split("/")[-1], " and ".join(Path(each).name for each in arguments)
    models = f"models: {json.dumps(hub_ids)}\n" if hub_ids else ""
    command = ["demo", *arguments, "--host", "0.0.0.0", "--port", str(PORT)]
    texts = {
        CARD: README.format(title=json.dumps(title), port=PORT, models=models, names=names),
        "Dockerfile": DOCKERFILE.format(python=f"{sys.version_info.major}.{sys.version_info.minor}"),
        "requirements.txt": "".join(f"{line}\n" for line in list_requirements()),
        "app.py": APP.format(arguments=json.dumps(command)),
    }
    package = Path(hf_detr_ft.__file__).parent
    return {
        **{name: text.encode() for name, text in texts.items()},
        **files,
        **{f"{PACKAGE}/{path.relative_to(package).as_posix()}": path for path in package_files(package)},
    }


def package_files(package: Path) -> Iterator[Path]:
    """Files of this package that a Space needs, sorted."""
    for path in sorted(package.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file() and not path.relative_to(package).parts[0].startswith("tiny_"):
            yield path


def list_requirements() -> list[str]:
    """Direct dependencies of this package, without its extras, in the versions that are installed here."""
    wanted = [re.match(r"([\w.-]+)(\[.*?\])?", line) for line in requires(PACKAGE) or [] if "extra ==" not in line]
    named = {f"{name[1]}{name[2] or ''}": version(name[1]) for name in wanted if name}
    # Builds of torch for one kind of machine, such as 2.11.0+cpu, are not where pip looks.
    return [f"{name}=={installed.partition('+')[0]}" for name, installed in sorted(named.items())]
