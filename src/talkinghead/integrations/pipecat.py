"""A video service for pipecat: an avatar that speaks the audio of a text-to-speech service."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from math import inf
from typing import Any, NamedTuple

import numpy as np

from talkinghead.concurrency import make_in_thread
from talkinghead.errors import DependencyError, UsageError
from talkinghead.live.avatar_loop import AvatarLoop
from talkinghead.live.live_avatar import LiveAvatar, LiveFrame
from talkinghead.media.audio_samples import to_int16
from talkinghead.predict.avatar import Avatar
from talkinghead.types import FloatArray

try:
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        OutputTransportReadyFrame,
        SystemFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
    from pipecat.services.ai_service import AIService
    from pipecat.services.settings import ServiceSettings
except ImportError as error:
    raise DependencyError(
        f"talkinghead.integrations.pipecat needs pipecat-ai 1.14 or later ({error}): "
        "pip install 'talkinghead[pipecat]'"
    ) from error

# Interval at which a wait for a frame checks whether the avatar's thread has failed.
_MAX_WAIT_S = 0.5


class _Position(NamedTuple):
    """A time in the speech of a reply; the end of the reply is at infinity."""

    reply: int
    time_s: float


class _Origin(NamedTuple):
    """Attributes that are copied from received speech to the audio frames pushed for it."""

    context_id: str | None
    sample_rate: int
    destination: str | None
    is_interruptible: bool


class TalkingHeadVideoService(AIService):
    """A pipecat service that speaks the audio of a text-to-speech service with an avatar.

    Place it between the text-to-speech service and the output transport. It replaces each
    `TTSAudioRawFrame` by images (`OutputImageRawFrame` with `sync_with_audio`) and the audio of
    each image, in real time, and idles between answers. Other frames that follow speech, such as
    `TTSStoppedFrame` and `EndFrame`, are pushed when that speech has been pushed; system frames and
    frames with a presentation time at once. An interruption drops the speech that has not been
    pushed, and the mouth closes.

    The first images are pushed when the output transport is ready, or with the first speech. If the
    avatar fails, an `ErrorFrame` is pushed and the audio passes unchanged.

    Args:
        avatar: The avatar.
        buffer_s: Silence pushed before an answer, so that the transport has audio to play if the
            next frame is late.
        label: Visible text in every image, such as "AI generated"; None for none.
        options: Arguments of `AIService`, such as `name`.

    Raises:
        UsageError: `buffer_s` is negative.

    Example:
        >>> avatar = LipSyncPredictor.from_checkpoint("default").avatar("photo.jpg")
        >>> face = TalkingHeadVideoService(avatar)
        >>> pipeline = Pipeline([transport.input(), stt, llm, tts, face, transport.output()])
    """

    def __init__(
        self, avatar: Avatar, *, buffer_s: float = 0.08, label: str | None = None, **options: Any
    ) -> None:
        super().__init__(**{"settings": ServiceSettings(model=None), **options})
        if buffer_s < 0:
            raise UsageError(f"buffer_s={buffer_s}: expected 0 s or more")
        self._avatar, self._buffer_s, self._label = avatar, buffer_s, label
        self._live: LiveAvatar | None = None
        self._loop: AvatarLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._frames: asyncio.Queue[LiveFrame] = asyncio.Queue()
        self._held: deque[tuple[_Position, Frame]] = deque()
        self._held_lock = asyncio.Lock()
        self._origins: dict[int, _Origin] = {}
        self._received = self._pushed = _Position(-1, inf)
        self._was_speaking = False
        self._is_silent = asyncio.Event()
        self._is_silent.set()

    def can_generate_metrics(self) -> bool:
        """Return True; the metric is the time from an answer's first speech to its first image."""
        return True

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]
        """Prepare the avatar for the sample rate of the pipeline's output."""
        await super().setup(setup)
        self._sample_rate = setup.audio_out_sample_rate
        make = partial(LiveAvatar.warmed_up, self._avatar, self._sample_rate, self._label)
        self._live = await make_in_thread(make)
        self._loop = AvatarLoop(self._live)

    async def stop(self, frame: EndFrame) -> None:
        """Wait until the speech that was received has been pushed, and stop the avatar."""
        await super().stop(frame)
        if self._live is not None:
            self._live.finish()
        await self._is_silent.wait()
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Stop the avatar at once."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Stop the avatar and release its threads."""
        await super().cleanup()
        await self._close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Speak text-to-speech audio, and forward all other frames in order."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            await self._interrupt(frame, direction)
        elif isinstance(frame, OutputTransportReadyFrame):
            self._start_avatar()
            await self.push_frame(frame, direction)
        elif direction == FrameDirection.UPSTREAM or isinstance(frame, SystemFrame | EndFrame):
            await self.push_frame(frame, direction)
        elif isinstance(frame, TTSAudioRawFrame) and self._live is not None:
            await self._speak(frame, self._live)
        elif isinstance(frame, TTSStoppedFrame):
            if self._live is not None:
                self._live.finish()
            await self._push_after(_Position(self._received.reply, inf), frame)
        elif frame.pts:
            # The output transport schedules frames that have a time.
            await self.push_frame(frame)
        else:
            await self._push_after(self._received, frame)

    def _start_avatar(self) -> None:
        """Start the avatar's thread, unless it runs or has stopped."""
        if self._loop is None or self._task is not None:
            return
        event_loop = self.get_event_loop()

        def listen(frame: LiveFrame) -> None:
            event_loop.call_soon_threadsafe(self._frames.put_nowait, frame)

        self._loop.add_listener(listen)
        self._loop.start()
        self._task = self.create_task(self._push_live_frames(self._loop))

    async def _close(self) -> None:
        loop, self._loop, self._live = self._loop, None, None
        if loop is not None:
            await asyncio.to_thread(loop.stop)
        task, self._task = self._task, None
        if task is not None:
            await self.cancel_task(task)

    async def _speak(self, frame: TTSAudioRawFrame, live: LiveAvatar) -> None:
        samples = np.frombuffer(frame.audio, np.int16).reshape(-1, frame.num_channels)
        mono = samples.mean(axis=1, dtype=np.float32) / np.float32(32_768)
        if not len(mono):
            return
        self._start_avatar()
        if not self._origins:
            await self.start_ttfb_metrics()
        origin = _Origin(
            frame.context_id, frame.sample_rate, frame.transport_destination, frame.interruptible
        )
        if self._origins.get(self._received.reply, origin) != origin:
            live.finish()
        reply = live.push(mono, frame.sample_rate)
        before_s = self._received.time_s if reply in self._origins else 0.0
        self._origins[reply] = origin
        self._received = _Position(reply, before_s + len(mono) / frame.sample_rate)
        self._is_silent.clear()

    async def _push_after(self, position: _Position, frame: Frame) -> None:
        """Push a frame after the speech up to a position and all earlier frames."""
        self._held.append((position, frame))
        await self._push_held()

    async def _push_held(self) -> None:
        # Two tasks push held frames; the lock keeps their order.
        async with self._held_lock:
            while self._held and self._held[0][0] <= self._pushed:
                await self.push_frame(self._held.popleft()[1])

    async def _interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        """Drop the speech and the frames that wait for it, apart from uninterruptible ones."""
        if all(origin.is_interruptible for origin in self._origins.values()):
            if self._live is not None:
                self._live.interrupt()
            self._held = deque(item for item in self._held if not item[1].interruptible)
            self._forget_speech()
        await self.push_frame(frame, direction)
        await self._push_held()
        if not self._origins:
            self._is_silent.set()

    def _forget_speech(self) -> None:
        self._received = self._pushed = _Position(self._received.reply, inf)
        self._origins.clear()

    async def _push_live_frames(self, loop: AvatarLoop) -> None:
        """Push the avatar's frames until the avatar fails."""
        while loop.error is None:
            try:
                frame = await asyncio.wait_for(self._frames.get(), _MAX_WAIT_S)
            except TimeoutError:
                continue
            await self._push_live_frame(frame)
        self._live = None
        await self.push_error(
            f"the avatar failed: {loop.error}",
            exception=loop.error,
            force_treat_as_permanent=True,
        )
        self._forget_speech()
        await self._push_held()
        self._is_silent.set()

    async def _push_live_frame(self, frame: LiveFrame) -> None:
        # Frames of an interrupted reply have no origin: only their images are pushed.
        origin = None if frame.reply is None else self._origins.get(frame.reply)
        if origin is not None and not self._was_speaking:
            await self.stop_ttfb_metrics()
            silence = np.zeros(round(self._buffer_s * self._sample_rate), np.float32)
            await self._push_audio(silence, origin)
        self._was_speaking = origin is not None
        await self._push_image(frame, origin)
        if origin is None or frame.reply is None or frame.reply_time_s is None:
            return
        await self._push_audio(frame.audio, origin)
        time_s = inf if frame.is_reply_end else float(frame.reply_time_s + frame.duration_s)
        self._pushed = _Position(frame.reply, time_s)
        if frame.is_reply_end:
            self._origins.pop(frame.reply, None)
        await self._push_held()
        if not self._origins:
            self._is_silent.set()

    async def _push_image(self, frame: LiveFrame, origin: _Origin | None) -> None:
        height, width, _ = frame.image.shape
        image = OutputImageRawFrame(frame.image.tobytes(), (width, height), "RGB")
        image.sync_with_audio = True
        if origin is not None:
            image.transport_destination = origin.destination
            image.interruptible = origin.is_interruptible
        await self.push_frame(image)

    async def _push_audio(self, audio: FloatArray, origin: _Origin) -> None:
        if not len(audio):
            return
        pcm = to_int16(audio).tobytes()
        frame = TTSAudioRawFrame(pcm, self._sample_rate, 1, context_id=origin.context_id)
        frame.transport_destination = origin.destination
        frame.interruptible = origin.is_interruptible
        await self.push_frame(frame)
