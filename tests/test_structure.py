"""The package's layers, read off its syntax trees: imports go downwards, so a module needs only those below it.

Every import counts, also one inside a function or for type checking. Groups of one layer may use each other in one
direction: two groups that need each other are one group, or lack a third below them.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hf_detr_ft"
NAME = PACKAGE.name

LAYERS = (
    {"pretraining"},
    {"cli"},
    {"runs", "verb_arguments"},
    {"diagnosis"},
    {"report", "benchmark", "demo", "export"},
    {"hub", "training"},
    {"attention"},
    {"plots", "onnx"},
    {"inference"},
    {"evaluation"},
    {"data", "model"},
    {"synthetic", "recipe"},
    {"run_folder", "machine", "say_once"},
    {"yaml12", "formatting", "boxes", "errors", "atomic", "plain_files", "importing"},
)
"""From the top. A name is a module of the package or one of its folders with everything in it."""

ONLY_IN = {"albumentations": ("data.augment", "recipe.augment_pipeline"), "albucore": ("data.augment",)}
"""Libraries that few modules stand for."""

PRINTS = {"cli", "runs"}

LOADS_MODELS = "model.load"
"""The module that calls `from_pretrained` of models; elsewhere it may be that of a processor or a config."""

RUN_FILES = re.compile(
    r"(?<![\w.])(recipe\.yaml|metrics\.json|results\.csv|detections\.npz|trainer_state\.json|report\.html|README\.md"
    r"|predictions\.png|model\.safetensors|preprocessor_config\.json|config\.json)"
)
"""Names of files in a run folder."""

LEANING = {
    *("Of", "By", "As", "For", "In", "With", "To", "From", "On", "At", "Beside", "Behind"),
    *("What", "Where", "How", "Whether", "Which", "When"),
}
"""Words that begin half a sentence."""

DEPTH = {group: depth for depth, layer in enumerate(LAYERS) for group in layer}


def source_files() -> dict[str, Path]:
    """Module name below the package, as `data.coco` or `data` for its `__init__.py`, to file; "" is the package."""
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def group(module: str) -> str:
    """`data.formats.via` belongs to `data`."""
    return module.split(".")[0]


def imported_names(module: str, tree: ast.AST, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported; `from a import b` gives `a.b`, module or not."""
    package = [NAME, *module.split(".")] if module else [NAME]
    if not is_package:
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def own_groups(names: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Line and group of what comes from this package; the package itself (`__version__`) is free to all."""
    for line, name in names:
        top, _, rest = name.partition(".")
        if top == NAME and rest and not rest.startswith("__"):
            yield line, group(rest)


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """What in one module's source breaks the rules, a line each."""
    here = group(module)
    if module and here not in DEPTH:
        return [f"{module}: is in no layer; say in LAYERS where it belongs"]
    depth = DEPTH.get(here, len(LAYERS))
    tree = ast.parse(source)
    if not module:  # it names its public class for type checkers, and imports it when it is asked for
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ]
    names = list(imported_names(module, tree, is_package))
    found = []
    for line, target in own_groups(names):
        if target not in DEPTH:
            found.append(f"{module}:{line}: imports {target}, which is in no layer")
        elif DEPTH[target] < depth:
            found.append(f"{module}:{line}: imports upwards, from {target}")
    for line, name in names:
        if module not in (few := ONLY_IN.get(name.split(".")[0], (module,))):
            found.append(f"{module}:{line}: imports {name}; only {' and '.join(few)} may")
    if here not in PRINTS:
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        prints = (call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print")
        found += [f"{module}:{line}: prints; only {' and '.join(sorted(PRINTS))} may" for line in prints]
    return found


def model_loads(module: str, source: str) -> list[str]:
    """Calls of `from_pretrained` on anything but a processor or a config, outside of the module that may."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "from_pretrained" and module != LOADS_MODELS:
            owner = ast.unparse(node.value)
            if (
                not owner.endswith(("Processor", "Config")) and owner != "image_detector.Detector"
            ):  # which asks model.load
                found.append(f"{module}:{node.lineno}: loads a model by {owner}; only {LOADS_MODELS} may")
    return found


def mutual(sources: dict[str, str], packages: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Pairs of groups that import each other, in whatever modules."""
    edges = set()
    for module, source in sources.items():
        names = imported_names(module, ast.parse(source), module in packages)
        edges |= {(group(module), target) for _, target in own_groups(names)}
    return sorted((a, b) for a, b in edges if a < b and (b, a) in edges)


def test_every_module_keeps_to_its_layer():
    files = source_files()
    assert {"boxes", "data", "data.coco"} <= files.keys()
    found = [
        violation
        for module, path in files.items()
        for violation in violations(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_no_two_groups_import_each_other():
    files = source_files()
    packages = {module for module, path in files.items() if path.name == "__init__.py"}
    assert not mutual({module: path.read_text(encoding="utf-8") for module, path in files.items()}, packages)


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("boxes", "import hf_detr_ft.data.coco", "boxes:1: imports upwards, from data"),
        ("recipe", "from hf_detr_ft import training", "recipe:1: imports upwards, from training"),
        ("data.coco", "x = 1\nfrom hf_detr_ft.runs.train import main", "data.coco:2: imports upwards, from runs"),
        ("model.build", "def f():\n    from ..plots import curves", "model.build:2: imports upwards, from plots"),
        ("data.formats.via", "from ... import hub", "data.formats.via:1: imports upwards, from hub"),
        (
            "evaluation.metric",
            "from ..training.trainer import T",
            "evaluation.metric:1: imports upwards, from training",
        ),
        ("", "from hf_detr_ft.boxes import xywh_to_xyxy", ":1: imports upwards, from boxes"),
        ("runs.train", "from hf_detr_ft.utils import x", "runs.train:1: imports utils, which is in no layer"),
        ("utils", "", "utils: is in no layer; say in LAYERS where it belongs"),
        (
            "data.dataset",
            "import albumentations as A",
            "data.dataset:1: imports albumentations; only data.augment and recipe.augment_pipeline may",
        ),
        ("training.job", "def f():\n    print(1)", "training.job:2: prints; only cli and runs may"),
    ],
)
def test_a_violation_is_seen(module: str, source: str, expected: str):
    assert violations(module, source) == [expected]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cli", "from hf_detr_ft.runs import train\nprint(train)"),
        ("", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hf_detr_ft.inference.x import Detector"),
        ("runs.train", "from hf_detr_ft import __version__, training, hub\nprint(__version__)"),
        ("training.trainer", "from hf_detr_ft.training.callbacks import ResultsCallback"),
        ("data.dataset", "from .coco import LabelMap\nfrom ..boxes import xywh_to_xyxy"),
        ("data.augment", "import albumentations\nfrom albumentations import Compose"),
        ("evaluation.coco_eval", "import torch\nfrom hf_detr_ft.errors import DataError"),
    ],
)
def test_what_the_layers_allow_is_allowed(module: str, source: str):
    assert violations(module, source) == []


