"""Tests of the realtime events with OpenAI's client."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
from helpers.live_sessions import serve
from openai import AsyncOpenAI

SPEECH, SILENCE = b"\1\0" * 4800, bytes(9600)
TOKEN = "a-token"


@pytest.fixture
def talk(pool):
    """Run a conversation with a server."""

    def run(conversation, query=None, **settings):
        settings = {"face": Path("photo.jpg"), "voices": ("joe",), "token": TOKEN, **settings}
        with serve(pool, **settings) as port:
            asyncio.run(asyncio.wait_for(_converse(port, conversation, query), 30))

    return run


async def _converse(port, conversation, query):
    client = AsyncOpenAI(
        api_key=TOKEN,
        base_url=f"http://localhost:{port}/v1",
        websocket_base_url=f"ws://localhost:{port}/v1",
    )
    async with client.realtime.connect(model="talkinghead", extra_query=query or {}) as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        await conversation(connection, created)


async def until(connection, kind):
    """Return the events up to one of a type."""
    events = [await connection.recv()]
    while events[-1].type != kind:
        events.append(await connection.recv())
    return events


def base64_text(pcm):
    return base64.b64encode(pcm).decode()


def test_session_is_created_and_updated(pool, talk):
    async def conversation(connection, created):
        assert created.session.audio.output.format.rate == 24_000
        assert created.session.audio.input.turn_detection.type == "server_vad"
        await connection.session.update(
            session={
                "type": "realtime",
                "instructions": "Be brief.",
                "audio": {"input": {"turn_detection": None}, "output": {"voice": "joe"}},
            }
        )
        updated = (await until(connection, "session.updated"))[-1].session
        assert updated.instructions == "Be brief."
        assert updated.audio.output.voice == "joe"
        assert updated.audio.input.turn_detection is None

    talk(conversation)
    assert pool.created[0].calls[-1] == ("update", {"voice": "joe", "persona": "Be brief."})
    assert not pool.sessions


def test_typed_question_is_answered_with_audio_and_transcript(talk):
    async def conversation(connection, created):
        content = [{"type": "input_text", "text": "Who are you?"}]
        item = {"type": "message", "role": "user", "content": content}
        await connection.conversation.item.create(item=item)
        added = (await until(connection, "conversation.item.added"))[-1]
        assert added.item.content[0].text == "Who are you?"
        await connection.response.create()
        events = await until(connection, "response.done")
        kinds = [event.type for event in events]
        assert kinds[-13:] == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.delta",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
        ]
        by_kind = {event.type: event for event in events}
        audio = base64.b64decode(by_kind["response.output_audio.delta"].delta)
        assert audio == b"\1\0" * 480
        done = by_kind["response.done"].response
        assert done.status == "completed"
        assert done.id == by_kind["response.created"].response.id
        assert done.output[0].content[0].transcript == "You said: Who are you?"

    talk(conversation)


def test_spoken_question_is_detected_by_the_server(pool, talk):
    async def conversation(connection, created):
        for pcm in (SPEECH, SILENCE):
            await connection.input_audio_buffer.append(audio=base64_text(pcm))
        events = await until(connection, "response.done")
        kinds = [event.type for event in events]
        expected = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.input_audio_transcription.completed",
            "response.created",
        ]
        assert [kind for kind in kinds if kind in expected] == expected
        by_kind = {event.type: event for event in events}
        started, completed = by_kind[expected[0]], by_kind[expected[3]]
        assert completed.transcript == "Hello?"
        assert completed.item_id == started.item_id

    talk(conversation)
    assert pool.created[0].ops() == ["stream", "listen", "listen"]


def test_without_turn_detection_the_client_commits_and_asks(pool, talk):
    async def conversation(connection, created):
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        await connection.input_audio_buffer.append(audio=base64_text(b"\7\7"))
        await connection.input_audio_buffer.clear()
        await until(connection, "input_audio_buffer.cleared")
        await connection.input_audio_buffer.append(audio=base64_text(SPEECH))
        await connection.input_audio_buffer.commit()
        await until(connection, "input_audio_buffer.committed")
        assert pool.created[0].ops() == ["stream"]
        await connection.response.create()
        await until(connection, "response.done")

    talk(conversation)
    heard = pool.created[0].calls[1][1]["pcm"]
    assert heard.startswith(SPEECH)
    assert not any(heard[len(SPEECH) :])


def test_response_is_cancelled(pool, talk):
    async def conversation(connection, created):
        await connection.response.cancel()
        assert (await connection.recv()).error.message == "there is no response in progress"
        session = pool.created[0]
        frame = {"type": "frame", "reply": 1, "audio": b"\1\0", "is_reply_end": False}
        loop.call(session.emit, frame)
        await until(connection, "response.output_audio.delta")
        await connection.response.cancel()
        while "interrupt" not in session.ops():
            await asyncio.sleep(0.01)
        loop.call(session.emit, {**frame, "is_reply_end": True})
        loop.call(session.emit, {"type": "reply_end", "turn": 1, "interrupted": True})
        done = (await until(connection, "response.done"))[-1].response
        assert done.status == "cancelled"
        assert done.status_details.reason == "client_cancelled"

    loop = ServerLoop(pool)
    talk(conversation)


def test_failed_response_is_done(pool, talk):
    async def conversation(connection, created):
        session = pool.created[0]
        loop.call(session.emit, {"type": "error", "turn": 1, "message": "no model"})
        end = {"type": "reply_end", "turn": 1, "interrupted": False, "num_frames": 0}
        loop.call(session.emit, end)
        done = (await until(connection, "response.done"))[-1].response
        assert (done.status, done.status_details.error.type) == ("failed", "server_error")
        loop.call(session.emit, {"type": "error", "message": "the microphone is ignored"})
        assert (await until(connection, "error"))[-1].error.message == "the microphone is ignored"

    loop = ServerLoop(pool)
    talk(conversation)


class ServerLoop:
    """Calls functions in the event loop of the server."""

    def __init__(self, pool):
        self._pool, start = pool, pool.start

        async def remember():
            self._loop = asyncio.get_running_loop()
            await start()

        pool.start = remember

    def call(self, function, *arguments):
        self._loop.call_soon_threadsafe(function, *arguments)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "unknown"},
        {"type": "unknown", "item": {"text": "\ud800"}},
        {"type": "session.update"},
        {"type": "session.update", "session": {"instructions": 5}},
        {"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}},
        {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "g711"}}}}},
        {"type": "input_audio_buffer.append"},
        {"type": "input_audio_buffer.append", "audio": "!"},
        {"type": "input_audio_buffer.append", "audio": "QUJD"},
        {"type": "conversation.item.create", "item": []},
        {"type": "conversation.item.create", "item": {"role": "user", "content": []}},
        {"type": "conversation.item.create", "item": {"role": "user", "content": [5]}},
        {"type": "conversation.item.create", "item": {"role": "system", "content": []}},
    ],
)
def test_wrong_event_is_answered_with_an_error(talk, event):
    async def conversation(connection, created):
        await connection.send({**event, "event_id": "mine"})
        answer = await connection.recv()
        assert answer.type == "error"
        assert answer.error.event_id == "mine"
        assert answer.error.message

    talk(conversation)


def test_empty_commit_and_response_are_refused_without_turn_detection(talk):
    async def conversation(connection, created):
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        await until(connection, "session.updated")
        await connection.input_audio_buffer.commit()
        assert "empty" in (await connection.recv()).error.message
        await connection.response.create()
        assert "nothing to respond" in (await connection.recv()).error.message

    talk(conversation)


def test_empty_commit_is_refused_with_turn_detection(pool, talk):
    async def conversation(connection, created):
        await connection.input_audio_buffer.commit()
        assert "empty" in (await connection.recv()).error.message
        await connection.input_audio_buffer.append(audio=base64_text(SPEECH))
        await connection.input_audio_buffer.commit()
        await connection.input_audio_buffer.commit()
        events = await until(connection, "error")
        assert "empty" in events[-1].error.message

    talk(conversation)
    assert pool.created[0].ops() == ["stream", "listen", "listen"]


def test_wrong_key_is_refused(talk):
    async def conversation(connection, created): ...

    with pytest.raises(Exception, match="401"):
        talk(conversation, token="another")


def test_connection_chooses_an_avatar(pool, talk, tmp_path):
    (tmp_path / "anna.png").write_bytes(b"")

    async def conversation(connection, created): ...

    talk(conversation, {"avatar": "anna.png"}, avatars=tmp_path)
    assert pool.created[0].face == tmp_path / "anna.png"


def test_text_that_is_no_event_is_answered_without_a_mention_of_binary_audio(talk):
    async def conversation(connection, created):
        await connection._connection.send("not json")
        message = (await connection.recv()).error.message
        assert message == 'the text message is not a JSON object with a "type"'

    talk(conversation)
