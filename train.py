"""`accelerate launch train.py RECIPE …` is `hf-detr-ft train RECIPE …` in as many processes as Accelerate starts."""

import sys

from hf_detr_ft.cli import program

if __name__ == "__main__":
    sys.exit(program(["train", *sys.argv[1:]]))
