"""The demo as a Space: its files, that they run by themselves, and how they come to the Hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hf_detr_ft.cli import main
from hf_detr_ft.demo.space_files import list_requirements
from tests.hub.hub_server import ANNA, HubServer, Refusal, check_space

METRICS = {"best": {"metrics": {"map": 0.5}, "best_f1": {"threshold": 0.62}}, "data": {"name": "balloon"}}


@pytest.fixture
def run(spread_run: Path, tmp_path: Path) -> Path:
    """A run folder with a file that is nobody's business."""
    run = tmp_path / "runs" / "my balloon"
    shutil.copytree(spread_run, run)
    (run / "metrics.json").write_text(json.dumps(METRICS))
    (run / "report.html").write_text("photos of mine")
    return run


def test_the_files_of_a_space_run_by_themselves(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "space"
    assert main(["demo", str(run), "anna/detr", "--space", "anna/shown", "--output", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "go to the Space anna/shown" in said and "models/my balloon/model.safetensors" in said
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    own = {name for name in names if not name.startswith("hf_detr_ft/")}
    model = ("config.json", "metrics.json", "model.safetensors", "preprocessor_config.json")
    assert own == {
        *("README.md", "Dockerfile", "requirements.txt", "app.py"),
        *(f"models/my balloon/{name}" for name in model),
    }
    assert {"hf_detr_ft/demo/demo.js", "hf_detr_ft/hub/model_card.md", "hf_detr_ft/cli.py"} <= names
    assert not [name for name in names if "tiny_" in name or name.endswith((".pyc", ".yaml"))]

    readme = (folder / "README.md").read_text()
    header = yaml.safe_load(readme.split("---")[1])
    assert header == {"title": "shown", "sdk": "docker", "app_port": 7860, "models": ["anna/detr"]}
    assert check_space(readme) == []

    app = (folder / "app.py").read_text().replace("anna/detr", "no/such/folder")
    (folder / "app.py").write_text(app)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run([sys.executable, "app.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: 'no/such/folder': expected a run folder or a Hub id, found no such folder")


def test_requirements_name_what_is_installed_here() -> None:
    listed = list_requirements()
    assert f"jsonargparse[signatures]=={__import__('jsonargparse').__version__}" in listed
    assert {"torch", "transformers", "supervision"} <= {line.split("==")[0] for line in listed}
    assert not {"pytest", "ruff", "tensorboard"} & {line.split("==")[0] for line in listed}
    assert not [line for line in listed if "+" in line]


def test_a_space_is_pushed_once_and_again_when_asked(
    hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push = ["demo", str(run), "--space", "shown"]
    assert main([*push, "--dry-run"]) == 0
    assert hub.repos == {}
    hub.refusals.append((r"POST .*/commit/.*", Refusal(503, "try later")))
    assert main(push) == 1
    hub.refusals.clear()
    assert main(push) == 0  # repeated after it broke in the middle
    files = hub.files("anna/shown")
    assert files["models/my balloon/model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert b'["demo", "models/my balloon", "--host", "0.0.0.0", "--port", "7860"]' in files["app.py"]
    capsys.readouterr()

    assert main(push) == 1
    assert "/spaces/anna/shown: holds" in (said := capsys.readouterr().err) and "--overwrite" in said
    assert main([*push, "--overwrite"]) == 0
    assert main([*push, "--overwrite", "--private"]) == 1
    assert "is public already, but private was asked for" in capsys.readouterr().err


def test_a_token_does_not_go_up(hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.json").write_text(json.dumps({**METRICS, "note": ANNA}))
    assert main(["demo", str(run), "--space", "anna/shown"]) == 1
    assert "holds what looks like an access token" in capsys.readouterr().err and hub.repos == {}


def test_what_is_there_is_not_replaced(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(run), "--space", "anna/shown", "--output", str(run)]) == 2
    assert "is not empty. Name another folder." in capsys.readouterr().err
    assert main(["demo", str(run), "--output", str(tmp_path / "space")]) == 2
    assert "expected --space USER/NAME beside them" in capsys.readouterr().err
    (run / "metrics.json").unlink()
    assert main(["demo", str(run), "--space", "anna/shown", "--output", str(tmp_path / "space")]) == 1
    assert "not a complete run folder, missing metrics.json" in capsys.readouterr().err
