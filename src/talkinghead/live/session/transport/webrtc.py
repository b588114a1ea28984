"""A WebRTC peer that sends a live avatar's video and audio, and receives microphone audio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from talkinghead.errors import UsageError
from talkinghead.media.timing import round_half_up
from talkinghead.types import FloatArray, UInt8Array

log = logging.getLogger(__name__)

OnAudio = Callable[[FloatArray, int], None]
OnState = Callable[[], None]

_SAMPLE_RATE, _VIDEO_RATE = 48_000, 90_000
# Frames waiting for the encoder; older ones are dropped if it is too slow.
_MAX_QUEUED = 3
_MAX_QUEUED_PACKETS, _PACKETS_PER_S = 20, 50


class WebRtcPeer:
    """A connection to one browser.

    Both tracks carry times of the avatar's clock, so the receiver plays them in synchrony. The
    codec (VP8 or H.264) is the browser's choice, and the bitrate follows its bandwidth estimate.

    Args:
        on_audio: Function that takes the microphone audio, float32 [num_samples], and its sample
            rate.
        on_state: Called when `is_connected` may have changed.
        ice_servers: Addresses of STUN and TURN servers: dictionaries with `urls` and, if needed,
            `username` and `credential`.
    """

    def __init__(
        self, on_audio: OnAudio, on_state: OnState, ice_servers: Sequence[dict[str, Any]] = ()
    ) -> None:
        servers = [RTCIceServer(**server) for server in ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(servers))
        self._on_audio, self._on_state = on_audio, on_state
        self._video = _Track("video", _MAX_QUEUED)
        self._audio = _Track("audio", _MAX_QUEUED_PACKETS)
        self._rest = np.zeros(0, np.int16)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection.on("track", self._receive)
        self._connection.on("connectionstatechange", self._follow_state)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is established."""
        return self._connection.connectionState == "connected"

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
        for track in (self._video, self._audio):
            track.stop()
        for task in self._tasks:
            task.cancel()
        await self._connection.close()

    def put_image(self, yuv: UInt8Array, time_s: Fraction) -> bool:
        """Queue an image, and return whether another one was dropped instead.

        Args:
            yuv: uint8 [height * 3 / 2, width], YUV 4:2:0 planes; the image is copied.
            time_s: Time on the avatar's clock.
        """
        image = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
        image.pts = round_half_up(time_s * _VIDEO_RATE)
        image.time_base = Fraction(1, _VIDEO_RATE)
        return self._video.put(image)

    def put_audio(self, samples: NDArray[np.int16], time_s: Fraction) -> None:
        """Queue audio, 48 kHz mono, that starts at a time on the avatar's clock.

        The audio is sent in parts of 20 ms: aiortc sends only one packet for a frame.
        """
        size = _SAMPLE_RATE // _PACKETS_PER_S
        start = round_half_up(time_s * _SAMPLE_RATE) - len(self._rest)
        samples = np.concatenate([self._rest, samples])
        for first in range(0, len(samples) - size + 1, size):
            part = samples[None, first : first + size]
            audio = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            audio.sample_rate = _SAMPLE_RATE
            audio.pts, audio.time_base = start + first, Fraction(1, _SAMPLE_RATE)
            self._audio.put(audio)
        self._rest = samples[len(samples) // size * size :]

    async def _follow_state(self) -> None:
        state = self._connection.connectionState
        log.info("peer %s", state)
        if state in ("failed", "closed"):
            await self.close()
        self._on_state()

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
        self._queue: asyncio.Queue[Any] = asyncio.Queue(size)

    def put(self, frame: Any) -> bool:
        """Add a frame, and return whether another one was dropped."""
        is_full = self._queue.full()
        if is_full:
            self._queue.get_nowait()
        self._queue.put_nowait(frame)
        return is_full

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        return await self._queue.get()
