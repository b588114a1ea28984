"""Avatars in pipecat and LiveKit: the examples, and ten sentences with two interruptions."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.livekit_rooms import RATE, LocalRoom, MediaRecord, SampleTTS
from helpers.media_files import write_sample_media
from helpers.pipecat_pipeline import av_skew_s, run_pipeline, speech_frames
from helpers.small_predictor import probe_output
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.testing import fake_job_context
from pipecat.frames.frames import (
    EndFrame,
    InterruptionFrame,
    OutputImageRawFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)

from talkinghead import LipSyncPredictor, SourceOptions
from talkinghead.integrations.livekit import LocalAvatar
from talkinghead.integrations.pipecat import TalkingHeadVideoService
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.voice import Voice

log = logging.getLogger(__name__)
SENTENCES = (
    "Good morning, and welcome to our shop.",
    "We have apples, pears and bananas today.",
    "Bob and Mary bought them before noon.",
    "The weather is warm for the time of year.",
    "Would you like to hear about our offers?",
    "Seven people asked me the same question.",
    "Please put the blue box on the table.",
    "I will call you back in a few minutes.",
    "Everything must be ready by tomorrow.",
    "Thank you very much, and goodbye.",
)
INTERRUPTED = (3, 6)
"""Numbers of the sentences that are interrupted after a second."""
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    pytest.importorskip("piper", reason="needs the extra offline")
    folder = tmp_path_factory.mktemp("media")
    write_sample_media(folder, 1.0)
    return folder / "photo.jpg"


@pytest.mark.slow
def test_pipecat_example_writes_a_video(photo, tmp_path):
    command = [sys.executable, EXAMPLES / "pipecat_avatar.py", photo, tmp_path / "a.mp4", "Hello."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    times_s, duration_s, _ = probe_output(tmp_path / "a.mp4")
    assert 0.5 < len(times_s) / 25 == pytest.approx(duration_s, abs=0.15)


@pytest.mark.slow
def test_livekit_example_speaks(photo, monkeypatch):
    monkeypatch.setenv("PHOTO", str(photo))
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "livekit_avatar.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    record = MediaRecord(monkeypatch)

    async def run():
        with fake_job_context(room=LocalRoom()) as context:
            await example.entrypoint(context)
            for callback in context._shutdown_callbacks:
                await callback("finished")

    asyncio.run(asyncio.wait_for(run(), 60))
    audio = record.audio().astype(float)
    assert 0.5 < np.count_nonzero(np.abs(audio) > 100) / 48_000 < 3


@pytest.fixture(scope="module")
def avatar(photo):
    predictor = LipSyncPredictor.from_checkpoint("default")
    return predictor.avatar(photo, SourceOptions(motion="idle"))


@pytest.fixture(scope="module")
def sentences(photo):
    """The sentences' speech, float32 at `RATE`."""
    voice = Voice(Piper(), sample_rate=RATE)
    return {text: np.concatenate(list(voice.speak(text))) for text in SENTENCES}


def report(framework, seconds, num_images, skew_s, num_repeated, stop_s):
    p5, p50, p95 = np.percentile(1000 * skew_s, (5, 50, 95))
    stops = ", ".join(f"{1000 * s:.0f} ms" for s in stop_s)
    log.info(
        f"{framework}: {seconds:.2f} s of audio and {num_images} images in speech, "
        f"{num_repeated} repeated; image after audio p5 {p5:.0f}, p50 {p50:.0f}, p95 {p95:.0f} ms; "
        f"audio after an interruption {stops}"
    )


