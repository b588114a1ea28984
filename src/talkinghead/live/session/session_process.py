"""The process of one live session: the avatar, the dialogue and the connections."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.live.avatar_loop import AvatarLoop
from talkinghead.live.live_avatar import LiveAvatar, LiveFrame
from talkinghead.live.session.dialogue import Dialogue
from talkinghead.live.session.dialogue_options import DialogueOptions
from talkinghead.live.session.operation_server import OperationServer, serve_operations
from talkinghead.live.session.process_handle import ProcessHandle
from talkinghead.live.session.transport.image_encoders import (
    EncodedImage,
    ImageEncoder,
    image_encoder,
)
from talkinghead.live.session.transport.peer_process import PeerProcess
from talkinghead.live.session.turn import Turn
from talkinghead.media.atomic_file import temporary_folder
from talkinghead.media.audio_decoding import Resampler
from talkinghead.media.audio_samples import to_int16, to_mono_float32
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.output.provenance import Provenance
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.speech.protocols import LanguageModel, SpeechToText, TextToSpeech, Transcript
from talkinghead.speech.turn_report import TurnReport, write_transcript
from talkinghead.types import AudioClip, FloatArray
from talkinghead.value_rules import PositiveInt

log = logging.getLogger(__name__)

_STATS_EVERY_S = 1.0


@dataclass(frozen=True)
class SessionFactory:
    """Functions that build the parts of a session in its process; they must be picklable.

    Attributes:
        predictor: Builds the predictor.
        voices: Build the voices, by name; the first one is the default.
        llms: Build the language models, by name; the first one is the default.
        stt: Builds the speech recognition; None disables the microphone.
        dialogue: Options of the dialogue.
        label: Visible text in every image; None for none.
        ice_servers: Addresses of STUN and TURN servers (see `WebRtcPeer`).
        num_threads: Number of threads of the model in each process.
        motion: Motion of the head in a photo: none, idle or speech (see `SourceOptions`).
    """

    predictor: Callable[[], LipSyncPredictor]
    voices: Mapping[str, Callable[[], TextToSpeech]]
    llms: Mapping[str, Callable[[], LanguageModel]]
    stt: Callable[[], SpeechToText] | None = None
    dialogue: DialogueOptions = field(default_factory=DialogueOptions)
    label: str | None = "AI generated"
    ice_servers: tuple[dict[str, Any], ...] = ()
    num_threads: PositiveInt = 1
    motion: str = SourceOptions.motion


def run_session(connection: Connection, factory: SessionFactory, folder: Path) -> None:
    """Serve one session over a connection to the parent process, until either end closes it.

    Recordings are written to the folder, which belongs to the parent process.

    The process loads the default parts at once, reports `ready`, and waits for the operation
    `open`, so that a session can start without delay.
    """
    import torch

    torch.set_num_threads(factory.num_threads)
    serve_operations(lambda: _Session(connection, factory, folder))


def session_process(factory: SessionFactory) -> ProcessHandle:
    """Return the process of a session; once it has started, its models are loaded."""
    folder = temporary_folder()
    arguments = factory, Path(folder.name)
    return ProcessHandle("session", run_session, arguments, folder.cleanup)


class _Session(OperationServer):
    """The operations of a session."""

    def __init__(self, connection: Connection, factory: SessionFactory, folder: Path) -> None:
        super().__init__(connection)
        self._factory, self._folder = factory, folder
        self._parts: dict[tuple[str, str], Any] = {}
        # A second request for a part waits for the first, which may take seconds to build it.
        self._part_locks: dict[tuple[str, str], threading.Lock] = {}
        self._predictor: LipSyncPredictor | None = None
        self._dialogue: Dialogue | None = None
        self._loop: AvatarLoop | None = None
        self._peer = PeerProcess(self._hear, self._follow_peer, factory.ice_servers)
        self._encoder: ImageEncoder | None = None
        self._stream: Resampler | None = None
        self._stats: asyncio.Task[None] | None = None
        self._recordings: dict[int, asyncio.Task[None]] = {}  # The key is the number of the turn.

    async def load(self) -> None:
        """Load the default parts."""
        await asyncio.to_thread(self._load)
        self._stats = asyncio.create_task(self._report_stats())

    async def close(self) -> None:
        """Disconnect, and end the dialogue and the avatar."""
        if self._stats is not None:
            self._stats.cancel()
        await self._peer.close()
        if self._dialogue is not None:
            await asyncio.to_thread(self._dialogue.close)
        if self._loop is not None:
            await asyncio.to_thread(self._loop.stop)

    def _load(self) -> None:
        self._predictor = self._factory.predictor()
        self._part("voices", None)
        self._part("llms", None)
        self._stt = self._factory.stt() if self._factory.stt else None

    def _part(self, group: str, name: str | None) -> Any:
        """Return a voice or a language model, which is built when it is first used."""
        makers = getattr(self._factory, group)
        name = next(iter(makers)) if name is None else name
        if name not in makers:
            raise UsageError(f"{name!r} is not one of the server's {group}: {', '.join(makers)}")
        with self._part_locks.setdefault((group, name), threading.Lock()):
            if (group, name) not in self._parts:
                self._parts[group, name] = makers[name]()
            return self._parts[group, name]

    def _emit(self, event: dict[str, Any]) -> None:
        if event["type"] == "state" and self._loop is not None:
            self._loop.avatar.controls.is_listening = event["state"] == "listening"
        self.send({"event": event})

    async def op_open(
        self,
        face: str,
        voice: str | None = None,
        llm: str | None = None,
        persona: str | None = None,
        language: str | None = None,
        emotion: str | None = None,
        intensity: float | None = None,
        pose: tuple[float, float, float] | None = None,
        webrtc: bool = False,
    ) -> dict[str, Any]:
        """Load the face and start the avatar; None selects the server's defaults.

        With `webrtc`, the process of the connection is started before an offer arrives.
        """
        if webrtc:
            self.start_task(self._start_peer())

        def start() -> LiveAvatar:
            assert self._predictor is not None
            # The face may be a client's, of which nothing is kept.
            source = SourceOptions(motion=self._factory.motion, keep_calibration=False)
            live = LiveAvatar(self._predictor.avatar(face, source), label=self._factory.label)
            live.controls.update(emotion, intensity, pose)
            return live

        options = self._factory.dialogue
        if persona is not None:
            options = replace(options, system_prompt=persona or None)
        if language is not None:
            options = replace(options, language=language)
        speaker = await asyncio.to_thread(self._part, "voices", voice)
        model = await asyncio.to_thread(self._part, "llms", llm)
        live = await asyncio.to_thread(start)
        # Each full garbage collection of the loaded models would delay the frames by 0.2 s.
        gc.collect()
        gc.freeze()
        self._dialogue = Dialogue(live, speaker, model, self._stt, options, self._emit)
        self._loop = AvatarLoop(live)
        self._loop.add_observer(self._dialogue.on_frame)
        self._loop.start()
        return {"width": live.width, "height": live.height, "fps": float(live.fps)}

    async def op_offer(self, sdp: str, type: str) -> dict[str, str]:
        """Connect a browser, and replace the previous connection."""
        self._opened()
        return await self._peer.answer(sdp, type)

    async def op_say(self, text: str) -> dict[str, int]:
        """Speak a text."""
        return {"turn": self._opened()[1].say(text)}

    async def op_ask(self, text: str) -> dict[str, int]:
        """Answer a typed question."""
        return {"turn": self._opened()[1].ask(text)}

    async def op_say_audio(
        self, pcm: bytes, sample_rate: int, is_complete: bool = False
    ) -> dict[str, int]:
        """Speak audio, PCM16 mono: a part, which `say_end` must end, or a complete speech."""
        dialogue = self._opened()[1]
        if is_complete:
            dialogue.finish_audio()
        turn = dialogue.push_audio(_from_pcm(pcm), sample_rate)
        if is_complete:
            dialogue.finish_audio()
        return {"turn": turn}

    async def op_say_end(self) -> None:
        """End the audio of `say_audio`."""
        self._opened()[1].finish_audio()

    async def op_listen(self, pcm: bytes, sample_rate: int) -> None:
        """Add microphone audio, PCM16 mono."""
        self._opened()[1].listen(_from_pcm(pcm), sample_rate)

    async def op_interrupt(self) -> None:
        """Stop the reply."""
        self._opened()[1].interrupt()

    async def op_update(
        self,
        voice: str | None = None,
        llm: str | None = None,
        persona: str | None = None,
        emotion: str | None = None,
        intensity: float | None = None,
        pose: tuple[float, float, float] | None = None,
    ) -> None:
        """Change the face at once, and the rest from the next reply on."""
        loop, dialogue = self._opened()
        loop.avatar.controls.update(emotion, intensity, pose)
        if voice is not None:
            dialogue.voice = await asyncio.to_thread(self._part, "voices", voice)
        if llm is not None:
            dialogue.llm = await asyncio.to_thread(self._part, "llms", llm)
        if persona is not None:
            dialogue.options = replace(dialogue.options, system_prompt=persona or None)

    async def op_stream(
        self, image: str = "jpeg", quality: int = 80, sample_rate: int = 48_000
    ) -> None:
        """Send frames as events, with images in a format of `image_encoder`."""
        loop, _ = self._opened()
        live = loop.avatar
        self._encoder = image_encoder(image, live.width, live.height, live.fps, quality)
        is_first = self._stream is None
        self._stream = Resampler(loop.avatar.sample_rate, sample_rate)
        if is_first:
            loop.add_listener(self._send_frame)

    async def op_stats(self) -> dict[str, Any]:
        """Return the statistics."""
        loop, _ = self._opened()
        stats = asdict(loop.stats)
        stats["num_dropped"] += self._peer.num_dropped
        stats["is_connected"] = self._peer.is_connected
        return stats

    async def op_record(self) -> dict[str, str]:
        """Render the last reply to an MP4 file with subtitles, and return their paths."""
        _, dialogue = self._opened()
        if (turn := dialogue.last_reply) is None or not turn.audio:
            raise UsageError("there is no reply to record yet: ask something first")
        video = self._folder / f"reply-{turn.number}.mp4"
        # Several requests wait for one rendering.
        recording = self._recordings.get(turn.number)
        if recording is None or (recording.done() and recording.exception() is not None):
            recording = asyncio.create_task(asyncio.to_thread(self._render, turn, video))
            self._recordings[turn.number] = recording
        await asyncio.shield(recording)
        return {"video": str(video), "subtitles": str(video.with_suffix(".srt"))}

    def _render(self, turn: Turn, video: Path) -> None:
        loop, _ = self._opened()
        assert self._predictor is not None
        clip = AudioClip(np.concatenate(turn.audio), turn.sample_rate)
        provenance = Provenance(label=self._factory.label)
        rendered = self._predictor.render(loop.avatar.avatar, clip, video, provenance=provenance)
        spoken = tuple(turn.sentences[: turn.num_shown])
        write_transcript(
            TurnReport(Transcript(turn.question), spoken, turn.times, rendered), rendered.path
        )

    def _opened(self) -> tuple[AvatarLoop, Dialogue]:
        if self._loop is None or self._dialogue is None:
            raise UsageError("the session is not open")
        return self._loop, self._dialogue

    def _hear(self, samples: FloatArray, sample_rate: int) -> None:
        if self._stt is not None and self._dialogue is not None:
            self._dialogue.listen(samples, sample_rate)

    async def _start_peer(self) -> None:
        with suppress(TalkingHeadError, TimeoutError, OSError):  # `offer` reports the error.
            await self._peer.start()

    def _follow_peer(self, is_connected: bool) -> None:
        if self._loop is None:
            return
        self._loop.remove_listener(self._peer.put)
        if is_connected:
            self._loop.add_listener(self._peer.put)

    def _send_frame(self, frame: LiveFrame) -> None:
        """Send a frame to the parent process; called in the avatar loop's thread."""
        assert self._stream is not None
        audio = np.concatenate([np.zeros(0, np.float32), *self._stream.push(frame.audio)])
        encoded = EncodedImage(b"", is_keyframe=False)
        if (encoder := self._encoder) is not None:
            encoded = encoder.encode(frame.image, frame.time_s)
        self._emit(
            {
                "type": "frame",
                "time_s": float(frame.time_s),
                "reply": frame.reply,
                "audio": to_int16(audio).tobytes(),
                "image": encoded.data,
                "is_keyframe": encoded.is_keyframe,
                "is_reply_end": frame.is_reply_end,
            }
        )

    async def _report_stats(self) -> None:
        while True:
            await asyncio.sleep(_STATS_EVERY_S)
            if self._loop is not None and self._loop.error is not None:
                self.end()  # The session counts as crashed.
                return
            if self._stream is not None or self._peer.is_connected:
                self._emit({"type": "stats", **await self.op_stats()})


def _from_pcm(pcm: bytes) -> FloatArray:
    if len(pcm) % 2:
        raise UsageError(f"the audio has {len(pcm)} bytes; expected PCM16, an even number")
    return to_mono_float32(np.frombuffer(pcm, "<i2"))
