"""A process that encodes and sends the frames of a live avatar by WebRTC."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
from collections.abc import Callable, Sequence
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from talkinghead.errors import DependencyError, TalkingHeadError
from talkinghead.live.session.operation_server import OperationServer, serve_operations
from talkinghead.live.session.process_handle import ProcessHandle, SessionLostError
from talkinghead.media.audio_samples import to_int16
from talkinghead.types import FloatArray, UInt8Array

if TYPE_CHECKING:  # The child process must not load PyTorch.
    from talkinghead.live.live_avatar import LiveFrame
    from talkinghead.live.session.transport.webrtc import WebRtcPeer

_MAX_SIDE = 1280
# Images that the process has not taken yet; more are dropped.
_NUM_SLOTS = 3
# Frames that a process may be behind until nothing is sent to it.
_MAX_BEHIND = 25


class _SharedImages:
    """A ring of YUV 4:2:0 images in memory that two processes share, with two counters."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._bytes: Any = context.RawArray(ctypes.c_uint8, _NUM_SLOTS * _MAX_SIDE**2 * 3 // 2)
        # Numbers of frames that the child has taken, and of images that it has dropped.
        self._counters: Any = context.RawArray(ctypes.c_uint64, 2)

    def image(self, slot: int, width: int, height: int) -> UInt8Array:
        """Return an image of the ring, uint8 [height * 3 / 2, width]."""
        start = slot * _MAX_SIDE**2 * 3 // 2
        view = np.frombuffer(self._bytes, np.uint8, height * 3 // 2 * width, start)
        return view.reshape(-1, width)

    @property
    def counters(self) -> NDArray[np.uint64]:
        """Return a view of the counters."""
        return np.frombuffer(self._counters, np.uint64)


class PeerProcess:
    """The WebRTC connection of a session, in a separate process.

    aiortc is written in Python. In the process of the avatar, the generation of the images waits
    for the interpreter lock that aiortc holds, and takes about half as long again.

    Args:
        on_audio: Called in the event loop with the microphone audio, float32 [num_samples], and
            its sample rate.
        on_state: Called in the event loop with whether a browser is connected, at each change.
        ice_servers: See `WebRtcPeer`.

    Attributes:
        is_connected: A browser is connected.
    """

    def __init__(
        self,
        on_audio: Callable[[FloatArray, int], None],
        on_state: Callable[[bool], None],
        ice_servers: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.is_connected = False
        self._on_audio, self._on_state, self._ice_servers = on_audio, on_state, ice_servers
        self._process: ProcessHandle | None = None
        self._starting = asyncio.Lock()
        self._shared: _SharedImages | None = None
        self._num_sent = self._num_dropped = 0

    @property
    def num_dropped(self) -> int:
        """Number of images that were dropped because the encoder was too slow."""
        shared = self._shared
        return self._num_dropped + (0 if shared is None else int(shared.counters[1]))

    async def start(self) -> ProcessHandle:
        """Start the process unless it runs, and return it.

        Raises:
            DependencyError: aiortc is not installed.
        """
        async with self._starting:
            if self._process is None or not self._process.is_alive:
                self._process = await self._start()
            return self._process

    async def answer(self, sdp: str, kind: str) -> dict[str, str]:
        """Return the answer to a browser's offer, which replaces the previous connection.

        Raises:
            UsageError: The offer is not a valid session description, or has no usable codec.
            DependencyError: aiortc is not installed.
            TalkingHeadError: The process has ended.
        """
        try:
            process = await self.start()
            return dict(await process.call("answer", {"sdp": sdp, "kind": kind}))
        except SessionLostError as error:
            message = "the process of the connection has ended: send another offer"
            raise TalkingHeadError(message) from error

    async def close(self) -> None:
        """Close the connection and end the process."""
        async with self._starting:
            if self._process is not None:
                await self._process.stop()

    def put(self, frame: LiveFrame) -> None:
        """Send a frame; this method returns at once and is called in one thread."""
        process, shared = self._process, self._shared
        if process is None or shared is None:
            return
        num_behind = self._num_sent - int(shared.counters[0])
        if num_behind >= _MAX_BEHIND:
            self._num_dropped += 1
            return
        size = None
        if num_behind < _NUM_SLOTS:
            size = self._write(frame.image, shared)
        else:
            self._num_dropped += 1
        message = {
            "slot": self._num_sent % _NUM_SLOTS,
            "size": size,
            "time_s": frame.time_s,
            "audio": to_int16(frame.audio).tobytes(),
        }
        self._num_sent += 1
        process.notify("frame", message)

    def _write(self, image: UInt8Array, shared: _SharedImages) -> tuple[int, int]:
        """Convert an image to YUV in the next slot, and return its width and height."""
        import cv2

        image = _fit(image)
        height, width = image.shape[:2]
        target = shared.image(self._num_sent % _NUM_SLOTS, width, height)
        # OpenCV converts faster than FFmpeg, to the same range and matrix (BT.601).
        cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420, dst=target)
        return width, height

    async def _start(self) -> ProcessHandle:
        if self._process is not None:
            await self._process.stop()
        self._shared, self._num_sent = _SharedImages(), 0
        arguments = self._shared, tuple(self._ice_servers)
        process = ProcessHandle("webrtc", run_peer, arguments)
        await process.start()
        process.on_event, process.on_end = self._follow, self._lose
        return process

    def _follow(self, event: dict[str, Any]) -> None:
        if event["type"] == "audio":
            self._on_audio(np.frombuffer(event["samples"], np.float32), event["sample_rate"])
        elif event["is_connected"] != self.is_connected:
            self.is_connected = event["is_connected"]
            self._on_state(self.is_connected)

    def _lose(self) -> None:
        self._follow({"type": "connection", "is_connected": False})


def run_peer(
    connection: Connection, shared: _SharedImages, ice_servers: Sequence[dict[str, Any]]
) -> None:
    """Serve the WebRTC connections of one session until the parent process ends."""
    serve_operations(lambda: _PeerServer(connection, shared, ice_servers))


class _PeerServer(OperationServer):
    """The operations of the process: `answer` and `frame`."""

    def __init__(
        self, connection: Connection, shared: _SharedImages, ice_servers: Sequence[dict[str, Any]]
    ) -> None:
        super().__init__(connection)
        self._shared, self._ice_servers = shared, ice_servers
        self._peer: WebRtcPeer | None = None

    async def load(self) -> None:
        """Import aiortc."""
        try:
            from talkinghead.live.session.transport import webrtc  # noqa: F401
        except ImportError as error:
            raise DependencyError(
                f"WebRTC needs aiortc ({error}): pip install 'talkinghead[live]'"
            ) from error

    async def close(self) -> None:
        """Close the connection."""
        if self._peer is not None:
            await self._peer.close()

    async def op_answer(self, sdp: str, kind: str) -> dict[str, str]:
        """Connect a browser, and replace the previous connection."""
        from talkinghead.live.session.transport.webrtc import WebRtcPeer

        peer = WebRtcPeer(self._send_audio, self._send_state, self._ice_servers)
        try:
            answer = await peer.answer(sdp, kind)
        except BaseException:
            await peer.close()
            raise
        previous, self._peer = self._peer, peer
        if previous is not None:
            await previous.close()
        return answer

    async def op_frame(
        self, slot: int, size: tuple[int, int] | None, time_s: Fraction, audio: bytes
    ) -> None:
        """Send a frame; this method contains no `await`, so that frames keep their order."""
        peer, counters = self._peer, self._shared.counters
        try:
            if peer is not None and peer.is_connected:
                peer.put_audio(np.frombuffer(audio, np.int16), time_s)
                if size is not None:
                    counters[1] += peer.put_image(self._shared.image(slot, *size), time_s)
        finally:
            counters[0] += 1

    def _send_audio(self, samples: FloatArray, sample_rate: int) -> None:
        event = {"type": "audio", "samples": samples.tobytes(), "sample_rate": sample_rate}
        self.send({"event": event})

    def _send_state(self) -> None:
        is_connected = self._peer is not None and self._peer.is_connected
        self.send({"event": {"type": "connection", "is_connected": is_connected}})


def _fit(image: UInt8Array) -> UInt8Array:
    """Reduce an image to at most 1280 x 1280 pixels and to even sides."""
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, _MAX_SIDE / width, _MAX_SIDE / height)
    if scale < 1:
        size = (int(width * scale), int(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        height, width = image.shape[:2]
    return np.ascontiguousarray(image[: height // 2 * 2, : width // 2 * 2])
