from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from talkinghead.errors import MediaError
from talkinghead.predict.source import playback
from talkinghead.predict.source.playback import play
from talkinghead.types import VideoFrame

FPS = Fraction(25)


@pytest.fixture
def video(monkeypatch):
    """Replace the decoder by one that yields frames of the given times, filled with their index."""

    def make(times_s):
        def read(path):
            for index, time_s in enumerate(times_s):
                yield VideoFrame(np.full((4, 4, 3), index % 256, np.uint8), time_s)

        monkeypatch.setattr(playback, "read_video", read)

    return make


@pytest.mark.parametrize("block_bytes", [1, 3 * 48, 10**6])
@pytest.mark.parametrize(
    ("extend", "num_frames", "order"),
    [
        ("pingpong", 5, [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3]),
        ("hold", 3, [0, 1, 2, 2, 2, 2, 2]),
        ("loop", 3, [0, 1, 2, 0, 1, 2, 0]),
        ("pingpong", 1, [0, 0, 0, 0]),
        ("pingpong", 2, [0, 1, 0, 1]),
    ],
)
def test_extension_modes(video, monkeypatch, block_bytes, extend, num_frames, order):
    monkeypatch.setattr(playback, "_BLOCK_BYTES", block_bytes)
    video([i / FPS for i in range(num_frames)])
    frames = list(islice(play(Path("v"), FPS, extend), len(order)))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == order
    assert [frame.is_extension for frame in frames] == [i >= num_frames for i in range(len(order))]
    assert [frame.time_s for frame in frames] == [i / FPS for i in range(len(order))]
    cuts = [i for i, frame in enumerate(frames) if frame.starts_shot]
    assert cuts == ([3, 6] if extend == "loop" else [])


def test_video_without_frames_is_an_error(video):
    video([])
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        next(play(Path("clip.mp4"), FPS))


def test_variable_frame_durations_are_kept_backwards(video):
    video([Fraction(t, 100) for t in (0, 10, 13, 20)])
    frames = list(islice(play(Path("v"), Fraction(10)), 7))
    assert [int(frame.duration_s * 100) for frame in frames] == [10, 3, 7, 10, 7, 3, 10]
    for before, after in pairwise(frames):
        assert after.time_s == before.time_s + before.duration_s


def test_rounding_of_times_to_milliseconds_is_removed(video):
    fps = Fraction(30_000, 1001)
    video([Fraction(round(1000 * i / fps), 1000) for i in range(300)])
    assert [f.time_s for f in islice(play(Path("v"), fps), 300)] == [i / fps for i in range(300)]
