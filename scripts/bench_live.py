"""Measure the live server through HTTP and WebRTC, as a browser uses it.

    python scripts/bench_live.py turns --count 20
    python scripts/bench_live.py speech --minutes 60
    python scripts/bench_live.py connections --count 200
    python scripts/bench_live.py sessions --count 2 --minutes 1

`turns` asks a spoken question several times, and reports the time from its end to the answer, by
stage. `speech` lets the face speak without a pause, and reports frame rate, drift and memory.
`connections` opens and closes connections, ten to each session, and reports what is left of them.
`sessions` runs `speech` in several sessions at once. Further arguments, such as
`llms.llama.temperature=0`, are passed to `talkinghead serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from typing import Any

import av
import httpx
import numpy as np
import psutil
import websockets
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from talkinghead.media.audio_decoding import Resampler
from talkinghead.types import FloatArray

RATE = 48_000
PACKET = RATE // 50
RECONNECTIONS = 10  # Connections to each session.
LOUD = 500  # Amplitude of audible speech in int16.
TEXT = (
    "This is a long text that is spoken without a pause, so that the frame rate, the drift and the "
    "memory can be measured. "
) * 14


class Microphone(MediaStreamTrack):
    """A microphone track that is silent until speech is queued."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._speech = np.zeros(0, np.int16)
        self._position = 0
        self._started_s = time.monotonic()
        self.end_s = 0.0

    def speak(self, samples: FloatArray) -> None:
        """Queue speech at 48 kHz; `end_s` becomes the time of its last sample."""
        self._speech = (samples * 32_767).astype(np.int16)
        self.end_s = time.monotonic() + len(samples) / RATE

    async def recv(self) -> av.AudioFrame:
        """Return the next 20 ms in real time."""
        wait_s = self._started_s + self._position / RATE - time.monotonic()
        await asyncio.sleep(max(0.0, wait_s))
        part, self._speech = self._speech[:PACKET], self._speech[PACKET:]
        samples = np.pad(part, (0, PACKET - len(part)))
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts, self._position = self._position, self._position + PACKET
        return frame


