"""A training in which a process has batches without boxes while the other has some, so no denoising queries."""

from pathlib import Path

from accelerate import PartialState

from hf_detr_ft import cli
from tests.families import training
from tests.fixtures import write_coco_folder


def run(folder: Path) -> None:
    """Trains a tiny RT-DETR on four images, two of them without objects, and writes `folder`/status RANK."""
    state = PartialState()
    if state.is_main_process:
        write_coco_folder(folder, train_objects=[2, 0, 3, 0])
    state.wait_for_everyone()
    status = cli.main(training("rt_detr", folder, folder / "run"))
    (folder / f"status {state.process_index}").write_text(str(status))
