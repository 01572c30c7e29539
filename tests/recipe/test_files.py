"""Recipes from YAML and flags: what is taken, what is refused in which words, and what a run writes down."""

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe import files
from hf_detr_ft.recipe.fields import (
    LIGHT_SECTIONS,
    describe_type,
    field_limits,
    field_names,
    print_help,
    section_classes,
)
from hf_detr_ft.recipe.files import NOT_SAVED, check_early, load_recipe, save_recipe
from hf_detr_ft.recipe.sections import DataConfig, Recipe
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments
from hf_detr_ft.synthetic.render import SHORT_SIDE, VALIDATION_START
from hf_detr_ft.yaml12 import dump_yaml, parse_yaml

ANYWHERE = ("--training.use_cpu", "true", "--training.bf16", "false")
"""Flags that make a recipe the same on every machine."""


@pytest.fixture
def read(tmp_path: Path):
    """Loads a recipe's text with flags."""

    def load(text: str = "", *flags: str) -> Recipe:
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, [*ANYWHERE, *flags])

    return load


@pytest.fixture
def refusal(read):
    """The lines of the error that a recipe ends in."""

    def collect(text: str = "", *flags: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            read(text, *flags)
        assert caught.value.exit_status == 2
        return str(caught.value).splitlines()

    return collect


def value(recipe: Recipe, dotted: str) -> object:
    section, _, key = dotted.partition(".")
    return getattr(getattr(recipe, section), key)


# What is taken


def test_an_empty_recipe_is_the_defaults(read):
    recipe = read("")
    for section, config in section_classes().items():
        if section != "training":
            assert getattr(recipe, section) == config()
    assert recipe.training.learning_rate == 1e-4
    assert recipe.training.output_dir == "runs/my"
    assert load_recipe(None, ANYWHERE).training.output_dir == "runs/run"


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "0.0001", "1E-4", "+1e-4", "'1e-4'"])
def test_a_number_is_a_number_however_it_is_written(read, number: str):
    assert read(f"training:\n  learning_rate: {number}").training.learning_rate == 1e-4
    assert read("", "--training.learning_rate", number.strip("'")).training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("0", 0),
        (".inf", math.inf),
        ("12e4567", math.inf),  # a short commit hash has to be quoted
        ("'12e4567'", "12e4567"),
        ("true", True),
        ("no", "no"),
        ("yes", "yes"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-05-01", "2024-05-01"),
        ("1:30", "1:30"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("[1, a, null]", [1, "a", None]),
        ("{a: 1e-3}", {"a": 1e-3}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, expected: object):
    found = parse_yaml(f"key: {text}")["key"]
    assert found == expected
    assert type(found) is type(expected)
    assert parse_yaml(dump_yaml({"key": found})) == {"key": found}


def test_anchors_and_merges_work(read):
    recipe = read("data: &paths\n  root: here\nmodel:\n  config: &settings {dropout: 0.0}\n")
    assert (recipe.data.root, recipe.model.config) == ("here", {"dropout": 0.0})
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("flags", "dotted", "expected"),
    [
        (["--data.root", "there"], "data.root", "there"),
        (["--data.root=there"], "data.root", "there"),
        (["--data.root=a=b"], "data.root", "a=b"),
        (["--data.root=--odd"], "data.root", "--odd"),
        (["--data.root", "null"], "data.root", None),
        (["--data.root", "a", "--data.root", "b"], "data.root", "b"),
        (["--data.name", "1234"], "data.name", "1234"),
        (["--data.name", "true"], "data.name", "true"),
        (["--model.revision", "12e4567"], "model.revision", "12e4567"),
        (["--training.max_steps", "-1"], "training.max_steps", -1),
        (["--training.max_steps=-1"], "training.max_steps", -1),
        (["--training.overwrite"], "training.overwrite", True),
        (["--training.overwrite", "--data.root", "x"], "training.overwrite", True),
        (["--training.overwrite", "false"], "training.overwrite", False),
        (["--training.overwrite=yes"], "training.overwrite", True),
        (["--training.eval_strategy", "no"], "training.load_best_model_at_end", False),
        (["--augment.multi_scale", "null"], "augment.multi_scale", None),
        (["--augment.rotate", "10"], "augment.rotate", 10.0),
        (["--model.trainable_stages", "[layer3, layer4]"], "model.trainable_stages", ["layer3", "layer4"]),
        (["--model.trainable_stages=[]"], "model.trainable_stages", []),
        (["--model.config.dropout", "0.0"], "model.config", {"dropout": 0.0}),
        (["--model.config.dropout", "1e-1"], "model.config", {"dropout": 0.1}),
        (["--model.config.activation_function", "gelu"], "model.config", {"activation_function": "gelu"}),
        (["--model.config.activation_function", "[unclosed"], "model.config", {"activation_function": "[unclosed"}),
        (["--model.config", "{dropout: 0.0}"], "model.config", {"dropout": 0.0}),
        (
            ["--model.config", "{dropout: 0.0}", "--model.config.num_queries", "9"],
            "model.config",
            {"dropout": 0.0, "num_queries": 9},
        ),
        (["--training.report_to", "[]"], "training.report_to", []),
        (["--training.lr_scheduler_kwargs.min_lr", "1e-6"], "training.lr_scheduler_kwargs", {"min_lr": 1e-6}),
    ],
)
def test_flags(read, flags: list[str], dotted: str, expected: object):
    assert value(read("", *flags), dotted) == expected


def test_flags_win_over_yaml_and_leave_the_rest(read):
    text = "data:\n  root: yaml\n  name: yaml\nmodel:\n  config: {dropout: 0.3, num_queries: 7}\n"
    recipe = read(text, "--data.root", "flag", "--model.config.dropout", "0.0")
    assert (recipe.data.root, recipe.data.name) == ("flag", "yaml")
    assert recipe.model.config == {"dropout": 0.0, "num_queries": 7}


def test_a_flag_mends_what_yaml_has_wrong(read):
    assert read("augment:\n  rotate: lots\n", "--augment.rotate", "5").augment.rotate == 5


@pytest.mark.parametrize("text", ["training:\n  eval_strategy: no\n", "training: {eval_strategy: 'no'}"])
def test_no_is_a_strategy_and_not_false(read, text: str):
    assert read(text).training.eval_strategy == "no"


@pytest.mark.parametrize("text", ["data:\n", "# only a comment\n", "data: {}\nmade_with: {versions: {torch: 1}}\n"])
def test_what_says_nothing_changes_nothing(read, text: str):
    assert read(text).data == DataConfig()


# What is refused


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        ("model:\n  chekpoint: x", [], ["my.yaml: model.chekpoint: unknown key", "(did you mean 'checkpoint'?)"]),
        ("model:\n  learning_rate: 1", [], ["in section 'model'", "(did you mean 'training.learning_rate'?)"]),
        ("model:\n  zzz: 1", [], ["model.zzz: unknown key 'zzz' in section 'model'"]),
        ("trainning:\n  seed: 1", [], ["unknown section 'trainning' (did you mean 'training'?)", "'evaluation'"]),
        ("learning_rate: 1e-4", [], ["unknown section 'learning_rate'", "'training.learning_rate'"]),
        ("data.root: x", [], ["unknown section 'data.root'"]),
        ("model: {config.dropout: 0}", [], ["unknown key 'config.dropout'", "'config'"]),
        ("1: 2", [], ["unknown section '1'"]),
        ("data: {1: 2}", [], ["data.1: unknown key '1'"]),
        ("", ["--data.rot", "x"], ["flag --data.rot: unknown key 'rot'", "(did you mean 'root'?)"]),
        ("", ["--seed", "1"], ["flag --seed: unknown section 'seed' (did you mean 'training.seed'?)"]),
        ("", ["--data"], ["flag --data: expected a key, such as --data.name"]),
        ("", ["--"], ["flag --: unknown section ''"]),
        ("", ["--data.root.x", "1"], ["flag --data.root.x: expected text or null, found {'x': 1}"]),
        ("", ["x.yaml"], ["argument 'x.yaml': expected a flag", "behind the recipe"]),
        ("", ["-x"], ["argument '-x': expected a flag"]),
        ("", ["--training.overwrite", "x.yaml"], ["flag --training.overwrite: expected true or false, found 'x.yaml'"]),
        ("data: 3", [], ["data: expected keys and values, found 3"]),
        ("data: [root]", [], ["data: expected keys and values, found ['root']"]),
        ("data: {name: 1234}", [], ["data.name: expected text, found 1234; write it in quotes"]),
        ("data: {root: {a: 1}}", [], ["data.root: expected text or null, found {'a': 1}"]),
        ("data: {name: null}", [], ["data.name: expected text, found None"]),
        ("training:\n  learning_rate:\n", [], ["training.learning_rate: expected a number, found None"]),
        ("data: {synthetic_short_side: 64}", [], ["expected a list [a whole number, a whole number], found 64"]),
        ("data: {synthetic_short_side: [64]}", [], ["expected a list [a whole number, a whole number], found [64]"]),
        ("data: {synthetic_classes: star}", [], ["data.synthetic_classes: expected a list of text or null, found"]),
        ("data: {train_limit: 4.5}", [], ["data.train_limit: expected a whole number or null, found 4.5"]),
        ("model: {revision: 12e4567}", [], ["model.revision: expected text or null, found inf; write it in quotes"]),
        ("model: {trainable_stages: layer3}", [], ["expected a list of text or null, found 'layer3'"]),
        ("model: {config: 3}", [], ["model.config: expected keys and values, found 3"]),
        ("augment: {preset: heavy}", [], ["expected one of 'detr', 'light', 'none', found 'heavy'"]),
        ("training: {max_steps: ten}", [], ["training.max_steps: expected a whole number, found 'ten'"]),
        ("training: {learning_rate: fast}", [], ["training.learning_rate: expected a number, found 'fast'"]),
        ("training: {fp16: maybe}", [], ["training.fp16: expected true or false, found 'maybe'"]),
        ("training: {optim: 3}", [], ["training.optim: expected text, found 3"]),
        ("training: {eval_strategy: often}", [], ["Transformers refuses", "often", "'steps'"]),
        ("training: {save_strategy: steps}", [], ["Transformers refuses", "load_best_model_at_end"]),
        ("training: {accelerator_config: {x: 1}}", [], ["Transformers refuses", "'x'"]),
        ("training: {fp16: true, bf16: true}", ["--training.bf16", "true"], ["Transformers refuses", "fp16"]),
    ],
)
def test_refused(refusal, text: str, flags: list[str], words: list[str]):
    lines = refusal(text, *flags)
    assert len(lines) == 1, lines
    missing = [word for word in words if word not in lines[0]]
    assert not missing, lines[0]


