"""Reading of animated WebP files."""

import os
from fractions import Fraction

import numpy as np
import pytest
from helpers.media_files import QUADRANTS, quadrant_centres, quadrants
from PIL import Image

from talkinghead.errors import MediaError
from talkinghead.media.reader import is_image, probe, read_image, read_video


def write_webp(path, images, duration_ms):
    first, *rest = (Image.fromarray(image) for image in images)
    first.save(
        path,
        save_all=True,
        append_images=rest,
        duration=duration_ms,
        lossless=True,
        minimize_size=False,
    )
    return path


def test_frames_and_times_of_an_animated_webp(tmp_path):
    images = [quadrants(), quadrants()[::-1].copy(), quadrants()]
    path = write_webp(tmp_path / "a.webp", images, [40, 80, 40])
    frames = list(read_video(path))
    assert [frame.time_s for frame in frames] == [0, Fraction(40, 1000), Fraction(120, 1000)]
    assert all(
        np.array_equal(frame.image, image) for frame, image in zip(frames, images, strict=True)
    )
    info = probe(path)
    assert (info.width, info.height, info.has_video, info.is_image) == (64, 48, True, False)
    assert (info.fps, info.duration_s) == (Fraction(75, 4), Fraction(160, 1000))
    assert not is_image(path)


def test_transparent_frames_are_composited_over_white(tmp_path):
    rgba = np.zeros((32, 32, 4), np.uint8)
    other = rgba.copy()
    other[:8] = 10, 20, 30, 255
    path = write_webp(tmp_path / "a.webp", [other, rgba], [40, 40])
    image = read_image(path)
    assert image[4, 4].tolist() == [10, 20, 30]
    assert image[20, 20].tolist() == [255, 255, 255]


def test_pipe_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "a.webp"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)
    header = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\2"
    try:
        os.write(pipe, header)
        with pytest.raises(MediaError, match="is a pipe or a device"):
            probe(path)
        assert os.read(pipe, 99) == header
    finally:
        os.close(pipe)


def test_still_webp_is_an_image(tmp_path):
    path = tmp_path / "a.webp"
    Image.fromarray(quadrants()).save(path, lossless=True)
    assert is_image(path)
    assert np.abs(quadrant_centres(read_image(path)) - QUADRANTS).max() <= 2


def test_truncated_animated_webp_is_an_error(tmp_path):
    path = write_webp(tmp_path / "a.webp", [quadrants(), quadrants()[::-1].copy()], [40, 40])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MediaError, match="animated WebP"):
        list(read_video(path))
