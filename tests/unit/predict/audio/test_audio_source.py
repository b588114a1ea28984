"""Speech that is still being made, heard by the pictures and the sound side by side."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers.small_predictor import make_predictor, probe_output, speech

from talkinghead.errors import MediaError, SpeechError, UsageError
from talkinghead.media.reader import read_audio, read_video
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.pipeline import in_thread


@pytest.fixture(scope="module")
def avatar():
    photo = np.full((160, 192, 3), 120, np.uint8)
    return make_predictor().avatar(photo)


def cut(clip, size):
    for start in range(0, len(clip.samples), size):
        yield clip.samples[start : start + size]


@pytest.mark.parametrize("size", [333, 20_000])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_a_stream_gives_what_the_whole_gives(avatar, tmp_path, size, rate):
    clip = speech(2.0, rate)
    whole, stream = tmp_path / "whole.mp4", tmp_path / "stream.mp4"
    seen = []
    avatar.predictor.render(avatar, clip, whole)
    report = avatar.predictor.render(
        avatar,
        SpeechStream(cut(clip, size), rate),
        stream,
        progress=lambda *now: seen.append(now),
    )
    assert report.duration_s == 2
    assert seen == [(i, 0) for i in range(1, 51)]
    assert probe_output(stream)[:2] == probe_output(whole)[:2]
    assert np.array_equal(read_audio(stream, rate).samples, read_audio(whole, rate).samples)
    for one, other in zip(read_video(stream), read_video(whole), strict=True):
        assert np.abs(one.image.astype(int) - other.image).mean() < 1


def test_the_first_frame_comes_before_the_last_chunk_exists(avatar):
    given = []

    def chunks():
        for chunk in cut(speech(4.0), 1600):
            given.append(chunk)
            yield chunk

    with avatar.predictor.predict(avatar, SpeechStream(chunks(), 16_000)) as prediction:
        next(prediction)
        assert len(given) < 25
        assert sum(1 for _ in prediction) == 99
    assert len(given) == 40


def test_what_is_kept_for_the_sound_is_bounded(avatar, tmp_path, monkeypatch):
    clip, most = speech(8.0), []
    stream = SpeechStream(cut(clip, 1600), 16_000)
    read = stream.read

    def reading(rate):
        reader = read(rate)
        take = reader.take
        monkeypatch.setattr(
            reader, "take", lambda chunk: (take(chunk), most.append(len(reader.waiting)))
        )
        return reader

    monkeypatch.setattr(stream, "read", reading)
    avatar.predictor.render(avatar, stream, tmp_path / "out.mp4")
    assert len(most) == 2 * 81
    # Two queues and two batches of eight frames, and what the model looks ahead: under two seconds.
    assert max(most) < 20


def test_an_error_of_the_source_is_the_renders(avatar, tmp_path):
    def chunks():
        yield from cut(speech(1.0), 1600)
        raise SpeechError("the voice broke")

    with pytest.raises(SpeechError, match="the voice broke"):
        avatar.predictor.render(avatar, SpeechStream(chunks(), 16_000), tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_closing_early_closes_the_source_and_tells_one_that_waits(avatar):
    cancel, closed = threading.Event(), threading.Event()

    def waits():
        try:
            yield from cut(speech(2.0), 1600)
            cancel.wait(20)
        finally:
            closed.set()

    chunks = in_thread(waits(), 4, "source", cancel)
    stream = SpeechStream(chunks, 16_000, cancel)
    sound = stream.read(16_000)
    prediction = avatar.predictor.predict(avatar, stream)
    next(prediction)
    started = time.monotonic()
    sound.close()
    prediction.close()
    assert time.monotonic() - started < 2
    assert closed.wait(2)


@pytest.mark.parametrize("chunks", [[], [np.zeros(0, np.float32)]])
def test_nothing_at_all_is_an_error(avatar, tmp_path, chunks):
    with pytest.raises(MediaError, match="ended before it began"):
        avatar.predictor.render(avatar, SpeechStream(chunks, 16_000), tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chunk", [np.zeros((2, 80), np.float32), np.zeros(80, np.int16)])
def test_what_is_not_float_mono_is_named(avatar, chunk):
    with pytest.raises(MediaError, match=r"expected float32 \[num_samples\]"):
        list(avatar.predictor.predict(avatar, SpeechStream([chunk], 16_000)))


def test_a_stream_is_heard_once(avatar):
    stream = SpeechStream(cut(speech(), 1600), 16_000)
    list(avatar.predictor.predict(avatar, stream))
    with pytest.raises(UsageError, match="can be heard once"):
        list(avatar.predictor.predict(avatar, stream))


def test_what_is_left_behind_has_a_while_to_end(tmp_path):
    program = f"""
import pathlib, threading, time
from talkinghead.predict.pipeline import in_thread

def stage():
    yield 1
    time.sleep(1)
    pathlib.Path({str(tmp_path / "ended")!r}).touch()

cancel = threading.Event()
with __import__("contextlib").closing(in_thread(stage(), 1, "slow", cancel)) as items:
    next(items)
    cancel.set()
    assert next(items, None) is None
"""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "ended").exists()
    assert time.monotonic() - started < 5
