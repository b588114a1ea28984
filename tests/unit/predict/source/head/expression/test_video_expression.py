"""Expressions of a real face in frames of a video."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from helpers.face_measures import measure_face
from helpers.small_predictor import make_predictor, speech
from skimage.data import astronaut

from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.live.live_avatar import LiveAvatar
from talkinghead.live.streaming import RealtimeLipSync
from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.predict.source.head.expression.expression_track import read_expression
from talkinghead.predict.source.head.expression.video_expression import (
    FrameExpression,
    VideoExpression,
)
from talkinghead.predict.source.head.photo_animation import HeadCue

PHOTO = np.ascontiguousarray(astronaut()[10:290, 90:370])
STILL = np.zeros(52, np.float32)


@pytest.fixture(scope="module")
def detector():
    return LiteRtDetector()


@pytest.fixture(scope="module")
def face(detector):
    return detector.track(PHOTO, detector.detect(PHOTO)[0])


def render(faces, state=STILL, time_s=0.0, **options):
    frame = FrameExpression(VideoExpression(**options), faces)
    return frame.render_patched(PatchedImage(PHOTO), time_s, state).to_array()


def changed(image):
    return np.abs(image.astype(int) - PHOTO).max(-1)


def test_emotion_replaces_that_of_the_options():
    frame = FrameExpression(VideoExpression(emotion=Emotion("happy")), [])
    assert not frame.target(HeadCue()).any()
    state = frame.target(HeadCue(emotion=Emotion("sad", 0.5), pose_deg=(9, 9, 9)))
    assert np.allclose(state + Emotion("happy").weights, Emotion("sad", 0.5).weights)
    assert not frame.is_still(STILL)
    assert FrameExpression(VideoExpression(), []).is_still(STILL)
    assert not FrameExpression(VideoExpression(), []).is_still(state)


def test_neutral_face_and_image_without_a_face_are_unchanged(face):
    assert render([(face, 1.0)]) is PHOTO
    assert np.array_equal(render([], Emotion("happy").weights), PHOTO)


def test_emotion_comes_from_options_tracks_and_tags(face, tmp_path):
    weights = Emotion("happy").weights
    expected = render([(face, 1.0)], weights)
    assert changed(expected).max() > 30
    assert np.array_equal(render([(face, 1.0)], emotion=Emotion("happy")), expected)
    table = tmp_path / "face.csv"
    table.write_text("time_s,browInnerUp\n0,0\n1,1\n")
    track = read_expression(table)
    assert np.array_equal(render([(face, 1.0)], expression=track), PHOTO)
    late = render([(face, 1.0)], time_s=1.0, expression=track)
    assert np.array_equal(
        late, render([(face, 1.0)], expression=read_expression({"browInnerUp": 1}))
    )


def test_expression_fades_with_the_mouth(face):
    weights = Emotion("angry").weights
    half = render([(face, 0.5)], weights)
    assert np.array_equal(half, render([(face, 1.0)], 0.5 * weights))
    assert np.array_equal(render([(face, 0.0)], weights), PHOTO)


def test_lids_close_and_move_less_in_narrow_eyes(face):
    weights = read_expression({"eyeBlinkLeft": 1, "eyeBlinkRight": 1}).at(0)
    open_eye = changed(render([(face, 1.0)], weights))
    rows, columns = np.nonzero(open_eye > 20)
    eyes = face.points[[33, 263, 159, 145]]
    assert rows.size > 50
    assert eyes[:, 0].min() - 5 < columns.min() < columns.max() < eyes[:, 0].max() + 5
    points = face.points.copy()
    for lids in ((159, 145), (386, 374)):
        middle = points[list(lids)].mean(0)
        # Landmarks of nearly closed eyes: their lids approach each other.
        near = np.linalg.norm(points - middle, axis=1) < 0.14 * face.box.width
        points[near, 1] = middle[1] + 0.35 * (points[near, 1] - middle[1])
    narrow = changed(render([(replace(face, points=points), 1.0)], weights))
    assert (narrow > 20).sum() < 0.5 * (open_eye > 20).sum()


def test_several_faces_are_moved(face, detector):
    wide = np.concatenate([PHOTO, PHOTO[:, ::-1]], 1)
    faces = detector.detect(wide)
    assert len(faces) == 2
    frame = FrameExpression(
        VideoExpression(emotion=Emotion("surprised")), [(f, 1.0) for f in faces]
    )
    image = frame.render_patched(PatchedImage(wide), 0.0, STILL).to_array()
    difference = np.abs(image.astype(int) - wide).max(-1)
    halves = np.split(difference > 20, 2, axis=1)
    assert all(half.sum() > 300 for half in halves)


MEASURES = {
    "browInnerUp": ("inner_brow", 1),
    "browDown": ("inner_brow", -1),
    "mouthSmile": ("corner_height", 1),
    "mouthFrown": ("corner_height", -1),
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_the_face_change_with_the_emotion(face, name):
    """The motion is measured by optical flow, because a detector's points hardly follow brows."""
    measure, sign = MEASURES[name]
    sides = [name] if name == "browInnerUp" else [f"{name}{side}" for side in ("Left", "Right")]
    values = []
    for weight in (0, 0.33, 0.67, 1):
        weights = read_expression(dict.fromkeys(sides, weight)).at(0)
        values.append(
            measure_face(moved_points(render([(face, 1.0)], weights), face.points))[measure]
        )
    assert (sign * np.diff(values) > 0).all(), values


