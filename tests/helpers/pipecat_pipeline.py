"""A pipecat pipeline in this process: a video service between a recorder and a sound card."""

import asyncio
import time
from itertools import pairwise

import numpy as np
from pipecat.frames.frames import (
    Frame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from talkinghead.integrations.pipecat import TalkingHeadVideoService

RATE = 24_000


class Recorder(FrameProcessor):
    """A processor that stores downstream and upstream frames with their arrival times."""

    def __init__(self):
        super().__init__()
        self.down, self.up = [], []

    async def process_frame(self, frame: Frame, direction: FrameDirection):
        await super().process_frame(frame, direction)
        passed = self.down if direction == FrameDirection.DOWNSTREAM else self.up
        passed.append((time.monotonic(), frame))
        await self.push_frame(frame, direction)

    def frames(self, kind):
        return [frame for _, frame in self.down if isinstance(frame, kind)]


class SoundCardTransport(BaseOutputTransport):
    """A transport that stores audio in real time, and images with their times.

    Attributes:
        played: Start of playback in seconds and frame of each chunk of audio.
        shown: Time and frame of each image drawn.
    """

    def __init__(self, width, height):
        size = {"video_out_width": width, "video_out_height": height}
        params = {"audio_out_enabled": True, "video_out_enabled": True, **size}
        super().__init__(TransportParams(audio_out_end_silence_secs=0, **params))
        self.played, self.shown = [], []
        self._free_s = 0.0

    async def start(self, frame: StartFrame):
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame):
        self._free_s = max(self._free_s, time.monotonic())
        self.played.append((self._free_s, frame))
        self._free_s += frame.num_frames / frame.sample_rate
        await asyncio.sleep(self._free_s - time.monotonic())
        return True

    async def write_video_frame(self, frame: OutputImageRawFrame):
        self.shown.append((time.monotonic(), frame))
        return True


async def run_pipeline(service: TalkingHeadVideoService, size, talk):
    """Run a pipeline while `talk(queue_frame, recorder)` queues frames.

    Returns the recorder after the service, the transport, and the frames sent up by the service.
    """
    source, recorder, transport = Recorder(), Recorder(), SoundCardTransport(*size)
    worker = PipelineWorker(
        Pipeline([source, service, recorder, transport]),
        params=PipelineParams(audio_out_sample_rate=RATE),
        cancel_on_idle_timeout=False,
        enable_rtvi=False,
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def _on_pipeline_started(worker, frame):
        started.set()

    async def talk_when_started():
        await started.wait()
        await talk(worker.queue_frame, recorder)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), talk_when_started())
    return recorder, transport, [frame for _, frame in source.up]


def speech_frames(samples, context_id="a", chunk_s=0.1):
    """Return the frames of a text-to-speech service that speaks float samples at `RATE`."""
    pcm, size = (samples * 32_768).astype(np.int16), round(chunk_s * RATE)
    chunks = [pcm[start : start + size].tobytes() for start in range(0, len(pcm), size)]
    return [
        TTSStartedFrame(context_id=context_id),
        *(TTSAudioRawFrame(chunk, RATE, 1, context_id=context_id) for chunk in chunks),
        TTSStoppedFrame(context_id=context_id),
    ]


def av_skew_s(recorder, transport):
    """Return how much later each image was first shown than its audio was played, in seconds.

    Chunks of audio are recognised by their samples; silent ones are left out.
    """
    played_s = {frame.audio: at_s for at_s, frame in transport.played if any(frame.audio)}
    shown_s = {}
    for at_s, frame in transport.shown:
        shown_s.setdefault(frame.id, at_s)
    media = recorder.frames(OutputImageRawFrame | TTSAudioRawFrame)
    pairs = [
        (shown_s[image.id], played_s[audio.audio])
        for image, audio in pairwise(media)
        if isinstance(image, OutputImageRawFrame)
        and isinstance(audio, TTSAudioRawFrame)
        and image.id in shown_s
        and audio.audio in played_s
    ]
    return np.array([image_s - audio_s for image_s, audio_s in pairs])
