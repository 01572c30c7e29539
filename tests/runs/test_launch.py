"""Trainings in several processes: what is started, the configurations that come with the package, exit statuses."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands import launch as accelerate_launch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from hf_detr_ft import cli
from tests.fixtures import free_port

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "recipes" / "accelerate"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Arguments of what would be started."""
    calls: list[Any] = []
    for launcher in ("multi_gpu_launcher", "simple_launcher"):
        monkeypatch.setattr(accelerate_launch, launcher, calls.append)
    return calls


def test_a_recipe_error_is_said_once_with_its_own_status(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--num_processes", "2", "--main_process_port", str(free_port()), "nothing.yaml"]
    assert cli.main(["launch", *arguments]) == 2
    written = capfd.readouterr().err
    assert written.count("nothing.yaml: no such recipe") == 1
    assert "Traceback" not in written


def test_several_processes_are_started_without_gpus_too(started: list[Any]) -> None:
    assert cli.main(["launch", "--num_processes", "3", "my.yaml", "--training.use_cpu"]) == 0
    (args,) = started
    assert (args.multi_gpu, args.num_processes, args.module) == (True, 3, True)
    assert args.training_script == "hf_detr_ft.cli"
    assert args.training_script_args == ["train", "my.yaml", "--training.use_cpu"]


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (subprocess.CalledProcessError(2, "train"), 2, ""),
        (subprocess.CalledProcessError(-signal.SIGKILL, "train"), 137, "signal 9, as the system does where memory"),
        (ChildFailedError("train", {1: ProcessFailure(1, 77, -signal.SIGTERM, "")}), 143, "process 1 was ended by"),
        (ValueError("You need at least 2 processes"), 2, "error: accelerate launch: You need at least 2 processes"),
    ],
)
def test_exit_statuses_are_those_of_the_processes(
    failure: Exception,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(args: object) -> None:
        raise failure

    monkeypatch.setattr("hf_detr_ft.runs.launch.launch_command", fail)
    assert cli.main(["launch", "my.yaml"]) == status
    written = capsys.readouterr().err
    assert said in written and bool(said) == bool(written)


@pytest.mark.parametrize(("name", "machines", "processes"), [("one_machine", 1, 4), ("several_machines", 2, 8)])
def test_a_saved_configuration_starts_what_it_says(
    name: str, machines: int, processes: int, started: list[Any]
) -> None:
    path = CONFIGS / f"{name}.yaml"
    assert isinstance(load_config_from_file(str(path)), ClusterConfig)
    assert cli.main(["launch", "--config_file", str(path), "my.yaml"]) == 0
    (args,) = started
    assert (args.multi_gpu, args.num_machines, args.num_processes) == (True, machines, processes)
    assert args.mixed_precision == "no", "a precision of the launcher's would go before the machine's own"
    assert machines == 1 or (args.main_process_ip, args.main_process_port, args.machine_rank) == ("10.0.0.1", 29500, 0)


def test_slurm_starts_one_launcher_on_each_node(tmp_path: Path, started: list[Any]) -> None:
    programs = {
        "scontrol": "printf 'node7\\nnode8\\n'",
        "srun": 'shift; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "accelerate": f'printf "%s\\n" "$@" > {tmp_path}/arguments.$SLURM_NODEID',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "41", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = str(CONFIGS / "slurm.sbatch")
    subprocess.run(["bash", script, "my.yaml", "--data.name", "two words"], env=environment, check=True)
    for node in (0, 1):
        verb, *arguments = (tmp_path / f"arguments.{node}").read_text().splitlines()
        assert verb == "launch"
        args = accelerate_launch.launch_command_parser().parse_args(arguments)
        assert (args.machine_rank, args.num_machines, args.num_processes) == (node, 2, 8)
        assert (args.main_process_ip, args.main_process_port) == ("node7", 20041)
        assert (REPOSITORY / args.config_file).is_file()
        assert args.training_script == "train.py"
        assert args.training_script_args == ["my.yaml", "--data.name", "two words"]
