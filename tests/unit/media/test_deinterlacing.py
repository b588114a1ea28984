"""Deinterlacing of interlaced video, and raw DV."""

from fractions import Fraction

import av
import cv2
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


def scene(time, height=144, width=192):
    """Return a dark image with a face-like disc that moves 3 pixels per unit of time, and noise."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre = 50 + 3 * time
    disc = 0.5 - 0.5 * np.tanh((np.hypot(x - centre, 1.3 * (y - 70)) - 40) / 1.4)
    disc += 0.4 * np.sin((x - centre) / 2.5) * disc
    noise = np.random.default_rng(int(10 * time)).normal(0, 3, (height, width))
    grey = (30 + 150 * disc + noise).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def weave(first, second, parity):
    """Return an image with the rows of two fields."""
    image = first.copy()
    later = 1 if parity == "tff" else 0
    image[later::2] = second[later::2]
    return image


def interlaced_scene(count, parity="tff"):
    return [weave(scene(2 * i), scene(2 * i + 1), parity) for i in range(count)]


@pytest.mark.parametrize("parity", ["tff", "bff"])
def test_interlaced_video_without_a_mark_is_recognised(tmp_path, parity):
    images = interlaced_scene(14, parity)
    path = write_media(tmp_path / "a.mp4", images, options={"crf": "20"})
    with av.open(str(path)) as container:
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))
    frames = list(read_video(path))
    assert len(frames) == 14
    assert comb(images[6]) > 1.5 * comb(scene(12))
    for number in range(1, 13):
        image, kept = frames[number].image, scene(2 * number)
        assert comb(image) < 1.2 * comb(kept)
        # The first field is kept, and the other is moved to its time.
        error, other = (np.abs(image.astype(int) - s).mean() for s in (kept, scene(2 * number + 1)))
        assert error < 0.6 * other
    # Its frames depend on their neighbours, so that it cannot be read backwards by seeking.
    assert all(frame.pts is None for frame in frames)


def test_still_beginning_delays_the_search_for_combs(tmp_path):
    images = [scene(0)] * 40 + interlaced_scene(12)
    path = write_media(tmp_path / "a.mp4", images)
    frames = list(read_video(path))
    assert len(frames) == 52
    assert max(comb(frame.image) for frame in frames[42:50]) < 1.2 * comb(scene(12))


def test_film_at_the_rate_of_television_is_recognised(tmp_path):
    film = [scene(2.5 * i) for i in range(16)]
    images = []
    for a, b, c, d in zip(*[iter(film)] * 4, strict=True):
        images += [a, b, weave(b, c, "tff"), weave(c, d, "tff"), d]
    frames = list(read_video(write_media(tmp_path / "a.mp4", images)))
    assert comb(images[3]) > 1.5 * comb(film[3])
    assert max(comb(frame.image) for frame in frames) < 1.2 * max(map(comb, film))


def stripes(time):
    """Return a moving shirt of horizontal stripes, three rows each, which look like combs."""
    image = np.roll(bar(0, 144, 192), 3 * time, axis=1)
    rows = (np.arange(144) + time) // 3 % 2 == 0
    image[rows] = image[rows] // 2
    return image


def jumping(time):
    """Return unrelated images, as at cuts."""
    noise = np.random.default_rng(time).uniform(0, 255, (18, 24)).astype(np.uint8)
    return np.repeat(cv2.resize(noise, (192, 144))[..., None], 3, axis=2)


@pytest.mark.parametrize("make", [scene, stripes, jumping], ids=["scene", "stripes", "cuts"])
def test_moving_progressive_video_is_not_taken_for_interlaced(tmp_path, make):
    images = [make(number) for number in range(14)]
    path = write_media(tmp_path / "a.mkv", images, codec="ffv1", pix_fmt="bgr0")
    frames = zip(read_video(path), images, strict=True)
    assert all(np.array_equal(frame.image, image) for frame, image in frames)


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
