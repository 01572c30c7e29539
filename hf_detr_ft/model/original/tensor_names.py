"""Names of DETR's tensors in facebookresearch/detr, in its detectron2 wrapper and in Transformers."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Blocks of the four stages of torchvision's ResNets, which timm has under the same names."""
SHALLOW = ("resnet18", "resnet34")
"""Those whose blocks have two convolutions instead of three."""
NORM = ("weight", "bias", "running_mean", "running_var")
"""Tensors of a frozen batch norm."""
AFFINE = ("weight", "bias")
CLASS_HEAD = ("class_embed.weight", "class_embed.bias")

Names = list[tuple[str, tuple[str, ...]]]
"""Names in the original, and in Transformers: one, or three whose rows follow each other there."""


@dataclass(frozen=True)
class Architecture:
    """Parts of a DETR that decide which tensors it has.

    Attributes:
        backbone: name in torchvision and timm.
        encoder_layers: number of them.
        decoder_layers: number of them.
        learned_positions: position embeddings are learned and not sines.
        masks: there is a mask head.
    """

    backbone: str
    encoder_layers: int
    decoder_layers: int
    learned_positions: bool = False
    masks: bool = False


def tensor_names(architecture: Architecture) -> Names:
    """Names of all tensors, in the order in which the original registers them."""
    detector = [
        *_layer_pairs("encoder", architecture.encoder_layers),
        *_layer_pairs("decoder", architecture.decoder_layers),
        *_pairs("transformer.decoder.norm", "model.decoder.layernorm", AFFINE),
        *_pairs("class_embed", "class_labels_classifier", AFFINE),
        *(pair for n in range(3) for pair in _pairs(f"bbox_embed.layers.{n}", f"bbox_predictor.layers.{n}", AFFINE)),
        *_pairs("query_embed", "model.query_position_embeddings", ("weight",)),
        *_pairs("input_proj", "model.input_projection", AFFINE),
        *((f"backbone.0.body.{name}", (f"model.backbone.model.{name}",)) for name in _resnet(architecture)),
    ]
    if architecture.learned_positions:
        for theirs, ours in (("row_embed", "row_embeddings"), ("col_embed", "column_embeddings")):
            detector += _pairs(f"backbone.1.{theirs}", f"model.position_embedding.{ours}", ("weight",))
    if not architecture.masks:
        return detector
    inside = [(f"detr.{theirs}", tuple(f"detr.{name}" for name in ours)) for theirs, ours in detector]
    return [*inside, *_mask_head()]


