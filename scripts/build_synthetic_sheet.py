"""Draws docs/synthetic.jpg, 24 drawn images side by side: `python scripts/build_synthetic_sheet.py`."""

from pathlib import Path

import numpy as np
from PIL import Image

from hf_detr_ft.synthetic.render import render

COLUMNS, ROWS, GAP = 6, 4, 6
SIDE = 200


def build_sheet() -> Image.Image:
    """Draws the first 24 images of seed 0, square."""
    tiles = [Image.fromarray(render(index, size=(SIDE, SIDE)).image) for index in range(COLUMNS * ROWS)]
    step = SIDE + GAP
    sheet = Image.fromarray(np.full((ROWS * step - GAP, COLUMNS * step - GAP, 3), 255, np.uint8))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % COLUMNS * step, index // COLUMNS * step))
    return sheet


if __name__ == "__main__":
    build_sheet().save(Path(__file__).parents[1] / "docs" / "synthetic.jpg", quality=88, optimize=True)
