"""The LiveKit avatars speak an agent's audio, without a server."""

import asyncio
import importlib
import sys
import threading
import time
from itertools import groupby

import numpy as np
import pytest
from helpers.live_parts import record_slow_avatar
from helpers.livekit_rooms import (
    RATE,
    LocalRoom,
    MediaRecord,
    SampleTTS,
    audio_frames,
    samples_of,
)
from helpers.media_files import smooth, tone
from helpers.small_predictor import HEIGHT, STILL, WIDTH, make_predictor, speech
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice.avatar import AudioSegmentEnd, DataStreamAudioOutput

from talkinghead.errors import DependencyError
from talkinghead.integrations.livekit import AvatarWorker, LocalAvatar, TalkingHeadVideoGenerator
from talkinghead.live.live_avatar import LiveAvatar
from talkinghead.predict.compositing.renderers import LaplacianRenderer

FRAME = RATE // 25
MAX_SILENCE_S = 0.12
"""Longest silence before speech: the images that wait in an `AvatarRunner`."""


@pytest.fixture(scope="module")
def avatar():
    return make_predictor().avatar(smooth(HEIGHT, WIDTH), STILL)


@pytest.fixture(autouse=True)
def _no_threads_left():
    yield
    for thread in threading.enumerate():
        if thread.name.startswith(("livekit-avatar", "live-speech")):
            thread.join(5)  # It may be about to end.
            assert not thread.is_alive()


class BrokenRenderer(LaplacianRenderer):
    """A renderer that always fails."""

    def render(self, *arguments):
        raise RuntimeError("broken")


def test_generator_that_fails_at_its_start_leaves_no_thread():
    avatar = make_predictor(renderer=BrokenRenderer()).avatar(smooth(HEIGHT, WIDTH), STILL)
    with pytest.raises(RuntimeError, match="broken"):
        TalkingHeadVideoGenerator(avatar)


def noise(duration_s, seed=0):
    return speech(duration_s, RATE, seed).samples


def pcm(samples):
    return (samples * 32_768).astype(np.int16)


async def push(generator, samples):
    for frame in audio_frames(samples):
        await generator.push_audio(frame)
    await generator.push_audio(AudioSegmentEnd())
    # Frames are taken faster than in real time: let the speech be prepared first.
    await asyncio.sleep(0.3)


async def take_segment(stream):
    """Return the frames up to the end of a segment, without the idle frames before it."""
    frames, has_audio = [], False
    async for frame in stream:
        has_audio = has_audio or isinstance(frame, rtc.AudioFrame)
        if has_audio:
            frames.append(frame)
        if isinstance(frame, AudioSegmentEnd):
            return frames
    raise AssertionError("the stream has ended")


def split(frames):
    return [[f for f in frames if isinstance(f, kind)] for kind in (rtc.VideoFrame, rtc.AudioFrame)]


def spoken(frames):
    """Return the samples of a segment from the first audible one on."""
    return np.trim_zeros(samples_of(split(frames)[1]), "f")


def assert_speech(samples, expected):
    """Check that samples begin with speech, float32, apart from rounding."""
    expected = np.trim_zeros(pcm(expected), "f")
    np.testing.assert_allclose(samples[: len(expected)], expected, atol=2)


def generate(avatar, talk):
    async def run():
        generator = TalkingHeadVideoGenerator(avatar, sample_rate=RATE)
        stream = aiter(generator)
        try:
            return await asyncio.wait_for(talk(generator, stream), 20)
        finally:
            await stream.aclose()
            await generator.aclose()

    return asyncio.run(run())


def test_segment_has_audio_after_each_image(avatar):
    samples = noise(0.5)

    async def talk(generator, stream):
        assert generator.options.video_fps == 25
        assert generator.options.audio_sample_rate == RATE
        idle = [await anext(stream) for _ in range(3)]
        await push(generator, samples)
        return idle, await take_segment(stream), [await anext(stream) for _ in range(3)]

    before, segment, after = generate(avatar, talk)
    assert all(isinstance(frame, rtc.VideoFrame) for frame in (*before, *after))
    images, audio = split(segment)
    if audio[0].samples_per_channel != FRAME:
        silence = samples_of([segment.pop(0)])
        assert len(silence) <= MAX_SILENCE_S * RATE
        assert not silence.any()
    # An image may be repeated, audio may not.
    runs = [list(run) for _, run in groupby(segment[:-1], type)]
    assert all(len(run) == 1 for run in runs[::2])
    assert {frame.samples_per_channel for run in runs[::2] for frame in run} == {FRAME}
    assert {type(frame) for run in runs[1::2] for frame in run} == {rtc.VideoFrame}
    assert_speech(spoken(segment), samples)
    assert not spoken(segment)[len(samples) + FRAME :].any()
    assert len({bytes(image.data) for image in images}) > 5


