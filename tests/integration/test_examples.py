"""Tests that run the programs in examples/."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.media_files import write_sample_media
from helpers.small_predictor import probe_output

EXAMPLES = Path(__file__).parents[2] / "examples"
SPEECH_S = 1.0


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_sample_media(folder, SPEECH_S)
    return folder


def _run(example, media, *arguments) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{example}.py"), *arguments],
        cwd=media,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("example", ["photo_to_video", "custom_renderer", "dub_video"])
def test_video_examples_write_a_video(media, example):
    face = "video.mp4" if example == "dub_video" else "photo.jpg"
    _run(example, media, face, "speech.wav", f"{example}.mp4")
    times, duration_s, _ = probe_output(media / f"{example}.mp4")
    assert len(times) == 25
    assert duration_s == pytest.approx(SPEECH_S, abs=0.05)


@pytest.mark.slow
def test_stream_chunks_example(media):
    shown = _run("stream_chunks", media, "photo.jpg", "frames", "speech.wav", "speech.wav")
    assert shown.count("25 frames") == 2
    assert len(list((media / "frames").glob("*.png"))) == 50


@pytest.mark.slow
def test_conversation_example(media):
    pytest.importorskip("piper", reason="needs the extra offline")
    shown = _run("conversation", media, "photo.jpg", "answers", "Hi.")
    assert "answer_1.mp4: You said: Hi." in shown
    assert (media / "answers/answer_1.mp4").is_file()


@pytest.mark.slow
def test_space_app_example(media):
    pytest.importorskip("piper", reason="needs the extra offline")
    gradio_client = pytest.importorskip("gradio_client", reason="needs the extra demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, str(EXAMPLES / "space_app.py")]
    with subprocess.Popen(program, cwd=media, env={**os.environ, "PORT": str(port)}) as process:
        try:
            _wait_for(port, process)
            client = gradio_client.Client(f"http://127.0.0.1:{port}", verbose=False)
            video = client.predict(
                photo=gradio_client.handle_file(media / "photo.jpg"),
                video=None,
                speech_kind="text",
                audio=None,
                text="Hi.",
                consent=True,
                api_name="/make_video",
            )
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert len(probe_output(video)[0]) > 10


def _wait_for(port, process) -> None:
    """Wait until a process listens on a port."""
    while True:
        assert process.poll() is None, "the program has ended"
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


@pytest.mark.slow
def test_fine_tune_example(media):
    quick = ["data.batch_size=2", "data.iterations_per_epoch=2", "model.max_iterations=2"]
    _run("fine_tune", media, "videos", "work", *quick, "data.val_windows=2", "trainer=default")
    assert (media / "work/run/checkpoints/last.ckpt").is_file()
    assert (media / "work/scores/report.html").is_file()
