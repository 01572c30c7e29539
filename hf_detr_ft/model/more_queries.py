"""Another number of queries than a checkpoint's: its own are kept, and more are made that leave their answers alone.

Queries attend to each other. Random ones beside those of a trained DETR take most of their attention and find the same
objects again: with five times as many the AP of the tiny DETR falls from .48 to .36, with copies to .13.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from hf_detr_ft.model.families.family import Family

logger = logging.getLogger(__name__)

STEPS = 200
"""Steps of Adam that look for the shift, and its first rate."""
RATE = 0.2
IMAGES, SIDE, DISCS = 16, 256, 60
"""Images that it is looked for on, their side in pixels, and the discs on each."""
BATCH = 2


def keep_queries(model: Any, learned: Any) -> None:
    """Gives a model the learned queries of another one with more or fewer of them, in place.

    Fewer: the first of each group are kept. More, where a query begins at a place that the encoder proposes: the
    learned ones are repeated in turn. More, elsewhere: they are drawn from normal distributions with the deviation of
    the learned ones, and then all moved by one shift, for which `find_shift` looks.

    Args:
        model: with `config.num_queries` of its own.
        learned: a model that is the same but for the number of queries.
    """
    family: Family = model.family
    own, wanted = learned.config.num_queries, model.config.num_queries
    tensors = {name: tensor for name, tensor in learned.named_parameters() if name in family.queries}
    if wanted > own and tensors and not family.proposes_places:
        logger.info("Making %d queries beside the %d of the checkpoint.", wanted - own, own)
        tensors = more_queries(learned, tensors, wanted - own)
    places = torch.arange(wanted)
    places = places % own if family.proposes_places else places
    for name, tensor in tensors.items():
        groups = tensor.unflatten(0, (getattr(learned.config, "group_detr", 1) if family.proposes_places else 1, -1))
        with torch.no_grad():
            model.get_parameter(name).copy_(groups[:, places].flatten(0, 1))


def more_queries(learned: Any, tensors: Mapping[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    """The learned queries `[Q + count, D]`, by name, with `count` more of like size behind them."""
    draws = torch.Generator().manual_seed(0)
    drawn = {
        name: tensor.detach().std(0) * torch.randn(count, tensor.shape[1], generator=draws)
        for name, tensor in tensors.items()
    }
    if getattr(learned.config, "num_patterns", 0):  # DAB-DETR with several patterns to each query counts by its own
        return {name: torch.cat([tensor.detach(), drawn[name]]) for name, tensor in tensors.items()}
    shift = find_shift(learned, tensors, drawn)
    return {name: torch.cat([tensor.detach(), drawn[name] + shift[name]]) for name, tensor in tensors.items()}


def find_shift(
    learned: Any, tensors: Mapping[str, torch.Tensor], drawn: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """One vector `[D]` by name with which the new queries find nothing and the learned ones the same as without them.

    It is looked for by gradient descent on images of random discs, so that it needs no data, and is the same each time.

    Args:
        learned: the model; its parameters stay as they are.
        tensors: its queries, by name.
        drawn: the queries beside them.
    """
    family: Family = learned.family
    trained = [parameter for parameter in learned.parameters() if parameter.requires_grad]
    images = draw_discs()
    shift = {name: torch.zeros(tensor.shape[1], requires_grad=True) for name, tensor in tensors.items()}
    optimizer = torch.optim.Adam(shift.values(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    learned.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            answers = [learned(batch) for batch in images]
        for step in range(STEPS):
            place = step % len(images)
            all_of_them = {name: torch.cat([tensors[name], drawn[name] + shift[name]]) for name in shift}
            loss = _disturbance(functional_call(learned, all_of_them, images[place]), answers[place], family)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return {name: vector.detach() for name, vector in shift.items()}


def _disturbance(outputs: Any, before: Any, family: Family) -> torch.Tensor:
    """Change of the learned queries' scores and boxes, and what the new ones believe to see."""
    own = before.logits.shape[1]
    logits, boxes = outputs.logits, outputs.pred_boxes
    if family.scores == "softmax":
        scores, scores_before = logits.softmax(-1), before.logits.softmax(-1)
        seen = -logits[:, own:].log_softmax(-1)[..., -1]
    else:
        scores, scores_before = logits.sigmoid(), before.logits.sigmoid()
        seen = nn.functional.softplus(logits[:, own:]).sum(-1)
    changes = ((scores[:, :own] - scores_before), (boxes[:, :own] - before.pred_boxes))
    return sum((change.abs().sum(-1).mean() for change in changes), seen.mean())


def draw_discs() -> list[torch.Tensor]:
    """Images of discs of random colours, places and sizes that cover each other, normalised, in batches."""
    draws = torch.Generator().manual_seed(0)

    def draw(least: float, most: float, *last: int) -> torch.Tensor:
        return least + (most - least) * torch.rand(IMAGES, DISCS, *last, generator=draws)

    centres, radii = draw(0, SIDE, 2), SIDE * draw(math.log(0.035), math.log(0.4)).exp()
    colours, along = draw(-2, 2, 3), torch.arange(SIDE)
    images = torch.zeros(IMAGES, 3, SIDE, SIDE)
    for disc in range(DISCS):
        x, y = ((along - centres[:, disc, axis, None]) ** 2 for axis in (0, 1))
        inside = x[:, None, :] + y[:, :, None] < radii[:, disc, None, None] ** 2
        images = torch.where(inside[:, None], colours[:, disc, :, None, None], images)
    return list(images.split(BATCH))