def test_a_relative_import_in_an_init_starts_at_its_own_package():
    assert violations("data", "from .coco import LabelMap", is_package=True) == []
    assert violations("data", "from ..plots import curves", is_package=True) == ["data:1: imports upwards, from plots"]


def test_a_circle_between_siblings_is_seen():
    one_way = {"data.dataset": "from hf_detr_ft.model.build import f", "model.loss": "import torch"}
    assert mutual(one_way) == []
    assert mutual({**one_way, "model.loss": "from hf_detr_ft.data import coco"}) == [("data", "model")]


def test_models_are_loaded_in_one_module():
    files = source_files()
    sources = {module: path.read_text(encoding="utf-8") for module, path in files.items()}
    assert "from_pretrained(" in sources[LOADS_MODELS]
    assert not [line for module, source in sources.items() for line in model_loads(module, source)]


@pytest.mark.parametrize(
    "owner",
    ["DetrForObjectDetection", "transformers.DetrForObjectDetection", "AutoModel", "type(model)", "model_class", "cls"],
)
def test_a_model_that_is_loaded_elsewhere_is_seen(owner: str):
    source = f"model = {owner}.from_pretrained(folder)"
    assert model_loads("report.x", source) == [f"report.x:1: loads a model by {owner}; only model.load may"]
    assert model_loads("report.x", f"load = {owner}.from_pretrained\nload(folder)")
    assert model_loads(LOADS_MODELS, source) == []


def test_a_processor_or_a_config_may_be_loaded_anywhere():
    assert model_loads("inference.detect", "DetrImageProcessor.from_pretrained(x)\nDetrConfig.from_pretrained(x)") == []


def verbs_imported(module: str, source: str) -> list[str]:
    """Other verbs that a verb imports."""
    if group(module) != "runs":
        return []
    names = (name.split(".") for _, name in imported_names(module, ast.parse(source), is_package=False))
    found = {".".join(name[1:3]) for name in names if name[:2] == [NAME, "runs"]}
    return sorted(found - {module, "runs"})


def test_no_verb_imports_a_verb():
    files = source_files()
    found = {module: verbs_imported(module, path.read_text(encoding="utf-8")) for module, path in files.items()}
    assert not any(found.values()), found
    assert verbs_imported("runs.report", "from hf_detr_ft.runs.evaluate import evaluate") == ["runs.evaluate"]
    assert verbs_imported("runs.report", "from hf_detr_ft.runs import train") == ["runs.train"]


def test_no_two_modules_have_one_name():
    names = Counter(path.stem for path in source_files().values() if not path.stem.startswith("__"))
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Texts that stand alone: those of modules, classes and functions, and those below constants and fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value


def run_files_named(source: str) -> list[str]:
    """File names of a run folder in the texts of a module, its docstrings aside."""
    tree = ast.parse(source)
    known = {id(text) for text in docstrings(tree)}
    texts = [
        n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in known
    ]
    return [f"{text.lineno}: {found[0]}" for text in texts if (found := RUN_FILES.search(text.value))]


def test_run_folder_alone_knows_the_names_of_its_files():
    found = {
        module: run_files_named(path.read_text(encoding="utf-8"))
        for module, path in source_files().items()
        if module != "run_folder"
    }
    assert not any(found.values()), {module: lines for module, lines in found.items() if lines}
    assert run_files_named('"""Reads recipe.yaml."""\nx = "a/recipe.yaml"\ny = f"{x}: no metrics.json"') == [
        "2: recipe.yaml",
        "3: metrics.json",
    ]
    assert run_files_named('x = "my_config.json"') == []


def fragments(source: str) -> list[str]:
    """Docstrings that lean on the line above: in an editor they would stand alone."""
    texts = [text.value.strip() for text in docstrings(ast.parse(source))]
    return [text.split("\n")[0] for text in texts if text and (text.split()[0] in LEANING or text[0].islower())]


def test_docstrings_begin_with_a_noun_or_a_verb():
    files = source_files()
    found = {module: fragments(path.read_text(encoding="utf-8")) for module, path in files.items()}
    assert not any(found.values()), {module: texts for module, texts in found.items() if texts}
    assert fragments('"""Module."""\nSIDE = 2\n"""Of a map, in cells."""\n') == ["Of a map, in cells."]
    assert fragments('def f():\n    """what it says."""\n') == ["what it says."]
