"""Speech providers for tests of conversations, and the word error rate."""

import re
import threading

import numpy as np

from talkinghead.errors import SpeechError
from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech
from talkinghead.speech.llm.echo import Echo


class ToneTextToSpeech:
    """A text-to-speech provider that makes a tone for each word.

    It fails at the word `fails_at`, and also if it is called by two threads at the same time.

    Attributes:
        spoken: The sentences received.
    """

    sample_rate = 16_000

    def __init__(self, word_s=0.1, fails_at=None):
        self.word_s, self.fails_at = word_s, fails_at
        self.spoken = []
        self._lock = threading.Lock()

    def speak(self, text, cancel=None):
        assert self._lock.acquire(blocking=False), "two callers at a time"
        try:
            self.spoken.append(text)
            for word in text.split():
                if cancel is not None and cancel.is_set():
                    return
                if word == self.fails_at:
                    raise SpeechError("the voice failed")
                if any(letter.isalnum() for letter in word):
                    yield self._tone(word)
        finally:
            self._lock.release()

    def _tone(self, word):
        times = np.arange(round(self.word_s * self.sample_rate)) / self.sample_rate
        return (0.3 * np.sin(2 * np.pi * (150 + 10 * len(word)) * times)).astype(np.float32)


class TimedToneTextToSpeech(ToneTextToSpeech):
    """A tone for each word, whose first letter is a phoneme as long as the word."""

    def speak_timed(self, text, cancel=None):
        words = (word for word in text.split() if any(map(str.isalnum, word)))
        for word, samples in zip(words, self.speak(text, cancel), strict=False):
            yield TimedSpeech(samples, (Phoneme(word[0].lower(), 0.0, self.word_s),))


class FixedSpeechToText:
    """A speech-to-text provider that returns a fixed transcript and stores the received audio."""

    def __init__(self, transcript):
        self.transcript = transcript
        self.received = []

    def transcribe(self, audio, cancel=None):
        self.received.append(audio)
        return self.transcript

    def stream(self, chunks, sample_rate, cancel=None):
        yield from (self.transcribe(chunk, cancel) for chunk in chunks)


class RecordingEcho(Echo):
    """An `Echo` that records its requests and the number of words that were read from its replies.

    Before the word number `fails_at` it fails, or waits until `unblock` is set.
    """

    def __init__(self, template="{}", tokens_per_second=None, fails_at=None, unblock=None):
        super().__init__(template, tokens_per_second)
        self.fails_at, self.unblock = fails_at, unblock
        self.requests, self.num_taken, self.num_running = [], 0, 0

    def reply(self, messages, cancel=None):
        self.requests.append([(message.role, message.content) for message in messages])
        self.num_running += 1
        assert self.num_running == 1, "two callers at a time"
        try:
            for number, word in enumerate(super().reply(messages, cancel)):
                if number == self.fails_at and self.unblock is None:
                    raise SpeechError("the connection was lost")
                if number == self.fails_at:
                    self.unblock.wait(20)
                self.num_taken += 1
                yield word
        finally:
            self.num_running -= 1


def word_error_rate(text, reference):
    """Return the word error rate of a transcript relative to a reference text."""
    words, expected = (re.sub(r"[^a-z' ]", " ", t.lower()).split() for t in (text, reference))
    row = range(len(expected) + 1)
    for i, word in enumerate(words, 1):
        last, row = row, [i]
        for j, other in enumerate(expected, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (word != other)))
    return row[-1] / len(expected)
