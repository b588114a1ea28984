"""Deinterlacing of interlaced video, and raw DV."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media_files import write_media

from talkinghead.media.reader import probe, read_video

FIELD = {"flags": "+ildct+ilme", "b": "20M"}


def bar(left, height=96, width=128):
    """Return an image with a white bar at a column."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[:, left : left + 24] = 220
    return image


def woven(frame):
    """Return an interlaced image: the bar moves by 6 pixels between the two fields."""
    image = bar(12 * frame)
    image[1::2] = bar(12 * frame + 6)[1::2]
    return image


def comb(image):
    """Return the mean difference between adjacent rows."""
    grey = image[8:-8].astype(np.float32).mean(-1)
    return np.abs(np.diff(grey, axis=0)).mean()


def write_interlaced(path, num_frames=6):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options=FIELD)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv422p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(woven(number), "rgb24").reformat(format="yuv422p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_interlaced_video_is_deinterlaced_without_changing_frames_and_times(tmp_path):
    frames = list(read_video(write_interlaced(tmp_path / "a.ts")))
    assert comb(woven(2)) > 15
    assert max(comb(frame.image) for frame in frames) < 6
    assert [round(float(frame.time_s) * 25) for frame in frames] == list(range(6))
    # Each frame shows one of its fields.
    middle = frames[2].image[48].astype(int).mean(-1)
    assert np.flatnonzero(middle > 130)[[0, -1]].tolist() in ([24, 47], [30, 53])


def test_progressive_video_is_unchanged(tmp_path):
    lossless = {"codec": "ffv1", "pix_fmt": "bgr0"}
    images = [woven(number) for number in range(3)]
    path = write_media(tmp_path / "a.mkv", images, **lossless)
    assert all(
        np.array_equal(frame.image, image)
        for frame, image in zip(read_video(path), images, strict=True)
    )


@pytest.mark.parametrize(
    ("size", "pix_fmt", "rate"),
    [((576, 720), "yuv420p", Fraction(25)), ((480, 720), "yuv411p", Fraction(30_000, 1001))],
    ids=["PAL", "NTSC"],
)
def test_raw_dv_has_the_frame_rate_of_its_standard(tmp_path, size, pix_fmt, rate):
    encoder = av.CodecContext.create("dvvideo", "w")
    encoder.height, encoder.width = size
    encoder.pix_fmt, encoder.framerate = pix_fmt, rate
    path = tmp_path / "a.dv"
    image = np.full((*size, 3), 120, np.uint8)
    with path.open("wb") as file:
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pix_fmt)
            frame.pts = number
            for packet in encoder.encode(frame):
                file.write(bytes(packet))
    assert probe(path).fps == rate
    frames = list(read_video(path))
    assert [round(frame.time_s * rate) for frame in frames] == [0, 1, 2]
    assert abs(frames[0].image.astype(int) - 120).max() < 4
