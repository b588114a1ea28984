"""The pipecat service speaks text-to-speech audio in an in-process pipeline."""

import asyncio
import importlib
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from helpers.live_parts import record_slow_avatar
from helpers.media_files import smooth
from helpers.pipecat_pipeline import RATE, av_skew_s, run_pipeline, speech_frames
from helpers.small_predictor import HEIGHT, WIDTH, make_predictor, speech
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    CancelFrame,
    ControlFrame,
    EndFrame,
    ErrorFrame,
    InterruptionFrame,
    OutputImageRawFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)

from talkinghead.errors import DependencyError, UsageError
from talkinghead.integrations.pipecat import TalkingHeadVideoService
from talkinghead.live.live_avatar import LiveAvatar
from talkinghead.predict.options import SourceOptions

BUFFER_S = 0.08
FRAME = RATE // 25


@dataclass
class KeptFrame(ControlFrame):
    """A frame that interruptions do not drop."""

    def __post_init__(self):
        super().__post_init__()
        self.interruptible = False


@pytest.fixture(scope="module")
def avatar():
    return make_predictor().avatar(smooth(HEIGHT, WIDTH), SourceOptions(motion="none"))


def converse(avatar, talk, **options):
    async def run():
        service = TalkingHeadVideoService(avatar, buffer_s=BUFFER_S, **options)
        return await asyncio.wait_for(run_pipeline(service, (WIDTH, HEIGHT), talk), 20)

    recorded = asyncio.run(run())
    names = [thread.name for thread in threading.enumerate()]
    assert not {"avatar-loop", "live-speech"} & set(names)
    return recorded


def noise(duration_s, seed=0):
    return speech(duration_s, RATE, seed).samples


def spoken(recorder, context_id=None):
    """Return the samples of the audio that was pushed."""
    frames = recorder.frames(TTSAudioRawFrame)
    chunks = [
        np.frombuffer(f.audio, np.int16) for f in frames if context_id in (None, f.context_id)
    ]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.int16)


def without_buffer(samples):
    return samples[round(BUFFER_S * RATE) :]


def types(recorder):
    return [type(frame).__name__ for _, frame in recorder.down]


