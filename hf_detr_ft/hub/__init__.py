"""Publication of a run folder on the Hugging Face Hub: its model card, the files that may go up, and the push."""

from hf_detr_ft.hub.example_photos import read_examples
from hf_detr_ft.hub.redact import remove_private
from hf_detr_ft.hub.upload import check_access, push_files, push_run, resolve_repo_id
from hf_detr_ft.hub.upload_files import build_model_card, check_run_folder, collect_files, write_model_card

__all__ = [
    "build_model_card",
    "check_access",
    "check_run_folder",
    "collect_files",
    "push_files",
    "push_run",
    "read_examples",
    "remove_private",
    "resolve_repo_id",
    "write_model_card",
]
