"""Frames of a live avatar: speech as in a file, idle frames between replies, and interruptions."""

import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from helpers.lip_priors import LoudnessLipPrior
from helpers.media_files import smooth
from helpers.small_predictor import HEIGHT, STILL, WIDTH, make_predictor, speech, write_video
from skimage.data import astronaut

from talkinghead.errors import MediaError, SpeechError, UsageError
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.live import live_avatar
from talkinghead.live.live_avatar import LiveAvatar
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech
from talkinghead.predict.audio.token_stream import TokenStream
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.predict.source.head.photo_animation import HeadCue, HeadMotion, PhotoAnimation
from talkinghead.types import AudioClip

RATE = 16_000
SAMPLES = speech(0.9).samples


@pytest.fixture(scope="module")
def predictor():
    return make_predictor(stabilise=False, occlusion_guard=False)


@pytest.fixture(scope="module")
def avatar(predictor):
    return predictor.avatar(smooth(HEIGHT, WIDTH), STILL)


@pytest.fixture(scope="module")
def photo_avatar():
    """An avatar of a real face, which an expression can move."""
    predictor = make_predictor(detector=LiteRtDetector())
    photo = np.ascontiguousarray(astronaut()[20:300, 90:370])
    return predictor.avatar(photo, STILL)


@pytest.fixture
def live(avatar):
    live = LiveAvatar(avatar, sample_rate=RATE)
    yield live
    live.close()


def frames_until_end(live, limit=200):
    """Return the frames up to the end of the reply, after waiting for its preparation."""
    frames = []
    while not (frames and frames[-1].is_reply_end):
        frames.append(live.next_frame())
        if frames[-1].reply is None:
            time.sleep(0.01)
        assert len(frames) < limit
    return frames


def images_of(frames):
    return np.stack([frame.image for frame in frames]).astype(int)


@pytest.mark.parametrize("prior", [None, LoudnessLipPrior()])
def test_reply_has_the_frames_of_a_file(prior):
    predictor = make_predictor(lip_prior=prior)
    avatar = predictor.avatar(smooth(HEIGHT, WIDTH), STILL)
    expected = [image for image, _ in predictor.predict(avatar, AudioClip(SAMPLES, RATE))]
    live = LiveAvatar(avatar, sample_rate=RATE)
    for chunk in np.array_split(SAMPLES, 5):
        live.push(chunk, RATE)
    live.finish()
    time.sleep(0.5)  # All speech is prepared, so the reply starts with the first frame.
    spoken = frames_until_end(live)
    live.close()
    # The end differs: a reply is followed by silence, a file is not.
    compared = slice(len(expected) - 3)
    assert np.abs(images_of(spoken)[compared] - np.stack(expected)[compared]).max() <= 1
    assert [frame.reply_time_s for frame in spoken] == [Fraction(i, 25) for i in range(len(spoken))]


def test_phonemes_of_each_reply_constrain_the_lips(avatar, live):
    phonemes = (Phoneme("m", 0.2, 0.3), Phoneme("w", 0.6, 0.7))
    chunks = [TimedSpeech(SAMPLES[:8000], phonemes), TimedSpeech(SAMPLES[8000:])]
    expected = [i for i, _ in avatar.predictor.predict(avatar, SpeechStream(chunks, RATE))]
    plain = [i for i, _ in avatar.predictor.predict(avatar, AudioClip(SAMPLES, RATE))]
    compared = slice(len(expected) - 3)
    for _ in range(2):
        live.push(SAMPLES[:2000], RATE)
        live.push(TimedSpeech(SAMPLES[2000:], tuple(p.later(-0.125) for p in phonemes)), RATE)
        live.finish()
        time.sleep(0.3)
        spoken = images_of(frames_until_end(live))[compared]
        # The colours of the second reply continue those of the frames before it.
        assert np.abs(spoken - np.stack(expected)[compared]).max() <= 5
    assert np.abs(spoken - np.stack(plain)[compared]).max() > 20


