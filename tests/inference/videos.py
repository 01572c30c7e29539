"""Small videos for tests."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.fixtures import plain_image


def write_video(
    path: Path, frames: Sequence[Image.Image], times: Sequence[float] | None = None, codec: str = "libx264"
) -> Path:
    """Writes frames at these times in seconds, or 10 of them a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts = round(1000 * (number / 10 if times is None else times[number]))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def plain_frames(count: int, height: int = 64, width: int = 96) -> list[Image.Image]:
    """Frames of plain images, all different."""
    return [plain_image(height, width, seed) for seed in range(count)]


def turn(path: Path) -> None:
    """Writes into an MP4 that its pictures are to be turned clockwise by a quarter, as a telephone does."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    one = 1 << 16
    content[start : start + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