def test_speech_is_pushed_with_an_image_for_each_frame(avatar):
    samples = noise(0.5)

    async def talk(queue, recorder):
        await asyncio.sleep(0.3)
        for frame in (*speech_frames(samples), EndFrame()):
            await queue(frame)

    recorder, transport, up = converse(avatar, talk)
    names = types(recorder)
    started, first = names.index("TTSStartedFrame"), names.index("TTSAudioRawFrame")
    stopped = names.index("TTSStoppedFrame")
    # Idle images before the speech; afterwards an image and its audio in turn.
    assert {*names[started + 1 : first]} <= {"OutputImageRawFrame"}
    assert names[:started].count("OutputImageRawFrame") >= 3
    media = names[first + 1 : stopped]
    assert media == ["OutputImageRawFrame", "TTSAudioRawFrame"] * (len(media) // 2)
    assert "TTSAudioRawFrame" not in names[stopped:]
    assert names[-1] == "EndFrame"

    audio = without_buffer(spoken(recorder, "a"))
    expected = (samples * 32_768).astype(np.int16)
    np.testing.assert_allclose(audio[: len(expected)], expected, atol=2)
    # The mouth closes in the silence after the speech.
    assert not audio[len(expected) + FRAME :].any()
    assert len(audio) == FRAME * (len(media) // 2)
    images = recorder.frames(OutputImageRawFrame)
    assert all(image.sync_with_audio for image in images)
    assert {(image.size, image.format, len(image.image)) for image in images} == {
        ((WIDTH, HEIGHT), "RGB", WIDTH * HEIGHT * 3)
    }
    assert len({image.image for image in images}) > 5
    assert b"".join(f.audio for _, f in transport.played) == spoken(recorder).tobytes()
    assert sum(isinstance(frame, BotStoppedSpeakingFrame) for frame in up) == 1
    assert abs(np.median(av_skew_s(recorder, transport))) < 0.08


def test_frames_keep_their_place_in_the_speech(avatar):
    parts = [noise(0.4, seed) for seed in (1, 2)]

    async def talk(queue, recorder):
        start, *chunks, stop = speech_frames(np.concatenate(parts))
        timed = TTSTextFrame("timed", "word")
        timed.pts = 1
        for frame in (start, *chunks[:4], TextFrame("between"), timed, *chunks[4:], stop):
            await queue(frame)
        await queue(TextFrame("after"))
        for frame in (*speech_frames(parts[0], "b"), EndFrame()):
            await queue(frame)

    recorder, *_ = converse(avatar, talk)
    audio_before, num_samples = {}, 0
    for _, frame in recorder.down:
        if isinstance(frame, TTSAudioRawFrame):
            num_samples += frame.num_frames
        elif isinstance(frame, TextFrame):
            audio_before[frame.text] = num_samples / RATE - BUFFER_S
        elif isinstance(frame, TTSStartedFrame | TTSStoppedFrame):
            name = f"{type(frame).__name__} {frame.context_id}"
            audio_before[name] = num_samples / RATE - BUFFER_S
    assert audio_before["between"] == pytest.approx(0.4, abs=0.001)
    assert audio_before["timed"] < 0
    assert audio_before["TTSStoppedFrame a"] == pytest.approx(1.0, abs=0.05)
    assert audio_before["after"] == audio_before["TTSStartedFrame b"]
    assert audio_before["after"] == audio_before["TTSStoppedFrame a"]
    assert spoken(recorder, "b").any()


def test_interruption_drops_the_speech_and_closes_the_mouth(avatar):
    async def talk(queue, recorder):
        for frame in (*speech_frames(noise(3.0)), TextFrame("dropped"), KeptFrame()):
            await queue(frame)
        while len(spoken(recorder, "a")) < 0.5 * RATE:
            await asyncio.sleep(0.02)
        await queue(InterruptionFrame())
        await asyncio.sleep(0.8)
        for frame in (*speech_frames(noise(0.3, seed=5), "b"), EndFrame()):
            await queue(frame)

    recorder, transport, _ = converse(avatar, talk)
    names = types(recorder)
    interrupted = names.index("InterruptionFrame")
    began = names.index("TTSStartedFrame", interrupted)
    assert names[interrupted + 1] == "KeptFrame"
    assert set(names[interrupted + 2 : began]) == {"OutputImageRawFrame"}
    assert 0.3 < len(spoken(recorder, "a")) / RATE < 1.0
    texts = recorder.frames(TextFrame)
    stops = [frame.context_id for frame in recorder.frames(TTSStoppedFrame)]
    assert (texts, stops) == ([], ["b"])
    expected = (noise(0.3, seed=5) * 32_768).astype(np.int16)
    np.testing.assert_allclose(
        without_buffer(spoken(recorder, "b"))[: len(expected)], expected, atol=2
    )
    images = [np.frombuffer(f.image, np.uint8) for f in recorder.frames(OutputImageRawFrame)]
    motion = [np.abs(image.astype(int) - images[0]).mean() for image in images]
    last_spoken = names[:interrupted].count("OutputImageRawFrame") - 1
    assert motion[last_spoken] > 0.4
    # Colours are averaged over time and approach those of the idle face more slowly.
    assert motion[names[:began].count("OutputImageRawFrame") - 1] < 0.1
    silent_s = recorder.down[interrupted][0] + 0.1, recorder.down[began][0]
    assert not [at_s for at_s, _ in transport.played if silent_s[0] < at_s < silent_s[1]]


def test_uninterruptible_speech_is_finished(avatar):
    async def talk(queue, recorder):
        for frame in speech_frames(noise(0.8)):
            frame.interruptible = False
            await queue(frame)
        await asyncio.sleep(0.5)
        await queue(InterruptionFrame())
        await queue(EndFrame())

    recorder, *_ = converse(avatar, talk)
    assert len(spoken(recorder)) / RATE == pytest.approx(1.08, abs=0.05)
    assert not any(frame.interruptible for frame in recorder.frames(TTSAudioRawFrame))
    assert types(recorder)[-2:] == ["TTSStoppedFrame", "EndFrame"]


def test_cancel_stops_at_once(avatar):
    times_s = {}

    async def talk(queue, recorder):
        for frame in speech_frames(noise(5.0)):
            await queue(frame)
        await asyncio.sleep(0.5)
        times_s["cancelled"] = time.monotonic()
        await queue(CancelFrame())

    recorder, *_ = converse(avatar, talk)
    assert time.monotonic() - times_s["cancelled"] < 1
    assert len(spoken(recorder)) / RATE < 1
    assert types(recorder)[-1] == "CancelFrame"


def test_stereo_speech_at_another_rate_is_converted(avatar):
    pcm = (speech(0.4, 16_000).samples * 32_768).astype(np.int16)
    stereo = np.stack([pcm, np.zeros_like(pcm)], axis=1)

    async def talk(queue, recorder):
        await queue(TTSAudioRawFrame(stereo.tobytes(), 16_000, 2))
        await queue(TTSAudioRawFrame((pcm // 2).tobytes(), 16_000, 1))
        await queue(EndFrame())

    recorder, *_ = converse(avatar, talk)
    audio = without_buffer(spoken(recorder)).astype(float)
    first, second = (audio[round(at * RATE) :][: round(0.38 * RATE)] for at in (0, 0.4))
    assert audio[round(0.8 * RATE) + FRAME :].max() == 0
    assert np.corrcoef(first, second)[0, 1] > 0.99


def test_audio_passes_when_the_avatar_has_failed(avatar, monkeypatch):
    is_broken = threading.Event()

    def fail(self):
        if is_broken.is_set():
            raise RuntimeError("out of memory")
        return generate(self)

    generate = LiveAvatar.next_frame
    monkeypatch.setattr(LiveAvatar, "next_frame", fail)
    samples = noise(1.0)

    async def talk(queue, recorder):
        for frame in speech_frames(samples):
            await queue(frame)
        await asyncio.sleep(0.4)
        is_broken.set()
        await asyncio.sleep(1.2)
        for frame in (*speech_frames(samples, "b"), EndFrame()):
            await queue(frame)

    recorder, _, up = converse(avatar, talk)
    (error,) = (frame for frame in up if isinstance(frame, ErrorFrame))
    assert "the avatar failed: out of memory" in error.error
    np.testing.assert_array_equal(spoken(recorder, "b"), (samples * 32_768).astype(np.int16))
    stops = [frame.context_id for frame in recorder.frames(TTSStoppedFrame)]
    assert stops == ["a", "b"]


def test_negative_buffer_is_refused(avatar):
    with pytest.raises(UsageError, match="buffer_s=-1"):
        TalkingHeadVideoService(avatar, buffer_s=-1)


def test_missing_package_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pipecat.frames.frames", None)
    monkeypatch.delitem(sys.modules, "talkinghead.integrations.pipecat")
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[pipecat\]'"):
        importlib.import_module("talkinghead.integrations.pipecat")


def test_pipeline_that_is_cancelled_while_the_avatar_is_made_leaves_no_thread(avatar, monkeypatch):
    is_making, is_closed = record_slow_avatar(monkeypatch)

    async def run():
        service = TalkingHeadVideoService(avatar)
        size, never = (WIDTH, HEIGHT), asyncio.Event()
        running = asyncio.create_task(run_pipeline(service, size, lambda *_: never.wait()))
        await asyncio.to_thread(is_making.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(run(), 20))
    assert is_closed.wait(20)