@pytest.mark.parametrize(
    ("flag", "given", "expected"),
    [
        ("augment.horizontal_flip", "7", "a number from 0 to 1"),
        ("augment.min_visibility", "-0.1", "a number from 0 to 1"),
        ("augment.rotate", ".nan", "a number from 0 to 180"),
        ("data.train_limit", "0", "1 or more"),
        ("data.synthetic_images", "0", "a number from 1 to 1000000000"),
        ("data.synthetic_images", "1000000001", "a number from 1 to 1000000000"),
        ("data.synthetic_val_images", "0", "a number from 1 to 1000000000"),
        ("data.synthetic_seed", "-1", "0 or more"),
        ("model.shortest_edge", "-3", "1 or more"),
        ("speed.size_step", "0", "1 or more"),
        ("training.eval_epochs", "0", "1 or more"),
        ("training.per_device_train_batch_size", "0", "1 or more"),
        ("training.learning_rate", "-1e-4", "0 or more"),
        ("training.seed", "-1", "a number from 0 to 4294967295"),
    ],
)
def test_numbers_out_of_range_are_refused(refusal, flag: str, given: str, expected: str):
    assert [f"flag --{flag}: expected {expected}, found" in line for line in refusal("", f"--{flag}", given)] == [True]


def test_drawn_photos_have_the_generators_size_and_limit():
    assert DataConfig().synthetic_short_side == SHORT_SIDE
    assert field_limits()["data", "synthetic_images"] == (1, VALIDATION_START)


