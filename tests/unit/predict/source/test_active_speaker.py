"""Active-speaker selection between two real faces, with the audio of one of them."""

from __future__ import annotations

import gc
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import count, islice, repeat
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.fixed_detector import FixedDetector
from skimage.data import astronaut

from talkinghead.features.faces.alignment import invert
from talkinghead.media.reader import read_audio
from talkinghead.media.writer import VideoWriter
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source import active_speaker, frame_sources, playback
from talkinghead.predict.source.active_speaker import ActiveSpeakerSelector, _Candidate, _Shot
from talkinghead.predict.source.frame_sources import video_frames
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import AudioClip, AVSpec, VideoFrame

SIDE = 240
OPTIONS = SourceOptions(face_select="speaking")


@pytest.fixture(scope="module")
def speeches():
    samples = read_audio(DEMO_SPEECH, 16_000).samples
    return [AudioClip(samples[i : i + 28_000].copy(), 16_000) for i in (0, 56_000)]


@pytest.fixture(scope="module")
def speak(detector):
    """Return a function that makes a face speak with the packaged weights."""
    predictor = LipSyncPredictor.from_checkpoint(
        "default", device="cpu", detector=detector, lip_prior=None
    )
    face = np.ascontiguousarray(astronaut()[:SIDE, 105 : 105 + SIDE])
    still = SourceOptions(motion="none")
    return lambda speech: [image for image, _ in predictor.predict(face, speech, still)]


@pytest.fixture(scope="module")
def spoken(speak, speeches):
    return speak(speeches[1])


@pytest.fixture(scope="module")
def talking(speak, spoken, speeches):
    """The same face with two different speeches."""
    return [speak(speeches[0]), spoken]


def write_pair(path, pairs, speech):
    """Write pairs of images side by side, with or without audio."""
    rate = None if speech is None else speech.sample_rate
    with VideoWriter(path, 2 * SIDE, SIDE, Fraction(25), rate) as writer:
        for left, right in pairs:
            writer.write(np.hstack([left, right]))
        if speech is not None:
            writer.write_audio(speech.samples)
    return path


def side(frame):
    """Return 0 for a face on the left and 1 for a face on the right."""
    x, _ = invert(frame.transform) @ np.array([128, 128, 1])
    return int(x > SIDE)


def test_face_in_sync_with_the_audio_is_selected(detector, spoken, speeches, tmp_path):
    video = write_pair(tmp_path / "a.mp4", zip(spoken[::-1], spoken, strict=True), speeches[1])
    with closing(video_frames(video, Fraction(25), detector, AVSpec(), OPTIONS)) as frames:
        assert {side(frame) for frame in islice(frames, len(spoken))} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("speaks", [0, 1])
def test_face_that_speaks_the_audio_is_selected(detector, talking, speeches, tmp_path, speaks):
    video = write_pair(tmp_path / "a.mp4", zip(*talking, strict=True), speeches[speaks])
    with closing(video_frames(video, Fraction(25), detector, AVSpec(), OPTIONS)) as frames:
        assert {side(frame) for frame in islice(frames, 80)} == {speaks}


@pytest.mark.slow
def test_speaker_is_selected_per_shot(detector, talking, speeches, tmp_path):
    """The faces change places after a cut, and the video is also played backwards."""
    left, right = talking
    pairs = [*zip(left, right, strict=True)]
    # Images without a face separate the shots.
    between = [(np.full_like(image, 128),) * 2 for image in left[:3]]
    samples = np.concatenate([speeches[0].samples, np.zeros(3 * 640, np.float32)] * 2)
    shots = [*pairs, *between, *((b, a) for a, b in pairs), *between]
    video = write_pair(tmp_path / "a.mp4", shots, AudioClip(samples, 16_000))
    with closing(video_frames(video, Fraction(25), detector, AVSpec(), OPTIONS)) as frames:
        played = list(islice(frames, 2 * len(shots) - 1))
    sides = [None if frame.transform is None else side(frame) for frame in played]
    half, shot = len(shots) // 2, len(pairs)
    assert set(sides[:shot]) == {0}
    assert set(sides[half : half + shot]) == {1}
    assert set(sides[-shot:]) == {0}


