"""Emotions are distinguished in rendered frames of a real photo by the motion of face points.

The motion is measured by optical flow, because the points of the detector hardly follow the brows.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from helpers.face_measures import measure_face
from skimage.data import astronaut

from talkinghead.predict.source.head.expression.blendshapes import load_basis
from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion
from talkinghead.predict.source.head.photo_animation import (
    HeadControls,
    HeadCue,
    HeadMotion,
    PhotoAnimation,
)

PHOTO = astronaut()
FACTOR = 3
NAMES = [name for name in EMOTIONS if name != "neutral"]
# The lids cover what is behind them, and the mouth is not opened by the expression.
IGNORED = ("lid_gap", "lip_gap")


@pytest.fixture(scope="module")
def animation(faces):
    return PhotoAnimation(PHOTO, faces)


def frame(animation, emotion):
    """Return a frame in which the emotion is fully shown."""
    return animation.render(PHOTO, 0.0, animation.target(HeadCue(emotion=emotion)))


def vector(measures):
    return np.array([value for name, value in measures.items() if name not in IGNORED])


def asked(name):
    basis = load_basis()
    return vector(measure_face(basis.moved(Emotion(name).weights))) - vector(
        measure_face(basis.points)
    )


def moved_points(image, points):
    """Return the positions of the photo's points in another frame, by dense optical flow."""
    x0, y0 = (points.min(0) - 30).astype(int)
    x1, y1 = (points.max(0) + 30).astype(int)
    grey = [
        cv2.resize(cv2.cvtColor(i[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY), None, fx=FACTOR, fy=FACTOR)
        for i in (PHOTO, image)
    ]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    cells = (FACTOR * (points - [x0, y0])).astype(np.float32)[None]
    return points + cv2.remap(flow, cells, None, cv2.INTER_LINEAR)[0] / FACTOR


@pytest.fixture(scope="module")
def found(animation, faces):
    """Return the change of the measures by each emotion and intensity."""
    points = faces[0].points
    still = vector(measure_face(points))
    return {
        (name, intensity): vector(
            measure_face(moved_points(frame(animation, Emotion(name, intensity)), points))
        )
        - still
        for name in NAMES
        for intensity in (0.5, 1.0)
    }


@pytest.mark.slow
@pytest.mark.parametrize("intensity", [0.5, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_rendered_emotion_is_nearest_to_the_requested_one(found, name, intensity):
    change = found[name, intensity]
    similarity = {
        other: asked(other) @ change / np.linalg.norm(asked(other)) / np.linalg.norm(change)
        for other in NAMES
    }
    assert max(similarity, key=similarity.get) == name, similarity


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rendered_emotion_grows_with_its_intensity(found, name):
    direction = asked(name) / np.linalg.norm(asked(name))
    half, full = (found[name, intensity] @ direction for intensity in (0.5, 1.0))
    assert 0 < half < full


def test_emotion_moves_the_face_only(animation, faces):
    box = faces[0].box
    changed = np.abs(frame(animation, Emotion("surprised")).astype(int) - PHOTO).max(-1) > 2
    rows, columns = np.nonzero(changed)
    assert box.x0 - 0.2 * box.width < columns.min() < columns.max() < box.x1 + 0.2 * box.width
    assert box.y0 - 0.2 * box.height < rows.min() < rows.max() < box.y1 + 0.2 * box.height
    assert changed.sum() > 3000


def test_expression_and_pose_are_combined(animation, faces, detector):
    target = animation.target(HeadCue(emotion=Emotion("happy"), pose_deg=(8, 0, 0)))
    image = animation.render(PHOTO, 0.0, target)
    warp = animation._heads[0].warp
    expected = warp.move_points(faces[0].points, (8, 0, 0), Emotion("happy").weights)
    tracked = detector.track(image, detector.track(image, faces[0])).points
    assert np.linalg.norm(tracked - expected, axis=1).mean() < 0.02 * faces[0].box.width


def test_tagged_emotion_replaces_that_of_the_options(animation, faces):
    happy = PhotoAnimation(PHOTO, faces, HeadMotion(emotion=Emotion("happy")))
    happy._heads = animation._heads
    sad = PhotoAnimation(PHOTO, faces, HeadMotion(emotion=Emotion("sad")))
    sad._heads = animation._heads
    neutral = HeadCue(emotion=Emotion("neutral"))
    assert np.array_equal(happy.render(PHOTO, 0, happy.target(neutral)), PHOTO)
    tagged = happy.render(PHOTO, 0, happy.target(HeadCue(emotion=Emotion("sad"))))
    assert np.abs(tagged.astype(int) - sad.render(PHOTO, 0)).max() <= 1


def test_controls_replace_emotion_and_pose_unless_tagged():
    controls = HeadControls()
    assert HeadCue().controlled(controls) == HeadCue()
    controls.update("sad", 0.5, [1, 2, 3])
    cue = HeadCue().controlled(controls)
    assert (cue.emotion, cue.pose_deg) == (Emotion("sad", 0.5), (1, 2, 3))
    controls.update(intensity=0.8)
    assert controls.emotion == Emotion("sad", 0.8)
    tagged = HeadCue(emotion=Emotion("happy")).controlled(controls)
    assert tagged.emotion == Emotion("happy")
