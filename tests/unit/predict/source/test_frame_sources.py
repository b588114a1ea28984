import tracemalloc
from collections import deque
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.small_predictor import aligned_face, write_video

from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.media.decoding.video_image import to_array
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source import playback
from talkinghead.predict.source.face_source import open_face
from talkinghead.predict.source.frame_sources import PhotoFrames, video_frames
from talkinghead.predict.source.playback import play, played_rate
from talkinghead.types import AVSpec, VideoFrame

SPEC = AVSpec()
FPS = Fraction(25)
IMAGE = np.ones((4, 4, 3), np.uint8)


class Detector:
    topology = "mesh468"

    def __init__(self, *faces):
        self.faces = list(faces)

    def detect(self, image):
        return self.faces

    def track(self, image, previous):
        return previous


def photo(*faces, **options):
    return PhotoFrames(
        IMAGE, "p.jpg", Detector(*faces), SPEC, SourceOptions(motion="none", **options)
    )()


def test_photo_is_repeated_at_the_spec_frame_rate():
    frames = list(islice(photo(aligned_face()), 3))
    assert [f.time_s for f in frames] == [0, Fraction(1, 25), Fraction(2, 25)]
    assert all(f.image is IMAGE and f.reference is frames[0].reference for f in frames)
    assert frames[0].transform is frames[1].transform


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [60]),
        ({"face_select": "index"}, [10]),
        ({"face_select": "index", "face_index": 2}, [200]),
        ({"face_select": "all"}, [60, 10, 200]),
    ],
)
def test_face_select_options_select_faces_in_a_photo(options, expected):
    frames = list(
        islice(
            photo(aligned_face(60, 50), aligned_face(10, 40), aligned_face(200, 30), **options), 4
        )
    )
    assert [-round(f.transform[0, 2]) for f in frames if f.time_s == 0] == expected


def test_missing_faces_and_unknown_options_are_refused():
    with pytest.raises(FaceNotFoundError, match=r"p\.jpg"):
        photo()
    with pytest.raises(FaceNotFoundError, match="face_index=3, but only 1 face"):
        photo(aligned_face(), face_select="index", face_index=3)
    unknown = {"face_select": "left", "extend": "x", "motion": "walk", "face_index": -1}
    unknown |= {"max_side": 10, "min_fps": -1.0}
    for name, value in unknown.items():
        with pytest.raises(UsageError, match=name):
            SourceOptions(**{name: value})


def test_active_speaker_selection_in_a_photo_logs_a_warning(caplog):
    next(photo(aligned_face(), face_select="speaking"))
    assert "p.jpg: a photo has no audio" in caplog.text


def test_closing_video_frames_closes_the_decoder(monkeypatch):
    closed = []

    def read(path, **_):
        try:
            while True:
                yield VideoFrame(IMAGE, Fraction(0))
        finally:
            closed.append(path)

    monkeypatch.setattr(playback, "read_frames", read)
    frames = video_frames(Path("v"), Fraction(25), Detector(aligned_face()), SPEC, SourceOptions())
    next(frames)
    frames.close()
    assert closed == [Path("v")]


@pytest.fixture
def video(monkeypatch):
    """Replace the decoder by one that yields frames of the given times, filled with their index."""

    def make(times_s):
        def read(path, **_):
            for index, time_s in enumerate(times_s):
                yield VideoFrame(np.full((4, 4, 3), index % 256, np.uint8), time_s)

        monkeypatch.setattr(playback, "read_frames", read)

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
def test_video_is_extended_in_each_mode(video, monkeypatch, block_bytes, extend, num_frames, order):
    monkeypatch.setattr(playback, "_BLOCK_BYTES", block_bytes)
    video([i / FPS for i in range(num_frames)])
    frames = list(islice(play(Path("v"), FPS, extend), len(order)))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == order
    assert [frame.is_extension for frame in frames] == [i >= num_frames for i in range(len(order))]
    assert [frame.time_s for frame in frames] == [i / FPS for i in range(len(order))]
    cuts = [i for i, frame in enumerate(frames) if frame.starts_shot]
    assert cuts == ([3, 6] if extend == "loop" else [])


