"""Fixtures of many tests, and an environment in which the user's settings, caches and network play no part."""

import gc
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

USERS_SETTINGS = ("HF_", "HUGGING", "TRANSFORMERS_", "ACCELERATE_", "WANDB_", "TENSORBOARD_", "MLFLOW_", "COMET_")
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
OURS = ("HF_DETR_FT_BALLOON",)
SLOW = (
    "test_two_processes.py",
    "test_quickstart.py",
    "test_notebooks.py",
    "runs/test_kills.py",
    "runs/test_train.py",
    "runs/test_report.py",
    "test_write_report.py",
)
HOME = Path(tempfile.mkdtemp(prefix="hf_detr_ft_tests_"))
"""In place of ~/.cache/huggingface, for this process and those that tests start."""

# Before the libraries are imported, which read these once.
for name in list(os.environ):
    if (name.startswith(USERS_SETTINGS) or name in LAUNCHED) and name not in OURS:
        del os.environ[name]
os.environ |= {"HF_HOME": str(HOME), "HF_HUB_OFFLINE": "1"}  # a look-up that finds no network is tried again for 25 s

import datasets  # noqa: E402
import pytest  # noqa: E402

from tests.fixtures import as_flags, write_run_with_spread_weights, write_short_job  # noqa: E402
from tests.hub.hub_server import HubServer, point_client_at  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Has pytest-xdist hand out files in the order of the items below, not by their number of tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts first what takes longest, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(SLOW))


def pytest_collection_finish() -> None:
    """Spares the imported libraries garbage collection, of which every training makes a whole one at its end."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Removes what this process cached."""
    gc.unfreeze()
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _workers_end() -> Iterator[None]:
    """Ends loaders' workers that a training in this process leaves; else garbage collection waits 5 s for each."""
    yield
    for worker in multiprocessing.active_children():
        worker.terminate()


@pytest.fixture(scope="session")
def balloon() -> Path:
    """The folder of the balloon data set; without it the test is skipped."""
    folder = os.environ.get("HF_DETR_FT_BALLOON")
    if not folder:
        pytest.skip("HF_DETR_FT_BALLOON does not name the folder of the balloon data set")
    return Path(folder)


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def spread_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, config and processor of a tiny DETR that finds something everywhere, in a folder that nobody changes."""
    return write_run_with_spread_weights(tmp_path_factory.mktemp("runs") / "spread")


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of `write_short_job`, without a report."""
    return as_flags({**write_short_job(tmp_path_factory.mktemp("job")), "report.enabled": "false"})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub of this process, with Anna logged in."""
    with HubServer() as server:
        point_client_at(server, tmp_path / "client", monkeypatch)
        yield server
        assert not server.unknown
