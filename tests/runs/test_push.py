"""`push` lists what goes up and says where it lies."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from hf_detr_ft.cli import main
from hf_detr_ft.errors import InputError
from hf_detr_ft.runs.push import push
from tests.fixtures import write_run_folder
from tests.hub.hub_server import HubServer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = write_run_folder(tmp_path / "balloon")
    (run / "metrics.json").write_text(json.dumps({"best": {"metrics": {"map": 0.5}}}))
    (run / "training_args.bin").write_bytes(b"pickle")
    return run


def test_push_lists_the_files_and_the_address(run: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(run, "detr-balloon", private=True, license="mit") == 0
    stored = hub.files("anna/detr-balloon")
    assert hub.repos["anna/detr-balloon"].private
    assert b"license: mit" in stored["README.md"]
    first, *listed, last = capsys.readouterr().out.splitlines()
    assert first == f"{run} goes to anna/detr-balloon:"
    assert last == f"Published: {hub.url}/anna/detr-balloon"
    assert {line.split()[0] for line in listed} == stored.keys() - {".gitattributes"}
    sizes = {line.split()[0]: line.split(maxsplit=1)[1] for line in listed}
    assert sizes["metrics.json"] == "35 B"
    assert sizes["model.safetensors"] == f"{(run / 'model.safetensors').stat().st_size / 1e6:.1f} MB"
    assert sizes["README.md"] == f"{len(stored['README.md']) / 1e3:.1f} kB"


@pytest.mark.parametrize("name", ["anna/detr-balloon", "detr-balloon"])
def test_a_dry_run_lists_the_same_and_asks_nobody(
    run: Path, hub: HubServer, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), name, "--dry-run"]) == 0
    first, *listed, last = capsys.readouterr().out.splitlines()
    assert hub.requests == []
    assert first == f"{run} would go to {name}:"
    assert last == "Nothing was sent."
    push(run, "anna/detr-balloon")
    assert {line.split()[0] for line in listed} == hub.files("anna/detr-balloon").keys() - {".gitattributes"}


def test_push_without_a_network_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9 cannot be reached .*$"):
        push(run, "anna/detr-balloon")