@pytest.mark.parametrize(
    ("speech_s", "order"),
    [(Fraction(3) / FPS, [0, 1, 2, 2, 2, 1, 0, 1]), (Fraction(4) / FPS, [0, 1, 2, 1, 0, 1])],
)
def test_video_is_not_extended_for_frames_after_the_speech(video, monkeypatch, speech_s, order):
    """They are read in advance by the stages after the source."""
    monkeypatch.setattr(playback, "_READ_AHEAD_S", 2 / FPS)
    video([i / FPS for i in range(3)])
    frames = list(islice(play(Path("v"), FPS, speech_s=speech_s), len(order)))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == order
    assert [frame.time_s for frame in frames] == [i / FPS for i in range(len(order))]
    assert [frame.is_extension for frame in frames] == [i >= 3 for i in range(len(order))]


def test_video_without_frames_raises_an_error(video):
    video([])
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        next(play(Path("clip.mp4"), FPS))


def test_variable_frame_durations_are_kept_in_reverse_playback(video):
    video([Fraction(t, 100) for t in (0, 10, 13, 20)])
    frames = list(islice(play(Path("v"), Fraction(10)), 7))
    assert [int(frame.duration_s * 100) for frame in frames] == [10, 3, 7, 10, 7, 3, 10]
    for before, after in pairwise(frames):
        assert after.time_s == before.time_s + before.duration_s


@pytest.mark.parametrize(
    ("durations_ms", "fps", "min_fps", "expected_ms"),
    [
        ([40, 80, 40], 25, 20, [40, 40, 40, 40]),
        ([40, 1080, 40], 25, 20, [40, *[40] * 27, 40]),
        ([1000, 1000], 1, 20, [50] * 40),
        ([50, 50], 20, 20, [50, 50]),
        ([53, 50], 20, 20, [Fraction(53, 2), Fraction(53, 2), 50]),
        ([1000, 1000], 1, 0, [1000, 1000]),
        ([100, 100], 10, 60, [Fraction(100, 6)] * 12),
        ([40, 90, 40], 25, 20, [40, 45, 45, 40]),
    ],
)
def test_long_frames_are_divided(video, durations_ms, fps, min_fps, expected_ms):
    times = [Fraction(sum(durations_ms[:n]), 1000) for n in range(len(durations_ms))]
    video(times)
    frames = list(islice(play(Path("v"), Fraction(fps), "hold", min_fps), len(expected_ms)))
    assert [frame.duration_s * 1000 for frame in frames] == expected_ms
    for before, after in pairwise(frames):
        assert after.time_s == before.time_s + before.duration_s
        assert after.file_time_s - before.file_time_s == before.duration_s


