"""`python benchmarks/more_queries.py [QUERIES …]`: AP of the packaged tiny DETR with more queries than its 25.

On its own data, 500 drawn images of ten classes that it never saw. It is not trained on; the queries are those that
`model.num_queries` makes. Some minutes on one core.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.model.processor import load_processor
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import ModelConfig
from hf_detr_ft.training.evaluate_model import evaluate_model

START = "package:hf_detr_ft/tiny_detr"


def measure(queries: int, folder: Path) -> str:
    """Builds the model with so many queries, evaluates it and tells its numbers."""
    config = load_for_inference(START).config
    names, started = list(config.id2label.values()), time.process_time()
    section = ModelConfig(checkpoint=START, num_queries=queries)
    build_model(section, names, config.category_ids).save_pretrained(folder)
    seconds = time.process_time() - started
    load_processor(Checkpoint(START)).save_pretrained(folder)
    data = {"synthetic_images": "1", "synthetic_val_images": "500", "synthetic_seed": "1000"}
    flags = [part for name, value in data.items() for part in (f"--data.{name}", value)]
    flags += ["--data.synthetic_classes", str(names), "--training.use_cpu", "true"]
    metrics = evaluate_model(str(folder), load_recipe(None, flags)).result.metrics
    return f"| {queries} | {metrics['map']:.4f} | {metrics['map_50']:.4f} | {seconds:.0f} |"


if __name__ == "__main__":
    print("| queries | AP | AP50 | CPU seconds to make them |\n|---|---|---|---|")
    for count in map(int, sys.argv[1:] or (25, 50, 125, 500)):
        with TemporaryDirectory() as temporary:
            print(measure(count, Path(temporary)), flush=True)
