"""One request by each adapter of OpenAI's API, with a valid response."""

import pytest

from helpers.openai_server import END, chat_response, pcm_bytes, pcm_response, transcript_response
from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.speech.llm.openai_llm import OpenAIChat
from talkinghead.speech.protocols import Message
from talkinghead.speech.stt.openai_stt import OpenAISpeechToText
from talkinghead.speech.tts.openai_tts import OpenAITextToSpeech

SPEECH = read_audio(DEMO_SPEECH, 16_000)
HELLO = [Message("user", "Hello?")]


def request_transcript(server, cancel=None, **options):
    yield OpenAISpeechToText(base_url=server.url, **options).transcribe(SPEECH, cancel).text


def request_reply(server, cancel=None, **options):
    yield from OpenAIChat("gpt", base_url=server.url, **options).reply(HELLO, cancel)


def request_speech(server, cancel=None, **options):
    for chunk in OpenAITextToSpeech(base_url=server.url, **options).speak("Hello.", cancel):
        yield from (chunk * 32_768).astype(int).tolist()


VALID = {
    request_transcript: (transcript_response("One two."), ["One two."]),
    request_reply: (chat_response("One ", "two.", *END), ["One ", "two."]),
    request_speech: (pcm_response(pcm_bytes(1), pcm_bytes(2)), [1, 2]),
}
"""Each request's valid response and the result."""
for_each_adapter = pytest.mark.parametrize("send", VALID)
