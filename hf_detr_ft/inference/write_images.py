"""Images and frames that are written one by one while they are looked at."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from hf_detr_ft.atomic import explain_refusal
from hf_detr_ft.inference.detect_files import Seen
from hf_detr_ft.inference.video import DrawnVideo

LONGEST_JPEG_SIDE = 65500
"""Pixels of the longest side that JPEG can hold."""

Save = Callable[[Seen, Image.Image], None]
"""Takes each image or frame."""


@contextmanager
def save_drawn(
    output: Path, drawn: Mapping[Path, Path], draw: Callable[[Seen, Image.Image], Image.Image]
) -> Iterator[Save]:
    """Gives what draws detections into images and frames, and writes these as images and videos.

    Args:
        output: the folder, made where it is not there.
        drawn: the file to write of each image and video.
        draw: gives an image with its detections.

    Raises:
        DataError: the disk refuses.
    """
    with explain_refusal(output):
        output.mkdir(parents=True, exist_ok=True)
    videos: dict[Path, DrawnVideo] = {}
    with ExitStack() as stack:

        def save(one: Seen, image: Image.Image) -> None:
            target = drawn[one.path]
            if one.time is None:
                save_image(draw(one, image), target)
                return
            with explain_refusal(target):
                if one.path not in videos:
                    stack.close()  # the video before is whole
                    videos[one.path] = stack.enter_context(DrawnVideo(target))
                videos[one.path].add(draw(one, image), one.time)

        yield save


@contextmanager
def keep_frames(output: Path, frames: dict[tuple[Path, int], Path]) -> Iterator[Save]:
    """Gives what writes frames into a folder beside `output`, and into `frames` where they are; it goes at the end.

    Raises:
        DataError: the disk refuses.
    """
    with explain_refusal(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
    with folder:

        def save(one: Seen, image: Image.Image) -> None:
            if one.frame is not None:
                target = frames[one.path, one.frame] = Path(folder.name, f"{len(frames)}.jpg")
                save_image(image, target)

        yield save


def save_image(image: Image.Image, path: Path) -> None:
    """Writes beside, then renames. An image too long for JPEG becomes a PNG."""
    if path.suffix == ".jpg" and max(image.size) > LONGEST_JPEG_SIDE:
        path = path.with_name(f"{path.name}.png")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with explain_refusal(path):
        try:
            image.save(beside, format="PNG" if path.suffix == ".png" else "JPEG", quality=95)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
