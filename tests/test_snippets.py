"""Every snippet of the pages and of a model card runs, in the page's order, in a folder of small stand-ins.

Commands of this program are run in this process. Models, photos and data of the names on the pages are small drawn ones
(`stand_ins`), some of them on a Hub on loopback. What takes long is shortened by flags behind it, or by smaller numbers
in it, which change sizes and lengths alone (`SHORTER`). Other programs' commands are looked at instead (`look_at`).
"""

import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands import launch as accelerate_launch
from huggingface_hub import HfFileSystem

from hf_detr_ft import cli
from hf_detr_ft.benchmark import stopwatch, timed_job
from hf_detr_ft.data import find_data
from hf_detr_ft.data.formats import balloon_archive
from hf_detr_ft.demo.page_server import PageServer
from hf_detr_ft.runs import series
from hf_detr_ft.verb_arguments import build_parser
from tests.data.test_balloon_archive import release, zipped
from tests.fixtures import (
    HEADS_FOR_MASKS,
    as_flags,
    plain_image,
    tiny_detr_with_spread_weights,
    tiny_processor,
    write_coco_folder,
)
from tests.hub.hub_server import ANNA, HubServer
from tests.inference.videos import plain_frames, write_video
from tests.parity.original_models import Model, random_tensors
from tests.streamed import write_parquet, write_tars

REPOSITORY = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/*.md", "hf_detr_ft/tiny_*/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
}
PYTHON_ELSEWHERE = {"docs/plots.md", "docs/evaluation.md"}
"""Pages whose Python `test_docs.py` runs, and looks at what it gives."""
NOT_RUN = {
    "git clone https://github.com/Peterande/D-FINE": "it needs a network",
    "git -C D-FINE checkout 4a1f73a": "it needs what the line before clones",
    "hf-detr-ft predict runs/balloon 0": "it needs a camera; tests/runs/test_predict_outputs.py has a video for one",
}
"""Commands that nothing here can stand in for, and why."""
STAND_INS = {
    " /data/": " data/",
    "--folds 5": "--folds 2",
    "--seeds 3": "--seeds 2",
    "--last 4": "--last 2",
    "resnet50 ": "test_resnet ",
}
"""Parts of commands, and what is in their place: folders at the root of a disk, fewer runs, a smaller backbone."""
MADE_BY = {"runs/my": "hf-detr-ft train my.yaml", "runs/balloon": "hf-detr-ft train recipes/balloon.yaml"}
"""Runs that are made where no line of a page has made them."""
COPIES = {
    "runs/a": ("runs/my", "runs/a"),
    "runs/b": ("runs/my", "runs/b"),
    "runs/mine": ("detr-r50", "runs/mine"),
    "recipes/balloon.yaml": ("data/my", "balloon"),
}
"""Words of commands, and folders that go with them and that no line of the page makes: from where, and to where."""
TRAINING = {
    "training.num_train_epochs": 1,
    "training.per_device_train_batch_size": 2,
    "training.gradient_accumulation_steps": 1,
    "training.learning_rate_drop_epoch": "null",
    "training.warmup_steps": 0,
    "training.bf16": "false",
    "training.use_cpu": "true",
    "training.disable_tqdm": "true",
}
SHORTER = {
    "train": as_flags({**TRAINING, "training.overwrite": "true", "report.enabled": "false"}),
    "check": as_flags(TRAINING),
    "benchmark": ["--rounds", "1", "--steps", "1", "--no-breakdown", *as_flags(TRAINING)],
    "evaluate": as_flags({"data.synthetic_val_images": 2, "data.synthetic_short_side": "[64,72]"}),
    "demo": ["--port", "0"],
    "draw_nuclei.py": ["--images", "4", "--objects", "4", "--side", "64"],
}
"""Flags behind a command, by its verb: an epoch or two of few images, one round, few pixels; a port that is free."""
EXIT_STATUSES = {"diagnose": (0, 1)}
"""Exit statuses of a verb whose answer is one; what is wrong raises an error here, and ends with no status."""
EDGES = as_flags({"model.shortest_edge": 64, "model.longest_edge": 96})
SQUARE = as_flags({"model.square_edge": 192})
SMALL_ORIGINAL = as_flags(
    {
        "model.backbone": "test_resnet",
        "model.backbone_weights": "null",
        "model.config.encoder_layers": 1,
        "model.config.decoder_layers": 1,
    }
)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the names on the pages stand for, in a folder that is copied for each page."""
    folder = tmp_path_factory.mktemp("stand_ins")
    for name in ("FOLDER", "data/my", "data/coco"):
        write_coco_folder(folder / name, categories=[{"id": 1, "name": "balloon"}])
    for split in ("train", "val"):
        place = folder / "data/coco/annotations"
        shutil.copy(place / f"custom_{split}.json", place / f"instances_{split}2017.json")
    write_tars(folder / "data/shards", train=4)
    write_parquet(folder / "hub", train=4)
    (folder / "photos").mkdir()
    for name in ("photo.jpg", "aerial.jpg", "photos/a.jpg", "photos/b.jpg"):
        plain_image(90, 120, len(name)).save(folder / name)
    write_video(folder / "clip.mp4", plain_frames(3))
    files = release()
    (folder / "via_region_data.json").write_bytes(files["balloon/train/via_region_data.json"])
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(files[f"balloon/train/{name}"])
    torch.save({"model": random_tensors(Model("resnet18"))}, folder / "detr-r50-e632da11.pth")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DETR of other classes, which stands in for the one of COCO."""
    folder = tmp_path_factory.mktemp("model")
    tiny_detr_with_spread_weights(labels=["cat", "dog"], **HEADS_FOR_MASKS).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture
def place(
    stand_ins: Path, model: Path, hub: HubServer, cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder that a page's commands run in: the clone of this repository with the stand-ins in it."""
    folder = tmp_path / "clone"
    shutil.copytree(stand_ins, folder, copy_function=os.link)
    for name in ("recipes", "scripts", "tests", "train.py", "constraints.txt", "pyproject.toml", "Makefile"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "my.yaml").write_text(fill_in((REPOSITORY / "recipes/custom.yaml").read_text()))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    hub.tokens[ANNA] = "user"
    hub.create("facebook/detr-resnet-50").commit("main", {p.name: p.read_bytes() for p in model.iterdir()}, "model")
    shards = {f"data/{path.name}": path.read_bytes() for path in (folder / "hub/data").iterdir()}
    for branch in ("main", "refs/convert/parquet"):
        (hub.repos.get("USER/NAME") or hub.create("USER/NAME")).commit(branch, shards, "shards")
    return folder


def fill_in(recipe: str) -> str:
    """The recipe to start from, with the folder of the data named in it, as it asks for."""
    filled = recipe.replace("/path/to/my/data", "data/my")
    assert filled != recipe
    return filled


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded, no process is started, and no server serves: it is interrupted at once."""

    def train_here(arguments: Any) -> None:
        assert Path(arguments.training_script).name in ("train.py", "hf_detr_ft.cli")
        given = arguments.training_script_args
        assert cli.run(given if arguments.module else ["train", *given]) == 0

    def interrupt(server: PageServer) -> None:
        raise KeyboardInterrupt

    def train_member(path: Path, flags: list[str], member: series.Member, device: int | None) -> Any:
        status = cli.run(["train", str(path), *flags, *member.flags])
        return SimpleNamespace(poll=lambda: status, returncode=status)

    monkeypatch.setattr(series, "start", train_member)
    for launcher in ("multi_gpu_launcher", "simple_launcher"):
        monkeypatch.setattr(accelerate_launch, launcher, train_here)
    monkeypatch.setattr(PageServer, "serve_forever", interrupt)
    monkeypatch.setattr(balloon_archive, "download", lambda url: zipped(release()))
    monkeypatch.setattr(stopwatch, "WARM_UP", 1)
    monkeypatch.setattr(timed_job, "WARM_UP", 1)
    monkeypatch.setattr(stopwatch, "MATRIX_SIDES", {"cpu": 128})
    HfFileSystem.clear_instance_cache()
    find_data._download.cache_clear()


def commands_of(block: str) -> Iterator[str]:
    """Commands of a block of shell lines, without comments; what ends in a backslash goes on, `&&` parts two."""
    for line in block.replace("\\\n", " ").splitlines():
        for part in shlex.join(shlex.split(line, comments=True)).split(" '&&' "):
            if part:
                yield part


def run_page(name: str, text: str) -> None:
    """Runs the blocks of a page one after the other, those in Python with each other's names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for language, block in BLOCK.findall(text):
        if language == "bash":
            for command in commands_of(block):
                if command not in NOT_RUN:
                    run_command(command)
        elif language == "python":
            if name not in PYTHON_ELSEWHERE:
                exec(compile(block, name, "exec"), names)
        else:
            assert language in ("", "yaml"), f"{name}: nothing runs a block of {language}"


def run_command(command: str) -> None:
    """Runs a command, or looks at one of another program."""
    for text, stand_in in STAND_INS.items():
        command = command.replace(text, stand_in)
    program, *words = shlex.split(command)
    if program == "hf-detr-ft":
        for run in MADE_BY.keys() & set(words):
            if not Path(run).exists():
                run_command(MADE_BY[run])
        for source, folder in (COPIES[word] for word in COPIES.keys() & set(words)):
            if not Path(folder).exists():
                shutil.copytree(source, folder)
        shutil.rmtree("predictions", ignore_errors=True)  # a folder of its own for each `predict`
        assert cli.run([*words, *shorten(words)]) in EXIT_STATUSES.get(words[0], (0,)), command
    elif program == "accelerate":
        arguments = accelerate_launch.launch_command_parser().parse_args([*words[1:], *shorten(words)])
        assert Path(arguments.training_script).is_file(), command
        accelerate_launch.launch_command(arguments)
    elif program == "python" and words[0] != "-m":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [*words, *SHORTER[Path(words[0]).name]])
            runpy.run_path(words[0], run_name="__main__")
    elif program in ("cp", "mkdir"):
        subprocess.run([program, *words], check=True)
        if words[-1] == "my.yaml":
            Path(words[-1]).write_text(fill_in(Path(words[-1]).read_text()))
    else:
        look_at(program, words)


