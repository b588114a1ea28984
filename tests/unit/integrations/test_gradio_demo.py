"""Tests of the web demo, used by gradio's client over loopback."""

from __future__ import annotations

import importlib
import shutil
import socket
import sys
import threading
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.media_files import write_media, write_wav
from helpers.predict_command import write_checkpoint
from helpers.small_predictor import (
    HEIGHT,
    WIDTH,
    make_predictor,
    probe_output,
    speech,
    write_video,
)

from talkinghead.cli.main import main
from talkinghead.errors import DependencyError, TalkingHeadError, UsageError
from talkinghead.integrations.demo_renderer import DemoOptions, DemoRenderer, DemoRequest
from talkinghead.media.reader import read_image
from talkinghead.media.writer import write_image
from talkinghead.predict.compositing.renderers import FeatherRenderer
from talkinghead.predict.output.provenance import GENERATED_BY
from talkinghead.runtime import packaged_weights
from talkinghead.speech.sentence_speech import speak_text

pytestmark = pytest.mark.filterwarnings("ignore:::gradio")
gradio_client = pytest.importorskip("gradio_client", reason="needs the extra demo")
httpx = pytest.importorskip("httpx")

OPTIONS = DemoOptions(
    max_upload_bytes=1_000_000, max_speech_s=3, max_text_chars=20, max_photo_pixels=100_000
)
REQUEST = DemoRequest(
    *("photo", "photo.png", None, "audio", "speech.wav", "", 1.0, "laplacian"),
    use_lip_prior=False,
    moves_head=False,
    label="",
    has_consent=True,
)
SPEECH_S = 0.4


class _Voice:
    """A voice that speaks 0.1 s for each character."""

    sample_rate = 16_000

    def speak(self, text, cancel=None):
        yield speech(0.1 * len(text)).samples


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _client(address: str, **options) -> gradio_client.Client:
    """Return a client that gives the paths of results, which the server has written here."""
    options = {"verbose": False, "analytics_enabled": False, "download_files": False, **options}
    return gradio_client.Client(address, **options)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    grey = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    write_image(folder / "photo.png", grey)
    write_image(folder / "black.png", np.zeros_like(grey))
    write_image(folder / "large.png", np.full((400, 400, 3), 120, np.uint8))
    write_wav(folder / "speech.wav", speech(SPEECH_S))
    write_wav(folder / "long.wav", speech(OPTIONS.max_speech_s + 0.5))
    write_video(folder / "video.mp4", [number / 25 for number in range(10)])
    write_media(folder / "fast.mp4", [grey] * 4, fps=Fraction(100))
    write_media(folder / "tall.mp4", [np.full((2000, 1100, 3), 120, np.uint8)])
    (folder / "notes.png").write_text("This is a text.\n" * 100)
    return folder


@pytest.fixture(scope="module")
def gradio_demo() -> ModuleType:
    """Import gradio, which takes seconds, only in the test worker that runs these tests."""
    return importlib.import_module("talkinghead.integrations.gradio_demo")


@pytest.fixture(scope="module")
def silent_demo(gradio_demo) -> Any:
    """A demo without a voice, which is not launched yet."""
    return gradio_demo.GradioDemo(make_predictor(renderer=FeatherRenderer(feather=0.2)))


@pytest.fixture(scope="module")
def demo(gradio_demo) -> Any:
    demo = gradio_demo.GradioDemo(make_predictor(), partial(speak_text, voice=_Voice()), OPTIONS)
    yield demo
    demo.close()


@pytest.fixture(scope="module")
def client(demo) -> gradio_client.Client:
    return _client(demo.launch(port=_free_port(), block=False))


def _make_video(client, media, photo="photo.png", audio="speech.wav", **given) -> Path:
    """Make a video of the photo and the audio, or of the files and values given by name."""
    files = {"photo": photo, "audio": audio, "video": given.pop("video", None)}
    handles = {
        name: file and gradio_client.handle_file(media / file) for name, file in files.items()
    }
    arguments = {"text": "", "consent": True, **handles, **given}
    return Path(client.predict(api_name="/make_video", **arguments)["path"])