def test_images_have_the_colours_of_the_photo(avatar):
    async def talk(generator, stream):
        return await anext(stream)

    planar = generate(avatar, talk).convert(rtc.VideoBufferType.I420)
    image = planar.convert(rtc.VideoBufferType.RGBA)
    shown = np.frombuffer(image.data, np.uint8).reshape(HEIGHT, WIDTH, 4)
    # The corner is outside of the mouth's region. LiveKit converts to limited-range YUV 4:2:0.
    corner = shown[:40, :40, :3].astype(int) - smooth(HEIGHT, WIDTH)[:40, :40]
    assert np.abs(corner).mean() < 3


def test_cleared_segment_has_no_more_audio_and_no_end(avatar):
    next_words = noise(0.3, seed=5)

    async def talk(generator, stream):
        for frame in audio_frames(noise(2.0)):
            await generator.push_audio(frame)
        cleared = [await anext(stream) for _ in range(40)]
        generator.clear_buffer()
        idle = [await anext(stream) for _ in range(10)]
        await generator.push_audio(AudioSegmentEnd())  # The end of the cleared segment.
        await push(generator, next_words)
        return cleared, idle, await take_segment(stream)

    cleared, idle, segment = generate(avatar, talk)
    assert len(split(cleared)[1]) > 10
    assert all(isinstance(frame, rtc.VideoFrame) for frame in idle)
    assert_speech(spoken(segment), next_words)
    assert len(spoken(segment)) / RATE == pytest.approx(0.5, abs=0.05)


def test_end_of_each_segment_is_reported(avatar):
    async def talk(generator, stream):
        await generator.push_audio(AudioSegmentEnd())  # The end of an empty segment.
        for seed in (1, 2):
            await push(generator, noise(0.3, seed))
        segments = [await take_segment(stream) for _ in range(2)]
        # Audio that stops for more than half a second ends a reply, but not the segment.
        for frame in audio_frames(noise(0.3, 3)):
            await generator.push_audio(frame)
        pause = [await anext(stream) for _ in range(60)]
        await push(generator, noise(0.3, 4))
        return segments, pause, await take_segment(stream)

    segments, pause, last = generate(avatar, talk)
    for seed, segment in zip((1, 2), segments, strict=True):
        assert_speech(spoken(segment), noise(0.3, seed))
    assert not [frame for frame in pause if isinstance(frame, AudioSegmentEnd)]
    # The end of the first part may be played after the pause.
    words = pcm(noise(0.3, 4)).astype(float)
    match = np.correlate(spoken(last).astype(float), words[1000:-1000]).max()
    assert match == pytest.approx(np.square(words[1000:-1000]).sum(), rel=0.01)


