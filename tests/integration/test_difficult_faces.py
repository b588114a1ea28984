"""Dubbed videos of a real face in changing light, out of focus, covered, mixed and turned."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.media.reader import read_audio, read_video
from talkinghead.media.writer import VideoWriter
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip

pytestmark = pytest.mark.slow

SIDE, NUM_FRAMES, RATE = 240, 45, 16_000
PHOTO = np.ascontiguousarray(astronaut()[:SIDE, 105 : 105 + SIDE])
MOUTH = np.s_[132:166, 92:144]
LIPS_XY = np.array([117, 148])
TURNED = np.ascontiguousarray(PHOTO[::-1, ::-1])


@pytest.fixture(scope="module")
def predictor():
    return LipSyncPredictor.from_checkpoint("default", device="cpu", lip_prior=None)


@pytest.fixture(scope="module")
def speech():
    samples = read_audio(DEMO_SPEECH, RATE).samples
    return AudioClip(samples[4000 : 4000 + NUM_FRAMES * RATE // 25].copy(), RATE)


def dub(predictor, speech, path, images):
    """Write a video, and return its frames and those of the dubbed video, int [N, H, W, 3]."""
    height, width = images[0].shape[:2]
    with VideoWriter(path, width, height, Fraction(25), None, crf=4) as writer:
        for image in images:
            writer.write(np.clip(image, 0, 255).astype(np.uint8))
    source = np.stack([frame.image for frame in read_video(path)]).astype(int)
    dubbed = np.stack([image for image, _ in predictor.predict(path, speech)]).astype(int)
    return source, dubbed


def change(a, b):
    """Return the mean difference of the mouths in each frame, in levels."""
    return np.abs(a - b)[:, *MOUTH].mean((1, 2, 3))


def edges(images):
    """Return the mean strength of the vertical edges of the mouths in each frame."""
    mouths = images[:, *MOUTH].mean(3)
    return np.abs(np.diff(mouths, axis=1)).mean((1, 2)) / mouths.mean((1, 2))


@pytest.fixture(scope="module")
def steady(predictor, speech, tmp_path_factory):
    """Return the frames of a video in constant light, before and after dubbing."""
    path = tmp_path_factory.mktemp("steady") / "face.mp4"
    return dub(predictor, speech, path, [PHOTO] * NUM_FRAMES)


def fade_in(image, time_s):
    return image * min(1.0, time_s / 0.8)


def fade_out(image, time_s):
    return image * max(0.0, 1 - max(0.0, time_s - 1) / 0.8)


def lamp(image, time_s):
    return image * (0.65 + 0.35 * np.cos(2 * np.pi * time_s))


def coloured(image, time_s):
    hue, saturation, value = cv2.split(cv2.cvtColor(image.astype(np.uint8), cv2.COLOR_RGB2HSV))
    turn = round(30 * np.sin(4 * np.pi * time_s))
    turned = ((hue.astype(int) + turn) % 180).astype(np.uint8)
    return cv2.cvtColor(cv2.merge([turned, saturation, value]), cv2.COLOR_HSV2RGB)


def blur(image, time_s):
    return cv2.GaussianBlur(image.astype(np.uint8), (0, 0), 2.5)


@pytest.mark.parametrize("edit", [fade_in, fade_out, lamp, coloured, blur])
def test_dubbing_and_editing_commute_at_the_mouth(predictor, speech, tmp_path, steady, edit):
    """Dubbing and editing give the same brightness and sharpness of the mouth in either order."""
    times_s = np.arange(NUM_FRAMES) / 25
    images = [edit(PHOTO, time_s) for time_s in times_s]
    source, dubbed = dub(predictor, speech, tmp_path / "face.mp4", images)
    expected = np.stack([edit(i, t) for i, t in zip(steady[1], times_s, strict=True)]).astype(int)
    is_visible = source.mean((1, 2, 3)) > 0.2 * PHOTO.mean()
    light, expected_light = (v[is_visible][:, *MOUTH].mean((1, 2)) for v in (dubbed, expected))
    assert np.abs(light / expected_light - 1).max() < 0.1
    if edit is blur:
        assert (edges(dubbed) / edges(expected)).max() < 1.3
    # The mouth changes in every frame in which the speech opens it.
    is_open = change(*steady) > 18
    assert (change(dubbed, source)[is_open & is_visible] > 3).all()


def test_microphone_stays_whole(predictor, speech, tmp_path):
    images, masks = [], []
    for index in range(NUM_FRAMES):
        centre = (20 + 5 * index, int(LIPS_XY[1]))
        images.append(cv2.circle(PHOTO.copy(), centre, 22, (60, 60, 60), -1, cv2.LINE_AA))
        masks.append(cv2.circle(np.zeros(PHOTO.shape[:2], np.uint8), centre, 20, 1, -1) > 0)
    source, dubbed = dub(predictor, speech, tmp_path / "face.mp4", images)
    difference = np.abs(dubbed - source).mean(3)
    assert max(d[m].mean() for d, m in zip(difference, masks, strict=True)) < 2
    changes = change(dubbed, source)
    assert min(changes[:5].min(), changes[-5:].min()) > 3


def test_mask_is_unchanged_with_a_warning(predictor, speech, tmp_path, caplog):
    corners = np.int32([(84, 118), (117, 110), (152, 118), (148, 160), (117, 184), (88, 160)])
    masked = cv2.fillPoly(PHOTO.copy(), [corners], (140, 180, 215), cv2.LINE_AA)
    source, dubbed = dub(predictor, speech, tmp_path / "face.mp4", [masked] * NUM_FRAMES)
    assert change(dubbed, source).max() < 1
    assert "the mouth is covered" in caplog.text


def test_second_person_speaks_after_a_dissolve(predictor, speech, tmp_path):
    """The second person is the mirrored first one, darker and elsewhere."""
    second = 0.7 * np.roll(PHOTO[:, ::-1], 30, axis=1)
    weights = np.clip((np.arange(NUM_FRAMES) - 10) / 10, 0, 1)
    images = [(1 - w) * PHOTO + w * second for w in weights]
    source, dubbed = dub(predictor, speech, tmp_path / "face.mp4", images)
    box = np.s_[132:166, 240 - 144 + 30 : 240 - 92 + 30]
    difference = np.abs(dubbed - source)[:, *box].mean((1, 2, 3))
    assert difference[22:].min() > 3


def test_upside_down_photo_speaks(predictor, speech):
    still = SourceOptions(motion="none")
    frames = [
        np.stack([image for image, _ in predictor.predict(photo, speech, still)])
        for photo in (PHOTO, TURNED)
    ]
    upright, turned = frames[0].astype(int), frames[1][:, ::-1, ::-1].astype(int)
    assert change(turned, upright).max() < 0.5 * change(upright, PHOTO[None]).max()
    # The hair and the eyes do not move.
    assert np.abs(turned - PHOTO)[:, :90].max() <= 3
