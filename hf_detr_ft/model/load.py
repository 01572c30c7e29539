"""Models from a folder or the Hub: one loader for fine-tuning, for resuming and for predicting.

Transformers leaves what a checkpoint lacks at random weights and warns; here that is an error.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.formatting import join_limited
from hf_detr_ft.model.checkpoint import Checkpoint, read_config, why_unreadable
from hf_detr_ft.model.class_rows import copy_rows, match_names
from hf_detr_ft.model.detector import Detector, detector_class
from hf_detr_ft.model.families import family_of, saved_family
from hf_detr_ft.model.families.detr import DETR
from hf_detr_ft.model.families.detr_masks import DETR_MASKS, make_ready_for_masks
from hf_detr_ft.model.init_weights import balance_mask_head
from hf_detr_ft.model.more_queries import keep_queries
from hf_detr_ft.run_folder import CONFIG

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """Tensors of a model that its checkpoint did not fill.

    Attributes:
        problems: what is wrong with each, by the tensor's name, in order.
        unexpected: names of the checkpoint's tensors that the model has no place for.
    """

    problems: dict[str, str]
    unexpected: list[str]

    def besides(self, made_anew: Sequence[str]) -> dict[str, str]:
        """The problems without those of tensors that are made anew anyway, by prefixes of their names."""
        return {name: text for name, text in self.problems.items() if not name.startswith(tuple(made_anew))}


def load_tensors(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    model_class: Any,
    remedy: str = "Copy or download them again.",
) -> tuple[Any, LoadReport]:
    """A model in fp32 with what there is of its tensors.

    Raises:
        CheckpointError: the files of weights cannot be read.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it reports at length what `LoadReport` says
    try:
        loaded: Any = model_class.from_pretrained(
            checkpoint.path,
            revision=checkpoint.revision or "main",
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # safetensors, pickle, OS and Hub errors alike: this checkpoint is not usable
        raise CheckpointError(
            f"{checkpoint.part('the weights')} cannot be loaded: {why_unreadable(error)}. {remedy}"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    model, report = loaded
    problems = {
        name: f"'{name}' has the shape {tuple(found)} where the config wants {tuple(wanted)}"
        for name, found, wanted in report["mismatched_keys"]
    }
    problems |= {name: f"'{name}' is missing" for name in sorted(report["missing_keys"])}
    return model, LoadReport(problems, sorted(report["unexpected_keys"]))


def load_for_finetuning(
    checkpoint: Checkpoint,
    settings: dict[str, Any],
    made_anew: Sequence[str] = (),
    masks: bool = False,
    reuse_rows: bool = False,
) -> Detector:
    """A checkpoint of any family with class heads for other labels.

    Args:
        checkpoint: in the Hub's legacy or current layout.
        settings: fields of the config to change, `id2label` among them.
        made_anew: prefixes of the names of tensors that need not be there, nor fit, besides those of the class heads.
        masks: give it a mask head, the checkpoint's or a new one; else it has none.
        reuse_rows: copy the rows of the class heads of classes that `match_names` finds in the checkpoint.

    Returns:
        The model in fp32. Its class heads are new unless the checkpoint has exactly these class names. With another
        number of queries it has those that `keep_queries` makes of the checkpoint's.

    Raises:
        CheckpointError: the checkpoint is missing, not of a family that can be trained or not complete.
    """
    checkpoint.check_exists()
    config: Any = read_config(checkpoint)
    family = saved_family(config)
    known, names = list((config.id2label or {}).values()), list(settings["id2label"].values())
    same_classes = known == names
    if masks and not same_classes:
        raise CheckpointError(
            f"{checkpoint}: expected a DETR that finds the data's classes already, since beside a mask head nothing is "
            f"trained, found one of {join_limited(known)}. Fine-tune its boxes first, without model.masks, and give "
            "that run folder."
        )
    if family.auxiliary_loss_changes_network and config.auxiliary_loss:
        logger.warning(
            "%s was trained with Transformers' auxiliary_loss, which normalises between decoder layers. Its layers are "
            "used as %s does; expect a lower AP in the first epochs.",
            checkpoint.name,
            family.name,
        )
        config.auxiliary_loss = False
    own = copy.deepcopy(config)
    for name, value in settings.items():
        setattr(config, name, value)
    model, report = load_tensors(checkpoint, config, detector_class(family))
    other_queries = config.num_queries != own.num_queries
    _require_complete(checkpoint, report, (*family.class_heads, *(family.queries if other_queries else ()), *made_anew))
    rows = match_names(known, names) if reuse_rows and not same_classes else {}
    if not same_classes:
        family.reset_heads(model)
    if other_queries or rows:
        learned, own_report = load_tensors(checkpoint, own, detector_class(family))
        _require_complete(checkpoint, own_report, made_anew if rows else (*family.class_heads, *made_anew))
        if other_queries:
            keep_queries(model, learned)
        copy_rows(model, learned, rows)
    detector: Detector = model
    if family.masks != masks:
        detector = with_mask_head(checkpoint, detector) if masks else without_mask_head(detector)
    detector.reused_classes = {names[label]: known[old] for label, old in rows.items()}
    return detector


def with_mask_head(checkpoint: Checkpoint, model: Detector) -> Detector:
    """The same DETR inside one with a new mask head; see `balance_mask_head`.

    Raises:
        CheckpointError: a mask head does not fit it.
    """
    fault = make_ready_for_masks(model.config)
    if fault is not None:
        raise CheckpointError(f"{checkpoint}: {fault}")
    made: Any = detector_class(DETR_MASKS)(model.config)
    made.detr.load_state_dict(model.state_dict())
    balance_mask_head(made)
    return made


def without_mask_head(model: Any) -> Detector:
    """The DETR in a model with a mask head."""
    made = detector_class(DETR)(model.config)
    made.load_state_dict(model.detr.state_dict())
    return made


def _require_complete(checkpoint: Checkpoint, report: LoadReport, made_anew: Sequence[str]) -> None:
    """Refuses a checkpoint that leaves anything but what is made anew at random weights."""
    problems = list(report.besides(made_anew).values())
    if problems:
        unexpected = report.unexpected
        hint = f" It holds {len(unexpected)} tensors of other names, '{unexpected[0]}' first." if unexpected else ""
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(
            f"{checkpoint.part(f'{len(problems)} tensors')} would start from noise: {shown}.{hint} "
            "Use a checkpoint of this architecture, and leave shapes out of model.config."
        )


def load_for_inference(source: str, *, with_loss: bool = False) -> PreTrainedModel:
    """A model of any family as it was saved, in fp32 and evaluation mode, on the CPU.

    Args:
        source: a run folder, one of its checkpoints, any folder that `save_pretrained` wrote, `package:NAME/PATH` in a
            Python package, or a Hub id.
        with_loss: give it this package's class, with the loss, and not Transformers'.

    Raises:
        CheckpointError: there is no such folder or Hub id, it is not of a family that can be trained, or it is not
            complete.
    """
    checkpoint = Checkpoint(source)
    checkpoint.check_exists()
    config = read_config(checkpoint)
    family = saved_family(config)
    model, report = load_tensors(checkpoint, config, detector_class(family) if with_loss else family.stock_class)
    unset = sorted(report.problems)
    if unset and not report.besides(family.class_heads) and report.problems[unset[0]].endswith("is missing"):
        raise CheckpointError(
            f"{checkpoint}: expected a model with a class head, found none ('{unset[0]}' is missing): it knows no "
            f"classes yet. Fine-tune it, hf-detr-ft train RECIPE --model.checkpoint {source}, and give the run folder."
        )
    if unset:
        more = f" and {len(unset) - 1} more" if len(unset) > 1 else ""
        raise CheckpointError(
            f"{checkpoint}: expected weights for all of the model in {CONFIG}; missing or of another shape "
            f"are '{unset[0]}'{more}. Weights and {CONFIG} are not of one model."
        )
    detector: PreTrainedModel = model.eval()
    return detector


def load_weights(model: PreTrainedModel, folder: Path, field: str, remedy: str) -> None:
    """Puts a checkpoint's weights into a model, every tensor of them, in place.

    `save_pretrained` writes many tensors under their names of Transformers 4, and only `from_pretrained` knows them
    both. Transformers' Trainer reads the file as it is, finds no tensor of its own names, warns, and goes on with the
    weights that it has: the last ones instead of the best, or the first ones after resuming.

    Args:
        model: the one that wrote the checkpoint.
        folder: the checkpoint.
        field: the recipe's field that has it loaded, for the error.
        remedy: what to do where it cannot be loaded, a sentence.

    Raises:
        CheckpointError: it is missing, unreadable or of a model with other tensors, such as one with other classes.
    """
    checkpoint = Checkpoint(str(folder), field)
    if not folder.exists():
        raise CheckpointError(f"{checkpoint}: found no such folder. {remedy}")
    checkpoint.check_exists()
    saved, report = load_tensors(checkpoint, model.config, family_of(model).stock_class, remedy)
    if report.problems:
        shown = "; ".join(list(report.problems.values())[:5])
        raise CheckpointError(f"{checkpoint.part('the weights')} cannot be loaded: {shown}. {remedy}")
    model.load_state_dict(saved.state_dict())
