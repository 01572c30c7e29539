"""The command line: what each verb is called with, what its help says, and the exit status of every way to end."""

import errno
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hf_detr_ft import __version__, cli
from hf_detr_ft.errors import CheckpointError, DataError, InputError, RecipeError, TrainingError

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
VERBS = ("train", "check", "evaluate", "predict", "push", "convert", "get")


def status_of(arguments: Sequence[str]) -> int:
    """The exit status; argparse leaves by SystemExit."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Replaces a verb's function; returns the list of its calls."""

    def replace(verb: str, result: int | BaseException = 0) -> list[tuple[tuple, dict]]:
        module = __import__(f"hf_detr_ft.runs.{verb.partition('_')[0]}", fromlist=[verb])
        calls: list[tuple[tuple, dict]] = []

        def stand_in(*args: object, **kwargs: object) -> int:
            calls.append((args, kwargs))
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setattr(module, verb, stand_in)
        monkeypatch.setattr("hf_detr_ft.recipe.files.check_early", lambda *_: None)  # there are no such recipes
        return calls

    return replace


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS), ["check", "x.yaml", "-h"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert status_of(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: hf-detr-ft {'' if arguments == ['--help'] else arguments[0]}".rstrip())
    assert err == ""


def test_the_overview_names_every_verb_and_the_exit_statuses(capsys: pytest.CaptureFixture[str]):
    status_of(["--help"])
    text = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n  hf-detr-ft {verb} " not in text] == []
    assert (
        "Exit status: 0 done, 1 the job failed or check found errors, 2 the recipe or the arguments are wrong" in text
    )


def test_version(capsys: pytest.CaptureFixture[str]):
    assert status_of(["--version"]) == 0
    assert capsys.readouterr().out == f"hf-detr-ft {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: VERB"),
        (["trian"], "invalid choice: 'trian'"),
        (["evaluate"], "required: RUN"),
        (["predict", "run"], "required: IMAGE"),
        (["predict", "run", "a.jpg", "--threshold", "high"], "invalid float value: 'high'"),
        (["predict", "run", "a.jpg", "--data.root", "x"], "unrecognized arguments: --data.root x"),
        (["push", "run"], "required: USER/NAME"),
        (["convert", "yolo9", "a", "b"], "invalid choice: 'yolo9'"),
        (["convert", "a"], "required: DST"),
        (["get", "coco", "x"], "invalid choice: 'coco'"),
        (["get", "balloon", "x", "--images", "5"], "unrecognized arguments: --images 5"),
    ],
)
def test_wrong_arguments_end_with_2_and_say_what_is_wrong(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    assert status_of(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: hf-detr-ft")
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "verb", "args", "kwargs"),
    [
        (["train"], "train", (None, []), {}),
        (["train", "a.yaml"], "train", (Path("a.yaml"), []), {}),
        (["train", "--data.root", "x"], "train", (None, ["--data.root", "x"]), {}),
        (
            ["train", "a.yaml", "--training.max_steps", "-1", "--training.overwrite"],
            "train",
            (Path("a.yaml"), ["--training.max_steps", "-1", "--training.overwrite"]),
            {},
        ),
        (["check", "a.yaml", "--data.root=x"], "check", (Path("a.yaml"), ["--data.root=x"], None), {}),
        (["check", "a.yaml", "--report"], "check", (Path("a.yaml"), [], Path("check.html")), {}),
        (["check", "a.yaml", "--report=b.html"], "check", (Path("a.yaml"), [], Path("b.html")), {}),
        (
            ["check", "a.yaml", "--report", "b.html", "--data.root", "x"],
            "check",
            (Path("a.yaml"), ["--data.root", "x"], Path("b.html")),
            {},
        ),
        (["check", "--report", "--data.root", "x"], "check", (None, ["--data.root", "x"], Path("check.html")), {}),
        (["report", "run"], "report", (["run"], [], None, False, None), {}),
        (
            ["report", "a", "b", "--output", "o.html", "--overwrite"],
            "report",
            (["a", "b"], [], Path("o.html"), True, None),
            {},
        ),
        (
            ["report", "a", "--data.root", "x", "--attention", "b.jpg"],
            "report",
            (["a"], ["--data.root", "x"], None, False, Path("b.jpg")),
            {},
        ),
        (["evaluate", "run"], "evaluate", ("run", [], None, None), {}),
        (
            [
                "evaluate",
                "me/x",
                "--recipe",
                "r.yaml",
                "--data.root",
                "x",
                "--output=o.json",
                "--training.seed",
                "-1",
            ],
            "evaluate",
            ("me/x", ["--data.root", "x", "--training.seed", "-1"], Path("r.yaml"), Path("o.json")),
            {},
        ),
        (
            [
                *("predict", "run", "a.jpg", "b", "--threshold", "0.7", "--output", "o", "--batch-size", "2"),
                *("--overwrite", "--precision", "fp32"),
            ],
            "predict",
            ("run", ["a.jpg", "b"]),
            {"threshold": 0.7, "output": Path("o"), "batch_size": 2, "overwrite": True, "precision": "fp32"},
        ),
        (
            ["predict", "run", "a.jpg"],
            "predict",
            ("run", ["a.jpg"]),
            {"threshold": 0.5, "output": None, "batch_size": 8, "overwrite": False, "precision": "auto"},
        ),
        (
            ["push", "run", "me/x"],
            "push",
            (Path("run"), "me/x"),
            {"private": None, "overwrite_card": False, "license": None, "revision": None},
        ),
        (
            ["push", "run", "x", "--private", "--overwrite-card", "--license", "apache-2.0", "--revision", "v1"],
            "push",
            (Path("run"), "x"),
            {"private": True, "overwrite_card": True, "license": "apache-2.0", "revision": "v1"},
        ),
        (
            ["convert", "via", "a", "b", "--images", "i", "--class-attribute", "kind", "--categories-from", "c.json"],
            "convert",
            ("via", Path("a"), Path("b")),
            {
                "images": Path("i"),
                "class_attribute": "kind",
                "class_name": None,
                "overwrite": False,
                "categories_from": Path("c.json"),
            },
        ),
        (["get", "balloon", "here"], "get_balloon", (Path("here"),), {}),
        (
            ["get", "synthetic", "here"],
            "get_synthetic",
            (Path("here"),),
            {"short_side": (240, 320), "workers": None, "images": 200, "val_images": None, "seed": 0, "classes": None},
        ),
        (
            [
                *("get", "synthetic", "here", "--images", "9", "--val-images", "2", "--seed", "3", "--workers", "1"),
                *("--classes", "a,b", "--short-side", "96", "128"),
            ],
            "get_synthetic",
            (Path("here"),),
            {"images": 9, "val_images": 2, "seed": 3, "classes": ["a", "b"], "short_side": [96, 128], "workers": 1},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_arguments_reach_the_verb(arguments: list[str], verb: str, args: tuple, kwargs: dict, called: Callable):
    module = importlib.import_module(f"hf_detr_ft.runs.{verb.partition('_')[0]}")
    signature, calls = inspect.signature(getattr(module, verb)), called(verb, 1)
    assert status_of(arguments) == 1, "the verb's own status is the program's"
    [(positional, named)] = calls
    found, expected = (signature.bind(*some, **others) for some, others in ((positional, named), (args, kwargs)))
    for bound in (found, expected):
        bound.apply_defaults()
    assert found.arguments == expected.arguments


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (RecipeError("r.yaml: wrong"), 2, "error: r.yaml: wrong\n"),
        (DataError("a.json: wrong\nb.json: too"), 1, "error: a.json: wrong\nb.json: too\n"),
        (CheckpointError("model: wrong"), 1, "error: model: wrong\n"),
        (TrainingError("stopped"), 1, "error: stopped\n"),
        (InputError("wrong"), 1, "error: wrong\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "Disk full", "run/model.bin"),
            1,
            "error: run/model.bin: the system refused: Disk full\n",
        ),
        (PermissionError(errno.EACCES, "Not yours"), 1, "error: a file: the system refused: Not yours\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_how_it_ends(
    error: BaseException, status: int, printed: str, called: Callable, capsys: pytest.CaptureFixture[str]
):
    called("get_balloon", error)
    assert status_of(["get", "balloon", "x"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err == printed


@pytest.mark.parametrize(
    "bug", [ValueError("ours"), FileNotFoundError(errno.ENOENT, "no such file", "x"), KeyError("x")]
)
def test_a_bug_of_ours_keeps_its_traceback(bug: Exception, called: Callable):
    called("get_balloon", bug)
    with pytest.raises(type(bug)):
        cli.main(["get", "balloon", "x"])


def test_an_error_from_a_data_loaders_process_is_told_without_its_traceback(
    called: Callable, capsys: pytest.CaptureFixture[str]
):
    wrapped = (
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "worker.py", line 1, in f\nhf_detr_ft.errors.DataError: a.jpg: truncated.\nCopy it.\n'
    )
    called("get_balloon", DataError(wrapped))
    assert status_of(["get", "balloon", "x"]) == 1
    assert capsys.readouterr().err == "error: a.jpg: truncated.\nCopy it.\n"


def test_the_process_ends_with_the_status(tmp_path: Path):
    command = [sys.executable, "-m", "hf_detr_ft.cli", "train", "missing.yaml"]
    ended = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "error: missing.yaml: no such recipe. Expected a YAML file\n"


ENDING = """
import atexit, sys
import hf_detr_ft.cli as cli

class Kept:
    def __del__(self):
        print("the interpreter's end")

def main(arguments):
    atexit.register(print, "what others registered")
    if sys.argv[1] == "group":
        import torch.distributed
        torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=0, world_size=1)
    return 3

kept, cli.main = Kept(), main
sys.exit(cli.program())
"""


@pytest.mark.parametrize(("kind", "last"), [("alone", ["the interpreter's end"]), ("group", [])])
def test_a_process_of_a_group_ends_before_the_interpreter_takes_its_threads_apart(
    kind: str, last: list[str], tmp_path: Path
):
    command = [sys.executable, "-c", ENDING, kind, str(tmp_path / "group")]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.splitlines()) == (3, ["what others registered", *last]), ended.stderr


LARGE = ("torch", "torchvision", "transformers", "accelerate", "datasets", "timm", "albumentations", "matplotlib")
"""Libraries that take 0.3 to 3 s to import each, alone or with what they import in turn."""
EARLY = {
    "--help": "",
    "train nothing.yaml": "nothing.yaml: no such recipe",
    "train quickstart --data.rot x": "flag --data.rot: unknown key 'rot' in section 'data' (did you mean 'root'?)",
    "train quickstart --seed 1": "flag --seed: unknown section 'seed' (did you mean 'training.seed'?)",
    "train quickstart --augment.rotate 999": "flag --augment.rotate: expected a number from 0 to 180",
    "train balloon --data.root nowhere": "nowhere/annotations/custom_train.json: expected a COCO JSON",
    "check nothing.yaml": "nothing.yaml: no such recipe",
    "check balloon --data.root nowhere": "nowhere/annotations/custom_val.json: expected a COCO JSON",
    "evaluate nothing": "'nothing' carries no recipe.yaml",
    "evaluate no/such/run --data.root x": "'no/such/run': expected a run folder or a Hub id, found no such folder",
    "evaluate x --recipe nothing.yaml": "nothing.yaml: no such recipe",
    "evaluate x --data.rot x": "flag --data.rot: unknown key",
    "evaluate run --data.root nowhere": "nowhere/b.json: expected a COCO JSON, found no such file",
    "evaluate run --model.shortest_edge wide": "flag --model.shortest_edge: expected a whole number, found 'wide'",
    "predict x nothing.jpg": "'nothing.jpg': expected a file, a folder or a pattern, found no such file",
    "predict no/such/run photo.jpg": "'no/such/run': expected a run folder or a Hub id, found no such folder",
    "predict taken photo.jpg": "'taken': expected a model",
    "predict x photo.jpg --threshold 2": "--threshold: expected a score from 0 to 1, found 2.0",
    "report nothing": "'nothing' carries no recipe.yaml",
    "report run --data.rot x": "flag --data.rot: unknown key",
    "report run --output no/such/page.html": "--output: expected a file in a folder that exists",
    "report run nothing": "expected run folders to compare",
    "report x --attention nothing.jpg": "nothing.jpg: expected an image, found no such file",
    "push nothing me/x": "nothing: no such run folder",
    "push taken me/x": "taken: not a complete run folder",
    "benchmark nothing.yaml": "nothing.yaml: no such recipe",
    "benchmark balloon --rounds 0": "--rounds: expected at least 1, found 0",
    "benchmark balloon --data.root nowhere": "nowhere/annotations/custom_train.json: expected a COCO JSON",
    "convert via nothing.json out.json": "nothing.json: no such file",
    "get balloon taken": "taken",
    "get synthetic taken": "taken",
}
"""Commands, and what they say before any large library is imported."""


def test_what_is_wrong_is_said_before_large_libraries_are_imported(tmp_path: Path):
    """Seconds of a user's time each; all in one process, since what one of them imports stays."""
    (tmp_path / "run").mkdir()
    recipe = "made_with: {}\ntraining: {seed: 1}\ndata: {val_annotations: b.json}\n"
    (tmp_path / "run" / "recipe.yaml").write_text(recipe)
    for name in ("run/config.json", "run/model.safetensors", "photo.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    code = (
        "import contextlib, io, sys\nimport hf_detr_ft\nfrom hf_detr_ft.cli import main\n"
        f"for command, words in {EARLY!r}.items():\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):\n"
        "        try:\n            status = main(command.split())\n"
        "        except SystemExit as end:\n            status = end.code\n"
        f"    large = sorted(set({LARGE!r}) & set(sys.modules))\n"
        "    if large or words not in said.getvalue() or bool(status) != bool(words):\n"
        "        sys.exit(f'{command}: {status}, {large}, {said.getvalue()}')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_train_py_is_the_verb_train(called: Callable, monkeypatch: pytest.MonkeyPatch):
    calls = called("train", 1)
    script = ROOT / "train.py"
    monkeypatch.setattr(sys, "argv", [str(script), "r.yaml", "--training.seed", "3"])
    with pytest.raises(SystemExit) as end:
        exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
    assert end.value.code == 1
    assert calls == [((Path("r.yaml"), ["--training.seed", "3"]), {})]
