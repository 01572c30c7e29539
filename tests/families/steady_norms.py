"""`accelerate launch -m tests.families.steady_norms FLAGS`: a training whose batch norms keep their statistics.

A batch norm that is trained norms the images of its own process, so that training depends on how many these are.
"""

import sys

import torch

from hf_detr_ft.cli import main


def stay_in_evaluation(norm: torch.nn.BatchNorm2d, mode: bool = True) -> torch.nn.BatchNorm2d:
    """Stands in for `train`."""
    norm.training = False
    return norm


if __name__ == "__main__":
    torch.nn.BatchNorm2d.train = stay_in_evaluation  # type: ignore[method-assign, assignment]
    sys.exit(main(["train", *sys.argv[1:]]))