class Client:
    """A session with its WebRTC connection and its events."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url = http, url
        self.microphone = Microphone()
        self.events: list[dict[str, Any]] = []
        self.video: list[tuple[float, float]] = []  # Arrival and media time in seconds.
        self.audio: list[tuple[float, float, int]] = []  # Arrival and media time, peak.
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Create the session and connect."""
        answer = await self._http.post("/v1/sessions", json={})
        answer.raise_for_status()
        self.id = answer.json()["id"]
        self._tasks.append(asyncio.create_task(self._follow_events()))
        await self.connect()

    async def connect(self) -> None:
        """Connect to the session, and wait for the first image."""
        self.video.clear()
        self.peer = RTCPeerConnection()
        self.peer.addTrack(self.microphone)
        self.peer.addTransceiver("video", "recvonly")
        self.peer.on("track", lambda t: self._tasks.append(asyncio.create_task(self._follow(t))))
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = self.peer.localDescription
        answer = await self._http.post(
            f"/v1/sessions/{self.id}/offer", json={"sdp": offer.sdp, "type": offer.type}
        )
        answer.raise_for_status()
        await self.peer.setRemoteDescription(RTCSessionDescription(**answer.json()))
        while not self.video:
            await asyncio.sleep(0.01)

    async def reconnect(self) -> None:
        """Close the connection and connect again, as a page does after a reload."""
        await self.peer.close()
        self.microphone = Microphone()
        await self.connect()

    async def close(self) -> None:
        """Close the connection and the session."""
        await self.peer.close()
        for task in self._tasks:
            task.cancel()
        await self._http.delete(f"/v1/sessions/{self.id}")

    async def say(self, text: str) -> None:
        """Speak a text."""
        answer = await self._http.post(f"/v1/sessions/{self.id}/say", json={"text": text})
        answer.raise_for_status()

    async def interrupt(self) -> None:
        """Stop the reply."""
        await self._http.post(f"/v1/sessions/{self.id}/interrupt")

    async def wait_for(self, kind: str, seen: int, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the first event of a type, without the first `seen` events."""
        async with asyncio.timeout(timeout_s):
            while True:
                for event in self.events[seen:]:
                    if event["type"] == kind:
                        return event
                await asyncio.sleep(0.01)

    async def _follow_events(self) -> None:
        address = self._url.replace("http", "ws") + f"/v1/sessions/{self.id}/events"
        async with websockets.connect(address) as events:
            async for text in events:
                self.events.append(json.loads(text))

    async def _follow(self, track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                now_s, media_s = time.monotonic(), float(frame.pts * frame.time_base)
                if track.kind == "video":
                    self.video.append((now_s, media_s))
                else:
                    self.audio.append((now_s, media_s, int(np.abs(frame.to_ndarray()).max())))


@asynccontextmanager
async def running_server(overrides: list[str]) -> AsyncIterator[tuple[httpx.AsyncClient, str, int]]:
    """Run the server on a free port; yield a client, the address and the process identifier."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "talkinghead", "serve", f"port={port}", *overrides]
    process = subprocess.Popen([*command, "idle_timeout_s=7200", "max_duration_s=7200"])
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            for _ in range(600):
                with suppress(httpx.HTTPError):
                    await http.get("/healthz")
                    break
                await asyncio.sleep(0.2)
            yield http, url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def question() -> FloatArray:
    """Return a spoken question at 48 kHz."""
    from talkinghead.speech.tts.piper import Piper

    voice = Piper()
    spoken = np.concatenate(list(voice.speak("What can you tell me about the weather?")))
    spoken = spoken[: np.flatnonzero(np.abs(spoken) > 0.02)[-1]]
    return np.concatenate(list(Resampler(voice.sample_rate, RATE).stream([spoken])))


async def measure_turns(count: int, overrides: list[str]) -> dict[str, Any]:
    """Return the times of each stage of spoken questions, in seconds after the question's end."""
    spoken, turns = question(), []
    async with running_server(overrides) as (http, url, _):
        client = Client(http, url)
        await client.open()
        for _ in range(count):
            await asyncio.sleep(1.0)
            seen = len(client.events)
            client.microphone.speak(spoken)
            timings = await client.wait_for("timings", seen)
            await asyncio.sleep(0.5)
            await client.interrupt()
            await client.wait_for("reply_end", seen)
            loud = [at for at, _, peak in client.audio if peak > LOUD]
            first = next(at for at in loud if at > client.microphone.end_s)
            heard_s = first - client.microphone.end_s
            turns.append({**timings, "audio_heard_s": heard_s})
        seen = len(client.events)
        says = []
        for _ in range(count):
            seen, started_s = len(client.events), time.monotonic()
            await client.say("Hello, how are you?")
            await client.wait_for("timings", seen)
            says.append(time.monotonic() - started_s)
            await client.wait_for("reply_end", seen)
        await client.close()
    names = sorted(name for name in turns[0] if name.endswith("_s"))
    table = {name: percentiles([turn[name] for turn in turns if name in turn]) for name in names}
    return {**table, "say_to_first_frame_s": percentiles(says)}


async def measure_speech(minutes: float, count: int, overrides: list[str]) -> dict[str, Any]:
    """Return the frame rate, the drift and the memory of sessions that speak without a pause."""
    options = [f"max_sessions={count}", "spare=false", "requests_per_s=100", *overrides]
    async with running_server(options) as (http, url, pid):
        clients = [Client(http, url) for _ in range(count)]
        for client in clients:
            await client.open()
        memory: list[float] = []
        end_s = time.monotonic() + 60 * minutes
        speaking = [asyncio.create_task(speak_until(client, end_s)) for client in clients]
        while time.monotonic() < end_s:
            await asyncio.sleep(min(10.0, 6 * minutes))
            memory.append(memory_mb(pid))
        await asyncio.gather(*speaking)
        results = [describe_media(client) for client in clients]
        for client in clients:
            await client.close()
    fifth = max(1, len(memory) // 5)
    return {
        "sessions": results,
        "memory_mb": {"first": memory[0], "second_fifth": memory[fifth], "last": memory[-1]},
    }


async def speak_until(client: Client, end_s: float) -> None:
    """Speak the same text repeatedly until a time on the clock of `time.monotonic`."""
    while time.monotonic() < end_s:
        seen = len(client.events)
        await client.say(TEXT)
        with suppress(TimeoutError):
            await client.wait_for("reply_end", seen, max(1.0, end_s - time.monotonic()))


def describe_media(client: Client) -> dict[str, Any]:
    """Return the statistics of the received frames."""
    video, audio = np.array(client.video[25:]), np.array(client.audio[50:])[:, :2]
    duration_s = video[-1, 0] - video[0, 0]
    intervals = np.diff(video[:, 0])
    delays = [one[:, 0] - one[:, 1] for one in (video, audio)]
    window = max(1, min(map(len, delays)) // 10)
    drift_ms = [1000 * float(np.median(d[-window:]) - np.median(d[:window])) for d in delays]
    stats = [event for event in client.events if event["type"] == "stats"]
    return {
        "minutes": round(duration_s / 60, 2),
        "frames_per_second": round((len(video) - 1) / duration_s, 3),
        "media_seconds_per_second": round((video[-1, 1] - video[0, 1]) / duration_s, 5),
        "late_percent": round(100 * float(np.mean(intervals > 0.08)), 3),
        "drift_video_ms": round(drift_ms[0], 1),
        "drift_between_audio_and_video_ms": round(drift_ms[0] - drift_ms[1], 1),
        "num_dropped": stats[-1]["num_dropped"] if stats else None,
        "generate_ms_p95": stats[-1]["generate_ms_p95"] if stats else None,
    }


async def measure_connections(count: int, overrides: list[str]) -> dict[str, Any]:
    """Return what a server uses after the first and after the last of many connections.

    Each count has the numbers of processes, open files and threads, and the memory in MB.
    """
    options = ["creations_per_min=100000", "requests_per_s=1000", *overrides]
    async with running_server(options) as (http, url, pid):
        process, counts = psutil.Process(pid), []
        for number in range(count // RECONNECTIONS):
            client = Client(http, url)
            await client.open()
            for _ in range(RECONNECTIONS - 1):
                await client.reconnect()
            await client.close()
            if number in (0, count // RECONNECTIONS - 1):
                await asyncio.sleep(15)
                server_mb = process.memory_info().rss / 2**20
                left = len(process.children()), process.num_fds(), process.num_threads()
                counts.append({"left": left, "server_mb": round(server_mb, 1)})
    return {f"after_{RECONNECTIONS}": counts[0], f"after_{count}": counts[-1]}


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its children in MB."""
    process = psutil.Process(pid)
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            total += child.memory_info().rss
    return round(total / 2**20, 1)


def percentiles(values: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile."""
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def main() -> None:
    """Run one measurement and print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["turns", "speech", "connections", "sessions"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=1.0)
    given, overrides = parser.parse_known_args()
    logging.basicConfig(level=logging.WARNING)
    if given.what == "turns":
        result = measure_turns(given.count, overrides)
    elif given.what == "connections":
        result = measure_connections(given.count, overrides)
    else:
        count = given.count if given.what == "sessions" else 1
        result = measure_speech(given.minutes, count, overrides)
    print(json.dumps(asyncio.run(result), indent=2))


if __name__ == "__main__":
    main()
