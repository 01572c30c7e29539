"""Runs main.py of facebookresearch/detr in a process: `python original_main.py CHECKOUT SETTINGS OUTPUT ARGUMENTS`.

SETTINGS is JSON: `edges` of the images (short side, most of the long side), for which main.py has no argument; there is
no augmentation then. `sequential`: training images come in the order of the file; `fp64`: compute in it. Writes what
the last evaluation gave to OUTPUT, as JSON. Nothing is downloaded: the weights are those of `--resume`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision


def main() -> None:
    """Runs it with the arguments of the command line."""
    checkout, given, output, *arguments = sys.argv[1:]
    settings = json.loads(given)
    sys.path.insert(0, checkout)
    torchvision.__version__ = "0.9.0"  # it compares the first digits
    import datasets.coco as coco
    import datasets.transforms as transforms
    import main as original  # type: ignore[import-not-found]
    import models.backbone as backbone  # type: ignore[import-not-found]

    backbone.is_main_process = lambda: False  # which downloads weights
    edge, longest = settings["edges"]
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    resize = transforms.RandomResize([edge], max_size=longest)
    coco.make_coco_transforms = lambda _: transforms.Compose([resize, transforms.ToTensor(), normalise])
    if settings.get("sequential"):
        torch.utils.data.RandomSampler = torch.utils.data.SequentialSampler  # type: ignore[assignment,misc]
    if settings.get("fp64"):
        torch.set_default_dtype(torch.float64)
        torch.float32 = torch.float64  # which boxes and positions ask for by name
    evaluate, results = original.evaluate, list[Any]()

    def noted(*args: Any) -> Any:
        result = evaluate(*args)
        results.append(result[0])
        return result

    original.evaluate = noted
    parser = argparse.ArgumentParser(parents=[original.get_args_parser()])
    original.main(parser.parse_args([*arguments, "--device", "cpu", "--num_workers", "0"]))
    Path(output).write_text(json.dumps(results[-1]))


if __name__ == "__main__":
    main()
