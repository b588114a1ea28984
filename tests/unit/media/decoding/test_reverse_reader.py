"""Frames read in reverse order equal those read forwards, with bounded decoding and memory."""

import av
import numpy as np
import pytest
from helpers.media_files import quadrants, smooth, write_media

from talkinghead.media.decoding import reverse_reader
from talkinghead.media.decoding.reverse_reader import FrameKey, read_backwards
from talkinghead.media.decoding.video_image import to_array
from talkinghead.media.reader import read_frames

SHAPE = (48, 64, 3)
FRAME_BYTES = 48 * 64 * 3 // 2


def images(count):
    return [smooth(48, 64, number / count) for number in range(count)]


def read_keys(path):
    frames = list(read_frames(path))
    return [f.image for f in frames], [FrameKey(f.pts, f.is_key) for f in frames]


@pytest.fixture
def decoded(monkeypatch):
    """Count the decoded frames."""
    counts = [0]
    frames = reverse_reader._frames

    def count(*arguments):
        for frame in frames(*arguments):
            counts[0] += 1
            yield frame

    monkeypatch.setattr(reverse_reader, "_frames", count)
    return counts


CONTAINERS = {
    "mp4": ("a.mp4", "libx264", {"g": "12", "bf": "2"}),
    "closed GOP": ("a.mp4", "libx264", {"g": "12", "x264-params": "open-gop=0:scenecut=0"}),
    "open GOP": ("a.mkv", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "one group": ("a.mp4", "libx264", {"g": "1000"}),
    "mkv": ("a.mkv", "libx265", {"x265-params": "keyint=10:log-level=none"}),
    "webm": ("a.webm", "libvpx-vp9", {"g": "10"}),
    "mpeg-ts": ("a.ts", "mpeg2video", {"g": "12", "bf": "2"}),
    "intra only": ("a.avi", "mjpeg", {}),
}


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS.values(), ids=CONTAINERS)
def test_reversed_frames_equal_the_frames_of_the_video(tmp_path, name, codec, options):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_media(tmp_path / name, images(50), codec=codec, pix_fmt=pix_fmt, options=options)
    expected, keys = read_keys(path)
    for max_frames in (4, 15, 1000):
        found = list(read_backwards(path, keys, 49, SHAPE, max_frames * FRAME_BYTES))
        assert len(found) == 49 or name.endswith(".ts")
        for image, original in zip(found, expected[48::-1], strict=False):
            assert np.array_equal(to_array(image), to_array(original))


def test_each_group_of_frames_is_decoded_once(tmp_path, decoded):
    options = {"g": "12", "x264-params": "scenecut=0"}
    path = write_media(tmp_path / "a.mp4", images(60), options=options)
    _, keys = read_keys(path)
    assert len(list(read_backwards(path, keys, 59, SHAPE, 20 * FRAME_BYTES))) == 59
    assert decoded[0] <= 70


def test_first_images_do_not_wait_for_the_whole_video(tmp_path, decoded):
    path = write_media(tmp_path / "a.mp4", images(60), options={"g": "10"})
    _, keys = read_keys(path)
    assert next(read_backwards(path, keys, 59, SHAPE, 12 * FRAME_BYTES)).shape == SHAPE
    assert decoded[0] < 20


def test_reading_ends_early_where_seeking_is_not_exact(tmp_path):
    raw = write_media(tmp_path / "a.h264", [quadrants()] * 20)
    _, keys = read_keys(raw)
    assert not list(read_backwards(raw, keys, 19, SHAPE))
    path = write_media(tmp_path / "a.mp4", images(20))
    _, keys = read_keys(path)
    shifted = [FrameKey(key.pts + 7, key.is_key) for key in keys]
    assert not list(read_backwards(path, shifted, 19, SHAPE))
    assert not list(read_backwards(path, keys, 19, (96, 128, 3)))


def test_interlaced_video_is_not_read_backwards(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        options = {"flags": "+ildct+ilme"}
        stream = container.add_stream("mpeg2video", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, image in enumerate(images(10)):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "a.mkv")) as container:
        frames = list(container.decode(video=0))
        if not frames[0].interlaced_frame:
            pytest.skip("this FFmpeg does not mark the frames as interlaced")
    keys = [FrameKey(frame.pts, frame.key_frame) for frame in frames]
    assert not list(read_backwards(tmp_path / "a.mkv", keys, 9, SHAPE))
