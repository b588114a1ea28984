"""Tests of the page of the live server in headless Chromium, against `talkinghead serve`."""

from __future__ import annotations

import os
import signal
import subprocess
from fractions import Fraction

import pytest
from helpers.avatar_page import BROWSER_MARKS, QUESTION, SAMPLE_RATE, STORY, TOKEN, openings
from helpers.live_server import live_server
from helpers.media_files import smooth, write_media
from helpers.speech_services import word_error_rate
from PIL import Image

from talkinghead.media.reader import probe, read_image
from talkinghead.media.writer import VideoWriter
from talkinghead.paths import demo_face
from talkinghead.speech.stt.whisper import Whisper
from talkinghead.types import AudioClip

pytestmark = BROWSER_MARKS


def transcribe(samples):
    return Whisper(language="en", num_threads=1).transcribe(AudioClip(samples, SAMPLE_RATE)).text


def test_mouth_moves_during_speech_and_head_moves_during_silence(page):
    page.start()
    page.page.wait_for_timeout(2000)
    silent = page.watch(4)
    page.send(STORY, mode="say")
    page.wait_for_state("speaking")
    speaking = page.watch(6)
    head_motion_px = silent.std(0).mean()
    assert head_motion_px > 0.2
    assert openings(speaking).std() > 2 * openings(silent).std()


def test_spoken_question_gets_spoken_answer(recorded_page):
    page = recorded_page
    page.start()
    page.start_recording()
    page.page.click("#microphone")
    answer = page.wait_for_answer()
    # The end of the audio has not been played yet.
    page.page.wait_for_timeout(1000)
    recording = page.stop_recording()
    assert word_error_rate(page.texts("user")[0], QUESTION) < 0.15
    assert answer == f"You said: {page.texts('user')[0]}"
    assert word_error_rate(transcribe(recording.face), f"You said {QUESTION}") < 0.25


def test_two_sessions_answer_their_own_questions(new_page):
    pages = {
        "The first ship is red.": new_page(bypass_csp=True),
        "Seven birds fly south.": new_page(bypass_csp=True),
    }
    for page in pages.values():
        page.open()
        page.start()
        page.start_recording()
    for question, page in pages.items():
        page.send(question)
    for question, page in pages.items():
        assert page.wait_for_answer() == f"You said: {question}"
        page.page.wait_for_timeout(1000)
        heard = transcribe(page.stop_recording().face)
        assert word_error_rate(heard, f"You said {question}") < 0.3


def test_reload_continues_session(page):
    page.start()
    page.send("Good morning.")
    page.wait_for_answer()
    page.page.reload()
    assert page.texts("user") == ["Good morning."]
    page.start()
    page.send("And good evening.")
    assert page.wait_for_answer() == "You said: And good evening."
    assert len(page.session_ids) == 1


def test_page_reconnects_after_restart_of_server(new_page, tmp_path):
    with live_server(tmp_path, "~llm@llms.llama", "max_sessions=1", token=TOKEN) as server:
        page = new_page(server)
        page.open()
        page.start()
        server.stop()
        page.page.wait_for_selector("#progress:has-text('Trying again')")
        server.start()
        page.wait_until_live()
        page.send("Are you back?")
        assert page.wait_for_answer() == "You said: Are you back?"
        assert len(page.session_ids) == 2


def test_page_replaces_crashed_session(page, server):
    page.start()
    children = subprocess.check_output(["pgrep", "-P", str(server.process.pid)], text=True)
    for pid in map(int, children.split()):
        os.kill(pid, signal.SIGKILL)
    page.page.wait_for_selector("#progress:has-text('The session failed')")
    page.wait_until_live()
    page.send("Are you back?")
    assert page.wait_for_answer() == "You said: Are you back?"