def _pairs(theirs: str, ours: str, kinds: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from ((f"{theirs}.{kind}", (f"{ours}.{kind}",)) for kind in kinds)


def _layer_pairs(part: str, count: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Layers of the encoder or the decoder."""
    attentions = [("self_attn", "self_attn"), ("multihead_attn", "encoder_attn")][: 1 if part == "encoder" else 2]
    norms = [*(f"{ours}_layer_norm" for _, ours in attentions), "final_layer_norm"]
    for number in range(count):
        theirs, ours = f"transformer.{part}.layers.{number}", f"model.{part}.layers.{number}"
        for name, own in attentions:
            for kind in AFFINE:
                parts = tuple(f"{ours}.{own}.{letter}_proj.{kind}" for letter in "qkv")
                yield f"{theirs}.{name}.in_proj_{kind}", parts
            yield from _pairs(f"{theirs}.{name}.out_proj", f"{ours}.{own}.o_proj", AFFINE)
        for place in (1, 2):
            yield from _pairs(f"{theirs}.linear{place}", f"{ours}.mlp.fc{place}", AFFINE)
        for place, norm in enumerate(norms, 1):
            yield from _pairs(f"{theirs}.norm{place}", f"{ours}.{norm}", AFFINE)


def _resnet(architecture: Architecture) -> Iterator[str]:
    """Tensors of a ResNet without its classifier."""
    shallow = architecture.backbone in SHALLOW
    yield from ("conv1.weight", *(f"bn1.{kind}" for kind in NORM))
    for stage, blocks in enumerate(BLOCKS[architecture.backbone], 1):
        for block in range(blocks):
            place = f"layer{stage}.{block}"
            for number in range(1, 3 if shallow else 4):
                yield from (f"{place}.conv{number}.weight", *(f"{place}.bn{number}.{kind}" for kind in NORM))
            if block == 0 and not (shallow and stage == 1):
                yield from (f"{place}.downsample.0.weight", *(f"{place}.downsample.1.{kind}" for kind in NORM))


def _mask_head() -> Iterator[tuple[str, tuple[str, ...]]]:
    for letter in "qk":
        yield from _pairs(f"bbox_attention.{letter}_linear", f"bbox_attention.{letter}_proj", AFFINE)
    blocks = ["conv1", "conv2", *(f"fpn_stages.{stage}.refine" for stage in range(3))]
    for number, block in enumerate(blocks, 1):
        yield from _pairs(f"mask_head.lay{number}", f"mask_head.{block}.conv", AFFINE)
        yield from _pairs(f"mask_head.gn{number}", f"mask_head.{block}.norm", AFFINE)
    yield from _pairs("mask_head.out_lay", "mask_head.output_conv", AFFINE)
    for stage in range(3):
        yield from _pairs(f"mask_head.adapter{stage + 1}", f"mask_head.fpn_stages.{stage}.fpn_adapter", AFFINE)


def find_architecture(names: Collection[str]) -> tuple[Architecture, str]:
    """The architecture that the original's names tell, and its blocks where no ResNet has these, else "".

    Args:
        names: with those of the stem, `backbone.0.body.conv1.weight`.
    """
    prefix = "" if "backbone.0.body.conv1.weight" in names else "detr."
    blocks = tuple(_count(names, rf"{prefix}backbone\.0\.body\.layer{stage}\.(\d+)\.") for stage in range(1, 5))
    shallow = not any(name.endswith("layer1.0.conv3.weight") for name in names)
    fitting = [name for name, counts in BLOCKS.items() if counts == blocks and (name in SHALLOW) == shallow]
    layers = [_count(names, rf"{prefix}transformer\.{part}\.layers\.(\d+)\.") for part in ("encoder", "decoder")]
    learned = f"{prefix}backbone.1.row_embed.weight" in names
    found = Architecture(fitting[0] if fitting else "resnet50", layers[0], layers[1], learned, bool(prefix))
    return found, "" if fitting else f"{blocks} blocks of {2 if shallow else 3} convolutions"


def _count(names: Collection[str], pattern: str) -> int:
    """Number of different numbers that stand at a place in the names."""
    return len({found[1] for found in (re.match(pattern, name) for name in names) if found})


def detectron2_name(name: str) -> str:
    """An original's name as detectron2's wrapper of it has it (`d2/converter.py` there)."""
    head, found, rest = name.partition("backbone.0.body.")
    if found:
        rest = re.sub(r"^layer(\d)", lambda stage: f"res{int(stage[1]) + 1}", rest)
        rest = rest if rest.startswith("res") else f"stem.{rest}"
        rest = re.sub(r"\bbn(\d)", r"conv\1.norm", rest)
        rest = rest.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        name = f"{head}backbone.0.backbone.{rest}"
    return f"detr.{name}"


def without_wrapper(name: str) -> str:
    """Inverse of `detectron2_name`."""
    head, found, rest = name.removeprefix("detr.").partition("backbone.0.backbone.")
    if found:
        rest = re.sub(r"^res(\d)", lambda stage: f"layer{int(stage[1]) - 1}", rest.removeprefix("stem."))
        rest = re.sub(r"\bconv(\d)\.norm", r"bn\1", rest)
        rest = rest.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
        return f"{head}backbone.0.body.{rest}"
    return head
