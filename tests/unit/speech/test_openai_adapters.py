"""Requests and responses of the adapters of OpenAI's API."""

import io
import wave

import numpy as np
import pytest
from helpers.openai_server import (
    END,
    chat_event,
    chat_response,
    pcm_bytes,
    pcm_response,
    transcript_response,
)

from talkinghead.errors import SpeechError
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.speech.llm.openai_llm import OpenAIChat
from talkinghead.speech.protocols import (
    LanguageModel,
    Message,
    SpeechToText,
    TextToSpeech,
    Transcript,
)
from talkinghead.speech.sentence_speech import SentenceSynthesizer
from talkinghead.speech.sentences import split_sentences
from talkinghead.speech.stt.openai_stt import OpenAISpeechToText
from talkinghead.speech.tts.openai_tts import MAX_REQUEST_CHARS, OpenAITextToSpeech
from talkinghead.speech.voice import Voice
from talkinghead.types import AudioClip

RATE = 16_000


def silence(duration_s):
    return np.zeros(round(duration_s * RATE), np.float32)


def sent_audio(form):
    with wave.open(io.BytesIO(form["file"])) as file:
        assert file.getparams()[:3] == (1, 2, RATE)
        pcm16 = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return pcm16.astype(np.float32) / 32_768


def test_speech_is_sent_at_16_khz(server, speech):
    server.responses += [transcript_response(" Hello there. ", languages=[{"code": "en"}])] * 2
    stt = OpenAISpeechToText(base_url=server.url, prompt="Ada")
    assert isinstance(stt, SpeechToText)
    assert stt.transcribe(AudioClip(speech, RATE)) == Transcript("Hello there.", "en")
    request = server.requests[0]
    assert request.path == "/v1/audio/transcriptions"
    assert request.form["model"] == b"gpt-transcribe"
    assert request.form["response_format"] == b"json"
    assert request.form["prompt"] == b"Ada"
    assert "language" not in request.form
    audio = sent_audio(request.form)
    start = int(np.abs(speech).argmax() - np.abs(audio).argmax())
    np.testing.assert_allclose(audio, speech[start : start + len(audio)], atol=1e-4)
    stt = OpenAISpeechToText(base_url=server.url, language="de")
    clip = AudioClip(np.repeat(speech, 3), 48_000)
    assert stt.transcribe(clip) == Transcript("Hello there.", "de")
    assert server.requests[1].form["language"] == b"de"
    assert len(sent_audio(server.requests[1].form)) <= len(speech)


def test_word_times_are_relative_to_clip_start(server, speech):
    times = {"Hello": (0.5, 0.75), " there": (1, 1.5)}
    words = [{"word": word, "start": start, "end": end} for word, (start, end) in times.items()]
    server.responses += [transcript_response("Hello there", language="english", words=words)] * 2
    stt = OpenAISpeechToText("whisper-1", word_times=True, base_url=server.url)
    soon = stt.transcribe(AudioClip(speech, RATE))
    late = stt.transcribe(AudioClip(np.concatenate([silence(3.2), speech]), RATE))
    assert [word.text for word in soon.words] == ["Hello", "there"]
    assert soon.words[0].end_s - soon.words[0].start_s == pytest.approx(0.25)
    assert late.words[1].start_s - soon.words[1].start_s == pytest.approx(3.2, abs=0.04)
    assert soon.language is None
    form = server.requests[0].form
    assert form["response_format"] == b"verbose_json"
    assert form["timestamp_granularities[]"] == b"word"


def test_silence_is_not_sent(server):
    stt = OpenAISpeechToText(base_url=server.url)
    for samples in (silence(0), silence(3) + np.nan):
        assert stt.transcribe(AudioClip(samples, RATE)) == Transcript("")
        assert list(stt.stream([samples], RATE)) == []
    assert not server.requests


def test_long_speech_is_split(server, speech, monkeypatch):
    monkeypatch.setattr("talkinghead.speech.stt.openai_stt._MAX_REQUEST_S", 4.0)
    word = {"word": "a", "start": 0, "end": 0.1}
    server.responses += [transcript_response("a", words=[word]) for _ in range(20)]
    stt = OpenAISpeechToText(word_times=True, base_url=server.url)
    transcript = stt.transcribe(AudioClip(speech, RATE))
    lengths = [len(sent_audio(request.form)) / RATE for request in server.requests]
    assert len(lengths) > 1
    assert max(lengths) <= 4.1
    assert transcript.text == " ".join("a" * len(lengths))
    starts = [word.start_s for word in transcript.words]
    assert starts == sorted(set(starts))


def test_stream_is_transcribed_per_utterance(server, speech):
    server.responses += [transcript_response(f"Sentence {i}.") for i in range(10)]
    samples = np.concatenate([speech, silence(1)])
    num_requests = []

    def chunks():
        for chunk in np.split(samples, range(1600, len(samples), 1600)):
            num_requests.append(len(server.requests))
            yield chunk

    texts = [one.text for one in OpenAISpeechToText(base_url=server.url).stream(chunks(), RATE)]
    assert texts == [f"Sentence {i}." for i in range(len(server.requests))]
    # Each request was sent before the next utterance was read.
    assert sorted(set(num_requests)) == list(range(len(texts) + 1))
    assert len(texts) > 1


