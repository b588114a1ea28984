"""Speech from files, clips and streams, read by the generator and the audio track."""

import threading
import time

import numpy as np
import pytest
from helpers.media_files import write_media
from helpers.small_predictor import STILL, make_predictor, probe_output, speech

from talkinghead.errors import MediaError, SpeechError, UsageError
from talkinghead.media.reader import read_audio, read_video
from talkinghead.predict.audio.audio_source import Speech, SpeechReader, SpeechStream
from talkinghead.predict.pipeline import in_thread
from talkinghead.types import AudioClip


@pytest.fixture(scope="module")
def avatar():
    photo = np.full((160, 192, 3), 120, np.uint8)
    return make_predictor().avatar(photo, STILL)


def cut(clip, size):
    for start in range(0, len(clip.samples), size):
        yield clip.samples[start : start + size]


def test_output_of_stream_equals_output_of_whole_clip(avatar, tmp_path):
    clip = speech(1.0, 22_050)
    whole, stream = tmp_path / "whole.mp4", tmp_path / "stream.mp4"
    seen = []
    avatar.predictor.render(avatar, clip, whole)
    report = avatar.predictor.render(
        avatar, SpeechStream(cut(clip, 333), 22_050), stream, progress=lambda *n: seen.append(n)
    )
    assert report.duration_s == 1
    assert seen == [(i, 0) for i in range(1, 26)]
    assert probe_output(stream)[:2] == probe_output(whole)[:2]
    assert np.array_equal(read_audio(stream, 22_050).samples, read_audio(whole, 22_050).samples)
    for one, other in zip(read_video(stream), read_video(whole), strict=True):
        assert np.abs(one.image.astype(int) - other.image).mean() < 1


def test_stream_is_read_incrementally_and_only_once(avatar):
    given = []

    def chunks():
        for chunk in cut(speech(4.0), 1600):
            given.append(chunk)
            yield chunk

    stream = SpeechStream(chunks(), 16_000)
    with avatar.predictor.predict(avatar, stream) as prediction:
        next(prediction)
        assert len(given) < 25
        assert sum(1 for _ in prediction) == 99
    assert len(given) == 40
    with pytest.raises(UsageError, match="has been read"):
        next(avatar.predictor.predict(avatar, stream))


@pytest.mark.slow
def test_queue_of_the_audio_track_is_bounded(avatar, tmp_path, monkeypatch):
    lengths, append = [], SpeechReader.append

    def counted(reader, chunk):
        append(reader, chunk)
        lengths.append(len(reader.queue))

    monkeypatch.setattr(SpeechReader, "append", counted)
    stream = SpeechStream(cut(speech(8.0), 1600), 16_000)
    avatar.predictor.render(avatar, stream, tmp_path / "out.mp4")
    assert len(lengths) == 2 * 81
    # Two queues and two batches of eight frames and the look-ahead last less than two seconds.
    assert max(lengths) < 20


def failing():
    yield from cut(speech(1.0), 1600)
    raise SpeechError("no connection")


MONO = r"expected mono \[num_samples\]"


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        (failing(), SpeechError, "no connection"),
        ([], MediaError, "ended before its first sample"),
        ([np.zeros(0, np.float32)], MediaError, "ended before its first sample"),
        ([np.zeros((2, 80, 2), np.float32)], MediaError, MONO),
        ([np.zeros(80, np.int64)], MediaError, MONO),
        ([b"\0\0"], MediaError, "is bytes, whose sample format is unknown"),
    ],
)
def test_error_in_speech_source_leaves_no_file(avatar, tmp_path, chunks, error, message):
    with pytest.raises(error, match=message):
        avatar.predictor.render(avatar, SpeechStream(chunks, 16_000), tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: (x * 32_767).astype(np.int16),
        lambda x: x.astype(np.float64).tolist(),
        lambda x: np.stack([x, x], 1),
        lambda x: x[None],
    ],
)
def test_chunks_of_other_types_are_converted(convert):
    samples = speech(0.5).samples
    stream = SpeechStream(
        [convert(chunk) for chunk in cut(AudioClip(samples, 16_000), 1600)], 16_000
    )
    read = np.concatenate(list(Speech(stream).chunks(16_000)))
    np.testing.assert_allclose(read, samples, atol=1e-4)


def test_infinite_samples_are_silence_in_clips_and_streams():
    samples = speech(0.5).samples
    silent = samples.copy()
    samples[[99, 500]], silent[[99, 500]] = (np.inf, np.nan), 0
    for audio in (AudioClip(samples, 16_000), SpeechStream([samples], 16_000)):
        read = np.concatenate(list(Speech(audio).chunks(16_000)))
        np.testing.assert_array_equal(read, silent)


@pytest.mark.parametrize("audio", [b"speech", np.zeros(9), [0.1], 3])
def test_speech_of_another_type_is_refused(audio):
    with pytest.raises(UsageError, match="expected a file, an AudioClip"):
        Speech(audio)


@pytest.mark.parametrize(("chunks", "rate"), [(b"abc", 16_000), (3, 16_000), ([], 0), ([], -1.5)])
def test_stream_of_other_values_is_refused(chunks, rate):
    with pytest.raises(UsageError, match="expected"):
        SpeechStream(chunks, rate)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), "16000", None, 16_000.5, True])
def test_sample_rate_that_is_no_whole_number_is_refused(rate):
    with pytest.raises(UsageError, match=r"sample_rate=.*: expected a whole number of Hz"):
        Speech(AudioClip(speech(0.1).samples, rate))
    with pytest.raises(UsageError, match=r"sample_rate=.*: expected a whole number of Hz"):
        SpeechStream([], rate)


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


def test_closing_a_prediction_that_waits_for_speech_cancels_the_source(avatar):
    cancel, waiting = threading.Event(), threading.Event()

    def waits():
        yield speech(2.0).samples
        waiting.set()
        cancel.wait(5)

    prediction = avatar.predictor.predict(avatar, SpeechStream(waits(), 16_000, cancel))
    next(prediction)
    closing = threading.Thread(target=prediction.close)
    # The generator reads the second chunk only if the queue has space for more frames.
    while not waiting.wait(0.01):
        next(prediction)
    started = time.monotonic()
    closing.start()
    closing.join()
    assert time.monotonic() - started < 2
    assert cancel.is_set()


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_file_and_clip_give_the_same_frames(avatar, tmp_path, layout):
    channels = [speech(1.2, 44_100, seed).samples for seed in range(1 + (layout == "stereo"))]
    path = write_media(
        tmp_path / "speech.flac",
        audio=np.stack(channels),
        sample_rate=44_100,
        audio_codec="flac",
        audio_format="s16",
        layout=layout,
    )
    inputs = (path, read_audio(path, 44_100))
    read = [np.concatenate(list(Speech(audio).chunks(16_000))) for audio in inputs]
    assert np.array_equal(*read)
    predicted = [[image for image, _ in avatar.predictor.predict(avatar, a)] for a in inputs]
    assert len(predicted[0]) == 30
    assert np.array_equal(*predicted)