def test_audio_of_the_frames_is_the_pushed_speech(live):
    live.push((SAMPLES * 32_767).astype(np.int16), RATE)
    live.finish()
    frames = frames_until_end(live)
    assert {len(frame.audio) for frame in frames} == {RATE // 25}
    spoken = np.concatenate([frame.audio for frame in frames if frame.reply is not None])
    np.testing.assert_allclose(spoken[: len(SAMPLES)], SAMPLES, atol=1e-4)
    assert not spoken[len(SAMPLES) :].any()
    times_s = [frame.time_s for frame in frames]
    assert times_s == [Fraction(i, 25) for i in range(len(frames))]


def test_idle_mouth_is_the_closed_mouth_of_silence(predictor, avatar, live):
    silence = AudioClip(np.zeros(RATE, np.float32), RATE)
    expected = [image for image, _ in predictor.predict(avatar, silence)][10]
    frame = live.next_frame()
    assert np.abs(frame.image.astype(int) - expected).max() <= 1
    assert frame.reply is None
    assert not frame.audio.any()


def test_interruption_fades_the_audio_and_closes_the_mouth(live):
    closed = live.next_frame().image
    live.push(np.tile(SAMPLES, 4), RATE)
    live.finish()
    live.push(SAMPLES, RATE)  # A second reply, which is never played.
    live.finish()
    while live.next_frame().reply_time_s != Fraction(12, 25):
        time.sleep(0.001)
    live.interrupt()
    frames = frames_until_end(live)
    assert len(frames) <= 4
    assert not np.concatenate([frame.audio for frame in frames])[RATE // 50 :].any()
    assert np.abs(frames[-1].image.astype(int) - closed).max() <= 3
    assert not live.is_speaking
    assert live.push(SAMPLES, RATE) == 2
    live.finish()
    audio = np.concatenate([frame.audio for frame in frames_until_end(live)])
    start = np.flatnonzero(audio)[0]
    np.testing.assert_allclose(audio[start : start + 100], SAMPLES[1:101], atol=1e-4)


def test_missing_speech_closes_the_mouth_and_the_reply_continues(live):
    closed = live.next_frame().image
    half = len(SAMPLES) // 2
    live.push(SAMPLES[:half], RATE)
    frames = []
    while sum(frame.reply is not None for frame in frames) < 13:
        frames.append(live.next_frame())
        time.sleep(0.005)
    assert np.abs(frames[-1].image.astype(int) - closed).max() <= 3
    assert not frames[-1].is_reply_end
    live.push(SAMPLES[half:], RATE)
    live.finish()
    frames += frames_until_end(live)
    audio = np.concatenate([frame.audio for frame in frames])
    # The speech is complete apart from the gap.
    assert np.count_nonzero(audio) == np.count_nonzero(SAMPLES)
    assert {frame.reply for frame in frames} <= {None, 0}


def test_reply_ends_after_half_a_second_without_speech(live):
    live.push(SAMPLES, RATE)
    frames = frames_until_end(live)
    spoken_s = len(SAMPLES) / RATE
    end_s = float(frames[-1].time_s - next(f.time_s for f in frames if f.reply is not None))
    assert spoken_s + 0.4 < end_s < spoken_s + 1.2
    assert live.push(SAMPLES, RATE) == 1


def test_frame_does_not_wait_for_the_analysis_of_all_pushed_speech(live, monkeypatch):
    analysed, push = [], TokenStream.push
    monkeypatch.setattr(TokenStream, "push", lambda s, x: analysed.append(len(x)) or push(s, x))
    live.push(np.tile(SAMPLES, 20), RATE)
    live.finish()
    time.sleep(1)
    live.next_frame()
    assert 1 < sum(analysed) / RATE < 2
    for _ in range(25):
        live.next_frame()
    assert 2 < sum(analysed) / RATE < 3


def test_failed_preparation_of_speech_is_raised():
    class FailingLipPrior(LoudnessLipPrior):
        def predict_motion(self, windows, first_frame):
            if windows.any():
                raise SpeechError("out of memory")
            return super().predict_motion(windows, first_frame)

    predictor = make_predictor(lip_prior=FailingLipPrior())
    live = LiveAvatar(predictor.avatar(smooth(HEIGHT, WIDTH), STILL), sample_rate=RATE)
    live.push(SAMPLES, RATE)
    live.finish()
    time.sleep(0.5)
    with pytest.raises(SpeechError, match="out of memory"):
        live.next_frame()
    live.close()


def test_replies_are_played_one_after_another(live):
    numbers = []
    for _ in range(2):
        numbers.append(live.push(SAMPLES, RATE))
        live.finish()
    frames = frames_until_end(live) + frames_until_end(live)
    assert numbers == [0, 1]
    assert [frame.reply for frame in frames if frame.is_reply_end] == [0, 1]
    assert not live.is_speaking


def test_skipped_images_keep_the_audio(live):
    live.push(SAMPLES, RATE)
    live.finish()
    first = live.next_frame()
    while first.reply is None:
        first = live.next_frame()
    skipped = live.skip_image()
    assert skipped.image is first.image
    following = np.concatenate([first.audio, skipped.audio])
    np.testing.assert_allclose(following, SAMPLES[: len(following)], atol=1e-4)


def test_video_avatar_keeps_its_frame_rate(predictor, tmp_path):
    times_s = [Fraction(i, 30) for i in range(10)]
    avatar = predictor.avatar(write_video(tmp_path / "face.mp4", times_s, fps=30))
    live = LiveAvatar(avatar)
    live.push(SAMPLES, RATE)
    live.finish()
    frames = frames_until_end(live)
    live.close()
    assert {frame.duration_s for frame in frames} == {Fraction(1, 30)}
    assert {len(frame.audio) for frame in frames} == {1600}


def test_mouths_generated_together_are_those_generated_one_by_one(avatar, monkeypatch):
    """Also with a dropped image, missing speech, and an interruption."""
    images = []
    for number in (1, 4):
        monkeypatch.setattr(live_avatar, "_BATCH_IMAGES", number)
        live = LiveAvatar(avatar, sample_rate=RATE)
        live.push(SAMPLES[:8000], RATE)
        time.sleep(0.3)  # All speech is prepared.
        frames = [live.next_frame() for _ in range(3)]
        frames += [live.skip_image(), *(live.next_frame() for _ in range(7))]
        live.push(SAMPLES[8000:], RATE)
        time.sleep(0.3)
        frames += [live.next_frame() for _ in range(6)]
        live.interrupt()
        images.append(images_of([*frames, *frames_until_end(live)]))
        live.close()
    assert np.abs(images[0] - images[1]).max() <= 1
    assert np.abs(np.diff(images[0], axis=0)).max() > 20


def test_every_second_mouth_is_known_before_its_image(live):
    live.push(SAMPLES, RATE)
    live.finish()
    while live.next_frame().reply is None:
        assert not live.has_next_mouth
    known = []
    for _ in range(4):
        known.append(live.has_next_mouth)
        live.next_frame()
    assert known == [True, False, True, False]
    live.skip_image()
    assert not live.has_next_mouth
    live.interrupt()
    frames_until_end(live)
    assert not live.has_next_mouth


def test_label_is_drawn_into_every_image(avatar):
    plain, labelled = (LiveAvatar(avatar, label=label) for label in (None, "AI generated"))
    images = [live.next_frame().image.astype(int) for live in (plain, labelled)]
    for live in (plain, labelled):
        live.close()
    assert np.abs(images[1] - images[0])[:12, :80].max() > 50


def test_moving_photo_moves_between_replies(predictor):
    live = LiveAvatar(predictor.avatar(smooth(HEIGHT, WIDTH), SourceOptions(motion="idle")))
    images = images_of([live.next_frame() for _ in range(25)])
    live.close()
    assert np.abs(images - images[0]).max() > 1


@pytest.mark.slow
def test_controls_change_the_expression_and_the_pose(photo_avatar):
    live = LiveAvatar(photo_avatar)
    still = live.next_frame().image
    live.controls.update("surprised", pose=(10, 0, 0))
    changes = [
        np.abs(image - still).mean() for image in images_of([live.next_frame() for _ in range(25)])
    ]
    live.controls.update("neutral", pose=(0, 0, 0))
    after = images_of([live.next_frame() for _ in range(40)])[-1]
    live.close()
    # The motion is smooth, and ends where it began.
    assert 0 < changes[0] < 0.5 * changes[-1]
    assert changes[-1] == pytest.approx(changes[-2], rel=0.05)
    assert np.array_equal(after, still)


def test_face_nods_while_the_user_speaks(photo_avatar):
    live = LiveAvatar(photo_avatar)
    states = []
    animation = photo_avatar.face_frames[0][0].animation
    for is_listening in (False, True):
        live.controls.is_listening = is_listening
        states.append(animation.target(HeadCue().controlled(live.controls)))
    live.close()
    head = animation._heads[0]
    moving = PhotoAnimation(head._image, head._faces, HeadMotion("idle", seed=1))
    moving._heads = animation._heads
    pitch = [[moving._pose(t / 25, 0, state)[1] for t in range(750)] for state in states]
    nods = np.subtract(pitch[1], pitch[0])
    assert 2 < nods.max() < 5
    assert nods.min() > -1e-6
    assert 0.1 < (nods > 0.5).mean() < 0.4


@pytest.mark.slow
def test_tagged_speech_changes_the_expression(photo_avatar):
    images = []
    for emotion in (None, Emotion("angry")):
        live = LiveAvatar(photo_avatar, sample_rate=RATE)
        live.push(TimedSpeech(SAMPLES, (), emotion), RATE)
        live.finish()
        frames = frames_until_end(live)
        after = [live.next_frame() for _ in range(40)]
        images.append((images_of(frames), after[-1].image))
        live.close()
    (plain, plain_after), (angry, angry_after) = images
    assert np.abs(angry[-8] - plain[-8]).mean() > 0.05
    # The emotion ends with the reply.
    assert np.array_equal(plain_after, angry_after)


@pytest.mark.parametrize(
    ("act", "error", "expected"),
    [
        (lambda live: live.push(np.zeros((2, 2, 2)), RATE), MediaError, "mono"),
        (lambda live: live.push(SAMPLES, 8000), UsageError, "call finish() between them"),
        (
            lambda live: (live.close(), live.finish(), live.push(SAMPLES, RATE)),
            UsageError,
            "closed",
        ),
    ],
)
def test_invalid_calls_raise_errors(avatar, act, error, expected):
    live = LiveAvatar(avatar, sample_rate=RATE)
    live.push(SAMPLES, RATE)
    with pytest.raises(error, match=expected.replace("(", r"\(").replace(")", r"\)")):
        act(live)
    live.close()


def test_speech_may_be_pushed_and_interrupted_from_many_threads(live):
    stop = threading.Event()

    def disturb(number):
        random = np.random.default_rng(number)
        while not stop.wait(0.001):
            act = random.choice(
                [live.finish, live.interrupt, lambda: live.push(SAMPLES[:800], RATE)]
            )
            act()

    threads = [threading.Thread(target=disturb, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        live.next_frame()
    stop.set()
    for thread in threads:
        thread.join()
    live.interrupt()
    frames = [live.next_frame() for _ in range(6)]
    assert frames[-1].reply is None
    assert not frames[-1].audio.any()