@pytest.mark.parametrize(
    ("fps", "expected"), [(60, 60), (120, 120), (240, 120), (900, "225/2"), (90_000, 120)]
)
def test_frames_of_slow_motion_are_left_out(video, fps, expected):
    expected = Fraction(expected)
    video([Fraction(n, fps) for n in range(12 * fps // int(expected))])
    assert played_rate(Fraction(fps), 20) == expected
    frames = list(islice(play(Path("v"), Fraction(fps), "hold", 20), 12))
    assert {frame.duration_s for frame in frames} == {1 / expected}
    assert [frame.time_s for frame in frames] == [n / expected for n in range(12)]
    assert [frame.file_time_s for frame in frames] == [n / expected for n in range(12)]


def test_usual_frames_of_a_video_with_a_wrong_rate_are_all_played(video):
    video([Fraction(n, 30) for n in range(5)])
    frames = list(islice(play(Path("v"), Fraction(90_000), "hold", 20), 4))
    assert {frame.duration_s for frame in frames} == {Fraction(1, 30)}


@pytest.mark.parametrize(
    ("fps", "min_fps", "expected"),
    [(25, 20, 25), (1, 20, 20), (15, 20, 30), (12, 0, 12), (Fraction(20_000, 1001), 20, None)],
)
def test_played_rate_is_a_multiple_of_the_rate(video, fps, min_fps, expected):
    fps = Fraction(fps)
    assert played_rate(fps, min_fps) == (expected or fps)
    video([n / fps for n in range(3)])
    frames = list(islice(play(Path("v"), fps, "hold", min_fps), 60))
    assert {1 / frame.duration_s for frame in frames} == {expected or fps}


@pytest.mark.parametrize(("extend", "max_bytes"), [("pingpong", 300), ("hold", 20), ("loop", 20)])
def test_only_backward_playback_keeps_frame_positions(monkeypatch, extend, max_bytes):
    def read(path, **_):
        for number in range(2000):
            yield VideoFrame(IMAGE, number / Fraction(30_000, 1001), 512 * number, number == 0)

    monkeypatch.setattr(playback, "read_frames", read)
    frames = play(Path("v"), Fraction(30_000, 1001), extend)
    deque(islice(frames, 500), 0)
    tracemalloc.start()
    try:
        deque(islice(frames, 1000), 0)
        assert tracemalloc.get_traced_memory()[0] / 1000 < max_bytes
    finally:
        tracemalloc.stop()


def test_file_is_read_backwards_as_forwards(tmp_path):
    path = write_video(tmp_path / "v.mkv", [Fraction(n, 25) for n in range(40)])
    frames = list(islice(play(path, FPS), 100))
    order = [*range(40), *range(38, -1, -1), *range(1, 22)]
    for frame, index in zip(frames, order, strict=True):
        assert np.array_equal(to_array(frame.image), to_array(frames[index].image))
        assert frame.file_time_s == Fraction(index, 25)
    assert [frame.time_s for frame in frames] == [Fraction(n, 25) for n in range(100)]
    assert [frame.is_extension for frame in frames] == [n >= 40 for n in range(100)]


def test_large_photo_is_scaled_down():
    for shape, max_side, expected in (
        ((300, 403, 3), 200, (148, 200)),
        ((403, 300, 3), 200, (200, 148)),
        ((301, 403, 3), 403, (301, 403)),
        ((301, 403, 3), None, (301, 403)),
        ((3000, 70, 3), 64, (64, 2)),
    ):
        source = open_face(
            np.zeros(shape, np.uint8), Detector(), SPEC, SourceOptions(max_side=max_side)
        )
        assert (source.height, source.width) == expected


def test_rounding_of_times_to_milliseconds_is_removed(video):
    fps = Fraction(30_000, 1001)
    video([Fraction(round(1000 * i / fps), 1000) for i in range(300)])
    assert [f.time_s for f in islice(play(Path("v"), fps), 300)] == [i / fps for i in range(300)]


@pytest.mark.parametrize(
    ("times_ms", "expected_ms"),
    [
        ([0, 40, 79, 80, 120], [0, 40, 80, 81, 120]),
        ([0, 40, 80, 81, 120], [0, 40, 80, 81, 120]),
        ([0, 40, 79, 80, 81, 82, 120], [0, 40, 80, 81, 82, 83, 120]),
    ],
)
def test_times_of_frames_near_the_same_grid_time_increase(video, times_ms, expected_ms):
    video([Fraction(time_ms, 1000) for time_ms in times_ms])
    frames = list(islice(play(Path("v"), FPS), len(times_ms)))
    assert [frame.time_s * 1000 for frame in frames] == expected_ms


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pose": (5, 0, 0), "seed": 3}, ["pose has no effect", "seed has no effect"]),
        ({"motion": "idle"}, ["motion has no effect"]),
        ({"motion": "none"}, []),
    ],
)
def test_options_without_effect_on_a_video_are_reported(tmp_path, caplog, options, expected):
    video = write_video(tmp_path / "face.mp4", [Fraction(i, 25) for i in range(3)])
    open_face(video, Detector(), SPEC, SourceOptions(**options))
    found = [record.getMessage() for record in caplog.records]
    assert [text.split(": ")[1].split(" on")[0] for text in found] == expected


def test_unreadable_driving_video_is_an_error_for_a_video(tmp_path):
    video = write_video(tmp_path / "face.mp4", [Fraction(i, 25) for i in range(3)])
    with pytest.raises(MediaError, match=r"missing\.mp4: no such file"):
        open_face(video, Detector(), SPEC, SourceOptions(motion=f"video:{tmp_path}/missing.mp4"))


def test_video_of_unknown_duration_is_not_a_photo(tmp_path):
    live = write_video(tmp_path / "live.mkv", [Fraction(i, 25) for i in range(3)], live="1")
    source = open_face(live, Detector(), SPEC, SourceOptions())
    assert (source.duration_s, source.is_photo) == (0, False)
    assert open_face(IMAGE, Detector(aligned_face()), SPEC, SourceOptions()).is_photo