def test_photo_and_audio_give_a_video_that_is_marked_as_generated(client, media):
    path = _make_video(client, media)
    times, duration_s, metadata = probe_output(path)
    assert len(times) == 10
    assert duration_s == pytest.approx(SPEECH_S, abs=0.05)
    assert metadata["comment"] == GENERATED_BY
    corner = read_image(path)[:15, :60]
    assert corner.min() < 60, "there is no label"
    assert corner.max() > 200


def test_video_and_text_are_rendered_without_a_label(client, media):
    path = _make_video(
        client,
        media,
        photo=None,
        audio=None,
        face_kind="video",
        video="video.mp4",
        speech_kind="text",
        text="Hello.",
        label=" ",
        blending="feather",
        articulation=1,
    )
    times, duration_s, metadata = probe_output(path)
    assert len(times) == 15
    assert duration_s == pytest.approx(0.6, abs=0.05)
    assert metadata["comment"] == GENERATED_BY
    corner = read_image(path)[:15, :60]
    assert corner.min() > 80
    assert corner.max() < 170


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"photo": None}, "the photo is missing"),
        ({"face_kind": "video"}, "the video is missing"),
        ({"audio": None}, "the speech is missing"),
        ({"speech_kind": "text"}, "the text is empty"),
        ({"speech_kind": "text", "text": 21 * "a"}, "the text has 21 characters; at most 20"),
        ({"has_consent": False}, "consent is missing"),
        ({"photo": "notes.png"}, "notes.png: "),
        ({"photo": "speech.wav"}, "speech.wav: shows no image"),
        ({"photo": "black.png"}, "the image: no face"),
        ({"photo": "large.png"}, "large.png: 400 x 400 pixels; a photo may have at most 100,000"),
        ({"face_kind": "video", "video": "tall.mp4"}, "tall.mp4: 1100 x 2000 pixels; a video may"),
        ({"face_kind": "video", "video": "fast.mp4"}, "fast.mp4: 100 frames per second"),
        ({"audio": "long.wav"}, "long.wav: longer than 3 s"),
        ({"audio": "photo.png"}, "photo.png: "),
    ],
)
def test_unusable_input_gives_its_message(media, tmp_path, given, expected):
    paths = {"photo": "photo.png", "video": None, "audio": "speech.wav", **given}
    paths = {kind: paths[kind] and str(media / paths[kind]) for kind in ("photo", "video", "audio")}
    request = DemoRequest(**{**vars(REQUEST), **given, **paths})
    renderer = DemoRenderer(make_predictor(), partial(speak_text, voice=_Voice()), OPTIONS)
    with pytest.raises(TalkingHeadError) as caught:
        renderer.render(request, tmp_path / "talking.mp4")
    message = str(caught.value)
    assert message.startswith(expected)
    assert "/" not in message, "the message shows a path of the server"


def test_message_about_unusable_input_reaches_the_visitor(client, media):
    for given, expected in (
        ({"photo": "notes.png"}, "notes.png: "),
        ({"consent": False}, "consent is missing"),
        ({"label": "<b>\n</b>", "moves_head": False}, "label='&lt;b&gt;"),
    ):
        with pytest.raises(gradio_client.exceptions.AppError) as caught:
            _make_video(client, media, **given)
        message = str(caught.value)
        assert message.startswith(expected)
        assert "/" not in message.replace("&lt;/b", ""), "the message shows a path of the server"


def test_large_upload_is_refused(client):
    upload = f"{client.src_prefixed}upload"
    for size, status in ((1_000_000, 200), (1_000_001, 413)):
        assert httpx.post(upload, files={"files": bytes(size)}).status_code == status


