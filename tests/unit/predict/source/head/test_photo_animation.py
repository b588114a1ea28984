"""Animation of a real photo, checked for visible artefacts."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source import frame_sources
from talkinghead.predict.source.frame_sources import PhotoFrames
from talkinghead.predict.source.head.expression.blendshapes import BLENDSHAPES
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.predict.source.head.motion.idle_motion import blink_closure
from talkinghead.predict.source.head.motion.pose_track import read_pose_track
from talkinghead.predict.source.head.motion.speech_motion import SpeechGesture
from talkinghead.predict.source.head.photo_animation import HeadCue, HeadMotion, PhotoAnimation
from talkinghead.types import AVSpec

PHOTO = astronaut()
FPS = 25
CORNERS = ((33, 133, 159, 145), (362, 263, 386, 374))
"""Corners and lid centres of each eye."""


@pytest.fixture(scope="module")
def idle(faces):
    return PhotoAnimation(PHOTO, faces, HeadMotion("idle", seed=1))


def blink_s(seed=1):
    """Return the time at which the first blink begins to close the eyes."""
    return next(t for t in np.arange(0, 10, 0.01) if blink_closure(t, seed) > 0)


def test_idle_motion_is_gradual_and_ends_before_the_border(idle):
    before = idle.render(PHOTO, 0)
    assert np.abs(before.astype(int) - PHOTO).max() <= 1
    for index in range(1, 2 * FPS):
        image = idle.render(PHOTO, index / FPS)
        change = np.abs(image.astype(int) - before)
        is_blink = blink_closure(index / FPS, 1) or blink_closure((index - 1) / FPS, 1)
        assert is_blink or np.percentile(change, 99.5) < 16
        assert np.array_equal(image[400:], PHOTO[400:])
        before = image
    assert np.abs(image.astype(int) - PHOTO).mean() > 0.3


def test_only_the_area_of_the_head_is_a_patch(idle):
    state = np.zeros_like(idle.target(HeadCue()))
    mouth = Patch(170, 200, np.full((20, 40, 3), 90, np.uint8))
    image = PatchedImage(PHOTO).with_patch(mouth)
    frame = idle.render_patched(image, 2.0, state)
    assert np.array_equal(frame.to_array(), idle.render(image.to_array(), 2.0))
    assert frame.base is PHOTO
    assert sum(patch.pixels.size for patch in frame.patches) < 0.5 * PHOTO.size


def test_frames_depend_on_seed_and_time_only(idle, faces):
    again = PhotoAnimation(PHOTO, faces, HeadMotion("idle", seed=1))
    for time_s in (6.0, 0.8, 6.04, 0.0):
        assert np.array_equal(again.render(PHOTO, time_s), idle.render(PHOTO, time_s))
    other = PhotoAnimation(PHOTO, faces, HeadMotion("idle", seed=2))
    assert not np.allclose(other.pose_at(2.0), idle.pose_at(2.0), atol=0.1)


def test_idle_turns_are_small_and_smooth(idle):
    poses = np.array([idle.pose_at(index / FPS) for index in range(60 * FPS)])
    assert (np.abs(poses).max(0) < [9, 4.5, 3.5]).all()
    assert (poses.std(0) > [1, 0.5, 0.3]).all()
    assert np.abs(np.diff(poses, axis=0)).max() < 0.4
    assert np.abs(np.diff(poses, 2, axis=0)).max() < 0.03


def test_long_stream_does_not_drift(idle):
    """The motion after ten minutes is that of the first minute."""
    early, late = (
        np.array([idle.pose_at((start + index) / FPS) for index in range(60 * FPS)])
        for start in (0, 600 * FPS)
    )
    assert np.allclose(late.mean(0), early.mean(0), atol=0.6)
    assert np.allclose(late.std(0), early.std(0), rtol=0.35)


def test_gaze_stays_with_the_viewer(idle):
    state = np.zeros_like(idle.target(HeadCue()))
    head = idle._heads[0]
    pose_deg = np.float32([8, 0, 0])
    gaze_deg = [
        (eye.gaze_deg @ idle._weights(4.0, 0, pose_deg, state))[0] for eye in head.parts[1]._eyes
    ]
    # The head turns to the right, and the gaze to the left.
    assert np.allclose(gaze_deg, -7.2, atol=2.5)


def test_speech_raises_the_brows_and_turns_the_head(faces):
    gesture = SpeechGesture(stress=0.4, rise=0.2, activity=1.0)
    targets = {
        kind: PhotoAnimation(PHOTO, faces, HeadMotion(kind)).target(HeadCue(gesture))
        for kind in ("none", "idle", "speech")
    }
    assert not targets["none"].any()
    assert not targets["idle"].any()
    brow = 3 + BLENDSHAPES.index("browInnerUp")
    assert 0.2 < targets["speech"][brow] < 0.5
    assert targets["speech"][1] > 1


def test_eyes_blink(idle, faces):
    def contrast(time_s):
        """Return the contrast in the eyes, which the white of open eyes increases."""
        head = idle._heads[0].warp
        points = head.move_points(faces[0].points, idle.pose_at(time_s))
        grey = cv2.cvtColor(idle.render(PHOTO, time_s), cv2.COLOR_RGB2GRAY).astype(float)
        values = []
        for corner in CORNERS:
            x, y = points[list(corner)].mean(0).round().astype(int)
            values.append(grey[y - 2 : y + 3, x - 6 : x + 7].std())
        return np.mean(values)

    open_, closed, opened = (contrast(blink_s() + dt) for dt in (-0.05, 0.12, 0.4))
    assert closed < 0.6 * open_
    assert opened == pytest.approx(open_, rel=0.25)


@pytest.mark.slow
def test_blinks_have_natural_intervals():
    times_s = np.arange(0, 600, 0.02)
    closures = np.array([blink_closure(t, 3) for t in times_s])
    starts_s = times_s[1:][(closures[1:] > 0) & (closures[:-1] == 0)]
    intervals_s = np.diff(starts_s)
    assert 1 < intervals_s.min() < 2.5
    assert 5.5 < intervals_s.max() < 7
    assert intervals_s.mean() == pytest.approx(4, abs=0.1)
    assert closures.max() == 1
    assert np.abs(np.diff(closures)).max() < 0.4


def test_pose_adds_to_idle_motion(faces, idle):
    pose = read_pose_track([4, 0, -3])
    both = PhotoAnimation(PHOTO, faces, HeadMotion("idle", seed=1, pose=pose))
    assert np.allclose(both.pose_at(3.0) - idle.pose_at(3.0), [4, 0, -3], atol=1e-5)
    constant = PhotoAnimation(PHOTO, faces, HeadMotion(pose=pose))
    assert np.array_equal(constant.render(PHOTO, blink_s()), constant.render(PHOTO, 0))


def test_generated_mouth_turns_with_the_head(faces):
    animation = PhotoAnimation(PHOTO, faces, HeadMotion(pose=read_pose_track([12, 5, 8])))
    x, y = faces[0].points[13].round().astype(int)
    image = PHOTO.copy()
    image[y - 3 : y + 4, x - 3 : x + 4] = (0, 255, 0)
    changed = np.abs(animation.render(image, 0).astype(int) - animation.render(PHOTO, 0)).sum(-1)
    found = np.array(np.nonzero(changed > 100))[::-1].mean(1)
    expected = animation._heads[0].warp.move_points(np.float32([[x, y]]), [12, 5, 8])[0]
    assert np.linalg.norm(found - expected) < 1
    assert np.linalg.norm(expected - [x, y]) > 6


def test_only_the_animated_face_moves(faces):
    width = PHOTO.shape[1]
    pair, face = np.hstack([PHOTO, PHOTO]), faces[0]
    box = face.box._replace(x0=face.box.x0 + width, x1=face.box.x1 + width)
    second = replace(face, box=box, points=face.points + np.float32([width, 0]))
    motion = HeadMotion(pose=read_pose_track([8, 0, 4]))
    image = PhotoAnimation(pair, [face, second], motion, animated=[1]).render(pair, 0)
    assert np.array_equal(image[:, :width], PHOTO)
    assert np.abs(image[:, width:].astype(int) - PHOTO).mean() > 0.5


def test_photo_is_analysed_once(faces, detector):
    photo = PhotoFrames(PHOTO, "photo", detector, AVSpec(), SourceOptions(motion="idle"))
    first, second = (list(islice(photo(), 3)) for _ in range(2))
    assert len({frame.animation for frame in first + second}) == 1
    assert first[0].reference is second[2].reference
    assert first[2].time_s == second[2].time_s


@pytest.mark.slow
def test_other_faces_of_the_photo_only_sway_and_blink(detector):
    right_one = cv2.warpAffine(
        PHOTO[:300, 50:400], np.float32([[0.8, 0, 30], [0, 0.8, 30]]), (350, 300)
    )
    photo = np.concatenate([PHOTO[:300, 50:400], right_one], 1)
    options = SourceOptions(motion="idle", pose=(8, 0, 0), emotion="surprised", seed=1)
    frame = next(PhotoFrames(photo, "photo", detector, AVSpec(), options)())
    speaking, other = slice(350), slice(430, 700)
    motion = HeadMotion(pose=read_pose_track((8, 0, 0)), emotion=Emotion("surprised"))
    faces = sorted(detector.detect(photo), key=lambda face: face.box.x0)
    still = PhotoAnimation(photo, faces[:1], motion, faces[1:])
    changes = [
        [np.abs(image.astype(int) - photo)[:, columns].max() for columns in (speaking, other)]
        for image in (still.render(photo, 2.0), frame.animation.render(photo, 2.0))
    ]
    # Without idle motion, the other head is not moved, not even by the warp of the speaking one.
    assert changes[0][0] > 50
    assert changes[0][1] == 0
    assert min(changes[1]) > 50
    for face, pose_deg in enumerate([(8, 0, 0), (0, 0, 0)]):
        sway_deg = frame.animation._heads[face].sway_deg(2.0)
        assert np.allclose(frame.animation.pose_at(2.0, face) - sway_deg, pose_deg, atol=1e-5)
    assert not frame.animation._weights(0.0, 1, np.zeros(3), np.zeros(56)).any()


@pytest.mark.parametrize(
    ("options", "max_faces"),
    [
        ({"exclude_face": 1}, 4),
        pytest.param({"face_select": [0], "exclude_face": [1]}, 4, marks=pytest.mark.slow),
        pytest.param({}, 1, marks=pytest.mark.slow),
    ],
    ids=["excluded", "listed", "too many"],
)
def test_turned_head_does_not_change_a_still_face(detector, monkeypatch, options, max_faces):
    monkeypatch.setattr(frame_sources, "MAX_FACES", max_faces)
    face = detector.detect(PHOTO)[0].box
    centre, reach = int(face.x0 + face.x1) // 2, int(0.72 * face.width)
    left = PHOTO[:300, centre - reach : centre + reach]
    photo = np.ascontiguousarray(np.concatenate([left, left[:, ::-1]], 1))
    speaking, other = (
        (slice(int(box.y0), int(box.y1)), slice(int(box.x0), int(box.x1)))
        for box in sorted(face.box for face in detector.detect(photo))
    )
    selected = {"face_select": "index", **options}
    options = SourceOptions(motion="none", pose=(10, 0, 6), **selected)
    animation = next(PhotoFrames(photo, "photo", detector, AVSpec(), options)()).animation
    change = np.abs(animation.render(photo, 1.0).astype(int) - photo)
    assert change[speaking].max() > 50
    assert change[other].max() == 0


def test_still_photo_is_not_analysed_and_stays_the_same(faces):
    animation = PhotoAnimation(PHOTO, faces)
    assert animation.render(PHOTO, 3.0) is PHOTO
    assert animation._heads[0]._parts is None