def test_paths_beside_drawn_photos_are_refused(refusal):
    lines = refusal("data: {synthetic_images: 5, root: photos, val_images: x}", "--data.train_images", "y")
    places = [line.partition(": expected no path beside data.synthetic_images")[0] for line in lines]
    assert [re.sub(r".*my\.yaml", "my.yaml", place) for place in places] == [
        *("my.yaml: data.root", "flag --data.train_images", "my.yaml: data.val_images"),
    ]
    assert "found 'photos'; leave it out, or give --data.synthetic_images null" in lines[0]


def test_paths_beside_drawn_photos_that_are_switched_off_or_that_say_nothing_are_taken(read):
    data = read("data: {synthetic_images: 5}", "--data.synthetic_images", "null", "--data.root", "photos").data
    assert (data.synthetic_images, data.root) == (None, "photos")
    data = read("data: {synthetic_images: 5, root: null, train_images: train2017}").data
    assert (data.synthetic_images, data.root) == (5, None)


def test_a_saved_recipe_of_drawn_photos_draws_them_again(read, tmp_path: Path):
    recipe = read("data: {synthetic_images: 5, synthetic_classes: [star], synthetic_short_side: [64, 96]}")
    assert recipe.data.synthetic_short_side == (64, 96)
    save_recipe(recipe, tmp_path / "saved.yaml", {})
    again = load_recipe(tmp_path / "saved.yaml", ANYWHERE)
    assert again.data == recipe.data
    assert yaml.safe_load((tmp_path / "saved.yaml").read_text())["data"]["synthetic_short_side"] == [64, 96]
    flagged = load_recipe(tmp_path / "saved.yaml", [*ANYWHERE, "--data.synthetic_short_side", "[32, 48]"])
    assert flagged.data.synthetic_short_side == (32, 48)


