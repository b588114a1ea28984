"""Tests of the rendering of videos in the background."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import pebble
import pytest
from helpers.live_sessions import FakeRunner, open_client, wav_bytes

from talkinghead.live.server import video_jobs

FACE = Path("/faces/photo.jpg")


@pytest.fixture
def client(monkeypatch):
    """A client of a server that renders in a thread."""

    class Threads(pebble.ThreadPool):
        def __init__(self, workers, context, **options):
            super().__init__(workers, **options)

        def schedule(self, function, args, timeout):
            return super().schedule(function, args)

    monkeypatch.setattr(video_jobs.pebble, "ProcessPool", Threads)
    with open_client(face=FACE, video_runner=FakeRunner(), max_text_chars=100) as client:
        yield client


def wait_for(client, video, *states):
    """Return the state of a video when it is one of `states`."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        state = client.get(f"/v1/videos/{video}").json()
        if state["state"] in states:
            return state
        time.sleep(0.02)
    raise AssertionError(state)


def create(client, **data):
    created = client.post("/v1/videos", data=data)
    assert created.status_code == 202, created.text
    return created.json()["id"]


def test_text_is_rendered_to_a_video(client):
    video = create(client, text="Hello.")
    done = wait_for(client, video, "done")
    assert done == {"id": video, "state": "done", "progress": 1.0, "error": None}
    file = client.get(f"/v1/videos/{video}/file")
    assert (file.content, file.headers["Content-Type"]) == (b"video of Hello.", "video/mp4")
    folder = client.app.state.videos.get(video).folder
    assert client.delete(f"/v1/videos/{video}").status_code == 204
    assert not folder.exists()
    assert client.get(f"/v1/videos/{video}/file").status_code == 404


def test_failed_video_states_the_reason_without_folders(client):
    video = create(client, text="fail")
    failed = wait_for(client, video, "failed")
    assert failed["error"] == "photo.jpg: cannot be read"
    missing = client.get(f"/v1/videos/{video}/file")
    assert (missing.status_code, missing.json()["error"]["message"]) == (
        409,
        "the video is failed, not done",
    )


def test_unexpected_failure_has_no_details(client):
    failed = wait_for(client, create(client, text="raise"), "failed")
    assert "secret" not in failed["error"]


@pytest.mark.parametrize(
    ("data", "files", "message"),
    [
        ({}, {}, "give either audio"),
        ({"text": "a"}, {"audio": wav_bytes()}, "give either audio"),
        ({"text": "a" * 101}, {}, "101 characters; at most 100"),
        ({"text": "a", "avatar": "../photo.jpg"}, {}, "avatar: unknown"),
        ({"text": "a"}, {"face": b"\xff\xd8\xff"}, "consent=true"),
        ({"text": "a", "avatar": "default", "consent": "1"}, {"face": b"x"}, "both given"),
        ({"text": "a", "consent": "true"}, {"face": b"text"}, "not a photo or video"),
        ({}, {"audio": b"text"}, "not a file with speech"),
    ],
)
def test_wrong_inputs_are_refused(client, data, files, message):
    refused = client.post("/v1/videos", data=data, files=files)
    assert refused.status_code == 422
    assert message in refused.json()["error"]["message"]
    assert set(client.app.state.videos.count().values()) == {0}


def test_server_without_renderer_refuses_videos():
    with open_client(face=FACE) as client:
        assert client.post("/v1/videos", data={"text": "a"}).status_code == 404


def test_videos_expire(client):
    video = create(client, text="Hello.")
    wait_for(client, video, "done")
    jobs = client.app.state.videos
    client.portal.call(jobs.remove_expired)
    assert client.get(f"/v1/videos/{video}").status_code == 200
    jobs.get(video).ended_s -= 3601
    client.portal.call(jobs.remove_expired)
    assert client.get(f"/v1/videos/{video}").status_code == 404


def test_video_may_be_deleted_while_others_expire(client, monkeypatch):
    """A client deletes a video while the server deletes the files of another one."""
    jobs = client.app.state.videos
    for video in (videos := [create(client, text="Hello.") for _ in range(2)]):
        wait_for(client, video, "done")
        jobs.get(video).ended_s -= 3601

    async def to_thread(function, *arguments, **options):
        jobs._jobs.pop(videos[1], None)
        return function(*arguments, **options)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    client.portal.call(jobs.remove_expired)
    assert not jobs._jobs


@pytest.mark.slow
def test_processes_run_one_job_after_another():
    with open_client(face=FACE, video_runner=FakeRunner(), max_video_jobs=3) as client:
        waiting, crashing, last = (create(client, text=text) for text in ("wait", "crash", "Hi."))
        full = client.post("/v1/videos", data={"text": "a"})
        assert (full.status_code, full.headers["Retry-After"]) == (503, "60")
        assert wait_for(client, waiting, "running")["progress"] in (0, 0.25)
        started = client.app.state.videos.get(waiting).folder / "started"
        while not started.exists():
            time.sleep(0.02)
        assert client.get(f"/v1/videos/{waiting}").json()["progress"] == 0.25
        assert client.get(f"/v1/videos/{last}").json()["state"] == "queued"
        assert client.delete(f"/v1/videos/{waiting}").status_code == 204
        assert "died" in wait_for(client, crashing, "failed")["error"]
        wait_for(client, last, "done")
        assert client.get(f"/v1/videos/{last}/file").content == b"video of Hi."


@pytest.mark.slow
def test_slow_video_is_stopped():
    with open_client(face=FACE, video_runner=FakeRunner(), video_timeout_s=0.5) as client:
        failed = wait_for(client, create(client, text="wait"), "failed")
        assert failed["error"] == "rendering took too long"


@pytest.mark.slow
def test_uploaded_speech_is_rendered():
    with open_client(face=FACE, video_runner=FakeRunner()) as client:
        created = client.post("/v1/videos", files={"audio": ("a.wav", wav_bytes(0.5))})
        video = created.json()["id"]
        wait_for(client, video, "done")
        assert client.get(f"/v1/videos/{video}/file").content.endswith(b"/speech.wav")


@pytest.mark.slow
def test_end_of_server_stops_jobs():
    start = partial(open_client, face=FACE, video_runner=FakeRunner())
    with start() as client:
        video = create(client, text="wait")
        folder = client.app.state.videos.get(video).folder
        while not (folder / "started").exists():
            time.sleep(0.02)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 10
    assert not folder.exists()
