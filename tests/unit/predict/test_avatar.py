"""Avatars: the same frames as from the file, without encoding again, in several threads."""

import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from helpers.small_predictor import HEIGHT, WIDTH, make_predictor, speech, write_video

from talkinghead.errors import UsageError
from talkinghead.predict import avatar as avatar_module
from talkinghead.predict.compositing.renderers import PoissonRenderer
from talkinghead.predict.options import SourceOptions


@pytest.fixture(scope="module")
def predictor():
    return make_predictor(renderer=PoissonRenderer())


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(60, 250, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("avatar") / "face.mp4"
    return write_video(path, [Fraction(i, 25) for i in range(40)])


def images(predictor, face, given):
    return np.stack([image for image, _ in predictor.predict(face, given)]).astype(int)


@pytest.mark.parametrize(("kind", "duration_s"), [("photo", 1.2), ("video", 1.6)])
def test_avatar_gives_the_frames_of_its_source(predictor, request, kind, duration_s):
    face, given = request.getfixturevalue(kind), speech(duration_s)
    expected = images(predictor, face, given)
    assert len(expected) == 25 * duration_s
    difference = np.abs(images(predictor, predictor.avatar(face), given) - expected)
    assert difference.max() <= (0 if kind == "photo" else 1)


@pytest.mark.parametrize(
    ("extend", "order"),
    [
        ("pingpong", [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]),
        ("loop", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]),
        ("hold", [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]),
    ],
)
def test_video_is_extended(predictor, tmp_path, extend, order):
    short = write_video(tmp_path / "short.mp4", [Fraction(i, 25) for i in range(4)])
    avatar = predictor.avatar(short, SourceOptions(extend=extend))
    frames = avatar.source.play()
    played = [next(frames) for _ in order]
    kept = [frames[0].image for frames in avatar.face_frames]
    assert [next(i for i, p in enumerate(kept) if p is f.image) for f in played] == order
    assert [frame.time_s for frame in played] == [Fraction(i, 25) for i in range(len(order))]
    assert [frame.is_extension for frame in played] == [False] * 4 + [True] * 8
    cuts = [number for number, frame in enumerate(played) if number and frame.starts_shot]
    assert cuts == ([4, 8] if extend == "loop" else [])


def test_face_is_detected_and_encoded_once(photo, monkeypatch):
    predictor = make_predictor()
    avatar = predictor.avatar(photo)
    expected = images(predictor, avatar, speech(0.4))

    def refuse(*_):
        raise AssertionError("called again")

    for name in ("encode_reference", "encode_context"):
        monkeypatch.setattr(predictor.model, name, refuse)
    monkeypatch.setattr(predictor.detector, "detect", refuse)
    assert np.array_equal(images(predictor, avatar, speech(0.4)), expected)


def test_threads_share_an_avatar(predictor, photo):
    avatar = predictor.avatar(photo)
    speeches = [speech(0.8, seed=seed) for seed in range(4)]
    one_by_one = [images(predictor, avatar, given) for given in speeches]
    together = threading.Barrier(len(speeches))

    def run(given):
        together.wait()
        return images(predictor, avatar, given)

    with ThreadPoolExecutor(len(speeches)) as pool:
        at_once = list(pool.map(run, speeches))
    assert all(np.array_equal(a, b) for a, b in zip(at_once, one_by_one, strict=True))
    assert not np.array_equal(one_by_one[0], one_by_one[1])


def test_long_video_is_cut(predictor, video, monkeypatch, caplog):
    monkeypatch.setattr(avatar_module, "MAX_BYTES", 10 * HEIGHT * WIDTH * 3)
    assert len(predictor.avatar(video).face_frames) == 10
    assert "its first 0.4 s are used" in caplog.text


def test_other_predictor_or_options_are_refused(predictor, photo):
    avatar = predictor.avatar(photo)
    with pytest.raises(UsageError, match="its own predictor"):
        make_predictor(1).predict(avatar, speech())
    with pytest.raises(UsageError, match="its own options"):
        predictor.predict(avatar, speech(), SourceOptions())