def moved_points(image, points):
    """Return where the points of the photo are in another frame, by dense optical flow."""
    grey = [
        cv2.resize(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), None, fx=3, fy=3) for i in (PHOTO, image)
    ]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    return points + cv2.remap(flow, np.float32(3 * points)[None], None, cv2.INTER_LINEAR)[0] / 3


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of a second in which the head sways."""
    path = tmp_path_factory.mktemp("video") / "face.mp4"
    height, width = PHOTO.shape[:2]
    with VideoWriter(path, width, height, Fraction(25), None) as writer:
        for index in range(25):
            sway = np.float32([[1, 0, 2 * np.sin(index / 8)], [0, 1, 0]])
            image = cv2.warpAffine(PHOTO, sway, (width, height), borderMode=cv2.BORDER_REPLICATE)
            writer.write(image)
    return path


@pytest.fixture(scope="module")
def predictor(detector):
    return make_predictor(detector=detector)


@pytest.mark.slow
def test_file_avatar_and_stream_give_the_same_frames(predictor, video):
    clip, options = speech(1.0), SourceOptions(calibrate="none")
    tagged = [
        TimedSpeech(clip.samples[:8000], (), Emotion("happy")),
        TimedSpeech(clip.samples[8000:], (), Emotion("angry", 0.5)),
    ]
    rate = clip.sample_rate
    avatar = predictor.avatar(video, options)
    streams = {
        "file": predictor.predict(video, SpeechStream(iter(tagged), rate), options),
        "avatar": predictor.predict(avatar, SpeechStream(iter(tagged), rate)),
        "stream": RealtimeLipSync(avatar).stream(tagged),
    }
    frames = {name: np.stack([frame[0] for frame in one]) for name, one in streams.items()}
    plain = np.stack([image for image, _ in predictor.predict(video, clip, options)])
    for name in ("avatar", "stream"):
        difference = np.abs(frames[name].astype(int) - frames["file"])
        # Images are sampled at multiples of a 32nd of a pixel, so single pixels differ by more.
        assert np.mean(difference > 3) < 1e-5
    assert np.abs(frames["file"].astype(int) - plain).mean((1, 2, 3))[5:].min() > 0.1
    assert np.array_equal(frames["file"][:, :20], plain[:, :20])


@pytest.mark.slow
def test_controls_change_the_expression_of_a_live_video(predictor, video):
    avatar = predictor.avatar(video, SourceOptions(calibrate="none"))
    images = []
    for emotion in (None, "surprised"):
        live = LiveAvatar(avatar)
        live.controls.update(emotion, pose=(10, 0, 0))
        images.append(np.stack([live.next_frame().image for _ in range(20)]))
        live.close()
    change = np.abs(images[1].astype(int) - images[0]).mean((1, 2, 3))
    assert change[0] < 0.5 * change[-1]
    assert change[-1] > 0.1
