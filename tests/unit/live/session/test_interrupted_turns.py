"""Every turn that is interrupted emits exactly one `reply_end`."""

import time

import numpy as np
import pytest
from helpers.live_parts import ToneVoice, wait_for

pytest.importorskip("pysbd", reason="needs the extra offline")

RATE = 16_000


class WaitingModel:
    """A language model that yields nothing before the turn is cancelled."""

    def reply(self, messages, cancel=None):
        cancel.wait(20)
        yield from ()


def test_turn_that_is_interrupted_before_its_speech_ends_once(start):
    live = start(WaitingModel())
    turns = [live.dialogue.ask("Hello"), live.dialogue.ask("Hello again")]
    live.dialogue.interrupt()
    ends = wait_for(live.events, "reply_end", 2)
    assert [(end["turn"], end["interrupted"], end["num_frames"]) for end in ends] == [
        (turn, True, 0) for turn in turns
    ]
    live.dialogue.interrupt()
    assert len(wait_for(live.events, "reply_end", 2)) == 2
    assert live.dialogue.last_reply is None


def test_interrupted_turns_whose_speech_is_never_played_end_in_order(start):
    live = start()
    tone = np.tile(next(iter(ToneVoice().speak("tone"))), 20)
    first = live.dialogue.push_audio(tone, RATE)
    while not any(frame.reply == 0 for frame in live.frames):
        time.sleep(0.01)
    others = []
    for _ in range(3):
        live.dialogue.interrupt()
        others.append(live.dialogue.push_audio(tone, RATE))
    live.dialogue.interrupt()
    ends = wait_for(live.events, "reply_end", 4)
    assert [end["turn"] for end in ends] == [first, *others]
    assert [end["num_frames"] > 0 for end in ends] == [True, False, False, False]
    assert all(end["interrupted"] for end in ends)


def test_turn_that_is_interrupted_between_two_sentences_ends(start):
    class SlowVoice(ToneVoice):
        def speak(self, text, cancel=None):
            if "Second" in text:
                time.sleep(3)
            yield from super().speak(text, cancel)

    live = start(voice=SlowVoice())
    live.dialogue.say("The first sentence. Second sentence.")
    while not any(frame.is_reply_end for frame in live.frames):
        time.sleep(0.01)
    live.dialogue.interrupt()
    (end,) = wait_for(live.events, "reply_end")
    assert end["interrupted"]
    assert end["num_frames"] > 0
