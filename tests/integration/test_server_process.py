"""The server in a separate process: clean shutdown, and no resources left of closed connections."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from helpers.live_parts import write_face

aiortc = pytest.importorskip("aiortc")
websockets = pytest.importorskip("websockets")

_TESTS = Path(__file__).parents[1]


class Server:
    """A running server with small models.

    Attributes:
        process: The process.
        http: A client of its API.
        url: Address of its WebSockets.
        log: The file with its output.
    """

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log, self.url = folder / "server.log", f"ws://127.0.0.1:{port}"
        command = [sys.executable, "-m", "helpers.tone_server", str(port), str(write_face(folder))]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(_TESTS)},
            )
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60)

    async def wait_until_ready(self):
        for _ in range(1800):
            assert self.process.poll() is None, self.log.read_text()
            with suppress(httpx.HTTPError):
                await self.http.get("/healthz")
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"no answer: {self.log.read_text()}")

    async def create_session(self):
        """Return the id of a new session."""
        answer = await self.http.post("/v1/sessions", json={})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    async def connect_webrtc(self, session_id):
        """Return a connection after its first image."""
        peer = aiortc.RTCPeerConnection()
        tracks = []
        peer.on("track", tracks.append)
        for kind in ("audio", "video"):
            peer.addTransceiver(kind, "recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"sdp": peer.localDescription.sdp, "type": "offer"}
        answer = await self.http.post(f"/v1/sessions/{session_id}/offer", json=offer)
        assert answer.status_code == 200, answer.text
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(**answer.json()))
        video = next(track for track in tracks if track.kind == "video")
        await asyncio.wait_for(video.recv(), 20)
        return peer


@asynccontextmanager
async def running_server(folder):
    server = Server(folder)
    try:
        await server.wait_until_ready()
        yield server
    finally:
        await server.http.aclose()
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


async def read_until_closed(socket):
    """Return the close code of a WebSocket."""
    with suppress(websockets.ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code


@pytest.mark.slow
def test_shutdown_closes_all_connections_without_errors(tmp_path):
    async def run():
        async with running_server(tmp_path) as server:
            sockets = {
                path: await websockets.connect(server.url + path)
                for path in ("/v1/stream?image=h264", "/v1/realtime")
            }
            for opened in sockets.values():
                await opened.recv()
            session = await server.create_session()
            path = f"/v1/sessions/{session}/events"
            sockets[path] = await websockets.connect(server.url + path)
            peer = await server.connect_webrtc(session)
            await server.http.post(f"/v1/sessions/{session}/ask", json={"text": "one two " * 100})
            video = await server.http.post("/v1/videos", data={"text": "wait"})
            assert video.status_code == 202, video.text
            children = psutil.Process(server.process.pid).children(recursive=True)
            started_s = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            codes = await asyncio.gather(*map(read_until_closed, sockets.values()))
            code = await asyncio.to_thread(server.process.wait, 30)
            duration_s = time.monotonic() - started_s
            await peer.close()
            _, left = psutil.wait_procs(children, 5)
            return dict(zip(sockets, codes, strict=True)), code, duration_s, left, server.log

    codes, exit_code, duration_s, left, log = asyncio.run(run())
    text = log.read_text()
    assert set(codes.values()) == {1001}, codes
    assert exit_code in (0, -signal.SIGTERM)
    assert "Traceback" not in text, text
    assert "ERROR" not in text, text
    assert not left
    assert duration_s < 10


@pytest.mark.slow
def test_closed_connections_leave_no_open_files(tmp_path):
    async def run():
        async with running_server(tmp_path) as server:
            process, counts = psutil.Process(server.process.pid), []
            for number in range(6):
                session = await server.create_session()
                for _ in range(5):
                    events = await websockets.connect(f"{server.url}/v1/sessions/{session}/events")
                    peer = await server.connect_webrtc(session)
                    await peer.close()
                    await events.close()
                deleted = await server.http.delete(f"/v1/sessions/{session}")
                assert deleted.status_code == 204
                if number in (1, 5):  # After 10 and 30 connections.
                    await asyncio.sleep(0.5)
                    counts.append(process.num_fds())
            return counts

    after_10, after_30 = asyncio.run(run())
    assert after_10 == after_30
