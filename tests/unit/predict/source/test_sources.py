from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.features.faces.alignment import (
    RIGID_POINTS,
    canonical_points,
    estimate_transform,
    frontality,
    lip_points,
)
from talkinghead.predict.source import playback
from talkinghead.predict.source import reference_policy as reference
from talkinghead.predict.source.playback import play
from talkinghead.predict.source.reference_policy import add_references
from talkinghead.predict.source.source_frame import SourceFrame, SourceOptions
from talkinghead.predict.source.frame_sources import photo_frames, video_frames
from talkinghead.predict.source.face_tracks import align_faces, fade_faces, interleave_tracks, track_face
from talkinghead.types import AVSpec, Box, Face, VideoFrame

SPEC = AVSpec()
FPS = Fraction(25)


def face(x=0.0, opening=0.0, box=None):
    points = np.zeros((468, 2), np.float32)
    index = list(RIGID_POINTS["mesh468"])
    points[index] = canonical_points("mesh468", SPEC)
    points[4] = 128, 120  # The tip of the nose, which says that the head is not turned.
    points[13], points[14] = (128, 160), (128, 160 + opening)
    return Face(box or Box(0, 0, 1, 1), points + np.float32([x, 0]), 1.0, "mesh468")


class Tracker:
    """Finds what the frame's first pixel says: (0: no face, else x), opening, cut."""

    cut = False

    def update(self, image, time_s=0):
        x, opening, cut = (int(v) for v in image[0, 0])
        self.cut = bool(cut)
        return face(x, opening) if x else None

    def reset(self):
        pass


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


def track_frames(frames, tracker, spec, fps):
    return align_faces(track_face(frames, tracker), spec, fps)


@pytest.fixture
def video(monkeypatch):
    """Replaces the decoder: pictures that show their own number, at the given times."""

    def make(times_s):
        def read(path):
            for number, time_s in enumerate(times_s):
                yield VideoFrame(np.full((4, 4, 3), number % 256, np.uint8), time_s)

        monkeypatch.setattr(playback, "read_video", read)

    return make


def numbers(count, extend="pingpong", fps=FPS):
    return [int(f.image[0, 0, 0]) for f in islice(play(Path("v"), fps, extend), count)]


@pytest.mark.parametrize("block_bytes", [1, 3 * 48, 10**6])
def test_a_video_plays_to_and_fro(video, monkeypatch, block_bytes):
    monkeypatch.setattr(playback, "_BLOCK_BYTES", block_bytes)
    video([i / FPS for i in range(5)])
    assert numbers(14) == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3]


@pytest.mark.parametrize(("length", "expected"), [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 1])])
def test_the_shortest_videos_go_on_too(video, length, expected):
    video([i / FPS for i in range(length)])
    assert numbers(4) == expected
    times = [f.time_s for f in islice(play(Path("v"), FPS), 4)]
    assert times == [0, Fraction(1, 25), Fraction(2, 25), Fraction(3, 25)]


def test_a_video_without_pictures_is_an_error(video):
    video([])
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        next(play(Path("clip.mp4"), FPS))


def test_frames_of_a_variable_rate_keep_their_durations_backwards(video):
    video([Fraction(t, 100) for t in (0, 10, 13, 20)])
    got = list(islice(play(Path("v"), Fraction(10)), 7))
    assert [int(f.duration_s * 100) for f in got] == [10, 3, 7, 10, 7, 3, 10]
    for before, after in pairwise(got):
        assert after.time_s == before.time_s + before.duration_s


def test_a_containers_milliseconds_are_undone(video):
    fps = Fraction(30_000, 1001)
    video([Fraction(round(1000 * i / fps), 1000) for i in range(300)])
    times = [f.time_s for f in islice(play(Path("v"), fps), 300)]
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
    assert [f.starts_shot for f in got].index(True) == 30


def test_frames_without_a_face_have_no_transform():
    pictures = [picture(10 if i != 7 else 0) for i in range(40)]
    got = list(add_references(track_frames(frames(pictures), Tracker(), SPEC, FPS), SPEC, FPS))
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
    got = list(add_references(track_frames(frames(pictures), Tracker(), SPEC, FPS), SPEC, FPS))
    assert len(got) == 60
    assert {int(f.reference.image[0, 0, 1]) for f in got} == {2}


def test_every_shot_has_a_reference_of_its_own():
    pictures = [picture(5)] * 10 + [picture(50, cut=1)] + [picture(50)] * 40
    got = list(add_references(track_frames(frames(pictures), Tracker(), SPEC, FPS), SPEC, FPS))
    assert [int(f.reference.image[0, 0, 0]) for f in got] == [5] * 10 + [50] * 41


def test_who_comes_back_after_a_second_is_looked_at_afresh():
    pictures = [picture(5)] * 30 + [picture(0)] * 40 + [picture(60)] * 30
    got = list(add_references(track_frames(frames(pictures), Tracker(), SPEC, FPS), SPEC, FPS))
    assert len(got) == 100
    assert [int(f.reference.image[0, 0, 0]) for f in got if f.reference] == [5] * 30 + [60] * 30


def test_large_pictures_are_not_hoarded(monkeypatch):
    monkeypatch.setattr(reference, "_MAX_REFERENCE_BYTES", 3 * 48)
    taken = []

    def tracked():
        transform = estimate_transform(face().points, "mesh468", SPEC)
        for frame in frames([picture()] * 50):
            taken.append(frame)
            lips = lip_points(face().points, "mesh468")
            yield replace(frame, transform=transform, lips=lips)

    next(add_references(tracked(), SPEC, FPS))
    assert len(taken) == 3


