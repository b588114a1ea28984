"""The page of the live server in headless Chromium, driven by Playwright."""

from __future__ import annotations

import base64
import io
import re
import time
import urllib.error
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from talkinghead.features.faces.detector import build_detector
from talkinghead.features.faces.mouth_motion import opening_series, track_landmarks

CHROMIUM = Path("/usr/bin/chromium")
SAMPLE_RATE = 16_000
TOKEN = "a-token-for-tests"
QUESTION = "Can you tell me a short story about a garden?"
STORY = (
    "There was once a small village between two high mountains. In the village lived a baker. "
    "Every morning the baker rose before the sun and lit a fire. Then the whole village could "
    "smell the bread, and nobody wanted to sleep any longer."
)
BROWSER_MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium"),
]
_TIMEOUT_S = 60

# Store the microphone's stream, so that it can be recorded together with the face's audio.
_KEEP_MICROPHONE = """
const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (constraints) => {
  window.microphoneStream = await getUserMedia(constraints);
  return window.microphoneStream;
};
"""

# Post the samples of both channels of each block, with the position of the block.
_RECORDER = """
registerProcessor("recorder", class extends AudioWorkletProcessor {
  process([input]) {
    const channels = input.map((samples) => samples.slice());
    this.port.postMessage({ frame: currentFrame, channels });
    return true;
  }
});
"""

_START_RECORDER = """async ([sampleRate, script]) => {
  const context = new AudioContext({ sampleRate });
  const module = new Blob([script], { type: "text/javascript" });
  await context.audioWorklet.addModule(URL.createObjectURL(module));
  const recorder = new AudioWorkletNode(context, "recorder");
  const merger = new ChannelMergerNode(context, { numberOfInputs: 2 });
  merger.connect(recorder).connect(context.destination);
  const connect = (stream, channel) => {
    const audio = new MediaStream(stream.getAudioTracks());
    context.createMediaStreamSource(audio).connect(merger, 0, channel);
  };
  const recording = { blocks: [], marks: [], frames: [], context, connect };
  recorder.port.onmessage = ({ data }) => recording.blocks.push(data);
  document.addEventListener("keydown", () => recording.marks.push(context.currentTime));
  connect(document.querySelector("video").srcObject, 0);
  window.recording = recording;
}"""

_STOP_RECORDER = """() => {
  const { blocks, marks, frames } = window.recording;
  const samples = new Int16Array(2 * 128 * blocks.length);
  blocks.forEach(({ channels }, number) => {
    for (let i = 0; i < 128; i++) {
      for (let channel = 0; channel < 2; channel++) {
        const sample = channels[channel]?.[i] ?? 0;
        samples[2 * (128 * number + i) + channel] = 32767 * Math.max(-1, Math.min(1, sample));
      }
    }
  });
  let text = "";
  for (const byte of new Uint8Array(samples.buffer)) text += String.fromCharCode(byte);
  return { samples: btoa(text), firstFrame: blocks[0].frame, marks, frames };
}"""

_WATCH = """async (seconds) => {
  const canvas = document.querySelector("canvas");
  const source = canvas.hidden ? document.querySelector("video") : canvas;
  const copy = document.createElement("canvas");
  copy.width = source.videoWidth || source.width;
  copy.height = source.videoHeight || source.height;
  const images = [];
  const end = performance.now() + 1000 * seconds;
  while (performance.now() < end) {
    copy.getContext("2d").drawImage(source, 0, 0);
    images.push(copy.toDataURL("image/jpeg", 0.9).split(",")[1]);
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  return images;
}"""

# Store each frame of the video with the time of its display on the clock of the recorder.
_START_FRAMES = """() => {
  const video = document.querySelector("video");
  const { context, frames } = window.recording;
  const copy = document.createElement("canvas");
  copy.width = video.videoWidth;
  copy.height = video.videoHeight;
  const take = (now, { expectedDisplayTime }) => {
    copy.getContext("2d").drawImage(video, 0, 0);
    const time = context.currentTime + (expectedDisplayTime - performance.now()) / 1000;
    frames.push({ time, image: copy.toDataURL("image/jpeg", 0.9).split(",")[1] });
    video.requestVideoFrameCallback(take);
  };
  video.requestVideoFrameCallback(take);
}"""