def shorten(words: list[str]) -> list[str]:
    """Flags that make a command of this program a short one."""
    verb = "train" if words[0] == "launch" else words[0]
    flags = SHORTER.get(verb, [])
    recipe = next((word for word in words if word.endswith(".yaml") and Path(word).is_file()), None)
    if recipe is not None:
        flags = [*flags, *(SQUARE if "square_edge" in f"{words}{Path(recipe).read_text()}" else EDGES)]
    if recipe == "my.yaml":
        flags = [*flags, "--training.num_train_epochs", "2"]  # some of its runs are averaged
    return [*flags, *(SMALL_ORIGINAL if recipe == "recipes/original.yaml" else [])]


def look_at(program: str, words: list[str]) -> None:
    """Looks whether what a command of another program names is there."""
    found: list[Any] = []
    if program == "make":
        found = [re.search(rf"^{word}:", Path("Makefile").read_text(), re.MULTILINE) for word in words]
    elif program == "pip":
        assert words[0] == "install"
        built = "--wheel-dir dist" in Path("Makefile").read_text()
        extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
        for word in words[1:]:
            if extra := re.fullmatch(r"\.\[(\w+)\]", word):
                found.append(extra[1] in extras)
            elif not word.startswith("-"):
                found.append(built if word.startswith("dist/") else Path(word).exists())
    elif program == "sbatch":
        found = [Path(word).is_file() for word in words]
    elif program == "python":
        found = [importlib.util.find_spec(words[1])]
    else:
        assert program == "cd", f"nothing runs or looks at {program}"
        found = [Path(words[0]).is_dir()]
    assert all(found), f"{program} {' '.join(words)}: something in it is not there"


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if BLOCK.search(text)])
def test_snippets_of_a_page_run(page: str, place: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, PAGES[page])
    if page == "README.md":
        for run in ("balloon", "my_masks"):
            assert cli.run(["push", f"runs/{run}", f"user/{run}"]) == 0
            run_card(place, hub, f"user/{run}", monkeypatch)


def run_card(place: Path, hub: HubServer, repo_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the snippets of a model card as somebody does who has nothing but the data and what the Hub holds."""
    files = hub.files(repo_id)
    with monkeypatch.context() as patch, TemporaryDirectory(dir=place) as folder:
        patch.chdir(folder)
        Path("recipe.yaml").write_bytes(files["recipe.yaml"])
        Path("FOLDER").symlink_to(place / "FOLDER")
        Path("MODEL_FOLDER").symlink_to(place / "runs/my")
        run_page(f"the card of {repo_id}", files["README.md"].decode())


def test_what_is_not_run_stands_on_a_page() -> None:
    blocks = [block for text in PAGES.values() for language, block in BLOCK.findall(text) if language == "bash"]
    commands = {command for block in blocks for command in commands_of(block)}
    assert NOT_RUN.keys() - commands == set(), "take them out of NOT_RUN"
    for program, *words in map(shlex.split, NOT_RUN):
        if program == "hf-detr-ft":
            build_parser().parse_args(words)
