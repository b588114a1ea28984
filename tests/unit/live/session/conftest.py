"""Dialogues of a small avatar."""

from types import SimpleNamespace

import pytest
from helpers.live_parts import ToneVoice
from helpers.media_files import smooth
from helpers.small_predictor import HEIGHT, STILL, WIDTH, make_predictor

from talkinghead.live.avatar_loop import AvatarLoop
from talkinghead.live.live_avatar import LiveAvatar
from talkinghead.live.session.dialogue import Dialogue
from talkinghead.live.session.dialogue_options import DialogueOptions

RATE = 16_000


@pytest.fixture(scope="module")
def avatar():
    return make_predictor().avatar(smooth(HEIGHT, WIDTH), STILL)


@pytest.fixture
def start(avatar):
    """Return a function that starts a dialogue, with its events and received frames."""
    started = []

    def start(llm=None, stt=None, voice=None, **options):
        live = LiveAvatar(avatar, sample_rate=RATE)
        events, frames = [], []
        dialogue = Dialogue(
            live, voice or ToneVoice(), llm, stt, DialogueOptions(**options), events.append
        )
        loop = AvatarLoop(live)
        loop.add_observer(dialogue.on_frame)
        loop.add_listener(frames.append)
        loop.start()
        started.append((dialogue, loop))
        return SimpleNamespace(dialogue=dialogue, events=events, frames=frames)

    yield start
    for dialogue, loop in started:
        dialogue.close()
        loop.stop()