def test_page_asks_again_after_a_wrong_token(new_page):
    page = new_page()
    page.open("not-the-token")
    page.page.wait_for_selector("#token-dialog[open]")
    assert "did not accept the token" in page.page.inner_text("#token-text")
    page.page.fill("#token", TOKEN)
    page.page.press("#token", "Enter")
    page.start()
    assert "token" not in page.page.url
    assert not any(TOKEN in text for text in page.console)


@pytest.mark.parametrize(
    ("make_file", "message"),
    [
        (lambda path: path.write_text("This is not an image."), "not a photo or video"),
        (
            lambda path: _write_empty(path, 2**30),
            "This file has 1,074 MB",
        ),
        (
            # A PNG file of 12 kB with 100 million pixels.
            lambda path: Image.new("1", (10_000, 10_000)).save(path, "png"),
            "at most 50,000,000 are accepted",
        ),
        (lambda path: write_media(path, [smooth(96, 128)] * 25), "no face"),
    ],
    ids=["text", "gigabyte", "bomb", "faceless"],
)
def test_unusable_upload_is_refused(page, tmp_path, make_file, message):
    path = tmp_path / "face.mp4"
    make_file(path)
    page.page.click("#settings-open")
    page.page.check("#upload-consent")
    page.page.set_input_files("#upload-file", path)
    if page.page.is_enabled("#upload"):
        page.page.click("#upload")
    status = page.page.wait_for_selector("#upload-status.error")
    assert message in status.inner_text()
    assert page.page.locator("#avatars label").count() == 1


def _write_empty(path, size):
    with path.open("wb") as file:
        file.truncate(size)


def test_uploaded_photo_becomes_the_face(page):
    page.start()
    page.page.click("#settings-open")
    page.page.set_input_files("#upload-file", demo_face())
    assert page.page.is_disabled("#upload")
    page.page.check("#upload-consent")
    page.page.click("#upload")
    page.page.wait_for_selector("#upload-status:has-text('Added')")
    page.page.click("#settings button[value=apply]")
    page.page.wait_for_selector('#face[data-live="false"]')
    page.wait_until_live()
    assert len(page.session_ids) == 2


def test_uploaded_video_keeps_its_own_pose(page, tmp_path, face_file):
    path, image = tmp_path / "face.mp4", read_image(face_file)
    with VideoWriter(path, 256, 256, Fraction(25), None) as writer:
        for _ in range(5):
            writer.write(image)
    page.page.click("#settings-open")
    page.page.set_input_files("#upload-file", path)
    page.page.check("#upload-consent")
    page.page.click("#upload")
    page.page.wait_for_selector("#upload-status:has-text('Added')")
    assert page.page.is_enabled("#yaw")
    page.page.click("#settings button[value=apply]")
    page.page.wait_for_selector("#yaw:disabled", state="attached", timeout=5000)
    assert page.page.locator("#face-note").get_attribute("hidden") is None


def test_answer_is_saved_with_subtitles(page, tmp_path):
    page.start()
    page.send("Hello.")
    page.wait_for_answer()
    with page.page.expect_download() as video:
        page.page.click("text=Save video")
    video.value.save_as(tmp_path / "answer.mp4")
    assert probe(tmp_path / "answer.mp4").duration_s > 0.5
    with page.page.expect_download() as subtitles:
        page.page.click("text=Save subtitles")
    subtitles.value.save_as(tmp_path / "answer.srt")
    assert "You said: Hello." in (tmp_path / "answer.srt").read_text()


def test_typing_works_without_webrtc(new_page):
    page = new_page(script="delete window.RTCPeerConnection")
    page.open()
    page.start("#start-talk")
    assert "no WebRTC" in page.page.inner_text("#notice-text")
    assert page.page.is_disabled("#microphone")
    page.send(STORY, mode="say")
    page.wait_for_state("speaking")
    assert openings(page.watch(6)).std() > 0.005
    page.send(STORY, mode="say")
    page.wait_for_state("speaking")
    page.page.wait_for_timeout(500)
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector(".message.interrupted")


