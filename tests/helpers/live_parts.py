"""Parts of live sessions that need no weights, for the processes of the sessions."""

import threading
import time
from pathlib import Path

import numpy as np

from helpers.media_files import smooth
from helpers.small_predictor import HEIGHT, WIDTH, make_predictor
from talkinghead.live.live_avatar import LiveAvatar
from talkinghead.live.session.session_process import SessionFactory
from talkinghead.media.writer import write_image
from talkinghead.predict.compositing.renderers import LaplacianRenderer
from talkinghead.speech.llm.echo import Echo


class ToneVoice:
    """A voice that speaks each word as a tone of 0.1 s."""

    sample_rate = 16_000

    def speak(self, text, cancel=None):
        for _ in text.split():
            if cancel is not None and cancel.is_set():
                return
            yield (0.3 * np.sin(np.arange(1600) * 0.2)).astype(np.float32)


class FailingRenderer(LaplacianRenderer):
    """A renderer that fails after 20 frames."""

    num_frames = 0

    def render(self, *arguments):
        self.num_frames += 1
        assert self.num_frames <= 20
        return super().render(*arguments)


def make_failing_predictor():
    """Return a predictor whose avatars stop after 20 frames."""
    return make_predictor(renderer=FailingRenderer())


def make_counting_predictor():
    """Return a predictor that writes a letter to a file `renders` for each video beside it."""
    predictor = make_predictor()
    render = predictor.render

    def counting(avatar, speech, output, **options):
        with Path(output).with_name("renders").open("a") as file:
            file.write("x")
        return render(avatar, speech, output, **options)

    predictor.render = counting
    return predictor


def record_slow_avatar(monkeypatch):
    """Let making a live avatar take 0.1 s longer; return events of its start and its closing."""
    is_making, is_closed = threading.Event(), threading.Event()
    warmed_up, close = LiveAvatar.warmed_up, LiveAvatar.close

    def make_slowly(*arguments):
        is_making.set()
        time.sleep(0.1)
        return warmed_up(*arguments)

    def record_close(live):
        close(live)
        is_closed.set()

    monkeypatch.setattr(LiveAvatar, "warmed_up", make_slowly)
    monkeypatch.setattr(LiveAvatar, "close", record_close)
    return is_making, is_closed


def tone_factory(predictor=make_predictor, **options):
    """Return a session factory with a small random model, `ToneVoice` and `Echo`."""
    return SessionFactory(predictor, {"tone": ToneVoice}, {"echo": Echo}, **options)


def write_face(folder: Path) -> Path:
    """Write a photo in which the detector of `make_predictor` finds a face."""
    path = folder / "face.png"
    write_image(path, smooth(HEIGHT, WIDTH))
    return path


def wait_for(events, kind, count=1, timeout_s=20.0):
    """Wait until `count` events of a kind have arrived, and return them."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = [event for event in events if event["type"] == kind]
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise AssertionError(f"no {count} events of type {kind} in {events}")
