"""Frames of a stream: equality with those of the whole file, timing, and statistics."""

import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from threading import Event

import numpy as np
import pytest
from helpers.media_files import smooth
from helpers.small_predictor import HEIGHT, STILL, WIDTH, make_predictor, speech, write_video
from skimage.data import astronaut

from talkinghead.errors import MediaError, UsageError
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.live.streaming import RealtimeLipSync
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.predict.compositing.renderers import PoissonRenderer
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.types import AudioClip

RATE = 16_000
CHUNK = 640


@pytest.fixture(scope="module")
def predictor():
    return make_predictor(renderer=PoissonRenderer())


@pytest.fixture(scope="module")
def avatar(predictor):
    # Use a smooth image: in white noise, a rounded coordinate changes a pixel by many levels.
    return predictor.avatar(smooth(HEIGHT, WIDTH), STILL)


@pytest.fixture
def video_avatar(predictor, tmp_path):
    """An avatar whose frames are between the model's time steps and are played back and forth."""
    times_s = [Fraction(i, 30) for i in range(20)]
    return predictor.avatar(write_video(tmp_path / "face.mp4", times_s, fps=30))


def chunked(samples, kind):
    if kind == "40 ms":
        return np.split(samples, range(CHUNK, len(samples), CHUNK))
    cuts = np.random.default_rng(1).integers(0, len(samples), 40)
    return np.split(samples, np.sort(cuts))  # Some chunks are empty.


@pytest.mark.parametrize(("face", "kind"), [("avatar", "random"), ("video_avatar", "40 ms")])
def test_stream_and_file_give_the_same_frames(predictor, kind, face, request):
    avatar = request.getfixturevalue(face)
    samples = speech(0.7).samples
    whole = list(predictor.predict(avatar, AudioClip(samples, RATE)))
    frames = list(RealtimeLipSync(avatar).stream(chunked(samples, kind)))
    assert [frame.time_s for frame in frames] == [time_s for _, time_s in whole]
    streamed, expected = (np.stack([image for image, _ in f]).astype(int) for f in (frames, whole))
    assert int(np.abs(streamed - expected).max()) <= 1
    assert np.abs(streamed - streamed[0]).max() > 1


def test_infinite_samples_of_a_stream_are_silence(avatar):
    samples = speech(0.4).samples
    silent = samples.copy()
    samples[[3000, 3001]], silent[[3000, 3001]] = (np.inf, np.nan), 0
    given, expected = (
        [frame.image for frame in RealtimeLipSync(avatar).stream(chunked(audio, "40 ms"))]
        for audio in (samples, silent)
    )
    np.testing.assert_array_equal(given, expected)


@pytest.mark.slow
def test_stream_and_file_have_the_same_expression_and_motion():
    predictor = make_predictor(detector=LiteRtDetector())
    photo = np.ascontiguousarray(astronaut()[20:300, 90:370])
    avatar = predictor.avatar(photo, SourceOptions(motion="speech", seed=3))
    samples = speech(1.6).samples
    emotions = {0: Emotion("happy"), 10_240: Emotion("sad", 0.5)}

    def timed(size):
        cuts = sorted({*range(0, len(samples), size), *emotions})
        pieces = np.split(samples, cuts[1:])
        return [
            TimedSpeech(piece, (), emotions.get(cut))
            for cut, piece in zip(cuts, pieces, strict=True)
        ]

    whole = [image for image, _ in predictor.predict(avatar, SpeechStream(timed(4000), RATE))]
    plain = [image for image, _ in predictor.predict(avatar, AudioClip(samples, RATE))]
    frames = [frame.image for frame in RealtimeLipSync(avatar).stream(timed(CHUNK))]
    # A difference of one level is amplified where the moved head is sharpened.
    assert np.abs(np.stack(frames).astype(int) - np.stack(whole)).max() <= 2
    assert np.abs(np.stack(plain).astype(int) - np.stack(whole)).mean((1, 2, 3))[20:].min() > 0.05


@pytest.mark.parametrize(
    ("face", "more_s"), [("avatar", 0), pytest.param("video_avatar", 0.04, marks=pytest.mark.slow)]
)
def test_frames_are_returned_after_the_lookahead(avatar, face, more_s, request):
    stream = RealtimeLipSync(request.getfixturevalue(face), max_latency_s=0.1)
    # A frame rate other than the model's needs one more time step.
    assert stream.lookahead_s == pytest.approx(RealtimeLipSync(avatar).lookahead_s + more_s)
    assert 0.15 < stream.lookahead_s - more_s <= 0.2
    half_frame_s = 1 / 60 if more_s else 1 / 50
    assert stream.playback_delay_s == pytest.approx(stream.lookahead_s + half_frame_s + 0.1)
    waits_s = []
    for num_pushed, chunk in enumerate(np.split(speech(1.2).samples, 480), 1):
        for frame in stream.push(chunk):
            waits_s.append(0.0025 * num_pushed - float(frame.time_s) - half_frame_s)
    assert max(waits_s) <= stream.lookahead_s + (0.0025 if more_s else 1e-9)
    if not more_s:
        assert min(waits_s) > stream.lookahead_s - 0.015
        assert (len(waits_s), len(stream.flush())) == (25, 5)


