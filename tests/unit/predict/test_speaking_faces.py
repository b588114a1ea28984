"""Several faces with separate audio: mouths, mixed audio, and wrong numbers of files."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from helpers.media_files import tone, write_media, write_wav
from helpers.small_predictor import BOX, HEIGHT, STILL, WIDTH, Detector, make_predictor, speech

from talkinghead.errors import UsageError
from talkinghead.media.audio_decoding import stream_channels
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.predict.options import EncodeOptions, SourceOptions
from talkinghead.predict.output.voice_mixing import mix_voices, mixed_format
from talkinghead.predict.source.head.expression import video_expression
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.types import AudioClip, Box, Face

LEFT, RIGHT = (slice(0, WIDTH), slice(WIDTH, 2 * WIDTH))


class PairDetector(Detector):
    """A detector that returns a face in each half of an image that is not black."""

    def detect(self, image):
        faces = []
        for half in (LEFT, RIGHT):
            for face in super().detect(image[:, half]):
                x, box = half.start, face.box
                moved = Box(box.x0 + x, box.y0, box.x1 + x, box.y1)
                faces.append(Face(moved, face.points + np.float32([x, 0]), 1.0, face.topology))
        return faces

    def track(self, image, previous):
        # The faces do not move. The image may be a part of that of the video.
        return previous if image.max() >= 30 else None


@pytest.fixture(scope="module")
def predictor():
    return make_predictor(detector=PairDetector())


@pytest.fixture(scope="module")
def pair():
    noise = np.random.default_rng(0).standard_normal((HEIGHT, 2 * WIDTH, 3)).astype(np.float32)
    return (130 + 200 * cv2.GaussianBlur(noise, (0, 0), 3)).clip(40, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def video(pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("voices") / "pair.mp4"
    return write_media(path, [pair] * 12)


def images(predictor, face, audio, faces):
    options = SourceOptions(face_select=faces, motion="none")
    return np.stack([image for image, _ in predictor.predict(face, audio, options)]).astype(int)


def padded(clip, duration_s):
    missing = round(duration_s * clip.sample_rate) - len(clip.samples)
    return AudioClip(np.pad(clip.samples, (0, missing)), clip.sample_rate)


@pytest.mark.parametrize("kind", ["photo", pytest.param("video", marks=pytest.mark.slow)])
def test_each_mouth_follows_its_own_audio(predictor, pair, video, kind):
    face = pair if kind == "photo" else video
    long, short = speech(0.8, seed=1), speech(0.4, seed=2)
    both = images(predictor, face, [long, short], [0, 1])
    assert len(both) == 20
    # Silence follows both, as the look-ahead at the end of a single speech is not the same.
    alone = [
        images(predictor, face, padded(clip, 1.2), [index])[:20]
        for index, clip in enumerate((long, short))
    ]
    for half, expected, other in ((LEFT, *alone), (RIGHT, *alone[::-1])):
        assert np.abs(both[:, :, half] - expected[:, :, half]).max() <= 1
        assert np.abs(both[:, :, half] - other[:, :, half]).max() > 10
    exchanged = images(predictor, face, [long, short], [1, 0])
    assert np.abs(exchanged[:, :, RIGHT] - both[:, :, RIGHT]).max() > 5


def test_emotion_of_each_voice_changes_its_own_face(predictor, video, monkeypatch):
    weights = {}

    def change_face(image, face, shown):
        weights[int(face.box.x0 > WIDTH)] = shown
        return image

    monkeypatch.setattr(video_expression, "_change_face", change_face)
    names = ("happy", "angry")
    voices = [
        SpeechStream([TimedSpeech(speech(0.4).samples, (), Emotion(name))], 16_000)
        for name in names
    ]
    options = SourceOptions(face_select=[0, 1], calibrate="none")
    with predictor.predict(video, voices, options) as prediction:
        assert len(list(prediction)) == 10
    for side, name in enumerate(names):
        target = Emotion(name).weights
        # The weights approach those of the emotion within a few frames.
        assert np.allclose(weights[side], weights[side].max() / target.max() * target, atol=1e-4)
        assert weights[side].max() > 0.5 * target.max()


def test_face_without_audio_is_left_alone(predictor, pair):
    frames = images(predictor, pair, speech(0.4), [1])
    assert (frames[:, :, LEFT] == pair[:, LEFT]).all()
    assert np.ptp(frames[:, BOX[0], RIGHT], axis=0).max() > 10
    options = SourceOptions(face_select="all", exclude_face=0, motion="none")
    with predictor.predict(pair, speech(0.4), options) as prediction:
        assert all((image[:, LEFT] == pair[:, LEFT]).all() for image, _ in prediction)


@pytest.mark.slow
def test_avatars_and_streams_of_several_faces(predictor, pair):
    clips = [speech(0.4, seed=1), speech(0.4, seed=2)]
    avatar = predictor.avatar(pair, SourceOptions(face_select=[0, 1], motion="none"))
    expected = images(predictor, pair, clips, [0, 1])
    streams = [SpeechStream(np.array_split(clip.samples, 5), 16_000) for clip in clips]
    found = np.stack([image for image, _ in predictor.predict(avatar, streams)]).astype(int)
    assert np.abs(found - expected).max() <= 1
    with pytest.raises(UsageError, match="has no list of 2 faces"):
        predictor.predict(predictor.avatar(pair, STILL), clips)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (3, {}, "asks for the face 2, which is not among the 2 faces"),
        (2, {"face_select": [0, 1, 2]}, "audio has 2 files, face_select has 3"),
        (2, {"face_select": "speaking"}, "give a face for each file"),
        (0, {}, "audio=.. is empty"),
    ],
    ids=str,
)
def test_wrong_numbers_of_faces_are_refused(predictor, pair, count, options, message):
    with pytest.raises(UsageError, match=message):
        predictor.predict(pair, [speech(0.2)] * count, SourceOptions(**options))


def test_face_that_a_video_never_shows_is_an_error(predictor, video):
    with pytest.raises(UsageError, match=r"asks for the face 2, .* not found in any of 10 frames"):
        list(predictor.predict(video, [speech(0.4)] * 3))


def test_audio_of_all_faces_is_mixed(predictor, pair, tmp_path):
    low = 0.2 * np.sin(np.arange(9600) * 0.05).astype(np.float32)
    write_wav(tmp_path / "a.wav", AudioClip(low, 16_000))
    right = np.stack([np.zeros(44_100, np.float32), 0.3 * tone(1.0, 44_100)])
    write_media(
        tmp_path / "b.wav",
        audio=right,
        audio_codec="pcm_s16le",
        audio_format="s16",
        sample_rate=44_100,
        layout="stereo",
    )
    files = [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    report = predictor.render(
        pair, files, tmp_path / "o.mkv", options=STILL, encode=EncodeOptions(crf=40)
    )
    assert report.duration_s == Fraction(1)
    assert report.num_frames == 25
    with av.open(str(tmp_path / "o.mkv")) as container:
        assert len(container.streams.audio) == 1
        assert container.streams.audio[0].rate == 44_100
    mixed = np.concatenate(list(stream_channels(tmp_path / "o.mkv")), axis=1)
    early, late = mixed[:, 4410:22_050].std(axis=1), mixed[:, 35_280:].std(axis=1)
    # The mono voice is heard on both sides at its own level until it ends; the other on the right.
    assert early[0] == pytest.approx(0.2 / np.sqrt(2), rel=0.1)
    assert early[1] > 1.1 * early[0]
    assert late[0] < 0.01
    assert late[1] == pytest.approx(right[1].std(), rel=0.1)


def test_mixtures_are_as_long_as_the_longest_voice():
    one = [np.full((1, n), 0.7, np.float32) for n in (5, 0, 1000, 3)]
    two = [np.full((1, n), 0.6, np.float32) for n in (700,)]
    formats = [(16_000, "mono")] * 2
    mixed = np.concatenate(list(mix_voices([one, two], formats)), axis=1)
    assert mixed.shape == (1, 1008)
    assert (mixed[0, :700] == 1).all()
    assert mixed[0, 700:] == pytest.approx(0.7)
    assert mixed_format([(16_000, "mono"), (48_000, "5.1")]) == (48_000, "stereo")
    assert mixed_format([(16_000, "5.1"), (8000, "5.1")]) == (16_000, "5.1")
