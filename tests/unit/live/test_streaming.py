"""A stream gives the frames that the whole file gives, when they are due, and says how it fares."""

import time
from fractions import Fraction

import cv2
import numpy as np
import pytest
from helpers.small_predictor import HEIGHT, WIDTH, make_predictor, speech, write_video

from talkinghead.errors import MediaError, UsageError
from talkinghead.live.streaming import RealtimeLipSync
from talkinghead.predict.compositing.renderers import PoissonRenderer
from talkinghead.types import AudioClip

RATE = 16_000
CHUNK = 640


@pytest.fixture(scope="module")
def predictor():
    return make_predictor(renderer=PoissonRenderer())


@pytest.fixture(scope="module")
def photo():
    # Smooth: between neighbouring pixels of white noise a rounded place is many levels.
    noise = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 3)).astype(np.float32)
    return (130 + 200 * cv2.GaussianBlur(noise, (0, 0), 3)).clip(40, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def avatar(predictor, photo):
    return predictor.avatar(photo)


def chunked(samples, kind):
    if kind == "one":
        return [samples]
    if kind == "40 ms":
        return np.split(samples, range(CHUNK, len(samples), CHUNK))
    cuts = np.random.default_rng(1).integers(0, len(samples), 40)
    return np.split(samples, np.sort(cuts))  # Some of them empty, some long.


@pytest.mark.parametrize("kind", [pytest.param("one", marks=pytest.mark.slow), "40 ms", "random"])
@pytest.mark.parametrize("moving", [False, True])
def test_a_stream_gives_what_the_file_gives(predictor, avatar, tmp_path, kind, moving):
    if moving:  # Between the model's frames, to and fro.
        times_s = [Fraction(i, 30) for i in range(20)]
        avatar = predictor.avatar(write_video(tmp_path / "face.mp4", times_s, fps=30))
    samples = speech(1.7).samples
    whole = list(predictor.predict(avatar, AudioClip(samples, RATE)))
    frames = list(RealtimeLipSync(avatar).stream(chunked(samples, kind)))
    assert [frame.time_s for frame in frames] == [time_s for _, time_s in whole]
    streamed, expected = (np.stack([image for image, _ in f]).astype(int) for f in (frames, whole))
    difference = int(np.abs(streamed - expected).max())
    assert difference <= 1
    assert np.abs(streamed - streamed[0]).max() > 1


def test_every_frame_comes_with_the_last_speech_it_needs(avatar):
    stream = RealtimeLipSync(avatar)
    assert 0.15 < stream.lookahead_s <= 0.2
    heard, waits_s = 0, []
    for chunk in np.split(speech(2.0).samples, range(40, 2 * RATE, 40)):
        heard += len(chunk)
        for frame in stream.push(chunk):
            waits_s.append(heard / RATE - float(frame.time_s) - 0.02)
    assert len(waits_s) == 45
    assert max(waits_s) <= stream.lookahead_s + 1e-9
    assert min(waits_s) > stream.lookahead_s - 0.0125 - 40 / RATE
    assert len(stream.flush()) == 5


def test_a_video_at_another_rate_waits_one_frame_of_the_grid_longer(predictor, avatar, tmp_path):
    times_s = [Fraction(i, 30) for i in range(10)]
    moving = predictor.avatar(write_video(tmp_path / "face.mp4", times_s, fps=30))
    one, other = RealtimeLipSync(avatar), RealtimeLipSync(moving)
    assert other.lookahead_s == pytest.approx(one.lookahead_s + 0.04)
    heard = 0
    for chunk in np.split(speech(2.0).samples, range(40, 2 * RATE, 40)):
        heard += len(chunk)
        for frame in other.push(chunk):
            wait_s = heard / RATE - float(frame.time_s) - 1 / 60
            assert wait_s <= other.lookahead_s + 40 / RATE


def test_times_rise_without_drift_and_memory_stays(avatar):
    stream = RealtimeLipSync(avatar)
    samples = speech(0.04).samples
    kept, times_s = [], []
    for _ in range(120):
        times_s += [frame.time_s for frame in stream.push(samples)]
        kept.append(stream._mouths.tokens._mel_CM.shape[1])
    assert times_s == [Fraction(i, 25) for i in range(len(times_s))]
    # The look-ahead alone lies between what came and what was made, at the end as at the beginning.
    assert 120 - len(times_s) == 5
    assert max(kept[40:80]) == max(kept[80:])


def test_reset_begins_again(avatar):
    stream = RealtimeLipSync(avatar)
    first = list(stream.stream([speech(0.6).samples]))
    with pytest.raises(UsageError, match=r"reset\(\)"):
        stream.push(np.zeros(CHUNK, np.float32))
    with pytest.raises(UsageError, match=r"reset\(\)"):
        stream.flush()
    stream.reset()
    stream.push(speech(0.5, seed=5).samples)
    stream.reset()
    assert stream.stats.num_frames == 0
    again = list(stream.stream([speech(0.6).samples]))
    assert [frame.time_s for frame in again] == [frame.time_s for frame in first]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again, first, strict=True))


def test_no_speech_no_frames(avatar):
    stream = RealtimeLipSync(avatar)
    assert stream.push(np.zeros(0, np.float32)) == []
    assert stream.flush() == []


@pytest.mark.parametrize(
    "audio", [np.zeros((2, 9), np.float32), np.zeros(9, np.int16), np.zeros((), np.float32)]
)
def test_audio_that_is_not_float_mono_is_refused(avatar, audio):
    with pytest.raises(MediaError, match="expected float32"):
        RealtimeLipSync(avatar).push(audio)


def test_what_is_no_number_is_silence(avatar):
    stream, silent = RealtimeLipSync(avatar), RealtimeLipSync(avatar)
    broken = stream.push(np.full(8000, np.nan, np.float32))
    still = silent.push(np.zeros(8000, np.float32))
    assert len(broken) == len(still) > 0
    assert all(np.array_equal(a.image, b.image) for a, b in zip(broken, still, strict=True))


def test_figures_tell_how_it_fares(avatar):
    stream = RealtimeLipSync(avatar, max_latency_s=30)
    assert np.isnan(stream.stats.latency_p95_s)
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


def test_who_has_fallen_behind_skips_to_the_sound(predictor, avatar):
    samples = speech(1.2).samples
    whole = list(predictor.predict(avatar, AudioClip(samples, RATE)))
    stream = RealtimeLipSync(avatar)
    frames = [*stream.push(samples, skip_before_s=0.61), *stream.flush()]
    assert [frame.time_s for frame in frames] == [time_s for _, time_s in whole[16:]]
    assert stream.stats.num_skipped == 16
    assert stream.stats.num_frames == 14
