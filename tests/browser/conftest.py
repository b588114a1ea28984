"""Fixtures of the browser tests: a server, a browser with a fake microphone, and pages."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.avatar_page import CHROMIUM, QUESTION, TOKEN, AvatarPage
from helpers.live_server import live_server
from scipy.io import wavfile

from talkinghead.media.reader import read_image
from talkinghead.media.writer import write_image
from talkinghead.paths import demo_face
from talkinghead.speech.tts.piper import Piper


@pytest.fixture(scope="module")
def face_file(tmp_path_factory):
    """A small face, which leaves more CPU time for the browser, which renders in software."""
    path = tmp_path_factory.mktemp("face") / "face.png"
    write_image(path, read_image(demo_face())[:256, 96:352])
    return path


@pytest.fixture(scope="module")
def server(request, tmp_path_factory, face_file):
    """A server that repeats the question, with the options in `SERVER_OPTIONS` of the module."""
    folder = tmp_path_factory.mktemp("server")
    options = [f"face={face_file}", "~llm@llms.llama", "stt.language=en"]
    # The lips depend on the audio alone, so that they can be compared with those of a file.
    options.append("phonemes=false")
    options += getattr(request.module, "SERVER_OPTIONS", [])
    with live_server(folder, *options, token=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def microphone_file(tmp_path_factory):
    """A WAV file of a question after a second of silence."""
    voice = Piper()
    speech = np.concatenate(list(voice.speak(QUESTION)))
    before, after = (np.zeros(round(s * voice.sample_rate), np.float32) for s in (1.0, 30.0))
    samples = np.concatenate([before, speech, after])
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    wavfile.write(path, voice.sample_rate, (32_767 * samples).clip(-32_768, 32_767).astype("<i2"))
    return path


@pytest.fixture(scope="module")
def browser(microphone_file):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM),
            args=[
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone_file}%noloop",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser, server):
    """Make pages whose sessions end with the test, and which must not report errors."""
    pages = []

    def make(server=server, script=None, **options):
        context = browser.new_context(**options)
        if script:
            context.add_init_script(script)
        pages.append(AvatarPage(context, server))
        return pages[-1]

    yield make
    for page in pages:
        page.page.context.close()
        page.end_sessions()
    messages = [text for page in pages for text in page.console]
    assert [text for text in messages if "Failed to load resource" not in text] == []


@pytest.fixture
def page(new_page):
    page = new_page()
    page.open()
    return page


@pytest.fixture
def recorded_page(new_page):
    """A page with a recorder, which the content security policy of the page does not allow."""
    page = new_page(bypass_csp=True)
    page.open()
    return page
