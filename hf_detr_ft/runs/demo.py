"""`hf-detr-ft demo RUN [RUN]`: a page in the browser that shows what one or two models find in a photo."""

import sys

from hf_detr_ft.demo.page_server import open_server
from hf_detr_ft.importing import large_imports
from hf_detr_ft.model.checkpoint import Checkpoint


def demo(source: str, other: str | None = None, host: str = "127.0.0.1", port: int = 7860) -> int:
    """Serves the page until Ctrl-C.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        other: a second one, beside the first.
        host: address of this machine to listen at; by default others cannot reach it.
        port: 0 for any that is free.

    Returns:
        0.

    Raises:
        RecipeError: the address cannot be had.
        CheckpointError: a model cannot be loaded.
        DataError: the metrics of a run cannot be read.
    """
    sources = [source] if other is None else [source, other]
    for each in sources:
        Checkpoint(each).check_exists()
    with open_server(host, port) as server:
        with large_imports():
            from hf_detr_ft.demo.photo_answers import PhotoAnswers

        server.answers = PhotoAnswers.load(sources)
        if not server.is_loopback:
            print("Whoever can reach this machine can use the page: it asks for no password.", file=sys.stderr)
        print(f"{server.address} shows what {' and '.join(sources)} find{'s' * (other is None)}. Ctrl-C ends it.")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