def test_every_limit_belongs_to_a_field_and_lets_its_default_through(read):
    recipe = read("")
    assert len(field_limits()) >= 30
    for (section, key), (low, high) in field_limits().items():
        default = recipe.resolved[section][key]
        assert default is None or low <= default <= high
    read("", *(f"--{section}.{key}={low}" for (section, key), (low, _) in field_limits().items()))


def test_all_problems_come_at_once(refusal):
    text = "data: {rot: x}\nfoo: {}\naugment: {preset: heavy, rotate: 999}\ntraining: {max_steps: ten, seed: 1}\n"
    lines = refusal(text, "--model.shortest_edge", "wide", "--training.seed", "-1", "junk")
    found = [re.sub(r".*my\.yaml", "my.yaml", line)[:45] for line in lines]
    assert found == [
        "my.yaml: unknown section 'foo'; expected one ",
        "argument 'junk': expected a flag such as --tr",
        "my.yaml: data.rot: unknown key 'rot' in secti",
        "my.yaml: augment.preset: expected one of 'det",
        "my.yaml: training.max_steps: expected a whole",
        "flag --model.shortest_edge: expected a whole ",
        "my.yaml: augment.rotate: expected a number fr",
        "flag --training.seed: expected a number from ",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- data\n- model\n", ["expected sections such as data and training, found a list"]),
        (b"just text", ["expected sections such as data and training, found 'just text'"]),
        (b"data:\n  root: a\n  root: b\n", ["line 3, column 3", "'root' stands twice"]),
        (b"data: {root: 1}\ndata: {}\n", ["line 2, column 1", "'data' stands twice"]),
        (b"data: {root: a", ["line 1", "expected YAML"]),
        (b"data:\n\troot: a", ["line 2, column 1", "expected YAML", "\\t"]),
        (b"data: a: b", ["line 1, column 8", "expected YAML"]),
        (b"[a, b]: c", ["expected YAML", "unhashable key"]),
        (b"data: !!python/object/apply:os.getcwd []", ["expected YAML", "python/object/apply:os.getcwd"]),
        (b"data: *nothing", ["expected YAML", "nothing"]),
        (b"\xff\xfe\xff", ["expected YAML", "utf-8"]),
        (b"\x00", ["expected YAML", "#x0000"]),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, words: list[str]):
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    missing = [word for word in words if word not in text]
    assert not missing, text