@pytest.mark.slow
def test_frame_times_do_not_drift_and_memory_is_bounded(avatar):
    stream, sizes, times_s = RealtimeLipSync(avatar), [], []
    for _ in range(120):
        times_s += [frame.time_s for frame in stream.push(speech(0.04).samples)]
        sizes.append(stream._mouths.tokens._mel_CM.shape[1])
    # Only the look-ahead is pending, at the end as at the start.
    assert times_s == [Fraction(i, 25) for i in range(115)]
    assert max(sizes[40:80]) == max(sizes[80:])


def test_reset_starts_a_new_stream(avatar):
    stream = RealtimeLipSync(avatar)
    first = list(stream.stream([speech(0.6).samples]))
    for use in (lambda: stream.push(np.zeros(CHUNK, np.float32)), stream.flush):
        with pytest.raises(UsageError, match=r"reset\(\)"):
            use()
    stream.reset()
    stream.push(speech(0.5, seed=5).samples)
    stream.reset()
    assert stream.stats.num_frames == 0
    again = list(stream.stream([speech(0.6).samples]))
    assert all(a.time_s == b.time_s for a, b in zip(again, first, strict=True))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again, first, strict=True))


def test_closed_stream_refuses_speech_and_leaves_the_avatar_usable(avatar):
    with RealtimeLipSync(avatar) as stream:
        stream.push(speech(0.5).samples)
    for use in (lambda: stream.push(np.zeros(CHUNK, np.float32)), stream.flush, stream.reset):
        with pytest.raises(UsageError, match="the stream is closed"):
            use()
    assert stream.stats.num_frames > 0
    assert len(list(RealtimeLipSync(avatar).stream([speech(0.2).samples]))) == 5


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.full(9, 1000.0), r"samples of 1000; expected \[-1, 1\].*32768"),
        (b"\0\0", r"is bytes.*np\.frombuffer\(data, np\.int16\)"),
    ],
)
def test_push_refuses_invalid_audio(avatar, audio, message):
    with pytest.raises(MediaError, match=message):
        RealtimeLipSync(avatar).push(audio)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "1"])
def test_invalid_times_are_refused(avatar, value):
    with pytest.raises(UsageError, match=r"max_latency_s=.*: expected a number of seconds"):
        RealtimeLipSync(avatar, max_latency_s=value)
    with pytest.raises(UsageError, match=r"skip_before_s=.*: expected a number of seconds"):
        RealtimeLipSync(avatar).push(speech().samples, skip_before_s=value)


def test_stats_count_frames_and_measure_latency(avatar):
    stream = RealtimeLipSync(avatar, max_latency_s=30)
    assert np.isnan(stream.stats.latency_p95_s)
    assert stream.push(np.zeros(0, np.float32)) == []
    for chunk in chunked(speech(1.0).samples, "40 ms"):
        stream.push(chunk)
    stats = stream.stats
    assert stats.num_frames == 20
    assert stats.max_queue_depth == 1
    assert 0 < stats.latency_p50_s <= stats.latency_p95_s < 30
    assert stats.num_late == stats.num_skipped == 0
    assert stats.frames_per_second > 20 / 30
    stream.push(speech(0.4, seed=1).samples, arrived_s=time.monotonic() - 60)
    late = stream.stats
    assert late.num_late == late.queue_depth == late.max_queue_depth == 10
    assert late.latency_p95_s > 60 > late.latency_p50_s


def test_frames_before_skip_time_are_dropped(avatar):
    stream = RealtimeLipSync(avatar)
    frames = [*stream.push(speech(1.2).samples, skip_before_s=0.61), *stream.flush()]
    assert [frame.time_s for frame in frames] == [Fraction(i, 25) for i in range(16, 30)]
    assert (stream.stats.num_skipped, stream.stats.num_frames) == (16, 14)


class _BlockedRenderer(PoissonRenderer):
    """A renderer that waits in `render` until `proceed` is set."""

    began, proceed = Event(), Event()

    def render(self, *args):
        self.began.set()
        assert self.proceed.wait(20)
        return super().render(*args)


def test_second_caller_is_refused_and_close_waits():
    predictor = make_predictor(renderer=_BlockedRenderer())
    stream = RealtimeLipSync(predictor.avatar(smooth(HEIGHT, WIDTH), STILL))
    with ThreadPoolExecutor(2) as threads:
        pushed = threads.submit(stream.push, speech(1.0).samples)
        assert _BlockedRenderer.began.wait(20)
        for call in (partial(stream.push, np.zeros(CHUNK)), stream.flush, stream.reset):
            with pytest.raises(
                UsageError, match=r"stream is in use by another caller.*one Realtime"
            ):
                call()
        closed = threads.submit(stream.close)
        _BlockedRenderer.proceed.set()
        assert pushed.result()
        closed.result()


@pytest.mark.slow
def test_streams_of_concurrent_callers_are_independent(avatar):
    voices = [speech(1.0).samples * level for level in (0.1, 0.4, 0.7, 1.0)] * 2

    def animate(samples):
        return np.stack([image for image, _ in RealtimeLipSync(avatar).stream([samples])])

    expected = [animate(samples) for samples in voices[:4]] * 2
    with ThreadPoolExecutor(8) as threads:
        for images, alone in zip(threads.map(animate, voices), expected, strict=True):
            np.testing.assert_array_equal(images, alone)
