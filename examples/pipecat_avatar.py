"""Speak sentences with an avatar in a pipecat pipeline, offline, into a video file.

Run: python examples/pipecat_avatar.py photo.jpg talking.mp4 "Hello." "How are you?"
"""

import asyncio
import sys

import numpy as np
from pipecat.frames import frames
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from talkinghead import LipSyncPredictor
from talkinghead.integrations.pipecat import TalkingHeadVideoService
from talkinghead.media.writer import VideoWriter
from talkinghead.speech.tts.piper import Piper


class VideoFile(FrameProcessor):
    """A transport that writes images and their audio, or silence, to a file."""

    def __init__(self, writer: VideoWriter) -> None:
        super().__init__()
        self.writer, self.num_missing = writer, 0

    async def process_frame(self, frame: frames.Frame, direction: FrameDirection) -> None:
        """Write the media of a frame and pass the frame."""
        await super().process_frame(frame, direction)
        if isinstance(frame, frames.OutputImageRawFrame):
            self.writer.write(np.frombuffer(frame.image, np.uint8).reshape(*frame.size[::-1], 3))
            self.writer.write_audio(np.zeros(self.num_missing, np.float32))
            self.num_missing = round(24_000 / self.writer.fps)
        elif isinstance(frame, frames.TTSAudioRawFrame):
            self.writer.write_audio(np.frombuffer(frame.audio, np.int16) / np.float32(32_768))
            self.num_missing = 0
        await self.push_frame(frame, direction)


async def main(photo: str, output: str, *sentences: str) -> None:
    """Run a pipeline that speaks the sentences."""
    avatar = LipSyncPredictor.from_checkpoint("default").avatar(photo)
    voice, source = Piper(), avatar.source
    # 24,000 Hz is pipecat's default for output audio. A file needs no buffer.
    with VideoWriter(output, source.width, source.height, source.fps, 24_000) as writer:
        face = TalkingHeadVideoService(avatar, buffer_s=0)
        worker = PipelineWorker(Pipeline([face, VideoFile(writer)]))
        for samples in (chunk for sentence in sentences for chunk in voice.speak(sentence)):
            pcm = (samples * 32_767).astype(np.int16).tobytes()
            await worker.queue_frame(frames.TTSAudioRawFrame(pcm, voice.sample_rate, 1))
        await worker.queue_frame(frames.EndFrame())
        runner = WorkerRunner()
        await runner.add_workers(worker)
        await runner.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
