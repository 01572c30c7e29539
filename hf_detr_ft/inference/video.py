"""Frames of video files and cameras, and videos of drawn frames, by PyAV (the extra `video`)."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hf_detr_ft.data.find_images import is_camera
from hf_detr_ft.errors import DataError, RecipeError, first_line

INSTALL = "pip install 'hf_detr_ft[video]'"
USUAL_RATE = 25.0
"""Frames a second of a video that does not say."""
TICK = Fraction(1, 90000)
"""Seconds in which the times of a written video's frames are counted."""


class VideoFrame(NamedTuple):
    """One frame, not yet converted."""

    video: Path
    number: int
    """Its place in the video, from 0."""
    time: float
    """Seconds from the first frame on."""
    content: Any
    """PyAV's frame."""

    def __str__(self) -> str:
        return f"{self.video}, frame {self.number}"


def require_pyav() -> Any:
    """PyAV's module. Raises RecipeError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise RecipeError(f"videos and cameras: expected the package av, found none. Install it: {INSTALL}") from error
    return av


class Video:
    """A video file or a camera, opened; a context manager.

    Frames come upright, as the file's rotation says, and at their own times, also where these are not evenly spaced.

    Args:
        path: of the file, or of a camera.
        every: 1 for all frames, 2 for each second one, …

    Attributes:
        rate: frames a second, on average.
        length: frames that are to be expected; None where the file does not say.
        fault: what went wrong before the end, once the frames were read; else empty.

    Raises:
        DataError: there is no such camera, or the file is no video.
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self._av, self._path, self._every = require_pyav(), path, every
        try:
            format = "v4l2" if is_camera(path) else None
            self._container = self._av.open(os.path.abspath(path), format=format, metadata_errors="ignore")
        except (self._av.FFmpegError, OSError, ValueError) as error:
            what = "no camera that can be read" if is_camera(path) else "no video that can be read"
            remedy = (
                "See which are there: ls /dev/video*" if is_camera(path) else "Check that it plays, or leave it out"
            )
            raise DataError(f"{path}: {what}: {_reason(error)}. {remedy}.") from error
        streams = self._container.streams.video
        if not streams:
            self._container.close()
            raise DataError(f"{path}: expected a video, found a file without pictures. Leave it out.")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = float(rate) if rate else USUAL_RATE
        stated = self._stream.frames
        self.length = -(-stated // every) if stated else None
        self.fault = ""

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container.close()

    def frames(self) -> Iterator[VideoFrame]:
        """Frames in the order in which they are shown; a broken one is left out.

        Raises:
            DataError: there is none that can be read.
        """
        number, start, reason = 0, None, ""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = packet.decode()
            except (self._av.FFmpegError, OSError) as error:
                reason = f", {_reason(error)}"  # of one packet, or of the file, which then ends here
                continue
            for frame in frames:
                time = number / self.rate if frame.time is None else frame.time
                start = time if start is None else start
                if number % self._every == 0:
                    yield VideoFrame(self._path, number, time - start, frame)
                number += 1
        if not number:
            raise DataError(f"{self._path}: expected frames, found none{reason}. Leave it out.")
        of = f" of {self._stream.frames}" if self._stream.frames > number else ""
        if reason or of:
            self.fault = f"{self._path}: {number}{of} frames could be read{reason}; the file is damaged"

    @staticmethod
    def to_image(frame: VideoFrame) -> Image.Image:
        """The upright RGB image of a frame. Raises DataError where it cannot be converted."""
        try:
            pixels = frame.content.to_ndarray(format="rgb24")
        except (ValueError, MemoryError) as error:
            raise DataError(f"{frame}: cannot be converted to RGB: {first_line(error)}") from error
        return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, frame.content.rotation // 90)))


class DrawnVideo:
    """A video that is written frame by frame, without sound, and has its name once it is whole; a context manager.

    Args:
        path: of the MP4 file.
    """

    def __init__(self, path: Path) -> None:
        av = require_pyav()
        self._av, self._path = av, path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._container = av.open(os.path.abspath(self._beside), "w", format="mp4")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=round(USUAL_RATE))
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = TICK
        self._last = -1

    def add(self, image: Image.Image, time: float) -> None:
        """Adds a frame that is shown from a time in seconds on. Raises OSError where the disk refuses."""
        pixels = np.asarray(image)
        pixels = np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], mode="edge")
        if self._last < 0:
            self._stream.height, self._stream.width = pixels.shape[:2]
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        self._last = max(self._last + 1, round(time / TICK))
        frame.pts, frame.time_base = self._last, TICK
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> "DrawnVideo":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._last >= 0:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None or issubclass(kind, KeyboardInterrupt):
                self._beside.replace(self._path)
        finally:
            self._beside.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or first_line(error))
