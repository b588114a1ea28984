"""Voices of eSpeak NG, if it is installed: audio, phoneme times, and speech without the library."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from talkinghead.errors import DependencyError, UsageError
from talkinghead.media.audio_decoding import read_audio
from talkinghead.speech.protocols import gives_phonemes
from talkinghead.speech.tts import espeak
from talkinghead.speech.tts.espeak import Espeak
from talkinghead.speech.voice import Voice

TEXT = "Papa may keep a big map, and put it above my boat."

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="needs the program espeak-ng"
)


@pytest.fixture(scope="module")
def speech():
    [speech] = Espeak("en-us").speak_timed(TEXT)
    return speech


def level_db(speech, start_s, end_s, sample_rate=22_050):
    part = speech.samples[round(start_s * sample_rate) : round(end_s * sample_rate)]
    return 10 * np.log10(np.square(part).mean() + 1e-12)


@needs_espeak
def test_audio_equals_that_of_the_program(speech, tmp_path):
    output = tmp_path / "speech.wav"
    options = ["-v", "en-us", "-s", "160", "-p", "50", "-w", str(output)]
    subprocess.run(["espeak-ng", *options, TEXT], check=True)
    expected = read_audio(output, 22_050).samples
    np.testing.assert_array_equal(speech.samples, expected)


@needs_espeak
def test_phonemes_have_the_times_of_the_audio(speech):
    symbols = "".join(phoneme.symbol for phoneme in speech.phonemes)
    assert [symbol for symbol in symbols if symbol in "pbmv"] == list("ppmpbmppbvmb")
    times_s = [time_s for p in speech.phonemes for time_s in (p.start_s, p.end_s)]
    assert times_s == sorted(times_s)
    assert times_s[-1] < len(speech.samples) / 22_050
    [after_comma] = [
        (first.end_s, second.start_s)
        for first, second in zip(speech.phonemes, speech.phonemes[1:], strict=False)
        if second.start_s - first.end_s > 0.05
    ]
    assert level_db(speech, *after_comma) < -60
    for phoneme in speech.phonemes:
        if phoneme.symbol[0] in "\u0251æi":
            assert level_db(speech, phoneme.start_s, phoneme.end_s) > -25
    closures = [p.start_s for p in speech.phonemes[1:] if p.symbol == "p"]
    assert len(closures) == 4
    for start_s in closures:
        assert level_db(speech, start_s, start_s + 0.02) < -60
        assert level_db(speech, start_s - 0.02, start_s) > -45


@needs_espeak
def test_voices_and_options_change_the_speech(speech):
    fast = next(Espeak("en-us+f3", words_per_minute=300).speak_timed(TEXT))
    assert len(fast.samples) < 0.75 * len(speech.samples)
    assert [p.symbol for p in fast.phonemes][:3] == [p.symbol for p in speech.phonemes][:3]
    # en-gb is the name of a language, not of a voice.
    assert next(Espeak("en-gb").speak_timed("Hello.")).phonemes[0].symbol == "h"
    with pytest.raises(UsageError, match=r"tts\.voice=nobody: .*espeak-ng has .*\ben-us\b"):
        Espeak("nobody")
    with pytest.raises(UsageError, match=r"words_per_minute=20 .*expected 80 to 450"):
        Espeak(words_per_minute=20)


@needs_espeak
@pytest.mark.parametrize("library", [None, "libnowhere.so"])
def test_speech_without_the_library_has_no_phonemes(library, speech, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(espeak, "_LIBRARIES", ())
    monkeypatch.setattr(espeak, "find_library", lambda _: library)
    voice = Espeak("en-us")
    assert "no phonemes for the lips" in caplog.text
    assert not gives_phonemes(voice)
    [spoken] = voice.speak_timed(TEXT)
    assert not spoken.phonemes
    np.testing.assert_array_equal(spoken.samples, speech.samples)


def test_library_that_hangs_is_not_used(monkeypatch, caplog):
    caplog.set_level("INFO")
    waits = [sys.executable, "-c", "import time; time.sleep(20)"]
    monkeypatch.setattr(espeak, "_TIMED", waits)
    monkeypatch.setattr(espeak.shutil, "which", lambda name: sys.executable)
    monkeypatch.setattr(espeak, "find_library", lambda name: "library")
    started_s = time.monotonic()
    assert espeak._find_timed_library(0.5) is None
    assert time.monotonic() - started_s < 10
    assert "library loads for 0.5 s" in caplog.text


@needs_espeak
def test_alignment_is_used_only_without_phonemes(monkeypatch):
    pytest.importorskip("pocketsphinx", reason="needs pocketsphinx: EXTRAS=speech,dev")
    assert isinstance(Voice(Espeak(), align=True).tts, Espeak)
    monkeypatch.setattr(espeak, "_find_timed_library", lambda timeout_s: None)
    voice = Voice(Espeak(), align=True)
    assert any(p.symbol == "p" for s in voice.speak_timed("Put it up.") for p in s.phonemes)


def test_a_missing_program_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=r"apt install espeak-ng.*tts=piper"):
        Espeak()


def test_the_script_imports_the_standard_library_only():
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='script')"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, espeak._TIMED[-1]], check=True)