def test_stereo_audio_at_another_rate_is_converted(avatar):
    async def talk(generator, stream):
        stereo = np.stack([tone(0.5, 16_000), np.zeros(8_000)], axis=1)
        for frame in audio_frames(stereo, 16_000, num_channels=2):
            await generator.push_audio(frame)
        await generator.push_audio(AudioSegmentEnd())
        first = await take_segment(stream)
        await push(generator, noise(0.3))  # This audio is mono at `RATE`.
        return first, await take_segment(stream)

    first, second = generate(avatar, talk)
    heard = spoken(first)[RATE // 10 : 3 * RATE // 10] / 32_768
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * 5 == 440  # The bins are 5 Hz wide.
    # The mean of the two channels.
    assert np.abs(heard).max() == pytest.approx(0.25, rel=0.02)
    assert_speech(spoken(second), noise(0.3))


def test_images_are_repeated_when_generating_is_slow(avatar, monkeypatch):
    def slow_frame(self):
        time.sleep(0.1)
        return next_frame(self)

    next_frame = LiveAvatar.next_frame
    monkeypatch.setattr(LiveAvatar, "next_frame", slow_frame)
    samples = noise(1.0)

    async def talk(generator, stream):
        await push(generator, samples)
        await anext(stream)
        started_s = time.monotonic()
        return await take_segment(stream), time.monotonic() - started_s

    segment, elapsed_s = generate(avatar, talk)
    images, _ = split(segment)
    assert elapsed_s < 1.8  # 3 s with an image for each frame.
    assert len({bytes(image.data) for image in images}) < 0.8 * len(images)
    assert_speech(spoken(segment), samples)


def test_audio_continues_when_the_avatar_has_failed(avatar, monkeypatch, caplog):
    def fail(self, faces, reply):
        raise RuntimeError("out of memory")

    async def talk(generator, stream):
        await push(generator, noise(0.3))
        before = await take_segment(stream)
        monkeypatch.setattr(LiveAvatar, "_generate", fail)
        await push(generator, noise(0.3))
        await push(generator, noise(0.3, seed=2))
        return before, await take_segment(stream), await take_segment(stream)

    *_, after = generate(avatar, talk)
    assert_speech(spoken(after), noise(0.3, seed=2))
    assert "out of memory" in caplog.text


def test_local_avatar_speaks_for_a_session(avatar, monkeypatch):
    record, events = MediaRecord(monkeypatch), []

    async def run():
        session = AgentSession(tts=SampleTTS(lambda text: noise(float(text))))
        face, room = LocalAvatar(avatar, sample_rate=RATE), LocalRoom()
        await face.start(session, room)
        session.output.audio.on("playback_finished", events.append)
        await session.start(agent=Agent(instructions=""))
        await session.say("0.6")
        long, num_before = session.say("5.0"), len(record.audio())
        while len(record.audio()) < num_before + 0.6 * RATE:
            await asyncio.sleep(0.02)
        await session.interrupt()
        await long
        num_pushed = len(record.pushed)
        await asyncio.sleep(0.4)
        silent = record.pushed[num_pushed + 1 :]
        await session.say("0.4")
        await session.aclose()
        await face.aclose()
        return room, silent

    room, silent = asyncio.run(asyncio.wait_for(run(), 20))
    sources = rtc.TrackSource
    published = [sources.SOURCE_MICROPHONE, sources.SOURCE_CAMERA]
    assert room.local_participant.published == published
    assert [event.interrupted for event in events] == [False, True, False]
    assert events[0].playback_position == pytest.approx(0.9, abs=0.15)
    assert 0.3 < events[1].playback_position < 1.1
    # A segment's speech is followed by 0.2 s in which the mouth closes.
    assert len(silent) > 4
    assert all(isinstance(frame, rtc.VideoFrame) for frame in silent)
    # Images have queued before the last sentence: without silence, its audio would be early.
    assert np.abs(np.median(record.skew_s()[-10:])) < 0.08


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_failed_start_closes_the_avatar(avatar, monkeypatch, is_cancelled):
    closed, started = [], asyncio.Event()

    async def start(runner):
        started.set()
        if is_cancelled:
            await asyncio.sleep(60)
        raise RuntimeError("the room is not connected")

    async def aclose(generator, close=TalkingHeadVideoGenerator.aclose):
        closed.append(generator)
        await close(generator)

    monkeypatch.setattr("livekit.agents.voice.avatar.AvatarRunner.start", start)
    monkeypatch.setattr(TalkingHeadVideoGenerator, "aclose", aclose)

    async def run():
        running = asyncio.create_task(AvatarWorker(avatar, sample_rate=RATE).run(LocalRoom()))
        await started.wait()
        if is_cancelled:
            running.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else RuntimeError):
            await running

    asyncio.run(asyncio.wait_for(run(), 20))
    assert len(closed) == 1


def test_start_that_is_cancelled_while_it_makes_the_avatar_leaves_no_thread(avatar, monkeypatch):
    is_making, is_closed = record_slow_avatar(monkeypatch)

    async def run():
        running = asyncio.create_task(AvatarWorker(avatar, sample_rate=RATE).run(LocalRoom()))
        await asyncio.to_thread(is_making.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(run(), 20))
    assert is_closed.wait(20)


def test_worker_speaks_for_an_agent_in_another_process(avatar, monkeypatch):
    record, events = MediaRecord(monkeypatch), []
    agent_room = LocalRoom("agent")
    room = LocalRoom("avatar", rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD)
    agent_room.connect(room)

    async def speak(output, samples):
        for frame in audio_frames(samples):
            await output.capture_frame(frame)
        output.flush()

    async def run():
        running = asyncio.create_task(AvatarWorker(avatar, sample_rate=RATE).run(room))
        while not record.pushed:
            await asyncio.sleep(0.02)
        output = DataStreamAudioOutput(
            agent_room, destination_identity="avatar", wait_playback_start=True
        )
        output.on("playback_finished", events.append)
        await speak(output, noise(0.5))
        await output.wait_for_playout()
        await speak(output, noise(5.0))
        await asyncio.sleep(0.6)
        output.clear_buffer()
        await output.wait_for_playout()
        await speak(output, noise(0.3))
        await output.wait_for_playout()
        room.emit("participant_disconnected", agent_room.local_participant)
        await running

    asyncio.run(asyncio.wait_for(run(), 20))
    assert [event.interrupted for event in events] == [False, True, False]
    assert events[0].playback_position == pytest.approx(0.8, abs=0.15)
    assert events[1].playback_position < 0.9
    assert events[2].playback_position == pytest.approx(0.6, abs=0.15)


def test_missing_package_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "livekit.agents.voice.avatar", None)
    monkeypatch.delitem(sys.modules, "talkinghead.integrations.livekit")
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[livekit\]'"):
        importlib.import_module("talkinghead.integrations.livekit")
