"""Give a LiveKit agent an avatar and an offline voice, in the agent's own process.

Set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET, and run:

    PHOTO=photo.jpg python examples/livekit_avatar.py dev

The agent greets those who join. With `stt` and `llm` in `AgentSession`, it answers them.
"""

import asyncio
import os

import numpy as np
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, tts

from talkinghead import LipSyncPredictor
from talkinghead.integrations.livekit import LocalAvatar
from talkinghead.speech.tts.piper import Piper

VOICE = Piper()
server = AgentServer()


class PiperSpeech(tts.ChunkedStream):
    """The speech of one text."""

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        kind = {"sample_rate": VOICE.sample_rate, "num_channels": 1, "mime_type": "audio/pcm"}
        output_emitter.initialize(request_id="piper", **kind)
        for chunk in await asyncio.to_thread(list, VOICE.speak(self.input_text)):
            output_emitter.push((chunk * 32_767).astype(np.int16).tobytes())


class PiperTTS(tts.TTS):
    """The offline voice of talkinghead as a text-to-speech service of LiveKit."""

    def __init__(self) -> None:
        able = tts.TTSCapabilities(streaming=False)
        super().__init__(capabilities=able, sample_rate=VOICE.sample_rate, num_channels=1)

    def synthesize(self, text: str, **options: object) -> tts.ChunkedStream:
        """Return the speech of a text."""
        return PiperSpeech(tts=self, input_text=text, **options)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Join a room with an avatar and speak a greeting."""
    await ctx.connect()
    predictor = await asyncio.to_thread(LipSyncPredictor.from_checkpoint, "default")
    face = LocalAvatar(await asyncio.to_thread(predictor.avatar, os.environ["PHOTO"]))
    session = AgentSession(tts=PiperTTS())
    await face.start(session, ctx.room)
    await session.start(Agent(instructions="Answer briefly."), room=ctx.room)
    await session.say("Hello, nice to meet you.")


if __name__ == "__main__":
    cli.run_app(server)
