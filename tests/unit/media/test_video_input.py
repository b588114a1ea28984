"""Tests of the discovery and resampling of videos."""

from fractions import Fraction

import numpy as np

from talkinghead.media.video_input import grid_frames, list_video_files
from talkinghead.types import VideoFrame


def test_video_files_are_listed_recursively(tmp_path):
    for name in ("b/1.MP4", "a.mkv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_video_files(tmp_path) == [tmp_path / "a.mkv", tmp_path / "b/1.MP4"]


def frames_at(times):
    return [VideoFrame(np.full((1, 1, 3), n, np.uint8), Fraction(t)) for n, t in enumerate(times)]


def on_grid(times, fps=25):
    frames = list(grid_frames(frames_at(times), Fraction(fps)))
    assert [f.time_s for f in frames] == [Fraction(n, fps) for n in range(len(frames))]
    return [int(frame.image[0, 0, 0]) for frame in frames]


def test_video_of_the_same_rate_is_unchanged():
    assert on_grid([Fraction(n, 25) for n in range(40)]) == list(range(40))
    millis = [Fraction(round(n * 1000 / 30), 1000) for n in range(40)]
    assert on_grid(millis, 30) == list(range(40))


def test_grid_frame_is_the_image_displayed_at_its_middle():
    assert on_grid([Fraction(n, 50) for n in range(8)]) == [1, 3, 5, 7]
    assert on_grid([Fraction(n, 10) for n in range(4)]) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    # A variable rate: one image is displayed for a quarter of a second.
    assert on_grid(["0", "1/25", "7/25", "8/25"]) == [0] + [1] * 6 + [2, 3]
    assert on_grid([]) == []
    assert on_grid(["0"]) == [0]
