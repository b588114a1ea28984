"""LiveKit rooms without a server, a text-to-speech service, and a record of published media."""

import asyncio
import time

import numpy as np
from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, tts

RATE = 24_000


class LocalRoom(rtc.EventEmitter):
    """A connected room without a server, which exchanges streams and calls with another one."""

    def __init__(self, identity="agent", kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT):
        super().__init__()
        self.local_participant = _Participant(self, identity, kind)
        self.remote_participants = {}
        self.stream_handlers, self.name = {}, "room"

    def isconnected(self):
        return True

    def register_byte_stream_handler(self, topic, handler):
        self.stream_handlers[topic] = handler

    def unregister_byte_stream_handler(self, topic):
        del self.stream_handlers[topic]

    register_text_stream_handler = register_byte_stream_handler
    unregister_text_stream_handler = unregister_byte_stream_handler

    def connect(self, other):
        for room, remote in ((self, other), (other, self)):
            room.remote_participants[remote.local_participant.identity] = remote.local_participant


class _Participant:
    state = rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE

    def __init__(self, room, identity, kind):
        self.room, self.identity, self.sid, self.kind = room, identity, identity, kind
        self._rpc_handlers, self.published, self.track_publications = {}, [], {}

    async def publish_track(self, track, options):
        self.published.append(options.source)
        return _Publication()

    def register_rpc_method(self, name, handler):
        self._rpc_handlers[name] = handler

    async def perform_rpc(self, *, destination_identity, method, payload):
        handler = self.room.remote_participants[destination_identity]._rpc_handlers[method]
        return handler(rtc.RpcInvocationData("call", self.identity, payload, 10.0))

    async def stream_bytes(self, name, *, topic, destination_identities, attributes):
        stream = _ByteStream(name, attributes)
        for identity in destination_identities:
            remote = self.room.remote_participants[identity].room
            remote.stream_handlers[topic](stream, self.identity)
        return stream

    async def stream_text(self, **options):
        return _ByteStream("text", {})

    async def ignore(self, *_, **options):
        pass

    set_attributes = send_bytes = publish_transcription = ignore


class _Publication:
    async def wait_for_subscription(self):
        pass


class _ByteStream:
    """A byte stream with the interfaces of the writer and of the reader."""

    def __init__(self, name, attributes):
        self.stream_id, self.attributes, self.info = name, attributes, self
        self._chunks = asyncio.Queue()

    async def write(self, data):
        await self._chunks.put(data)

    async def aclose(self):
        await self._chunks.put(None)

    async def __anext__(self):
        chunk = await self._chunks.get()
        if chunk is None:
            raise StopAsyncIteration
        return chunk


class SampleTTS(tts.TTS):
    """Text to speech that returns given samples, float32 at `RATE`, for each text."""

    def __init__(self, samples_of_text):
        capabilities = tts.TTSCapabilities(streaming=False)
        super().__init__(capabilities=capabilities, sample_rate=RATE, num_channels=1)
        self.samples_of_text = samples_of_text

    def synthesize(self, text, *, conn_options=DEFAULT_API_CONNECT_OPTIONS):
        return _SampleStream(tts=self, input_text=text, conn_options=conn_options)


class _SampleStream(tts.ChunkedStream):
    async def _run(self, emitter):
        emitter.initialize(
            request_id="request", sample_rate=RATE, num_channels=1, mime_type="audio/pcm"
        )
        samples = await asyncio.to_thread(self._tts.samples_of_text, self._input_text)
        emitter.push((samples * 32_768).astype(np.int16).tobytes())
        emitter.flush()


class MediaRecord:
    """A record of the media that an `AvatarRunner` publishes.

    Attributes:
        pushed: Images and audio in the order in which the runner received them.
        shown, played: Time of each image and of the first sample of each audio frame, by object.
    """

    def __init__(self, monkeypatch):
        self.pushed, self.shown, self.played = [], {}, {}
        self._monkeypatch = monkeypatch
        push = rtc.AVSynchronizer.push
        show, play = rtc.VideoSource.capture_frame, rtc.AudioSource.capture_frame

        async def record_push(synchronizer, frame, timestamp=None):
            self.pushed.append(frame)
            await push(synchronizer, frame, timestamp)

        def record_show(source, frame, **options):
            self.shown[id(frame)] = time.monotonic()
            show(source, frame, **options)

        async def record_play(source, frame):
            self.played[id(frame)] = time.monotonic() + source.queued_duration
            await play(source, frame)

        monkeypatch.setattr(rtc.AVSynchronizer, "push", record_push)
        monkeypatch.setattr(rtc.VideoSource, "capture_frame", record_show)
        monkeypatch.setattr(rtc.AudioSource, "capture_frame", record_play)

    def images(self):
        return [frame for frame in self.pushed if isinstance(frame, rtc.VideoFrame)]

    def audio(self):
        frames = [frame for frame in self.pushed if isinstance(frame, rtc.AudioFrame)]
        return samples_of(frames)

    def skew_s(self):
        """Return how much later each image was shown than its audio was played, in seconds."""
        skew_s, image = [], None
        for frame in self.pushed:
            if isinstance(frame, rtc.VideoFrame):
                image = frame
            elif len(frame.data) == round(frame.sample_rate / 25) and id(image) in self.shown:
                skew_s.append(self.shown[id(image)] - self.played[id(frame)])
        return np.array(skew_s)


def samples_of(frames):
    """Return the samples of audio frames, int16."""
    return np.frombuffer(b"".join(bytes(frame.data) for frame in frames), np.int16)


def audio_frames(samples, sample_rate=RATE, num_channels=1, size_s=0.1):
    """Return float samples [num_samples] or [num_samples, num_channels] as audio frames."""
    pcm, size = (samples * 32_768).astype(np.int16), round(size_s * sample_rate)
    chunks = [pcm[start : start + size] for start in range(0, len(pcm), size)]
    return [rtc.AudioFrame(c.tobytes(), sample_rate, num_channels, len(c)) for c in chunks]
