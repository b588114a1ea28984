"""Who speaks in a video: two real faces with moving mouths, and the sound of one of them."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.features.faces.alignment import invert
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.media.reader import read_audio
from talkinghead.media.writer import VideoWriter, write_audio_file
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.active_speaker import _AudioSegments
from talkinghead.predict.source.source_frame import SourceOptions
from talkinghead.predict.source.frame_sources import video_frames
from talkinghead.types import AudioClip, AVSpec

SIDE = 240
OPTIONS = SourceOptions(face_select="speaking")


@pytest.fixture(scope="module")
def detector():
    return LiteRtDetector()


@pytest.fixture(scope="module")
def speeches():
    samples = read_audio(DEMO_SPEECH, 16_000).samples
    return [AudioClip(samples[i : i + 40_000].copy(), 16_000) for i in (0, 56_000)]


@pytest.fixture(scope="module")
def talking(detector, speeches):
    """The same face saying one thing and another, by the shipped weights."""
    predictor = LipSyncPredictor.from_checkpoint("default", device="cpu", detector=detector)
    face = np.ascontiguousarray(astronaut()[:SIDE, 105 : 105 + SIDE])
    return [[image for image, _ in predictor.predict(face, speech)] for speech in speeches]


def write_pair(path, pairs, speech):
    """Pictures side by side, and a sound or none."""
    rate = None if speech is None else speech.sample_rate
    with VideoWriter(path, 2 * SIDE, SIDE, Fraction(25), rate) as writer:
        for left, right in pairs:
            writer.write(np.hstack([left, right]))
        if speech is not None:
            writer.write_audio(speech.samples)
    return path


def side(frame):
    """0 where the frame's face is on the left, 1 where it is on the right."""
    x, _ = invert(frame.transform) @ np.array([128, 128, 1])
    return int(x > SIDE)


@pytest.mark.parametrize("speaks", [0, 1])
def test_the_mouth_that_goes_with_the_sound_is_chosen(
    detector, talking, speeches, tmp_path, speaks
):
    video = write_pair(tmp_path / "a.mp4", zip(*talking, strict=True), speeches[speaks])
    frames = video_frames(video, Fraction(25), detector, AVSpec(), OPTIONS)
    assert {side(frame) for frame in islice(frames, 80)} == {speaks}
    frames.close()


@pytest.mark.slow
def test_every_shot_has_a_speaker_of_its_own(detector, talking, speeches, tmp_path):
    """After a cut the two have changed places, and on the way back again."""
    left, right = talking
    pairs = [*zip(left, right, strict=True)]
    # Upside down a face is not found, and the picture is another: so the shots are told apart.
    between = [(image[::-1], image[::-1]) for image in left[:3]]
    sound = np.concatenate([speeches[0].samples, np.zeros(3 * 640, np.float32)] * 2)
    shots = [*pairs, *between, *((b, a) for a, b in pairs), *between]
    video = write_pair(tmp_path / "a.mp4", shots, AudioClip(sound, 16_000))
    frames = video_frames(video, Fraction(25), detector, AVSpec(), OPTIONS)
    sides = [None if f.transform is None else side(f) for f in islice(frames, 2 * len(shots) - 1)]
    frames.close()
    half, shot = len(shots) // 2, len(pairs)
    assert set(sides[:shot]) == {0}
    assert set(sides[half : half + shot]) == {1}
    assert set(sides[-shot:]) == {0}


def test_without_a_sound_the_largest_face_is_taken(detector, talking, tmp_path, caplog):
    small = np.full((SIDE, SIDE, 3), 128, np.uint8)
    small[40:200, 40:200] = cv2.resize(talking[0][0], (160, 160), interpolation=cv2.INTER_AREA)
    video = write_pair(tmp_path / "a.mp4", [(small, talking[0][0])] * 4, None)
    frames = video_frames(video, Fraction(25), detector, AVSpec(), OPTIONS)
    assert side(next(frames)) == 1
    assert "has no sound to tell who speaks" in caplog.text
    frames.close()


def test_stretches_of_a_sound(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 50_000).astype(np.float32)
    write_audio_file(tmp_path / "a.wav", AudioClip(samples, 16_000))
    sound = _AudioSegments(tmp_path / "a.wav", 16_000)
    assert np.abs(sound.read(0, 10_000) - samples[:10_000]).max() < 1e-4
    assert np.abs(sound.read(30_000, 45_000) - samples[30_000:45_000]).max() < 1e-4
    end = sound.read(45_000, 60_000)
    assert len(end) == 15_000
    assert np.abs(end[:5_000] - samples[45_000:]).max() < 1e-4
    assert not end[5_000:].any()
