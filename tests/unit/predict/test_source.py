from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from talkinghead.errors import FaceNotFoundError, MediaError
from talkinghead.features.geometry import RIGID_POINTS, canonical_points, estimate_transform
from talkinghead.predict import source
from talkinghead.predict.source import (
    SourceFrame,
    photo_frames,
    ping_pong,
    track_frames,
    video_frames,
    with_references,
)
from talkinghead.types import AVSpec, Box, Face, VideoFrame

SPEC = AVSpec()
FPS = Fraction(25)


def face(x=0.0, opening=0.0):
    points = np.zeros((468, 2), np.float32)
    index = list(RIGID_POINTS["mesh468"])
    points[index] = canonical_points("mesh468", SPEC)
    points[13], points[14] = (128, 160), (128, 160 + opening)
    return Face(Box(0, 0, 1, 1), points + np.float32([x, 0]), 1.0, "mesh468")


class Tracker:
    """Finds what the frame's first pixel says: (0: no face, else x), opening, cut."""

    cut = False

    def update(self, image):
        x, opening, cut = (int(v) for v in image[0, 0])
        self.cut = bool(cut)
        return face(x, opening) if x else None


class Detector:
    topology = "mesh468"

    def __init__(self, faces):
        self.faces = faces

    def detect(self, image):
        return self.faces

    def track(self, image, previous):
        return previous


def picture(x=1, opening=0, cut=0):
    return np.full((4, 4, 3), [x, opening, cut], np.uint8)


def frames(pictures, fps=FPS):
    return [SourceFrame(image, i / fps, 1 / fps) for i, image in enumerate(pictures)]


@pytest.fixture
def video(monkeypatch):
    """Replaces the decoder: pictures that show their own number, at the given times."""

    def make(times_s):
        def read(path):
            for number, time_s in enumerate(times_s):
                yield VideoFrame(np.full((4, 4, 3), number % 256, np.uint8), time_s)

        monkeypatch.setattr(source, "read_video", read)

    return make


def numbers(count, fps=FPS):
    return [int(f.image[0, 0, 0]) for f in islice(ping_pong(Path("v"), fps), count)]


@pytest.mark.parametrize("block_bytes", [1, 3 * 48, 10**6])
def test_a_video_plays_to_and_fro(video, monkeypatch, block_bytes):
    monkeypatch.setattr(source, "_BLOCK_BYTES", block_bytes)
    video([i / FPS for i in range(5)])
    assert numbers(14) == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3]


@pytest.mark.parametrize(("length", "expected"), [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 1])])
def test_the_shortest_videos_go_on_too(video, length, expected):
    video([i / FPS for i in range(length)])
    assert numbers(4) == expected
    times = [f.time_s for f in islice(ping_pong(Path("v"), FPS), 4)]
    assert times == [0, Fraction(1, 25), Fraction(2, 25), Fraction(3, 25)]


def test_a_video_without_pictures_is_an_error(video):
    video([])
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        next(ping_pong(Path("clip.mp4"), FPS))


def test_frames_of_a_variable_rate_keep_their_durations_backwards(video):
    video([Fraction(t, 100) for t in (0, 10, 13, 20)])
    got = list(islice(ping_pong(Path("v"), Fraction(10)), 7))
    assert [int(f.duration_s * 100) for f in got] == [10, 3, 7, 10, 7, 3, 10]
    for before, after in pairwise(got):
        assert after.time_s == before.time_s + before.duration_s


def test_a_containers_milliseconds_are_undone(video):
    fps = Fraction(30_000, 1001)
    video([Fraction(round(1000 * i / fps), 1000) for i in range(300)])
    times = [f.time_s for f in islice(ping_pong(Path("v"), fps), 300)]
    assert times == [i / fps for i in range(300)]


