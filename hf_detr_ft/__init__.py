"""Fine-tune DETR on your own data set with Hugging Face Transformers."""

import os

__version__ = "0.1.0"

# oneDNN, which computes convolutions on a CPU, keeps what it has prepared for a shape: by default 1024 entries, those
# of some six shapes of a ResNet-50. It reads this when it meets the first convolution.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

# GNU's OpenMP, which torch computes with on Linux, lets a thread that waits for others turn round 300,000 times before
# it sleeps: some milliseconds, which another process may need for what is waited for. Read when torch is imported,
# GOMP_SPINCOUNT before the standard's variable.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
