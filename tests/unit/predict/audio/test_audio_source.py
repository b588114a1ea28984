"""Speech from files, clips and streams, read by the generator and the audio track."""

import threading
import time

import av
import numpy as np
import pytest
from helpers.small_predictor import make_predictor, probe_output, speech

from talkinghead.errors import MediaError, SpeechError, UsageError
from talkinghead.media.reader import read_audio, read_video
from talkinghead.predict.audio.audio_source import Speech, SpeechStream
from talkinghead.predict.pipeline import in_thread


@pytest.fixture(scope="module")
def avatar():
    photo = np.full((160, 192, 3), 120, np.uint8)
    return make_predictor().avatar(photo)


def cut(clip, size):
    for start in range(0, len(clip.samples), size):
        yield clip.samples[start : start + size]


@pytest.mark.parametrize(("size", "rate"), [(333, 22_050), (20_000, 16_000)])
def test_stream_equals_the_whole_clip(avatar, tmp_path, size, rate):
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


def test_first_frame_is_returned_before_the_speech_ends(avatar):
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


def test_queue_of_the_audio_track_is_bounded(avatar, tmp_path, monkeypatch):
    clip, most = speech(8.0), []
    stream = SpeechStream(cut(clip, 1600), 16_000)
    read = stream.read

    def reading(rate):
        reader = read(rate)
        append = reader.append
        monkeypatch.setattr(
            reader, "append", lambda chunk: (append(chunk), most.append(len(reader.queue)))
        )
        return reader

    monkeypatch.setattr(stream, "read", reading)
    avatar.predictor.render(avatar, stream, tmp_path / "out.mp4")
    assert len(most) == 2 * 81
    # Two queues and two batches of eight frames, and the look-ahead: less than two seconds.
    assert max(most) < 20


def test_error_of_the_source_is_raised(avatar, tmp_path):
    def chunks():
        yield from cut(speech(1.0), 1600)
        raise SpeechError("no connection")

    with pytest.raises(SpeechError, match="no connection"):
        avatar.predictor.render(avatar, SpeechStream(chunks(), 16_000), tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_closing_early_cancels_and_closes_the_source(avatar):
    cancel, closed = threading.Event(), threading.Event()

    def waits():
        try:
            yield from cut(speech(2.0), 1600)
            cancel.wait(20)
        finally:
            closed.set()

    chunks = in_thread(waits(), 4, "source", cancel)
    stream = SpeechStream(chunks, 16_000, cancel)
    track = stream.read(16_000)
    prediction = avatar.predictor.predict(avatar, stream)
    next(prediction)
    started = time.monotonic()
    track.close()
    prediction.close()
    assert time.monotonic() - started < 2
    assert closed.wait(2)


@pytest.mark.parametrize("chunks", [[], [np.zeros(0, np.float32)]])
def test_empty_stream_is_an_error(avatar, tmp_path, chunks):
    with pytest.raises(MediaError, match="ended before its first sample"):
        avatar.predictor.render(avatar, SpeechStream(chunks, 16_000), tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chunk", [np.zeros((2, 80), np.float32), np.zeros(80, np.int16)])
def test_chunk_that_is_not_float_mono_is_refused(avatar, chunk):
    with pytest.raises(MediaError, match=r"expected float32 \[num_samples\]"):
        list(avatar.predictor.predict(avatar, SpeechStream([chunk], 16_000)))


def test_stream_is_read_once(avatar):
    stream = SpeechStream(cut(speech(), 1600), 16_000)
    list(avatar.predictor.predict(avatar, stream))
    with pytest.raises(UsageError, match="can be read once"):
        list(avatar.predictor.predict(avatar, stream))


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_file_and_clip_give_the_same_frames(avatar, tmp_path, layout):
    """Both are resampled by the same code."""
    path, rate = tmp_path / "speech.flac", 44_100
    channels = [
        speech(1.2, rate, seed=seed).samples for seed in range(1 if layout == "mono" else 2)
    ]
    samples = (32_767 * np.stack(channels, axis=1)).astype(np.int16).reshape(1, -1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=rate, layout=layout, format="s16")
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    inputs = (path, read_audio(path, rate))
    read = [np.concatenate(list(Speech(audio).chunks(16_000))) for audio in inputs]
    assert np.array_equal(*read)
    predicted = [[image for image, _ in avatar.predictor.predict(avatar, a)] for a in inputs]
    assert len(predicted[0]) == 30
    assert np.array_equal(*predicted)
