"""The notebooks run from top to bottom, and carry no output and nothing of the machine that they were written on."""

import base64
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
LARGEST = 20_000
"""Bytes of a notebook."""
LONGEST_CELL = 25
"""Lines of a cell: where it takes more, the package lacks a function."""
TRAINED = {
    "RUN": "run",
    "FLAGS": [
        *("--data.synthetic_images", "16", "--data.synthetic_val_images", "4"),
        *("--model.square_edge", "96", "--training.num_train_epochs", "2", "--training.warmup_steps", "0"),
        *("--training.logging_steps", "1", "--report.enabled", "false"),
    ],
}
SETTINGS: dict[str, dict] = {
    "fine_tune_on_balloon": TRAINED,
    "look_at_the_data": {"DRAWN": 12},
    "metrics": {"RUN": "run", "OTHERS": ["original"]},
    "view_validation": {},
    "attention": {},
}
"""Settings of each notebook, over those of its cell of parameters."""
PICTURES = {"fine_tune_on_balloon": 7, "look_at_the_data": 9, "metrics": 15, "view_validation": 6, "attention": 12}
"""Pictures that each shows at least."""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookClient]:
    """A kernel in an empty folder, for all of them: it imports torch and Transformers once."""
    folder = tmp_path_factory.mktemp("notebooks")
    client = NotebookClient(
        nbformat.v4.new_notebook(), kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    with client.setup_kernel(env={**os.environ, "IPYTHONDIR": str(folder / ".ipython")}):
        yield client


@pytest.fixture(scope="module")
def trained(kernel: NotebookClient) -> list[Image.Image]:
    """Pictures of the notebook that fine-tunes; the run that others look at is there afterwards, and its old log."""
    pictures = run(kernel, "fine_tune_on_balloon", TRAINED)
    folder = Path(kernel.resources["metadata"]["path"])
    (folder / "original").mkdir()
    shutil.copy(folder / "run" / "log.txt", folder / "original")
    return pictures


def run(kernel: NotebookClient, name: str, settings: dict) -> list[Image.Image]:
    """Executes a notebook in a kernel without anybody's variables, and returns the pictures that it shows."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert all(f"\n{setting} = " in f"\n{parameters.source}" for setting in settings)
    parameters.source += "".join(f"\n{setting} = {value!r}" for setting, value in settings.items())
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset_selective -f ^[^_]"))
    kernel.nb = notebook
    kernel.reset_execution_trackers()
    for index, cell in enumerate(notebook.cells):
        kernel.execute_cell(cell, index)
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert [data for data in shown if "text/html" in data] == [], "a bar of Transformers' beside ours"
    assert [data["text/plain"] for data in shown if "<Figure" in data["text/plain"] and "image/png" not in data] == []
    pictures = [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]
    return [Image.open(io.BytesIO(content)) for content in pictures]


def test_these_are_all() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == SETTINGS.keys() == PICTURES.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_it_runs_from_top_to_bottom(name: str, kernel: NotebookClient, trained: list[Image.Image]) -> None:
    pictures = trained if name == "fine_tune_on_balloon" else run(kernel, name, SETTINGS[name])
    assert len(pictures) >= PICTURES[name]
    assert all(picture.width >= 200 and len(set(picture.convert("L").tobytes())) > 20 for picture in pictures)


def test_one_cell_takes_it_to_the_balloon_photos(
    balloon: Path, kernel: NotebookClient, trained: list[Image.Image]
) -> None:
    assert len(run(kernel, "look_at_the_data", {"FOLDER": str(balloon)})) >= PICTURES["look_at_the_data"]
    own = {"MODEL": "run", "FLAGS": ["--data.synthetic_images", "null", "--data.root", str(balloon)]}
    assert len(run(kernel, "view_validation", own)) >= PICTURES["view_validation"]


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_small_and_tells_nothing_of_a_machine(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    text, notebook = path.read_text(encoding="utf-8"), nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(text.encode()) < LARGEST
    assert [cell.source for cell in notebook.cells if len(cell.source.splitlines()) > LONGEST_CELL] == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [
        cell.metadata for cell in notebook.cells if cell.metadata and cell.metadata != {"tags": ["parameters"]}
    ] == []
    assert re.findall(r"""["'(\s](?:~|[A-Za-z]:\\|/)[\w.-]+[/\\][\w./\\-]*""", text) == []


@pytest.mark.parametrize("name", SETTINGS)
def test_its_links_lead_somewhere(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (FOLDER / link).exists()] == []