def test_a_photo_stands_still_on_the_specs_grid():
    image = picture()
    got = list(islice(photo_frames(image, "p.jpg", Detector([face()]), SPEC), 3))
    assert [f.time_s for f in got] == [0, Fraction(1, 25), Fraction(2, 25)]
    assert all(f.image is image and f.reference is got[0].reference for f in got)


def test_a_photo_without_a_face_is_named():
    with pytest.raises(FaceNotFoundError, match=r"p\.jpg"):
        photo_frames(picture(), "p.jpg", Detector([]), SPEC)


def test_transforms_are_smoothed_and_reset_at_cuts():
    pictures = [picture(10 + i % 2) for i in range(30)] + [
        picture(90, cut=i == 0) for i in range(30)
    ]
    got = list(track_frames(frames(pictures), Tracker(), SPEC, FPS))
    assert len(got) == 60
    assert [f.time_s for f in got] == [i / FPS for i in range(60)]
    x = np.array([f.transform[0, 2] for f in got])
    # A shake of one pixel is gone, a cut is not smeared.
    assert np.ptp(x[5:25]) < 0.2
    assert np.allclose(x[30:], -90, atol=1e-3)
    assert [f.opens_shot for f in got].index(True) == 30


def test_frames_without_a_face_have_no_transform():
    pictures = [picture(10 if i != 7 else 0) for i in range(40)]
    got = list(with_references(track_frames(frames(pictures), Tracker(), SPEC, FPS), FPS))
    assert [i for i, f in enumerate(got) if f.transform is None] == [7]
    assert [i for i, f in enumerate(got) if f.reference is None] == [7]


def test_tracking_waits_for_half_a_second_and_no_more():
    taken = []

    def endless():
        for frame in frames([picture()] * 500):
            taken.append(frame)
            yield frame

    next(track_frames(endless(), Tracker(), SPEC, FPS))
    assert len(taken) == 13


def test_the_reference_is_the_first_seconds_most_closed_mouth():
    openings = [9] * 60
    openings[12], openings[40] = 2, 0
    pictures = [picture(5, opening) for opening in openings]
    got = list(with_references(track_frames(frames(pictures), Tracker(), SPEC, FPS), FPS))
    assert len(got) == 60
    assert {int(f.reference.image[0, 0, 1]) for f in got} == {2}


def test_every_shot_has_a_reference_of_its_own():
    pictures = [picture(5)] * 10 + [picture(50, cut=1)] + [picture(50)] * 40
    got = list(with_references(track_frames(frames(pictures), Tracker(), SPEC, FPS), FPS))
    assert [int(f.reference.image[0, 0, 0]) for f in got] == [5] * 10 + [50] * 41


def test_who_comes_back_after_a_second_is_looked_at_afresh():
    pictures = [picture(5)] * 30 + [picture(0)] * 40 + [picture(60)] * 30
    got = list(with_references(track_frames(frames(pictures), Tracker(), SPEC, FPS), FPS))
    assert len(got) == 100
    assert [int(f.reference.image[0, 0, 0]) for f in got if f.reference] == [5] * 30 + [60] * 30


def test_large_pictures_are_not_hoarded(monkeypatch):
    monkeypatch.setattr(source, "_REFERENCE_BYTES", 3 * 48)
    taken = []

    def tracked():
        transform = estimate_transform(face().points, "mesh468", SPEC)
        for frame in frames([picture()] * 50):
            taken.append(frame)
            yield SourceFrame(frame.image, frame.time_s, frame.duration_s, transform)

    next(with_references(tracked(), FPS))
    assert len(taken) == 3


def test_closing_a_video_closes_its_decoder(monkeypatch):
    closed = []

    def read(path):
        try:
            while True:
                yield VideoFrame(picture(), Fraction(0))
        finally:
            closed.append(path)

    monkeypatch.setattr(source, "read_video", read)
    opened = video_frames(Path("v"), FPS, Detector([face()]), SPEC)
    next(opened)
    opened.close()
    assert closed == [Path("v")]
