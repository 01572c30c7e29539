"""DETR checkpoints in the layout that the Hub serves `facebook/detr-resnet-50` in, with random weights.

`python -m tests.legacy FOLDER` writes one of full size. The config names a timm backbone the way Transformers 4 did,
with 91 class names; the tensors have their names of Transformers 4 (`conv_encoder`, `out_proj`, `fc1`).
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

RENAMED = (
    ("model.backbone.model.", "model.backbone.conv_encoder.model."),
    (".o_proj.", ".out_proj."),
    (".mlp.fc", ".fc"),
)
"""Today's part of a name, and the one of Transformers 4."""


def write_legacy_checkpoint(
    folder: Path, config: DetrConfig | None = None, labels: int = 91, seed: int = 0, backbone_kwargs: bool = False
) -> Path:
    """Writes config.json, model.safetensors and preprocessor_config.json; returns `folder`.

    Args:
        folder: made if it is not there.
        config: of the model; DETR-R50 of full size where not given.
        labels: how many classes.
        seed: of the weights.
        backbone_kwargs: the config states them, as those that Transformers 4.41 to 4.57 saved do.
    """
    names = {label: "N/A" if label % 12 == 0 else f"thing {label}" for label in range(labels)}
    config = config or DetrConfig()
    config.id2label, config.label2id = names, {name: label for label, name in names.items()}
    torch.manual_seed(seed)
    model = DetrForObjectDetection(config)
    model.save_pretrained(folder)
    DetrImageProcessor().save_pretrained(folder)

    state = {}
    for name, tensor in model.state_dict().items():
        for today, legacy in RENAMED:
            name = name.replace(today, legacy)
        state[name] = tensor.contiguous()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    settings = json.loads((folder / "config.json").read_text())
    backbone = settings.pop("backbone_config")
    settings |= {
        "backbone": backbone["backbone"],
        "backbone_config": None,
        **({"backbone_kwargs": {"in_chans": 3, "out_indices": backbone["out_indices"]}} if backbone_kwargs else {}),
        "use_timm_backbone": True,
        "use_pretrained_backbone": True,
        "transformers_version": "4.41.0",
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    assert any("conv_encoder" in name for name in load_file(folder / "model.safetensors"))
    return folder


if __name__ == "__main__":
    print(write_legacy_checkpoint(Path(sys.argv[1])))
