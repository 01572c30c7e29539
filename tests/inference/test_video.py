import sys
import wave
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from hf_detr_ft.data.find_images import find_inputs
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.inference.video import DrawnVideo, Video, VideoFrame, require_pyav
from tests.inference.videos import plain_frames, turn, write_video


def read(path: Path, every: int = 1) -> tuple[Video, list[VideoFrame]]:
    with Video(path, every) as video:
        return video, list(video.frames())


def pixels(frame: VideoFrame) -> np.ndarray:
    return np.asarray(Video.to_image(frame)).astype(int)


def test_frames_come_in_their_order_with_their_times(tmp_path: Path) -> None:
    drawn = plain_frames(7)
    video, frames = read(write_video(tmp_path / "a.mp4", drawn))
    assert (video.length, video.rate, video.fault) == (7, 10.0, "")
    assert [frame.time for frame in frames] == pytest.approx([n / 10 for n in range(7)])
    for frame, image in zip(frames, drawn, strict=True):
        assert np.abs(pixels(frame) - np.asarray(image)).mean() < 10
    assert str(frames[3]) == f"{tmp_path / 'a.mp4'}, frame 3"
    video, frames = read(tmp_path / "a.mp4", every=3)
    assert (video.length, [frame.number for frame in frames]) == (3, [0, 3, 6])


def test_frames_that_are_not_evenly_spaced_keep_their_times(tmp_path: Path) -> None:
    times = [0, 0.1, 1.0, 1.05]
    _, frames = read(write_video(tmp_path / "a.mkv", plain_frames(4), times))
    assert [frame.time for frame in frames] == pytest.approx(times)
    with DrawnVideo(tmp_path / "drawn.mp4") as drawn:
        for frame in frames:
            drawn.add(Video.to_image(frame), frame.time)
    assert [frame.time for frame in read(tmp_path / "drawn.mp4")[1]] == pytest.approx(times)


def test_a_turned_video_is_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", plain_frames(2))
    stored = pixels(read(path)[1][0])
    turn(path)
    np.testing.assert_array_equal(pixels(read(path)[1][0]), np.rot90(stored, -1))


def test_sides_of_odd_length_are_drawn_whole(tmp_path: Path) -> None:
    [image] = plain_frames(1, 63, 95)
    with DrawnVideo(tmp_path / "a.mp4") as drawn:
        drawn.add(image, 0)
    found = pixels(read(tmp_path / "a.mp4")[1][0])
    assert found.shape == (64, 96, 3)
    assert np.abs(found[:63, :95] - np.asarray(image)).mean() < 10


def test_a_video_that_breaks_off_is_not_left_half_written(tmp_path: Path) -> None:
    with suppress(KeyError), DrawnVideo(tmp_path / "a.mp4") as drawn:
        drawn.add(plain_frames(1)[0], 0)
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_video_gives_what_can_be_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", plain_frames(10), codec="mpeg4")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 8
    content[start : start + 3000] = bytes(3000)
    path.write_bytes(content)
    video, frames = read(path)
    assert 0 < len(frames) < 10
    assert f"{len(frames)} of 10 frames could be read, Invalid data found" in video.fault


def test_files_without_frames(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", plain_frames(10)).read_bytes()
    (tmp_path / "head.mkv").write_bytes(whole[:700])
    (tmp_path / "text.mp4").write_bytes(b"no video")
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(800))
    for name, message in {
        "head.mkv": "expected frames, found none. Leave it out",
        "text.mp4": "no video that can be read: Invalid data found when processing input. Check that it plays",
        "sound.mp4": "expected a video, found a file without pictures",
    }.items():
        with pytest.raises(DataError, match=f"{name}: {message}"):
            read(tmp_path / name)


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RecipeError, match=r"expected the package av, found none. Install it: pip install 'hf_detr_ft"):
        require_pyav()


@pytest.mark.parametrize("name", ["99", "/dev/video99"])
def test_a_camera_that_is_not_there(name: str) -> None:
    with pytest.raises(
        RecipeError, match=f"'{name}': expected the camera /dev/video99, found none. See which are there"
    ):
        find_inputs([name], Path("predictions"))
    with pytest.raises(DataError, match=r"/dev/video99: no camera that can be read: No such file"):
        read(Path("/dev/video99"))


def test_a_camera_comes_alone_and_a_file_with_a_number_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="'0': a camera has no end; expected no other input beside it"):
        find_inputs(["0", "photo.jpg"], Path("predictions"))
    Path("0").touch()
    assert find_inputs(["0"], Path("predictions")) == [Path("0")]