@pytest.mark.slow
def test_shot_in_which_nobody_speaks_is_unchanged(detector, tmp_path):
    rng = np.random.default_rng(0)
    still = astronaut()[:SIDE, 105 : 105 + SIDE]
    noisy = [
        (still + rng.normal(0, 2, still.shape)).clip(0, 255).astype(np.uint8) for _ in range(100)
    ]
    speech = AudioClip(read_audio(DEMO_SPEECH, 16_000).samples[:64_000], 16_000)
    video = write_pair(tmp_path / "a.mp4", zip(noisy, noisy[::-1], strict=True), speech)
    with closing(video_frames(video, Fraction(25), detector, AVSpec(), OPTIONS)) as frames:
        assert all(frame.transform is None for frame in islice(frames, 100))


@pytest.fixture
def opened(monkeypatch):
    """The files that a selection among the faces of an endless video has open."""
    names = []

    def items(name, values):
        try:
            yield from values
        finally:
            names.remove(name)

    def read(name, values):
        names.append(name)
        return items(name, values)

    image, frame_s = np.full((160, 160, 3), 128, np.uint8), Fraction(1, 25)
    images = (SourceFrame(image, n * frame_s, frame_s) for n in count())
    audio = repeat(np.zeros(1600, np.float32))
    monkeypatch.setattr(active_speaker, "decode_frames", lambda *_: read("video", images))
    monkeypatch.setattr(active_speaker, "stream_audio", lambda *_: read("audio", audio))
    monkeypatch.setattr(active_speaker, "_MAX_ANALYSED_S", 1)
    monkeypatch.setattr(ActiveSpeakerSelector, "_confidence", lambda *_: 1.0)
    expert = SimpleNamespace(num_frames=5, audio_encoder=SimpleNamespace(input_features=["mel"]))
    loaded = SimpleNamespace(model=expert, spec=AVSpec())
    monkeypatch.setattr(frame_sources, "load_expert", lambda _: loaded)
    monkeypatch.setattr(frame_sources, "probe", lambda _: SimpleNamespace(has_audio=True))
    played = (VideoFrame(image, n * frame_s) for n in count())
    monkeypatch.setattr(playback, "read_frames", lambda *_, **__: played)
    return names


@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, exclude_face=5)], ids=["one", "two"])
def test_closing_the_frames_closes_the_analysed_file(opened, options):
    frames = video_frames(Path("v"), Fraction(25), FixedDetector(), AVSpec(), options)
    gc.disable()
    try:
        next(frames)
        assert opened == ["video", "audio"]
        frames.close()
        assert not opened
    finally:
        gc.enable()


def test_mouths_of_a_short_shot_are_not_kept(opened):
    expert = frame_sources.load_expert("default").model
    selector = ActiveSpeakerSelector(Path("v"), Fraction(25), FixedDetector(), expert, AVSpec())
    mouths = [np.zeros((4, 4, 3), np.uint8)] * 3
    shot = _Shot(Fraction(0), {0: _Candidate(mouths=mouths)})
    selector._select_speaker(shot)
    assert not shot.is_open
    assert not mouths
    assert not opened


def test_largest_face_is_selected_without_audio(detector, spoken, tmp_path, caplog):
    small = np.full((SIDE, SIDE, 3), 128, np.uint8)
    small[40:200, 40:200] = cv2.resize(spoken[0], (160, 160), interpolation=cv2.INTER_AREA)
    video = write_pair(tmp_path / "a.mp4", [(small, spoken[0])] * 4, None)
    with closing(video_frames(video, Fraction(25), detector, AVSpec(), OPTIONS)) as frames:
        assert side(next(frames)) == 1
    assert "has no audio to select a speaker by" in caplog.text
