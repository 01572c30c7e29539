"""Memory and time of a DETR-R50 whose parameters each process has (DDP), or that are divided among them (FSDP).

    torchrun --nproc-per-node 2 benchmarks/measure_sharding.py

Random weights, one image of 256 x 256 pixels a process, AdamW, fp32; on a CPU by gloo.
"""

import time
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.model.stages import train_stages
from hf_detr_ft.recipe.sections import ModelConfig, SpeedConfig

SIDE, STEPS = 256, 6


def build() -> DetrForObjectDetection:
    """The same random weights in all processes; what DETR trains is trained."""
    torch.manual_seed(0)
    config = ModelConfig(checkpoint=None, backbone="resnet50", config={"dropout": 0.0})
    model = build_model(config, ["balloon"], [1], SpeedConfig())
    train_stages(model, None)
    return model.train()


def shard(model: DetrForObjectDetection) -> torch.nn.Module:
    """Each layer of the transformer by itself, then the rest, as PyTorch's documentation of `fully_shard` has it."""
    for name, module in model.named_modules():
        if name.split(".")[-2:-1] == ["layers"] and name.split(".")[-3] in ("encoder", "decoder"):
            fully_shard(module)
    return fully_shard(model)


def own_bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    """Bytes that this process holds of them."""
    own = [t.to_local() if isinstance(t, DTensor) else t for t in tensors if t is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in own)


def measure(kind: str) -> str:
    """One row of the table."""
    model = build()
    trained = DistributedDataParallel(model) if kind == "DDP" else shard(model)
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-4)
    torch.manual_seed(dist.get_rank())
    labels = {"class_labels": torch.zeros(3, dtype=torch.int64), "boxes": torch.rand(3, 4) / 4 + 0.25}
    batch = {
        "pixel_values": torch.randn(1, 3, SIDE, SIDE),
        "pixel_mask": torch.ones(1, SIDE, SIDE, dtype=torch.int64),
        "labels": [{**labels, "image_id": torch.zeros(1, dtype=torch.int64)}],
    }
    seconds, losses = [], []
    for _ in range(STEPS):
        started = time.perf_counter()
        loss = trained(**batch).loss
        loss.backward()
        optimizer.step()
        held = own_bytes(p.grad for p in trained.parameters())
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        losses.append(float(loss.detach()))
    held += own_bytes(trained.parameters())
    held += own_bytes(value for state in optimizer.state.values() for value in state.values())
    return f"| {kind} | {held / 2**20:.0f} MiB | {min(seconds):.2f} | {losses[-1]:.4f} |"


def main() -> None:
    """Prints the table from the first process."""
    dist.init_process_group("gloo")
    rows = [measure(kind) for kind in ("DDP", "FSDP")]
    if dist.get_rank() == 0:
        print("| | parameters, gradients and AdamW's moments, each process | s a step | loss of the last step |")
        print("\n".join(["|---|---|---|---|", *rows]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