def test_a_missing_file_names_the_recipes_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"^nope\.yaml: no such recipe\. Expected a YAML file$"):
        load_recipe(Path("nope.yaml"))
    (tmp_path / "recipes").mkdir()
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        (tmp_path / "recipes" / name).write_text("")
    with pytest.raises(RecipeError, match=r"for example one of recipes/a\.yaml, recipes/b\.yaml$"):
        load_recipe(Path("nope.yaml"))
    with pytest.raises(RecipeError, match=r"found a folder\. A run's is recipes/recipe\.yaml"):
        load_recipe(Path("recipes"))


def test_a_recipe_of_the_package_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(Path("quickstart"), ["--training.seed", "3"])
    assert recipe.data.synthetic_images == 1000 and recipe.training.seed == 3
    assert recipe.training.output_dir == "runs/quickstart"
    with pytest.raises(RecipeError, match=r"Expected a YAML file, or a name: balloon, .*start$"):
        load_recipe(Path("nope"))
    (tmp_path / "quickstart").write_text("data: {name: mine}")
    assert load_recipe(Path("quickstart")).data.name == "mine", "a file of that name goes first"


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str | None, "text or null"),
        (None | int, "a whole number or null"),
        (list[str] | None, "a list of text or null"),
        (dict[str, int], "keys and values"),
        (dict, "keys and values"),
        (bool, "true or false"),
    ],
)
def test_types_are_described_for_people(annotation: object, expected: str):
    assert describe_type(annotation) == expected


# What a run writes


def every_value(recipe: Recipe) -> dict:
    """All that a recipe says, as plain values."""
    sections = {name: asdict(getattr(recipe, name)) for name in LIGHT_SECTIONS}
    return {**sections, "training": recipe.training.to_dict()}


def test_a_saved_recipe_runs_again_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "model").mkdir(parents=True)
    (here / "weights.pth").write_bytes(b"")
    there.mkdir()
    monkeypatch.chdir(here)
    flags = [
        *("--data.root", "data", "--data.name", "1e-4", "--model.checkpoint", "model", "--model.revision", "12e4567"),
        *("--model.backbone_weights", "weights.pth", "--model.trainable_stages", "[layer4]"),
        *("--model.config.dropout", "0.25", "--augment.rotate", "3", "--training.learning_rate", "3e-5"),
        *("--training.eval_strategy", "no", "--training.output_dir", str(tmp_path / "run"), "--training.seed", "7"),
        *("--training.optim", "SGD", "--training.lr_scheduler_kwargs.min_lr", "1e-6"),
    ]
    recipe = load_recipe(None, [*ANYWHERE, *flags])
    save_recipe(recipe, here / "recipe.yaml", {"versions": {"torch": "2"}, "annotations_sha256": {"a.json": "00"}})
    assert sorted(path.name for path in here.iterdir()) == ["model", "recipe.yaml", "weights.pth"]

    monkeypatch.chdir(there)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # of fields that Transformers gives up
        again = load_recipe(here / "recipe.yaml")
    expected, found = every_value(recipe), every_value(again)
    assert found["data"].pop("root") == str(here / "data")
    assert found["model"].pop("checkpoint") == str(here / "model")
    assert found["model"].pop("backbone_weights") == str(here / "weights.pth")
    for section, key in (("data", "root"), ("model", "checkpoint"), ("model", "backbone_weights")):
        del expected[section][key]
    assert found == expected

    save_recipe(again, there / "recipe.yaml", {})
    assert every_value(load_recipe(there / "recipe.yaml")) == every_value(again)


def test_a_saved_recipe_says_what_it_ran_under_and_no_secret(tmp_path: Path):
    flags = ["--training.hub_token", "hf_secret", "--training.overwrite", "--training.resume_from_checkpoint", "last"]
    recipe = load_recipe(None, [*ANYWHERE, *flags, "--data.name", "größer"])
    assert recipe.training.hub_token == "hf_secret"
    path = tmp_path / "recipe.yaml"
    save_recipe(recipe, path, {"versions": {"torch": "2.99"}, "git": None})
    text = path.read_text(encoding="utf-8")
    assert "hf_secret" not in text
    assert "größer" in text
    content = yaml.safe_load(text)
    assert content["made_with"] == {"versions": {"torch": "2.99"}, "git": None}
    written = set(content["training"])
    assert written == {field.name for field in fields(DetrTrainingArguments) if field.init} - set(NOT_SAVED)
    assert recipe.resolved["training"]["hub_token"] == "hf_secret", "the recipe in use keeps it"


