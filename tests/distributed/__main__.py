"""Everything that two processes are to show, in one start of them, since that takes longer than the rest.

`accelerate launch … -m tests.distributed FOLDER FLAGS` writes into FOLDER what `test_two_processes.py` reads. FLAGS are
those of a training.
"""

import sys
from pathlib import Path
from typing import Any


def main(folder: Path, flags: list[str]) -> None:
    """Draws, reads, trains one step in every division, and trains with a report that fails."""
    import torch
    from accelerate import PartialState  # here, since the processes that draw import this module, too
    from safetensors.torch import save_model

    from hf_detr_ft import cli
    from hf_detr_ft.report import write_report
    from hf_detr_ft.training import trainer
    from tests.distributed import chosen, draw, few_boxes, one_step, read_once, streamed
    from tests.parity import shares
    from tests.parity.cases import COUNTS

    state = PartialState(cpu=True)  # without it, and without a GPU, each process would take itself for the only one
    draw.run(folder / "drawn")
    read_once.run(folder / "read", broken=False)
    read_once.run(folder / "read_broken", broken=True)
    shares.run(folder / "shares", COUNTS["objects"])
    for batch, accumulation in one_step.DIVISIONS:
        one_step.run(folder, f"two_processes_{accumulation}", batch, accumulation)
    one_step.run(folder, "unreadable", 2, 1, unreadable=True)
    one_step.run(folder, "masks", 2, 1, masks=True)
    one_step.run(folder, "sizes", 1, 2, edges=(48, 64, 80, 96))
    few_boxes.run(folder / "few_boxes")
    chosen.run(folder)
    streamed.run(folder / "streamed")
    write_report.render_page = fail
    evaluate_test = trainer.DetrTrainer.evaluate_test

    def note_weights(self: trainer.DetrTrainer, *split: Any) -> dict[str, Any]:
        save_model(self.model, str(folder / f"tested {state.process_index}.safetensors"))
        return evaluate_test(self, *split)

    trainer.DetrTrainer.evaluate_test = note_weights  # type: ignore[method-assign]
    status = cli.main(["train", *flags, "--training.output_dir", str(folder / "without_page")])
    (folder / f"status {state.process_index}").write_text(f"{status}, seed {torch.initial_seed()}")
    state.wait_for_everyone()
    state.destroy_process_group()


def fail(*_: object, **__: object) -> None:
    """Stands in for a part of the report."""
    raise RuntimeError("no page today")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
