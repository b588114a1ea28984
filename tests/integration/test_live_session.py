"""Sessions run in separate processes, send WebRTC, and leave no process or file at their end."""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from helpers.live_parts import (
    make_counting_predictor,
    make_failing_predictor,
    tone_factory,
    write_face,
)

from talkinghead.errors import MediaError, UsageError
from talkinghead.live.session.process_handle import SessionLostError
from talkinghead.live.session.session_pool import PoolFullError, PoolOptions, SessionPool

pytest.importorskip("aiortc")

from helpers.webrtc_receiver import WebRtcReceiver


@asynccontextmanager
async def running_pool(factory=None, **options):
    pool = SessionPool(factory or tone_factory(), PoolOptions(**{"spare": False, **options}))
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def events_of(session):
    """Collect the events of a session."""
    events = []

    async def follow():
        async for event in session.subscribe():
            events.append(event)

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    try:
        yield events
    finally:
        task.cancel()


async def wait_for(events, kind, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = [event for event in events if event["type"] == kind]
        if found:
            return found[0]
        await asyncio.sleep(0.01)
    raise AssertionError(f"no event of type {kind} in {[event['type'] for event in events]}")


def children(parent=None):
    """Return the running processes of sessions, or of the connections of a session's process."""
    found = []
    for child in (parent or psutil.Process()).children():
        with suppress(psutil.Error):
            if any("spawn_main" in argument for argument in child.cmdline()):
                found.append(child)
    return found


class Receiver(WebRtcReceiver):
    """A browser that receives the tracks of a session."""

    def __init__(self, session):
        super().__init__(lambda sdp, kind: session.call("offer", sdp=sdp, type=kind))

    async def wait_for_frames(self, count, timeout_s=20.0):
        deadline_s = time.monotonic() + timeout_s
        while len(self.received["video"]) < count:
            assert time.monotonic() < deadline_s, "no video arrived"
            await asyncio.sleep(0.02)


@pytest.mark.slow
def test_webrtc_sends_the_answer_with_lips_in_sync(tmp_path):
    async def run():
        async with running_pool() as pool:
            session = await pool.create({}, write_face(tmp_path))
            assert session.video == {"width": 192, "height": 160, "fps": 25.0}
            assert all("OPENBLAS_NUM_THREADS" in child.environ() for child in children())
            receiver = Receiver(session)
            async with events_of(session) as events:
                await receiver.connect()
                await receiver.wait_for_frames(10)
                await session.call("ask", text="one two three four five six")
                end = await wait_for(events, "reply_end")
                assert not end["interrupted"]
                await asyncio.sleep(0.3)
                again = Receiver(session)  # A page that is loaded again continues the session.
                await again.connect()
                await again.wait_for_frames(5)
            await receiver.connection.close()
            await again.connection.close()
            return receiver.received

    received = asyncio.run(run())
    video = received["video"]
    steps = np.diff([frame.pts * frame.time_base for frame in video]).astype(float)
    assert np.median(steps) == pytest.approx(0.04, abs=1e-3)
    assert (video[0].width, video[0].height) == (192, 160)
    images = np.stack([frame.to_ndarray(format="rgb24") for frame in video]).astype(int)
    assert np.abs(images - images[0]).max() > 20  # The random model moves the mouth.
    audio = np.concatenate([frame.to_ndarray().ravel() for frame in received["audio"]])
    loud_s = np.count_nonzero(np.abs(audio) > 500) / 2 / 48_000
    assert 0.4 < loud_s < 0.8  # Six words of 0.1 s.


def test_stream_sends_frames_with_their_audio(tmp_path):
    async def run():
        async with running_pool() as pool:
            session = await pool.create({}, write_face(tmp_path))
            async with events_of(session) as events:
                await session.call("stream", image="jpeg", sample_rate=16_000)
                speech = (8000 * np.sin(np.arange(16_000) * 0.2)).astype("<i2")
                for part in np.array_split(speech, 10):
                    await session.call("say_audio", pcm=part.tobytes(), sample_rate=16_000)
                await session.call("say_end")
                await wait_for(events, "reply_end")
                complete = {"pcm": speech.tobytes(), "sample_rate": 16_000, "is_complete": True}
                turns = [await session.call("say_audio", **complete) for _ in range(2)]
                assert turns == [{"turn": 2}, {"turn": 3}]
            with pytest.raises(UsageError, match="even number"):
                await session.call("say_audio", pcm=b"odd", sample_rate=16_000)
            with pytest.raises(UsageError, match="choose jpeg, h264 or none"):
                await session.call("stream", image="gif")
            return [event for event in events if event["type"] == "frame"]

    frames = asyncio.run(run())
    assert all(frame["image"].startswith(b"\xff\xd8") for frame in frames)
    spoken = [frame for frame in frames if frame["reply"] is not None]
    assert 25 <= len(spoken) <= 45
    samples = np.frombuffer(b"".join(frame["audio"] for frame in spoken), "<i2")
    assert np.abs(samples).max() > 7000
    assert np.allclose(np.diff([frame["time_s"] for frame in frames]), 0.04)


@pytest.mark.slow
def test_stream_sends_h264_that_can_be_decoded(tmp_path):
    async def run():
        async with running_pool() as pool:
            session = await pool.create({}, write_face(tmp_path))
            async with events_of(session) as events:
                await session.call("stream", image="h264", quality=95)
                await session.call("say", text="one two three four five six " * 5)
                await wait_for(events, "reply_end")
            return [event for event in events if event["type"] == "frame"]

    frames = asyncio.run(run())
    assert frames[0]["is_keyframe"]
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    shown = [image for frame in frames for image in decoder.decode(av.Packet(frame["image"]))]
    assert len(shown) == len(frames)
    images = np.stack([image.to_ndarray(format="rgb24") for image in shown]).astype(int)
    assert images.shape[1:] == (160, 192, 3)
    assert np.abs(images - images[0]).max() > 20  # The random model moves the mouth.


@pytest.mark.slow
def test_reply_is_recorded_once_with_subtitles(tmp_path):
    async def run():
        async with running_pool(tone_factory(make_counting_predictor)) as pool:
            session = await pool.create({}, write_face(tmp_path))
            with pytest.raises(UsageError, match="no reply to record"):
                await session.call("record")
            async with events_of(session) as events:
                await session.call("say", text="one two three four five")
                await wait_for(events, "reply_end")
            recorded, again = await asyncio.gather(*(session.call("record") for _ in range(2)))
            assert recorded == again
            assert Path(recorded["video"]).stat().st_size > 1000
            assert "one two three four five" in Path(recorded["subtitles"]).read_text()
            folder = Path(recorded["video"]).parent
            assert (folder / "renders").read_text() == "x"
        assert not folder.exists()

    asyncio.run(run())


@pytest.mark.slow
def test_crash_frees_the_slot_and_does_not_affect_other_sessions(tmp_path):
    async def run():
        face = write_face(tmp_path)
        async with running_pool(max_sessions=2) as pool:
            first = await pool.create({}, face)
            (victim,) = children()
            second = await pool.create({}, face)
            with pytest.raises(PoolFullError) as full:
                await pool.create({}, face)
            assert full.value.retry_after_s > 0
            async with events_of(first) as lost, events_of(second) as events:
                await first.call("say", text="one")
                await wait_for(lost, "reply_end")
                recording = Path((await first.call("record"))["video"])
                receiver = Receiver(first)
                await receiver.connect()
                await receiver.wait_for_frames(2)
                (connection,) = children(victim)
                os.kill(victim.pid, signal.SIGKILL)
                assert (await wait_for(lost, "closed", 5.0))["reason"] == "crashed"
                assert pool.num_free == 1
                await asyncio.sleep(0.5)
                assert not recording.parent.exists()
                await asyncio.to_thread(connection.wait, 5)
                await receiver.connection.close()
                with pytest.raises(SessionLostError):
                    await first.call("say", text="Hello")
                await second.call("say", text="still here")
                assert not (await wait_for(events, "reply_end"))["interrupted"]
            third = await pool.create({}, face)
            assert pool.sessions.get(third.id) is third
        assert children() == []

    asyncio.run(run())


@pytest.mark.slow
def test_session_whose_avatar_stops_is_ended(tmp_path):
    async def run():
        async with running_pool(tone_factory(make_failing_predictor)) as pool:
            session = await pool.create({}, write_face(tmp_path))
            async with events_of(session) as events:
                await session.call("stream")
                assert (await wait_for(events, "closed"))["reason"] == "crashed"
            assert pool.num_free == pool.options.max_sessions

    asyncio.run(run())


@pytest.mark.slow
def test_idle_and_long_sessions_are_ended(tmp_path):
    async def run():
        face = write_face(tmp_path)
        for options, reason in (
            ({"idle_timeout_s": 0.5}, "idle"),
            ({"max_duration_s": 0.5}, "time limit"),
        ):
            async with running_pool(**options) as pool:
                session = await pool.create({}, face)
                async with events_of(session) as events:
                    assert (await wait_for(events, "closed"))["reason"] == reason
                assert pool.num_free == pool.options.max_sessions
        assert children() == []

    asyncio.run(run())


@pytest.mark.slow
def test_session_without_clients_ends_soon(tmp_path):
    async def run():
        async with running_pool(disconnected_timeout_s=1.0) as pool:
            session = await pool.create({}, write_face(tmp_path))
            async with events_of(session):
                await asyncio.sleep(3)
                assert pool.sessions.get(session.id) is session
            for _ in range(100):
                if pool.sessions.get(session.id) is None:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError("the session goes on without clients")

    asyncio.run(run())


@pytest.mark.slow
def test_spare_process_opens_the_next_session_at_once(tmp_path):
    async def run():
        async with running_pool(spare=True, max_sessions=1) as pool:
            (spare,) = children()
            session = await pool.create({}, write_face(tmp_path))
            assert [child.pid for child in children()] == [spare.pid]
            await session.close()
            for _ in range(200):
                if len(children()) == 1 and children()[0].pid != spare.pid:
                    break
                await asyncio.sleep(0.1)
            assert len(children()) == 1
        assert children() == []

    asyncio.run(run())


@pytest.mark.slow
def test_lost_spare_process_is_replaced(tmp_path):
    async def run():
        async with running_pool(spare=True, max_sessions=2) as pool:
            with pytest.raises(MediaError):
                await pool.create({}, tmp_path / "missing.png")
            while not (starting := children()):
                await asyncio.sleep(0.01)
            for process in starting:
                process.kill()
            session = await pool.create({}, write_face(tmp_path))
            assert pool.sessions.get(session.id) is session

    asyncio.run(asyncio.wait_for(run(), 300))


def set_state(session, state):
    session._on_event({"type": "state", "state": state})


def test_loading_of_a_spare_process_waits_for_replies(tmp_path):
    async def run():
        async with running_pool(spare=True, max_sessions=3) as pool:
            session = await pool.create({}, write_face(tmp_path))
            used = session._process._process.pid
            while not (spare := [one for one in children() if one.pid != used]):
                await asyncio.sleep(0.01)
            for state, is_stopped in [("thinking", True), ("idle", False), ("speaking", True)]:
                set_state(session, state)
                while (spare[0].status() == psutil.STATUS_STOPPED) != is_stopped:
                    await asyncio.sleep(0.01)
            other = await pool.create({}, write_face(tmp_path))  # It does not wait for the reply.
            assert other._process._process.pid == spare[0].pid
            set_state(session, "thinking")  # The next spare process, if it has started, is killed.
        assert children() == []

    asyncio.run(asyncio.wait_for(run(), 120))


@pytest.mark.parametrize(
    ("settings", "face", "error", "expected"),
    [
        pytest.param({}, "missing.png", MediaError, "missing.png", marks=pytest.mark.slow),
        pytest.param(
            *({"voice": "tenor"}, "face.png", UsageError, "not one of the server's voices: tone"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_wrong_choices_are_errors_and_leave_no_process(tmp_path, settings, face, error, expected):
    async def run():
        write_face(tmp_path)
        async with running_pool() as pool:
            with pytest.raises(error, match=expected):
                await pool.create(settings, tmp_path / face)
            assert pool.num_free == pool.options.max_sessions
            assert children() == []

    asyncio.run(run())


@pytest.mark.slow
def test_invalid_offer_is_an_error_and_the_session_continues(tmp_path):
    async def run():
        async with running_pool() as pool:
            session = await pool.create({}, write_face(tmp_path))
            for sdp in ("nonsense", ""):
                with pytest.raises(UsageError, match="offer"):
                    await session.call("offer", sdp=sdp, type="offer")
            receiver = Receiver(session)
            await receiver.connect()
            await receiver.wait_for_frames(3)
            await receiver.connection.close()

    asyncio.run(run())
