"""Voices of external programs: a humming script, and Flite if installed."""

import shutil
import sys
import time
from threading import Event, Timer

import numpy as np
import pytest
from omegaconf import OmegaConf

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.paths import conf_dir
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.tts.command import CommandTextToSpeech

# Write a tone of 0.1 s per letter, in stereo at 8 kHz, and append the input text to a file.
_HUM = """
import array, math, sys, time, wave
voice, output, received = sys.argv[1:4]
text = sys.stdin.read()
open(received, "a").write(text)
if voice == "slow": time.sleep(30)
if voice == "broken": sys.exit("out of\\nbreath")
if voice == "mute": sys.exit()
if voice == "noisy": print("not audio" * 10); sys.exit()
tone = [round(8000 * math.sin(0.3 * i)) for i in range(800 * sum(map(str.isalpha, text)))]
with wave.open(sys.stdout.buffer if output == "-" else output, "wb") as file:
    file.setparams((2, 2, 8000, 0, "NONE", ""))
    file.writeframes(array.array("h", [x for s in tone for x in (s, s)]).tobytes())
"""


@pytest.fixture
def hum(tmp_path):
    program = tmp_path / "hum.py"
    program.write_text(_HUM)

    def make(voice="hum", output="{output}", **options):
        command = ["-S", str(program), "{voice}", output, str(tmp_path / "received")]
        return CommandTextToSpeech([sys.executable, *command], voice=voice, **options)

    return make


@pytest.mark.parametrize("output", ["{output}", "-"])
def test_one_chunk_is_yielded_per_sentence(hum, output, tmp_path):
    command = hum(output=output, sample_rate=16_000)
    assert isinstance(command, TextToSpeech)
    pieces = list(command.speak("One two. --help; $(touch x) `y`"))
    received = (tmp_path / "received").read_text()
    assert received == "One two.\n--help; $(touch x) y\n"
    assert [piece.dtype for piece in pieces] == [np.float32] * 2
    assert [len(piece) for piece in pieces] == pytest.approx([9600, 1600 * 11], abs=64)
    assert np.abs(pieces[0]).max() == pytest.approx(8000 / 2**15, abs=0.02)


def test_program_may_be_slow_to_read_its_input(tmp_path):
    code = f"import time; time.sleep(0.3)\n{_HUM}"
    command = [sys.executable, "-S", "-c", code, "hum", "{output}", str(tmp_path / "received")]
    (speech,) = CommandTextToSpeech(command, timeout_s=10).speak("Hello.")
    assert len(speech) > 0
    assert (tmp_path / "received").read_text() == "Hello.\n"


def test_unspeakable_text_and_audio_without_samples_are_skipped(hum, tmp_path):
    assert not list(hum().speak("\N{GRINNING FACE}"))
    assert not (tmp_path / "received").exists()
    assert not list(hum().speak("123"))


def test_cancellation_ends_the_program(hum):
    cancel, started_s = Event(), time.monotonic()
    Timer(0.2, cancel.set).start()
    assert not list(hum("slow").speak("Hello.", cancel))
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("slow", r"took longer than 0.3 s for 'Hello\.'"),
        ("broken", r"failed with exit status 1: breath"),
        ("mute", "wrote no audio"),
        ("noisy", "wrote no audio"),
    ],
)
def test_program_failures_raise_errors(hum, voice, message):
    with pytest.raises(SpeechError, match=message):
        list(hum(voice, timeout_s=0.3 if voice == "slow" else 30).speak("Hello."))


def test_unknown_voice_lists_the_available_ones():
    lister = [sys.executable, "-S", "-c", "print(' 5 en-us M x\\n 5 de F y')"]
    options = {"list_voices": lister, "voice_pattern": r"^\s*\d+\s+(\S+)"}
    assert CommandTextToSpeech([sys.executable], voice="en-us+f3", **options)
    with pytest.raises(UsageError, match=r"tts\.voice=fr: .* has en-us, de$"):
        CommandTextToSpeech([sys.executable], voice="fr", **options)
    with pytest.raises(SpeechError, match="cannot list the voices"):
        CommandTextToSpeech([sys.executable], list_voices=[sys.executable, "-c", "exit(1)"])


def test_a_program_may_write_phonemes(tmp_path):
    program = tmp_path / "speak.py"
    program.write_text(
        "import array, sys, wave\n"
        "with wave.open(sys.argv[1], 'wb') as file:\n"
        "    file.setparams((1, 2, 8000, 0, 'NONE', ''))\n"
        "    hum = [8000, -8000] * 800\n"
        "    file.writeframes(array.array('h', hum + [0] * 400 + hum).tobytes())\n"
        "open(sys.argv[2], 'w', encoding='utf-8').write(sys.argv[3])\n"
    )

    def speak(rows, *options):
        command = [sys.executable, "-S", str(program), "{output}", *options, rows]
        return list(CommandTextToSpeech(command, sample_rate=8000).speak_timed("Hello."))

    # The silence of 50 ms before the burst belongs to the stop; diphthongs are divided.
    [speech] = speak("0\to\u028a\n0.25\tp\n0.3\tə\n0.4\t\n", "{phonemes}")
    assert [p.symbol for p in speech.phonemes] == ["o", "\u028a", "p", "ə"]
    times_s = [(p.start_s, p.end_s) for p in speech.phonemes]
    expected = [(0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4)]
    np.testing.assert_allclose(times_s, expected, atol=0.002)
    with pytest.raises(SpeechError, match=r"wrote no phonemes .*time in seconds, a tab"):
        speak("p 0", "{phonemes}")
    [untimed] = speak("0\tp", str(tmp_path / "unused"))
    assert not untimed.phonemes


@pytest.mark.parametrize(("name", "voice"), [("flite", "slt")])
def test_configured_programs_produce_speech(name, voice):
    cfg = OmegaConf.to_object(OmegaConf.load(conf_dir() / "tts" / f"{name}.yaml"))
    options = {key: value for key, value in cfg.items() if key[0] != "_"}
    if shutil.which(options["command"][0]) is None:
        with pytest.raises(DependencyError, match=f"apt install .*{name}.*tts=piper"):
            CommandTextToSpeech(**options)
        pytest.skip(f"needs the program {options['command'][0]}")
    command = CommandTextToSpeech(**options)
    pieces = list(command.speak("Hello, how are you today? --version"))
    assert len(pieces) == 2
    assert 1 < len(pieces[0]) / command.sample_rate < 4
    assert np.abs(pieces[0]).max() > 0.1
    with pytest.raises(UsageError, match=rf"tts\.voice=nobody: .*\b{voice}\b"):
        CommandTextToSpeech(**{**options, "voice": "nobody"})
