"""Parts of Transformers and torch that the package uses and that are not promised to stay, as they are today.

A new release that changes any of it gives one failure, which says what is gone or different and which of our files use
it. `pyproject.toml` allows only releases of Transformers that this test and the whole suite have passed with.
"""

import ast
import gc
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from packaging.requirements import Requirement
from transformers import DetrConfig, PreTrainedConfig, Trainer, TrainingArguments

FOREIGN = {"_replace", "_exit"}
"""Names with an underscore that are promised: of a named tuple, of `os`."""
REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "hf_detr_ft"


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """Python 3.11's parser fails where a collection in its midst ends what an earlier test left, and that parses."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Use(NamedTuple):
    """One name of another package, and its parameters where we call or override it."""

    owner: str
    """Importable: a module, or a class in one."""
    name: str
    parameters: str | None = None
    """Listed as in a call, without defaults; None: any, or no function."""

    def problem(self) -> str | None:
        """Difference of the installed release; None where there is none."""
        module, _, inside = self.owner.partition(":")
        try:
            owner = importlib.import_module(module)
            owner = getattr(owner, inside) if inside else owner
        except (ImportError, AttributeError) as error:
            return f"{self.owner} is gone ({error})"
        where = f"{self.owner.replace(':', '.')}.{self.name}"
        if not hasattr(owner, self.name):
            return None if re.search(rf"\bself\.{self.name}\b", inspect.getsource(owner)) else f"{where} is gone"
        if self.parameters is None:
            return None
        found = ", ".join(map(str, inspect.signature(getattr(owner, self.name)).parameters))
        return None if found == self.parameters else f"{where} takes ({found}), expected ({self.parameters})"


TRAINER = "transformers:Trainer"
MODELS = "transformers.models"
SAMPLING = "value, value_spatial_shapes, sampling_locations, attention_weights, num_points_list, method"
ANCHORS = "self, spatial_shapes, grid_size, device, dtype"
USES = (
    Use(TRAINER, "_created_lr_scheduler"),
    Use(TRAINER, "_get_output_dir", "self, trial"),
    Use(TRAINER, "_get_eval_sampler", "self, eval_dataset"),
    Use(TRAINER, "_get_learning_rate", "self"),
    Use(TRAINER, "_get_train_sampler", "self, train_dataset"),
    Use(TRAINER, "_load_best_model", "self"),
    Use(TRAINER, "_load_callback_state", "self"),
    Use(TRAINER, "_load_from_checkpoint", "self, resume_from_checkpoint, model"),
    Use(TRAINER, "_load_optimizer_and_scheduler", "self, checkpoint"),
    Use(TRAINER, "_load_rng_state", "self, checkpoint"),
    Use(TRAINER, "_load_scaler", "self, checkpoint"),
    Use(TRAINER, "_prepare_inputs", "self, inputs"),
    Use(TRAINER, "_save_checkpoint", "self, model, trial"),
    Use(TRAINER, "_save", "self, output_dir, state_dict"),
    Use(TRAINER, "compute_loss_context_manager", "self"),
    Use(TRAINER, "current_gradient_accumulation_steps"),
    Use(TRAINER, "get_batch_samples", "self, epoch_iterator, num_batches, device"),
    Use("transformers:TrainingArguments", "_n_gpu"),
    Use("transformers:PreTrainedConfig", "_attn_implementation"),
    Use("transformers:DetrConfig", "__annotations__"),
    Use("transformers:PreTrainedModel", "_init_weights", "self, module"),
    Use("transformers:TimmBackbone", "_backbone"),
    Use("transformers.integrations.sdpa_attention", "sdpa_attention_forward"),
    Use("transformers.image_transforms", "get_size_with_aspect_ratio", "image_size, size, max_size"),
    Use("transformers.image_utils", "SizeDict"),
    Use("transformers:DetrImageProcessor", "resize"),
    Use("transformers.trainer", "DEFAULT_PROGRESS_CALLBACK"),
    Use("transformers.trainer_callback", "ExportableState"),
    Use(f"{MODELS}.rt_detr_v2.modeling_rt_detr_v2", "multi_scale_deformable_attention_v2", SAMPLING),
    Use(f"{MODELS}.d_fine.modeling_d_fine", "multi_scale_deformable_attention_v2", SAMPLING),
    Use(f"{MODELS}.rt_detr_v2.modeling_rt_detr_v2:RTDetrV2Model", "generate_anchors", ANCHORS),
    Use(f"{MODELS}.deformable_detr.modeling_deformable_detr", "MultiScaleDeformableAttention"),
    Use("torch._dynamo.exc", "BackendCompilerFailed"),
    Use("timm.layers", "get_same_padding", "x, kernel_size, stride, dilation"),
    Use("timm.layers", "pad_same", "x, kernel_size, stride, dilation, value"),
    Use("timm.layers", "Conv2dSame"),
    Use("timm.layers", "FrozenBatchNormAct2d"),
    Use("argparse:ArgumentParser", "_actions"),
)
"""Private names, and public ones that no documentation mentions."""


def test_what_is_not_promised_is_still_there() -> None:
    problems = [f"{problem}; used in {users(use.name)}" for use in USES if (problem := use.problem())]
    assert not problems, "\n".join(
        [
            f"transformers {transformers.__version__}, torch {torch.__version__}; pyproject.toml allows transformers "
            f"{transformers_bounds().specifier}",
            *problems,
        ]
    )


def test_a_change_would_be_seen() -> None:
    assert Use(TRAINER, "_nothing").problem() == "transformers.Trainer._nothing is gone"
    changed = Use(TRAINER, "_save", "self").problem()
    assert changed == "transformers.Trainer._save takes (self, output_dir, state_dict), expected (self)"
    assert str(Use("torch._dynamo.gone", "x").problem()).startswith("torch._dynamo.gone is gone (")
    assert "hf_detr_ft/training/trainer.py" in users("_get_eval_sampler").split(", ")


def test_every_private_name_in_use_is_in_the_list() -> None:
    ours: set[str] = set()
    used: set[str] = set()
    for tree in map(ast.parse, sources().values()):
        ours |= set(defined_names(tree))
        used |= set(used_names(tree))
    hosts = " ".join(inspect.getsource(host) for host in (Trainer, TrainingArguments, PreTrainedConfig, DetrConfig))
    shared = ours & set(re.findall(r"\w+", hosts))
    foreign = {name for name in (used - ours) | shared if re.match(r"_[a-z]", name)} - FOREIGN
    listed = {use.name for use in USES} | {part for use in USES for part in use.owner.split(".")}
    assert sorted(foreign - listed) == [], "add them to USES, with what they take"
    assert [use.name for use in USES if not users(use.name)] == [], "these are not used any more; take them out of USES"


def test_transformers_has_an_upper_bound_and_is_within_it() -> None:
    bounds = transformers_bounds().specifier
    assert any(part.operator == "<" for part in bounds)
    pinned = re.search(r"^transformers==(.+)$", (REPOSITORY / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert pinned is not None and pinned[1] in bounds


@cache
def sources() -> dict[str, str]:
    """Text of every module, by its path in the repository."""
    return {str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def users(name: str) -> str:
    """Our files in which a name stands."""
    return ", ".join(sorted(path for path, text in sources().items() if re.search(rf"\b{name}\b", text)))


def used_names(tree: ast.AST) -> Iterator[str]:
    """Attributes that are read or set, and what is imported, part by part."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from [*node.module.split("."), *(alias.name for alias in node.names)]


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Functions, classes and what is assigned to attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def transformers_bounds() -> Requirement:
    """Requirement of Transformers in `pyproject.toml`."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(found for found in map(Requirement, project["dependencies"]) if found.name == "transformers")
