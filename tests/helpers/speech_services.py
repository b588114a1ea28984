"""Small parts for conversations: a voice of tones, ears that know what they hear, a slow mind."""

import threading
import time

import numpy as np

from talkinghead.errors import SpeechError
from talkinghead.speech.llm.echo import Echo


class ToneTextToSpeech:
    """A voice: a tone for each word. It breaks at the word `breaks_at`, and serves one at a time.

    Attributes:
        spoken: the sentences it was given, and when.
    """

    sample_rate = 16_000

    def __init__(self, word_s=0.1, breaks_at=None, wait_s=0.0):
        self.word_s, self.breaks_at, self.wait_s = word_s, breaks_at, wait_s
        self.spoken = []
        self._alone = threading.Lock()

    def speak(self, text, cancel=None):
        assert self._alone.acquire(blocking=False), "two callers at a time"
        try:
            self.spoken.append((text, time.monotonic()))
            for word in text.split():
                if cancel is not None and cancel.is_set():
                    return
                if word == self.breaks_at:
                    raise SpeechError("the voice broke")
                if any(letter.isalnum() for letter in word):
                    time.sleep(self.wait_s)
                    yield self._tone(word)
        finally:
            self._alone.release()

    def _tone(self, word):
        times = np.arange(round(self.word_s * self.sample_rate)) / self.sample_rate
        return (0.3 * np.sin(2 * np.pi * (150 + 10 * len(word)) * times)).astype(np.float32)


class FixedSpeechToText:
    """Hears what it was told beforehand, and keeps what it got."""

    def __init__(self, transcript):
        self.transcript = transcript
        self.heard = []

    def transcribe(self, audio, cancel=None):
        self.heard.append(audio)
        return self.transcript

    def stream(self, chunks, sample_rate, cancel=None):
        yield from (self.transcribe(chunk, cancel) for chunk in chunks)


class RecordingEcho(Echo):
    """An echo that keeps what it was told and how much of its reply was taken.

    It breaks before its word number `breaks_at`, or is stuck there until `stuck` is set.
    """

    def __init__(self, template="{}", tokens_per_second=None, breaks_at=None, stuck=None):
        super().__init__(template, tokens_per_second)
        self.breaks_at, self.stuck = breaks_at, stuck
        self.told, self.num_taken, self.num_running = [], 0, 0

    def reply(self, messages, cancel=None):
        self.told.append([(message.role, message.content) for message in messages])
        self.num_running += 1
        assert self.num_running == 1, "two callers at a time"
        try:
            for number, word in enumerate(super().reply(messages, cancel)):
                if number == self.breaks_at and self.stuck is None:
                    raise SpeechError("the line went dead")
                if number == self.breaks_at:
                    self.stuck.wait(20)
                self.num_taken += 1
                yield word
        finally:
            self.num_running -= 1