@pytest.mark.slow
def test_requests_are_processed_one_at_a_time(client, media, monkeypatch):
    running, most = [], []
    render = DemoRenderer.render

    def watched(self, *arguments):
        running.append(1)
        most.append(len(running))
        render(self, *arguments)
        running.pop()

    monkeypatch.setattr(DemoRenderer, "render", watched)
    threads = [threading.Thread(target=_make_video, args=(client, media)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


@pytest.mark.slow
def test_uploads_and_results_are_deleted(gradio_demo, media, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "server"))
    demo = gradio_demo.GradioDemo(make_predictor(), options=DemoOptions(keep_s=1))
    try:
        client = _client(demo.launch(port=_free_port(), block=False))
        _make_video(client, media)
        assert _files(tmp_path)
        deadline = time.monotonic() + 10
        while _files(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _files(tmp_path)
    finally:
        demo.close()


def _files(folder: Path) -> list[Path]:
    """Return the files in a folder except those of the examples."""
    names = {"photo.png", "speech.wav"}
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.name in names or path.suffix == ".mp4"]


def test_page_without_a_voice_offers_no_text(silent_demo):
    components = [block.get_config() for block in silent_demo.page.blocks.values()]
    by_label = {config["label"]: config for config in components if "label" in config}
    assert not by_label["Speech"]["visible"]
    assert not by_label["Lip prior"]["visible"]
    assert by_label["Renderer"]["value"] == "feather"


def test_other_machines_need_the_password(gradio_demo, silent_demo, media):
    with pytest.raises(UsageError, match=r"host=0.0.0.0 .* give password="):
        silent_demo.launch("0.0.0.0", block=False)
    try:
        address = silent_demo.launch("0.0.0.0", _free_port(), "secret", block=False)
        with pytest.raises(gradio_client.exceptions.AuthenticationError):
            _client(address)
        with pytest.raises(ValueError, match="Could not login"):
            _client(address, auth=(gradio_demo.USER, "guess"))
        user = _client(address, auth=(gradio_demo.USER, "secret"))
        with pytest.raises(gradio_client.exceptions.AppError, match="the photo is missing"):
            _make_video(user, media, photo=None)
    finally:
        silent_demo.close()


def test_port_in_use_is_reported(client, demo, silent_demo):
    with pytest.raises(UsageError, match=f"port={demo.page.server_port} is in use"):
        silent_demo.launch(port=demo.page.server_port, block=False)


def test_browser_may_not_contact_other_hosts(client):
    response = httpx.get(client.src)
    assert "googleapis" not in response.text
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self' ")


def test_other_host_names_are_refused(client, demo):
    port = demo.page.server_port
    for host, status in (
        (f"localhost:{port}", 200),
        (f"[::1]:{port}", 200),
        (f"rebound.example:{port}", 400),
    ):
        assert httpx.get(client.src, headers={"Host": host}).status_code == status, host


def test_missing_gradio_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "talkinghead.integrations.gradio_demo")
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[demo\]'"):
        importlib.import_module("talkinghead.integrations.gradio_demo")
    assert main(["demo"]) == 1


def test_command_serves_its_configuration(gradio_demo, tmp_path, monkeypatch, capfd):
    launched = []
    monkeypatch.setattr(gradio_demo.GradioDemo, "launch", lambda *given: launched.append(given))
    monkeypatch.setenv("TALKINGHEAD_PASSWORD", "a $ecret")
    missing = Mock(side_effect=DependencyError("there is no voice"))
    monkeypatch.setattr(packaged_weights, "voice", missing)
    write_checkpoint(tmp_path / "small.safetensors")
    arguments = [f"checkpoint={tmp_path / 'small.safetensors'}", "articulation=1.5", "keep_s=60"]
    assert main(["demo", *arguments, "lip_prior=none", "host=0.0.0.0", "port=8080"]) == 0
    ((demo, *address),) = launched
    assert address == ["0.0.0.0", 8080, "a $ecret"]
    assert demo.options == DemoOptions(keep_s=60)
    assert "accepts audio, but no text: there is no voice" in capfd.readouterr().out


@pytest.fixture
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("needs Chromium")
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.mark.browser
def test_page_records_speech_and_loads_nothing_from_other_hosts(client, media, browser):
    page = browser.new_page()
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(client.src)
    page.locator("input[type=file]").first.set_input_files(media / "photo.png")
    page.get_by_role("button", name="Remove Image").wait_for()
    page.get_by_role("button", name="Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    page.get_by_role("button", name="Make the video").click()
    page.get_by_text("consent is missing").wait_for()
    page.get_by_label("The person shown has agreed").check()
    page.get_by_role("button", name="Make the video").click()
    page.wait_for_function("document.querySelector('.result video')?.duration > 1")
    page.get_by_role("radio", name="Text").check()
    page.get_by_label("Text", exact=True).last.fill("Hello.")
    page.get_by_role("button", name="Make the video").click()
    page.wait_for_function("document.querySelector('.result video')?.duration < 0.8")
    local = (client.src, "data:", "blob:")
    assert not [url for url in urls if not url.startswith(local)]