@pytest.mark.slow
def test_ten_sentences_with_two_interruptions_in_pipecat(avatar, sentences):
    received_s = []

    async def talk(queue, recorder):
        for number, text in enumerate(SENTENCES):
            received_s.append(time.monotonic())
            for frame in speech_frames(sentences[text], str(number)):
                await queue(frame)
            if number in INTERRUPTED:
                await asyncio.sleep(1.2)
                await queue(InterruptionFrame())
                await asyncio.sleep(0.8)
            else:
                await asyncio.sleep(len(sentences[text]) / RATE + 0.8)
        await queue(EndFrame())

    size = avatar.source.width, avatar.source.height
    recorder, transport, _ = asyncio.run(run_pipeline(TalkingHeadVideoService(avatar), size, talk))
    audio = recorder.frames(TTSAudioRawFrame)
    spoken_s = [
        sum(f.num_frames for f in audio if f.context_id == str(n)) / RATE
        for n in range(len(SENTENCES))
    ]
    first_s = {}
    for at, frame in recorder.down:
        if isinstance(frame, TTSAudioRawFrame):
            first_s.setdefault(frame.context_id, at)
    delay_s = [at - first for at, first in zip(first_s.values(), received_s, strict=True)]
    stops = [frame.context_id for frame in recorder.frames(TTSStoppedFrame)]
    whole = [n for n in range(len(SENTENCES)) if n not in INTERRUPTED]
    assert stops == [str(n) for n in whole]
    for number in whole:
        # Add the buffer and the silence in which the mouth closes; one frame more is tolerated.
        expected_s = len(sentences[SENTENCES[number]]) / RATE + 0.08 + 0.2
        assert spoken_s[number] == pytest.approx(expected_s, abs=0.1)
    interrupted_s = [at for at, f in recorder.down if isinstance(f, InterruptionFrame)]
    chunk_ends_s = np.array([at + frame.num_frames / RATE for at, frame in transport.played])
    stop_s = [max(0.0, (chunk_ends_s - at)[chunk_ends_s < at + 0.6].max()) for at in interrupted_s]
    skew_s = av_skew_s(recorder, transport)
    images = recorder.frames(OutputImageRawFrame)
    num_repeated = sum(a.image == b.image for a, b in pairwise(images))
    report("pipecat", sum(spoken_s), len(skew_s), skew_s, num_repeated, stop_s)
    p50, p95 = np.percentile(1000 * np.array(delay_s), (50, 95))
    log.info(f"pipecat: first audio pushed after p50 {p50:.0f}, p95 {p95:.0f} ms")
    assert len(stop_s) == 2
    assert max(stop_s) < 0.3
    # The skew is much smaller on an idle machine (docs/benchmarks.md).
    assert np.percentile(np.abs(skew_s), 95) < 0.15


@pytest.mark.slow
def test_ten_sentences_with_two_interruptions_in_livekit(avatar, sentences, monkeypatch):
    record, events, interrupted_s = MediaRecord(monkeypatch), [], []

    async def run():
        session, face = AgentSession(tts=SampleTTS(sentences.__getitem__)), LocalAvatar(avatar)
        await face.start(session, LocalRoom())
        session.output.audio.on("playback_finished", events.append)
        await session.start(agent=Agent(instructions=""))
        for number, text in enumerate(SENTENCES):
            handle = session.say(text)
            if number in INTERRUPTED:
                await asyncio.sleep(1.2)
                interrupted_s.append(time.monotonic())
                await session.interrupt()
            await handle
            await asyncio.sleep(0.5)
        await session.aclose()
        await face.aclose()

    asyncio.run(run())
    assert [e.interrupted for e in events] == [n in INTERRUPTED for n in range(len(SENTENCES))]
    for text, event in zip(SENTENCES, events, strict=True):
        if not event.interrupted:
            # Silence before the speech and in which the mouth closes is part of the position.
            expected_s = len(sentences[text]) / RATE + 0.06 + 0.2
            assert event.playback_position == pytest.approx(expected_s, abs=0.15)
    audio = [frame for frame in record.pushed if isinstance(frame, rtc.AudioFrame)]
    played_s = np.array([record.played[id(frame)] + frame.duration for frame in audio])
    stop_s = [max(0.0, (played_s - at)[played_s < at + 0.45].max()) for at in interrupted_s]
    skew_s, images = record.skew_s(), record.images()
    num_repeated = sum(bytes(a.data) == bytes(b.data) for a, b in pairwise(images))
    seconds = sum(event.playback_position for event in events)
    report("livekit", seconds, len(skew_s), skew_s, num_repeated, stop_s)
    assert max(stop_s) < 0.3
    # The skew is much smaller on an idle machine (docs/benchmarks.md).
    assert np.percentile(np.abs(skew_s), 95) < 0.15
