"""Measurement of the motion in a driving video that is rendered with a known motion."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from helpers.media_files import write_media
from skimage.data import astronaut

from talkinghead.errors import FaceNotFoundError, MediaError
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.frame_sources import PhotoFrames
from talkinghead.predict.source.head.expression.blendshapes import to_weights
from talkinghead.predict.source.head.expression.expression_track import ExpressionTrack
from talkinghead.predict.source.head.motion.driving_video import DrivingVideo, read_driving_video
from talkinghead.predict.source.head.motion.pose_track import PoseTrack
from talkinghead.predict.source.head.photo_animation import HeadMotion, PhotoAnimation
from talkinghead.types import AVSpec

PHOTO = np.ascontiguousarray(astronaut()[:320, 60:380])
FPS, FRAMES = 25, 40
BLINK = slice(20, 24)


@pytest.fixture(scope="module")
def driver(detector, tmp_path_factory):
    """Return a video in which the head turns from left to right and blinks once."""
    times_s = np.arange(FRAMES) / FPS
    angles = np.zeros((FRAMES, 3), np.float32)
    angles[:, 0] = 8 * np.sin(np.pi * (times_s / times_s[-1] - 0.5))
    closed = np.zeros((FRAMES, 52), np.float32)
    closed[BLINK] = to_weights({"eyeBlinkLeft": 1, "eyeBlinkRight": 1})
    motion = HeadMotion(
        pose=PoseTrack(times_s, angles), expression=ExpressionTrack(times_s, closed)
    )
    animation = PhotoAnimation(PHOTO, detector.detect(PHOTO), motion)
    path = tmp_path_factory.mktemp("driver") / "driver.mp4"
    write_media(path, [animation.render(PHOTO, float(t)) for t in times_s], fps=Fraction(FPS))
    return path, angles


@pytest.mark.slow
def test_pose_and_blinks_are_found(driver, detector):
    path, angles = driver
    found = read_driving_video(path, detector)
    yaw = np.array([found.pose_at(i / FPS)[0] for i in range(FRAMES)])
    assert np.corrcoef(yaw, angles[:, 0])[0, 1] > 0.98
    assert np.ptp(yaw) == pytest.approx(16, rel=0.25)
    closures = np.array([found.closure_at(i / FPS) for i in range(FRAMES)])
    assert closures[BLINK].mean() > 0.7
    assert np.delete(closures, np.arange(BLINK.start - 1, BLINK.stop + 1)).max() < 0.3


@pytest.mark.slow
def test_photo_repeats_the_motion_of_the_video(driver, detector):
    path, _ = driver
    options = SourceOptions(motion=f"video:{path}")
    frame = next(PhotoFrames(PHOTO, "photo", detector, AVSpec(), options)())
    driven = frame.animation
    left, right = (driven.pose_at(t)[0] for t in (0.1, 1.4))
    assert left < -4 < 4 < right
    blink = driven.render(PHOTO, 0.88)
    assert np.abs(blink.astype(int) - driven.render(PHOTO, 0.7)).max() > 60


def test_short_video_continues_backwards():
    times_s, angles = np.array([0.0, 1.0]), np.array([[0.0, 0, 0], [10, 0, 0]])
    motion = DrivingVideo(times_s, angles, np.array([0.0, 1.0]), np.zeros(2))
    found = [motion.pose_at(t)[0] for t in (0.5, 1, 1.5, 2, 2.5)]
    assert found == pytest.approx([5, 10, 5, 0, 5])
    assert motion.closure_at(1.25) == pytest.approx(0.75)


def test_video_without_a_face_is_refused(tmp_path, detector):
    rng = np.random.default_rng(0)
    path = tmp_path / "noise.mp4"
    write_media(path, list(rng.integers(0, 255, (4, 96, 96, 3), np.uint8)), fps=Fraction(FPS))
    with pytest.raises(FaceNotFoundError, match=r"noise.mp4: a face was found in 0 of 4 frames"):
        read_driving_video(path, detector)


def test_missing_video_is_refused(tmp_path, detector):
    with pytest.raises(MediaError):
        read_driving_video(tmp_path / "none.mp4", detector)
