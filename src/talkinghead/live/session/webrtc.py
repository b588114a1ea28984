"""A WebRTC peer that sends a live avatar's video and audio, and receives microphone audio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from talkinghead.errors import UsageError
from talkinghead.live.avatar_loop import AvatarLoop
from talkinghead.live.live_avatar import LiveFrame
from talkinghead.media.audio_samples import to_int16
from talkinghead.media.timing import round_half_up
from talkinghead.types import FloatArray, UInt8Array

log = logging.getLogger(__name__)

OnAudio = Callable[[FloatArray, int], None]

_VIDEO_RATE = 90_000
# Frames waiting for the encoder; older ones are dropped if it is too slow.
_MAX_QUEUED = 3
_MAX_QUEUED_PACKETS, _PACKETS_PER_S = 20, 50
_MAX_WIDTH, _MAX_HEIGHT = 1280, 1280


class WebRtcPeer:
    """A connection to one browser.

    Both tracks carry times of the avatar's clock, so the receiver plays them in synchrony. The
    codec (VP8 or H.264) is the browser's choice, and the bitrate follows its bandwidth estimate.

    Args:
        loop: The avatar loop, which is running.
        on_audio: Function that takes the microphone audio, float32 [num_samples], and its sample
            rate.
        ice_servers: Addresses of STUN and TURN servers: dictionaries with `urls` and, if needed,
            `username` and `credential`.

    Attributes:
        num_dropped: Number of images that were dropped because the encoder was too slow.
    """

    def __init__(
        self, loop: AvatarLoop, on_audio: OnAudio, ice_servers: Sequence[dict[str, Any]] = ()
    ) -> None:
        servers = [RTCIceServer(**server) for server in ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(servers))
        self._loop, self._on_audio = loop, on_audio
        self._video = _Track("video", _MAX_QUEUED)
        self._audio = _Track("audio", _MAX_QUEUED_PACKETS)
        self._rest = np.zeros(0, np.int16)
        self._asyncio = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection.on("track", self._receive)
        self._connection.on("connectionstatechange", self._follow_state)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is established."""
        return self._connection.connectionState == "connected"

    @property
    def num_dropped(self) -> int:
        """Number of dropped images."""
        return self._video.num_dropped

    async def answer(self, sdp: str, kind: str) -> dict[str, str]:
        """Return the answer to a browser's offer, as a dictionary with `sdp` and `type`.

        Raises:
            UsageError: The offer is not a valid session description, or has no usable codec.
        """
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, kind))
        except OperationError as error:
            raise UsageError(
                "no codec in common: VP8 or H.264 video and Opus audio are needed"
            ) from error
        except Exception as error:
            raise UsageError(f"the offer is not a valid session description: {error}") from error
        kinds = {transceiver.kind for transceiver in self._connection.getTransceivers()}
        if kinds != {"audio", "video"}:
            raise UsageError("the offer must have audio and video: add both transceivers")
        self._connection.addTrack(self._audio)
        self._connection.addTrack(self._video)
        try:
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:
            raise UsageError(f"no common codec or transport was found: {error}") from error
        description = self._connection.localDescription
        return {"sdp": description.sdp, "type": description.type}

    async def close(self) -> None:
        """Close the connection."""
        self._loop.remove_listener(self._send)
        for track in (self._video, self._audio):
            track.stop()
        for task in self._tasks:
            task.cancel()
        await self._connection.close()

    def _send(self, frame: LiveFrame) -> None:
        """Queue a frame for sending; called in the avatar loop's thread."""
        # OpenCV converts faster than FFmpeg, to the same range and matrix (BT.601).
        yuv = cv2.cvtColor(_fit(frame.image), cv2.COLOR_RGB2YUV_I420)
        image = av.VideoFrame.from_ndarray(np.asarray(yuv, np.uint8), format="yuv420p")
        image.pts = round_half_up(frame.time_s * _VIDEO_RATE)
        image.time_base = Fraction(1, _VIDEO_RATE)
        with suppress(RuntimeError):  # The event loop is closed.
            self._asyncio.call_soon_threadsafe(self._put, image, list(self._packets(frame)))

    def _packets(self, frame: LiveFrame) -> Iterator[av.AudioFrame]:
        """Yield the audio in parts of 20 ms: aiortc sends only one packet for a frame."""
        rate = self._loop.avatar.sample_rate
        size = rate // _PACKETS_PER_S
        start = round_half_up(frame.time_s * rate) - len(self._rest)
        samples = np.concatenate([self._rest, to_int16(frame.audio)])
        for first in range(0, len(samples) - size + 1, size):
            part = samples[None, first : first + size]
            audio = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            audio.sample_rate = rate
            audio.pts = start + first
            audio.time_base = Fraction(1, rate)
            yield audio
        self._rest = samples[len(samples) // size * size :]

    def _put(self, image: av.VideoFrame, packets: list[av.AudioFrame]) -> None:
        for audio in packets:
            self._audio.put(audio)
        self._video.put(image)

    async def _follow_state(self) -> None:
        state = self._connection.connectionState
        log.info("peer %s", state)
        if state == "connected":
            self._loop.add_listener(self._send)
        elif state in ("failed", "closed"):
            await self.close()

    def _receive(self, track: MediaStreamTrack) -> None:
        if track.kind != "audio":
            return
        task = asyncio.ensure_future(self._forward(track))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                mono = samples.mean(axis=1, dtype=np.float32) / np.float32(32_768)
                self._on_audio(mono, frame.sample_rate)


class _Track(MediaStreamTrack):
    """A track with a short queue; when it is full, the oldest frame is dropped."""

    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        self.kind = kind
        self.num_dropped = 0
        self._queue: asyncio.Queue[Any] = asyncio.Queue(size)

    def put(self, frame: Any) -> None:
        if self._queue.full():
            self._queue.get_nowait()
            self.num_dropped += 1
        self._queue.put_nowait(frame)

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        return await self._queue.get()


def _fit(image: UInt8Array) -> UInt8Array:
    """Reduce an image to at most 1280 x 1280 pixels and to even sides."""
    height, width = image.shape[:2]
    scale = min(1.0, _MAX_WIDTH / width, _MAX_HEIGHT / height)
    if scale < 1:
        size = (int(width * scale), int(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        height, width = image.shape[:2]
    return np.ascontiguousarray(image[: height // 2 * 2, : width // 2 * 2])
