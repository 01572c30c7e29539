"""Fine-tune DETR on your own data set with Hugging Face Transformers."""

import os

__version__ = "0.1.0"

# oneDNN, which computes convolutions on a CPU, keeps what it has prepared for a shape: by default 1024 entries, those
# of some six shapes of a ResNet-50. It reads this when it meets the first convolution.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