MESSAGES = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes?")]


def test_messages_and_options_are_sent(server):
    server.responses.append(chat_response("", "Hel", "lo.", *END))
    options = {"temperature": 0.5, "max_tokens": 9}
    llm = OpenAIChat("gpt", options=options, base_url=server.url)
    assert isinstance(llm, LanguageModel)
    assert list(llm.reply(MESSAGES)) == ["Hel", "lo."]
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    messages = [{"role": m.role, "content": m.content} for m in MESSAGES]
    assert request.json == {"model": "gpt", "stream": True, "messages": messages, **options}


def test_usage_event_is_ignored_and_empty_reply_is_an_error(server):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n'
    server.responses.append(chat_response(b": a comment\n\n", "One.", END[0], usage, END[1]))
    server.responses.append(chat_response("One two", chat_event(finish="length")))
    server.responses.append(chat_response(chat_event(finish="length")))
    llm = OpenAIChat("gpt", base_url=server.url)
    assert list(llm.reply(MESSAGES)) == ["One."]
    assert list(llm.reply(MESSAGES)) == ["One two"]
    with pytest.raises(SpeechError, match=r"returned no text.*length"):
        list(llm.reply(MESSAGES))
    assert len(server.requests) == 3


def test_speech_does_not_depend_on_chunk_boundaries(server):
    expected = np.arange(-3000, 3000, dtype="<i2")
    sent = expected.tobytes()
    server.responses.append(pcm_response(sent[:1], sent[1:2], sent[2:1001], sent[1001:]))
    tts = OpenAITextToSpeech(voice="coral", instructions="Whisper.", speed=1.5, base_url=server.url)
    pieces = list(tts.speak("Hello, world."))
    assert isinstance(tts, TextToSpeech)
    assert tts.sample_rate == 24_000
    assert all(piece.dtype == np.float32 for piece in pieces)
    np.testing.assert_array_equal(np.concatenate(pieces) * 32_768, expected)
    (request,) = server.requests
    assert request.path == "/v1/audio/speech"
    assert request.json == {
        "model": "gpt-4o-mini-tts",
        "voice": "coral",
        "instructions": "Whisper.",
        "speed": 1.5,
        "response_format": "pcm",
        "input": "Hello, world.",
    }

    server.responses.append(pcm_response(pcm_bytes(1)))
    list(OpenAITextToSpeech(voice={"id": "voice_1"}, base_url=server.url).speak("Hi"))
    unstyled = {"model": "gpt-4o-mini-tts", "response_format": "pcm"}
    assert server.requests[1].json == {**unstyled, "voice": {"id": "voice_1"}, "input": "Hi"}
    assert list(OpenAITextToSpeech(base_url=server.url).speak("... 🙂 —")) == []
    assert len(server.requests) == 2


def test_long_text_is_split_at_sentences(server):
    sentences = [f"This is sentence number {i} of a long text." for i in range(300)]
    server.responses += [pcm_response(pcm_bytes(i)) for i in range(20)]
    spoken = list(OpenAITextToSpeech(base_url=server.url).speak(" ".join(sentences)))
    parts = [request.json["input"] for request in server.requests]
    assert len(spoken) == len(parts) == 4
    assert max(map(len, parts)) <= MAX_REQUEST_CHARS
    assert all(part.endswith(".") for part in parts)
    assert " ".join(parts) == " ".join(sentences)

    server.requests.clear()
    text = "word " * 2000 + "x" * 5000
    list(OpenAITextToSpeech(base_url=server.url).speak(text))
    parts = [request.json["input"] for request in server.requests]
    assert max(map(len, parts)) <= MAX_REQUEST_CHARS
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_emotion_of_tagged_text_is_in_the_instructions(server):
    server.responses += [pcm_response(pcm_bytes(1, 2)) for _ in range(5)]
    voice = Voice(OpenAITextToSpeech(base_url=server.url, instructions="Whisper."))
    text = "One. [happy] Two. Three. [sad:0.3] Four. [/sad] Five."
    for _ in SentenceSynthesizer(split_sentences([text]), voice).chunks():
        pass
    sent = {request.json["input"]: request.json["instructions"] for request in server.requests}
    happy, sad = (
        f"Whisper. Speak in a {tone} tone of voice." for tone in ("happy", "slightly sad")
    )
    assert sent == {
        "One.": "Whisper.",
        "Two.": happy,
        "Three.": happy,
        "Four.": sad,
        "Five.": "Whisper.",
    }


@pytest.mark.parametrize("options", [{"model": "tts-1-hd"}, {"follow_emotions": False}])
def test_emotion_is_not_sent_to_models_without_instructions(server, options):
    server.responses.append(pcm_response(pcm_bytes(1, 2)))
    voice = OpenAITextToSpeech(base_url=server.url, **options)
    assert list(voice.with_emotion(Emotion("happy")).speak("Hello."))
    assert "instructions" not in server.requests[0].json