class Recording(NamedTuple):
    """Audio of the page and the microphone, float32 [num_samples] at `SAMPLE_RATE`, in sync.

    Attributes:
        face: Audio received from the face.
        microphone: Audio of the microphone; zeros where it was not recorded.
        key_times_s: Times of the key presses.
        images: Images of the video, uint8 [N, H, W, 3]; empty unless frames were recorded.
        image_times_s: Times of their display, float [N].
    """

    face: np.ndarray
    microphone: np.ndarray
    key_times_s: list[float]
    images: np.ndarray
    image_times_s: np.ndarray


class AvatarPage:
    """The page of a server in a separate browser context."""

    def __init__(self, context, server):
        context.add_init_script(_KEEP_MICROPHONE)
        self.server, self.page = server, context.new_page()
        self.page.set_default_timeout(1000 * _TIMEOUT_S)
        self.console, self.requests = [], []
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request))

    def open(self, token=None):
        """Open the page with the token in the address."""
        self.page.goto(f"{self.server.url}/#token={token or self.server.token}")

    def start(self, button="#start-type"):
        """Start the session, and wait until the face is shown."""
        self.page.click(button)
        self.wait_until_live()

    def wait_until_live(self):
        """Wait until the face is shown."""
        self.page.wait_for_selector('#face[data-live="true"]')
        self.wait_for("video.hidden ? canvas.width > 0 : video.videoWidth > 0")

    def wait_for(self, expression):
        """Wait until a JavaScript expression is true.

        Playwright's own `wait_for_function` needs `eval`, which the page's security policy forbids.
        """
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline_s, expression
            self.page.wait_for_timeout(50)

    def wait_for_state(self, state):
        """Wait for a state, such as "speaking"."""
        self.page.wait_for_selector(f'#state[data-state="{state}"]')

    def send(self, text, mode="ask"):
        """Type a text and send it."""
        self.page.check(f'input[name="mode"][value="{mode}"]', force=True)
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    def wait_for_answer(self):
        """Wait for the end of an answer, and return its text."""
        self.page.wait_for_selector(".downloads")
        return self.texts("assistant")[-1]

    def texts(self, role):
        """Return the transcript of the user or the assistant."""
        return self.page.locator(f'.message[data-role="{role}"] > p').all_text_contents()

    def watch(self, seconds):
        """Return the landmarks of the face that is shown, float [num_images, 468, 2]."""
        return track_landmarks(_decode(self.page.evaluate(_WATCH, seconds)), build_detector())

    def start_recording(self):
        """Record the audio of the face from now on; the context needs `bypass_csp`."""
        self.page.evaluate(_START_RECORDER, [SAMPLE_RATE, _RECORDER])

    def record_microphone(self):
        """Record the microphone as well."""
        self.wait_for("Boolean(window.microphoneStream)")
        self.page.evaluate("recording.connect(window.microphoneStream, 1)")

    def record_frames(self):
        """Record the frames of the video as well."""
        self.page.evaluate(_START_FRAMES)

    def stop_recording(self):
        """Return the recording."""
        recorded = self.page.evaluate(_STOP_RECORDER)
        samples = np.frombuffer(base64.b64decode(recorded["samples"]), "<i2")
        face, microphone = samples.reshape(-1, 2).T.astype(np.float32) / 32_768
        first_s = recorded["firstFrame"] / SAMPLE_RATE
        frames = recorded["frames"]
        return Recording(
            face,
            microphone,
            [mark - first_s for mark in recorded["marks"]],
            _decode([frame["image"] for frame in frames]),
            np.array([frame["time"] for frame in frames]) - first_s,
        )

    @property
    def session_ids(self):
        """Identifiers of the sessions that the page has connected to."""
        paths = (re.search(r"/v1/sessions/([^/]+)/offer", one.url) for one in self.requests)
        return list(dict.fromkeys(found[1] for found in paths if found))

    def end_sessions(self):
        """End the sessions on the server, to free their slots."""
        for session_id in self.session_ids:
            # The session or the server may have ended already.
            with suppress(urllib.error.URLError):
                self.server.request("DELETE", f"/v1/sessions/{session_id}")


def _decode(texts):
    """Decode images in base64 to an array."""
    files = map(base64.b64decode, texts)
    return np.array([np.asarray(Image.open(io.BytesIO(file))) for file in files])


def loud_times_s(samples, threshold=0.02, window_s=0.02):
    """Return the times of the windows whose RMS level is above a threshold."""
    size = round(window_s * SAMPLE_RATE)
    windows = samples[: len(samples) // size * size].reshape(-1, size)
    return np.flatnonzero(np.sqrt((windows**2).mean(1)) > threshold) * window_s


def openings(landmarks):
    """Return the opening of the mouth in each image, relative to the size of the face."""
    return opening_series(landmarks, "mesh468")
