"""Parts of the loss, added up over steps."""

from collections import defaultdict

import torch


class LossParts:
    """Adds up the parts of the loss on the device and reads them once."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(()))
        self.count = 0.0

    def add(self, parts: dict[str, torch.Tensor], share: float) -> None:
        """Adds what is `share` of a step: 1, or 1 of the micro-batches where these are to be averaged."""
        for name, value in parts.items():
            self.sums[name] = value.detach().float() + self.sums[name].to(value.device)
        self.count += share