def test_a_video_may_hold_its_last_picture_or_begin_again(video):
    video([i / FPS for i in range(3)])
    assert numbers(7, "hold") == [0, 1, 2, 2, 2, 2, 2]
    assert numbers(7, "loop") == [0, 1, 2, 0, 1, 2, 0]
    looped = list(islice(play(Path("v"), FPS, "loop"), 7))
    assert [frame.starts_shot for frame in looped] == [i in (3, 6) for i in range(7)]
    for extend in ("pingpong", "hold", "loop"):
        frames = list(islice(play(Path("v"), FPS, extend), 9))
        assert [frame.is_extension for frame in frames] == [i > 2 for i in range(9)]
        assert [frame.time_s for frame in frames] == [i / FPS for i in range(9)]


def test_the_mouth_is_faded_where_a_face_comes_and_goes():
    def strengths(present):
        transform = np.eye(2, 3, dtype=np.float32)
        given = [
            SourceFrame(picture(), i / FPS, 1 / FPS, transform if p else None, strength=float(p))
            for i, p in enumerate(present)
        ]
        got = list(fade_faces(given, FPS))
        assert [frame.time_s for frame in got] == [frame.time_s for frame in given]
        return [frame.strength if frame.transform is not None else None for frame in got]

    # Down before it is gone, up when it is back, and at once where the video begins and ends.
    assert strengths([1] * 6 + [0] * 2 + [1] * 6) == [
        *(1, 1, 1, 0.75, 0.5, 0.25),
        *(None, None),
        *(0.25, 0.5, 0.75, 1, 1, 1),
    ]
    # Who turns away for a moment is never followed by a jump of more than a quarter.
    turning = strengths([1, 1, 1, 0.4, 0.1, 0.6, 1, 1, 1, 1])
    assert max(abs(a - b) for a, b in pairwise(turning)) <= 0.3
    assert turning[4] == 0.1


def test_a_cut_is_not_faded():
    transform = np.eye(2, 3, dtype=np.float32)
    given = [SourceFrame(picture(), i / FPS, 1 / FPS, strength=0.0) for i in range(5)]
    given += [
        SourceFrame(picture(), i / FPS, 1 / FPS, transform, starts_shot=i == 5) for i in range(5, 10)
    ]
    assert [frame.strength for frame in fade_faces(given, FPS)] == [0] * 5 + [1] * 5


def test_a_head_that_turns_away_is_trusted_less():
    assert frontality(turned(0), "mesh468") == frontality(turned(45), "mesh468") == 1
    assert 0.2 < frontality(turned(-56), "mesh468") < 0.8
    assert frontality(turned(70), "mesh468") == frontality(turned(-85), "mesh468") == 0


def turned(degrees):
    """Corners of the eyes and the nose's base, as MediaPipe's canonical face has them, turned."""
    points = np.zeros((468, 3))
    points[[33, 263]] = (-4.446, -2.664, -3.173), (4.446, -2.664, -3.173)
    points[[98, 327]] = (-1.406, 1.714, -5.241), (1.406, 1.714, -5.241)
    angle = np.radians(degrees)
    across = np.array([np.cos(angle), 0, np.sin(angle)])
    return np.stack([points @ across, points[:, 1]], axis=1).astype(np.float32)


def test_of_several_faces_in_a_photo_the_one_asked_for_speaks():
    faces = [face(x, box=Box(x, 0, x + size, size)) for x, size in ((60, 50), (10, 40), (200, 30))]

    def chosen(**options):
        frames = photo_frames(picture(), "p.jpg", Detector(faces), SPEC, SourceOptions(**options))
        first = list(islice(frames, 4))
        return [-round(f.transform[0, 2]) for f in first if f.time_s == 0]

    assert chosen() == [60]
    assert chosen(face_select="index") == [10]
    assert chosen(face_select="index", face_index=2) == [200]
    assert chosen(face_select="all") == [60, 10, 200]
    with pytest.raises(FaceNotFoundError, match="face_index=3, but 3 faces"):
        chosen(face_select="index", face_index=3)


def test_who_speaks_in_a_photo_cannot_be_told(caplog):
    options = SourceOptions(face_select="speaking")
    next(photo_frames(picture(), "p.jpg", Detector([face()]), SPEC, options))
    assert "p.jpg: a photo has no sound" in caplog.text


def test_pictures_come_once_for_every_face():
    left = frames([picture()] * 3)
    seen = [replace(frame, transform=np.eye(2, 3, dtype=np.float32)) for frame in left]
    tracks = [[left[0], seen[1], seen[2]], [left[0], seen[1], left[2]]]
    got = list(interleave_tracks(tracks))
    assert [frame.time_s for frame in got] == [0, Fraction(1, 25), Fraction(1, 25), Fraction(2, 25)]
    assert [frame.is_last for frame in got] == [True, False, True, True]


@pytest.mark.parametrize(
    "options",
    [{"face_select": "left"}, {"extend": "x"}, {"motion": "walk"}, {"face_index": -1}],
)
def test_unknown_options_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        SourceOptions(**options)


def test_closing_a_video_closes_its_decoder(monkeypatch):
    closed = []

    def read(path):
        try:
            while True:
                yield VideoFrame(picture(), Fraction(0))
        finally:
            closed.append(path)

    monkeypatch.setattr(playback, "read_video", read)
    opened = video_frames(Path("v"), FPS, Detector([face()]), SPEC)
    next(opened)
    opened.close()
    assert closed == [Path("v")]
