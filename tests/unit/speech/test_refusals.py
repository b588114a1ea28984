"""Errors for invalid options and missing packages of the offline speech providers."""

import sys

import pytest
from helpers.speech_services import ToneTextToSpeech

from talkinghead.errors import DependencyError, UsageError
from talkinghead.speech.llm.echo import Echo
from talkinghead.speech.llm.llama import Llama
from talkinghead.speech.loudness import LoudnessNormalizer
from talkinghead.speech.sentence_speech import speak_text
from talkinghead.speech.sentences import split_sentences
from talkinghead.speech.stt.openai_stt import OpenAISpeechToText
from talkinghead.speech.stt.whisper import Whisper
from talkinghead.speech.tts.command import CommandTextToSpeech
from talkinghead.speech.tts.coqui import Coqui
from talkinghead.speech.tts.openai_tts import OpenAITextToSpeech
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.voice import Voice
from talkinghead.speech.voice_activity import speech_probabilities

PROGRAM = [sys.executable]
TONE = ToneTextToSpeech()


@pytest.mark.parametrize(
    ("make", "arguments", "options", "message"),
    [
        (Echo, (), {"tokens_per_second": 0}, "tokens_per_second=0"),
        (Llama, (), {"context_size": 100}, "max_tokens=128, context_size=100"),
        (Whisper, (), {"device": "tpu"}, "device=tpu"),
        (OpenAISpeechToText, (), {"min_silence_s": 0}, "min_silence_s=0"),
        (OpenAITextToSpeech, (), {"speed": 5}, r"expected 0.25 to 4"),
        (Piper, (), {"device": "tpu"}, "tts=piper got"),
        (Piper, (), {"length_scale": 0.0}, "tts=piper got"),
        (Piper, (), {"noise_scale": -1}, "tts=piper got"),
        (CommandTextToSpeech, ([],), {}, "expected a program"),
        (CommandTextToSpeech, (PROGRAM,), {"voice": "-w"}, "expected a program"),
        (CommandTextToSpeech, (PROGRAM,), {"sample_rate": 0}, "expected a program"),
        (Voice, (TONE,), {"lead_s": -1}, "expected a rate above 0 Hz"),
        (Voice, (TONE,), {"sample_rate": 0}, "expected a rate above 0 Hz"),
        (Voice, (TONE,), {"loudness_lufs": 6}, "expected at most 0"),
        (LoudnessNormalizer, (16_000,), {"target_lufs": -90}, "expected at most 0"),
        (LoudnessNormalizer, (16_000,), {"peak_dbfs": 1}, "expected at most 0"),
        (speak_text, (" \n", TONE), {}, "text is empty"),
    ],
)
def test_invalid_options_are_refused(make, arguments, options, message):
    with pytest.raises(UsageError, match=message):
        make(*arguments, **options)


@pytest.mark.parametrize(
    ("module", "use", "message"),
    [
        ("xllamacpp", lambda: Llama(__file__), r"'talkinghead\[llama\]', or choose llm=echo"),
        ("faster_whisper", Whisper, r"pip install 'talkinghead\[offline\]'"),
        ("faster_whisper", lambda: next(speech_probabilities([])), r"faster-whisper 1\.2.*install"),
        ("TTS.api", Coqui, r"talkinghead\[speech\].*tts=piper"),
        ("pyloudnorm", lambda: Voice(TONE), r"talkinghead\[speech\].*loudness_lufs=null"),
        ("pocketsphinx", lambda: Voice(TONE, align=True), r"talkinghead\[speech\].*align=false"),
        ("pysbd", lambda: list(split_sentences(["Hi."])), r"pysbd.*talkinghead\[offline\]"),
        ("openai", OpenAITextToSpeech, r"talkinghead\[speech\].*tts=piper, which works offline"),
        ("httpx2", OpenAISpeechToText, r"talkinghead\[speech\].*stt=whisper, which works offline"),
    ],
)
def test_error_names_missing_package(module, use, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=message):
        use()