def test_face_without_webrtc_moves_while_the_browser_refuses_audio(new_page):
    refuse = """
        delete window.RTCPeerConnection;
        window.AudioContext = class extends AudioContext {
          constructor(options) {
            super(options);
            window.audio = this;
            this.suspend();
          }
        };
    """
    page = new_page(script=refuse)
    page.open()
    page.start("#start-talk")
    assert page.page.inner_text("#notice-text") == "The browser has muted the face."
    page.send(STORY, mode="say")
    page.wait_for_state("speaking")
    assert openings(page.watch(4)).std() > 0.005
    assert page.page.evaluate("window.audio.state") == "suspended"
    page.page.click("text=Turn the audio on")
    page.wait_for("window.audio.state === 'running' && window.audio.currentTime > 1")
    assert openings(page.watch(4)).std() > 0.005
    assert not page.page.is_visible("#notice-text")


def test_questions_can_be_typed_without_microphone_permission(new_page):
    refuse = "navigator.mediaDevices.getUserMedia = async () => {throw new DOMException('', %r)}"
    page = new_page(script=refuse % "NotAllowedError")
    page.open()
    page.start("#start-talk")
    assert "does not allow this page to use the microphone" in page.page.inner_text("#notice-text")
    page.send("Hello.")
    assert page.wait_for_answer() == "You said: Hello."


def test_space_key_is_push_to_talk(page):
    page.start()
    page.page.evaluate("document.activeElement.blur()")
    page.page.keyboard.down(" ")
    page.page.wait_for_selector("#microphone[aria-pressed=true]")
    page.page.wait_for_timeout(400)
    page.page.keyboard.up(" ")
    page.page.wait_for_selector("#microphone[aria-pressed=false]")
    page.page.focus("#message")
    page.page.keyboard.type("a b")
    assert page.page.input_value("#message") == "a b"
    assert page.page.get_attribute("#microphone", "aria-pressed") == "false"


def test_transcript_shows_markup_as_text(page):
    page.start()
    page.send("<img src=x onerror=alert(1)> is text.")
    page.wait_for_answer()
    assert page.texts("user") == ["<img src=x onerror=alert(1)> is text."]
    assert page.page.locator("#transcript img").count() == 0


@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844), (844, 390), (1440, 900)])
def test_controls_fit_the_screen(new_page, width, height):
    page = new_page(viewport={"width": width, "height": height})
    page.open()
    for name in (
        "#start-talk",
        "#start-type",
        "#settings-open",
        "#message",
        "#send",
        "#microphone",
    ):
        box = page.page.locator(name).bounding_box()
        assert 0 <= box["x"] <= width - box["width"], name
        assert 0 <= box["y"] <= height - box["height"], name
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_emotion_and_pose_change_the_face(page):
    page.start()
    page.page.wait_for_timeout(500)
    page.page.click("#details summary")
    # The head sways, so images are averaged over three seconds.
    before = page.watch(3).mean(0)

    def is_update(request):
        return request.method == "PATCH" and "v1/sessions/" in request.url

    with page.page.expect_request(is_update) as sent:
        page.page.select_option("#emotion", "surprised")
    assert sent.value.post_data_json == {"emotion": "surprised", "intensity": 1}
    with page.page.expect_request(is_update) as sent:
        page.page.fill("#yaw", "12")
    assert sent.value.post_data_json == {"pose": [12, 0, 0]}
    page.page.wait_for_timeout(1500)
    turned = page.watch(3).mean(0)
    with page.page.expect_request(is_update) as sent:
        page.page.click("#face-reset")
    assert sent.value.post_data_json == {"emotion": "neutral", "intensity": 1, "pose": [0, 0, 0]}
    page.page.wait_for_timeout(1500)
    after = page.watch(3).mean(0)
    assert abs(turned - before).mean() > 2 * abs(after - before).mean()
    assert page.page.is_disabled("#intensity")
