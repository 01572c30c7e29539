"""Fine-tune DETR on your own data set with Hugging Face Transformers."""

__version__ = "0.1.0"