def test_a_hub_id_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save_recipe(load_recipe(None, ANYWHERE), tmp_path / "recipe.yaml", {})
    content = parse_yaml((tmp_path / "recipe.yaml").read_text())
    assert content["model"]["checkpoint"] == "facebook/detr-resnet-50"
    assert content["data"]["root"] == str(tmp_path)


# What `--help` says


def listed_flags(text: str) -> list[str]:
    return re.findall(r"^  (?:-h, )?--([\w.]+)", text, re.MULTILINE)


@pytest.mark.parametrize("verb", ["train", "check"])
def test_help_lists_every_field_once(verb: str, capsys: pytest.CaptureFixture[str]):
    print_help(verb)
    text = capsys.readouterr().out
    assert text.startswith(f"usage: hf-detr-ft {verb} [RECIPE] [--section.key VALUE ...]")
    expected = [
        f"{section}.{field.name}"
        for section, config in section_classes().items()
        for field in fields(config)
        if field.init
    ]
    assert sorted(listed_flags(text)) == sorted(expected)


def test_help_tells_type_default_and_meaning(capsys: pytest.CaptureFixture[str]):
    print_help("train")
    words = " ".join(capsys.readouterr().out.split())
    assert "Pixels of an image's short side after resizing (DETR: 800). (type: int, default: 800)" in words
    assert "Learning rate of the backbone, for AdamW (DETR: 1e-5). (type: float, default: 1e-05)" in words


def lines_of(flags: Sequence[str]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, flags)
    return str(caught.value).splitlines()


def test_without_a_file_the_flags_alone_are_named():
    assert lines_of(["--training.lr_scheduler_type", "cosin"])[0].startswith("flags: training: Transformers refuses")


EARLIER = """
model: {encoder_loss: ENCODER_LOSS, new_decoder: false}
evaluation: {batch_size: null}
speed: {keep_memory: true}
"""


def test_recipes_of_earlier_runs_load_without_the_fields_that_are_gone(read, refusal):
    text = EARLIER.replace("ENCODER_LOSS", "0.0")
    assert "keep_memory" not in read(f"{text}made_with: {{versions: {{}}}}\n").resolved["speed"]
    lines = refusal(text)
    assert [line.partition(" (gone: ")[2] for line in lines] == [
        "it is --encoder-loss of python -m hf_detr_ft.pretraining)",
        "it is --new-decoder of python -m hf_detr_ft.pretraining)",
        "it is training.per_device_eval_batch_size)",
        "it brought nothing)",
    ], "a person who writes one is told"


def test_a_field_that_is_gone_is_not_passed_over_where_it_had_an_effect(refusal):
    [line] = refusal(EARLIER.replace("ENCODER_LOSS", "1.0") + "made_with: {versions: {}}\n")
    assert "unknown key 'encoder_loss' in section 'model' (gone: it is --encoder-loss" in line


def test_names_of_fields_are_read_off_the_source_as_the_class_has_them():
    for section, config in section_classes().items():
        known = [field.name for field in fields(config) if field.init]
        assert set(field_names(section)) == set(known), section


@pytest.mark.parametrize(
    ("text", "flags", "imported"),
    [
        ("data: {rot: x}", [], False),
        ("data: {rot: x}\ntraining: {seed: 1}", [], True),  # whose values may be wrong, too
        ("data: {rot: x}\ntraining: {seed: 1}\nmade_with: {}", [], False),
        ("data: {rot: x}\nmade_with: {}", ["--training.seed", "one"], True),
    ],
)
def test_problems_come_at_once_and_without_transformers_where_training_is_not_a_persons(
    text: str, flags: list[str], imported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[Path] = []
    monkeypatch.setattr(files, "load_recipe", lambda path, flags: loaded.append(path))
    monkeypatch.setattr(files, "require_sound", lambda recipe: None)
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match="unknown key 'rot'"):
        check_early(path, flags)
    assert bool(loaded) is imported
