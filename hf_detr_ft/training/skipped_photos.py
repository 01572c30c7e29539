"""Photos that become unreadable while a run goes on, where `data.on_bad_image` lets it go on without them."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

logger = logging.getLogger(__name__)


class SkippedPhotos(TrainerCallback, ExportableState):
    """Notes each photo once, on all processes before anything is written; checkpoints carry it.

    Attributes:
        training: image ids, ascending.
        validation: image ids, ascending.
    """

    def __init__(self) -> None:
        self.training: list[int] = []
        self.validation: list[int] = []

    def state(self) -> dict[str, Any]:
        """State that a checkpoint carries."""
        return {"args": {}, "attributes": self.as_dict()}

    def as_dict(self) -> dict[str, list[int]]:
        """Image ids by split, for JSON."""
        return {"training": self.training, "validation": self.validation}

    def note(self, split: Literal["training", "validation"], labels: Sequence[dict[str, Any]]) -> None:
        """Takes down the photos of a batch that could not be read, and says so of new ones."""
        known: list[int] = getattr(self, split)
        for target in labels:
            image_id = int(target["image_id"]) if target.get("unreadable") else None
            if image_id is not None and image_id not in known:
                known.append(image_id)
                known.sort()
                logger.warning("The %s goes on without image id %d: %s", split, image_id, target["unreadable"])

    def share(self, args: TrainingArguments) -> None:
        """Gives all processes what each of them has noted."""
        if args.world_size > 1:
            for split in self.as_dict():
                setattr(self, split, sorted(set(gather_object(getattr(self, split)))))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Shares before a checkpoint that no evaluation precedes."""
        if control.should_save:
            self.share(args)

    on_epoch_end = on_step_end

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Shares before metrics.json is written."""
        self.share(args)
