"""Fine-tune DETR on your own data set with Hugging Face Transformers."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_detr_ft.inference.image_detector import Detector as Detector

__version__ = "0.1.0"

# oneDNN, which computes convolutions on a CPU, keeps what it has prepared for a shape: by default 1024 entries, those
# of some six shapes of a ResNet-50. It reads this when it meets the first convolution.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

# GNU's OpenMP, which torch computes with on Linux, lets a thread that waits for others turn round 300,000 times before
# it sleeps: some milliseconds, which another process may need for what is waited for. Read when torch is imported,
# GOMP_SPINCOUNT before the standard's variable.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def __getattr__(name: str) -> Any:
    """`Detector`, whose libraries take seconds to import and which most commands do without."""
    if name != "Detector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"{__name__}.inference.image_detector").Detector
