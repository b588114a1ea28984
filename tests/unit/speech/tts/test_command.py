"""A program as a voice: one made here that hums, and eSpeak NG and Flite where they are."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Timer
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.paths import conf_dir
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.tts.command import Command

# Hums a tenth of a second for each letter, in stereo at 8 kHz, and keeps what it was given.
_HUM = """
import array, math, sys, time, wave
voice, output, heard = sys.argv[1:4]
text = sys.stdin.read()
open(heard, "a").write(text)
if voice == "slow": time.sleep(30)
if voice == "broken": sys.exit("out of\\nbreath")
if voice == "mute": sys.exit()
if voice == "noisy": print("not a sound" * 10); sys.exit()
tone = [round(8000 * math.sin(0.3 * i)) for i in range(800 * sum(map(str.isalpha, text)))]
with wave.open(sys.stdout.buffer if output == "-" else output, "wb") as file:
    file.setparams((2, 2, 8000, 0, "NONE", ""))
    file.writeframes(array.array("h", [x for s in tone for x in (s, s)]).tobytes())
"""


@pytest.fixture
def hum(tmp_path: Path) -> Callable[..., Command]:
    program = tmp_path / "hum.py"
    program.write_text(_HUM)

    def make(voice: str = "hum", output: str = "{output}", **options: Any) -> Command:
        command = [sys.executable, "-S", str(program), "{voice}", output, str(tmp_path / "heard")]
        return Command(command, voice=voice, language="en", **options)

    return make


@pytest.mark.parametrize("output", ["{output}", "-"])
def test_speaks_a_sentence_a_piece(
    hum: Callable[..., Command], output: str, tmp_path: Path
) -> None:
    command = hum(output=output, sample_rate=16_000)
    assert isinstance(command, TextToSpeech)
    pieces = list(command.speak("One two. --help; $(touch x) `y`"))
    heard = (tmp_path / "heard").read_text()
    assert heard == "One two.\n--help; $(touch x) y\n"
    assert [piece.dtype for piece in pieces] == [np.float32] * 2
    assert [len(piece) for piece in pieces] == pytest.approx([9600, 1600 * 11], abs=64)
    assert np.abs(pieces[0]).max() == pytest.approx(8000 / 2**15, abs=0.02)


@pytest.mark.parametrize("text", ["", "\n", "?!", "\N{GRINNING FACE}"])
def test_nothing_to_say_runs_nothing(
    hum: Callable[..., Command], text: str, tmp_path: Path
) -> None:
    assert not list(hum().speak(text))
    assert not (tmp_path / "heard").exists()


def test_what_gives_no_sound_is_nothing(hum: Callable[..., Command]) -> None:
    assert not list(hum().speak("123"))


def test_cancelling_ends_the_program(hum: Callable[..., Command]) -> None:
    cancel, started_s = Event(), time.monotonic()
    Timer(0.2, cancel.set).start()
    assert not list(hum("slow").speak("Hello.", cancel))
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize(
    ("voice", "told"),
    [
        ("slow", r"took longer than 0.3 s for 'Hello\.'"),
        ("broken", r"failed \(1\): breath"),
        ("mute", "wrote no sound"),
        ("noisy", "wrote no sound"),
    ],
)
def test_failures_are_told(hum: Callable[..., Command], voice: str, told: str) -> None:
    with pytest.raises(SpeechError, match=told):
        list(hum(voice, timeout_s=0.3 if voice == "slow" else 30).speak("Hello."))


def test_unknown_voice_lists_the_known() -> None:
    lister = [sys.executable, "-S", "-c", "print(' 5 en-us M x\\n 5 de F y')"]
    options = {"list_voices": lister, "voice_pattern": r"^\s*\d+\s+(\S+)"}
    assert Command([sys.executable], voice="en-us+f3", **options)
    with pytest.raises(UsageError, match=r"tts\.voice=fr: .* has en-us, de$"):
        Command([sys.executable], voice="fr", **options)
    with pytest.raises(SpeechError, match="cannot list the voices"):
        Command([sys.executable], list_voices=[sys.executable, "-c", "exit(1)"])


@pytest.mark.parametrize(
    "options", [{"command": []}, {"voice": "-w"}, {"sample_rate": 0}, {"timeout_s": -1}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected a program"):
        Command(**{"command": [sys.executable], **options})


@pytest.mark.parametrize(("name", "voice"), [("espeak", "en-us"), ("flite", "slt")])
def test_configured_programs_speak(name: str, voice: str) -> None:
    cfg = OmegaConf.to_container(OmegaConf.load(conf_dir() / "tts" / f"{name}.yaml"), resolve=True)
    assert isinstance(cfg, dict)
    options = {str(key): value for key, value in cfg.items() if not str(key).startswith("_")}
    if shutil.which(options["command"][0]) is None:
        with pytest.raises(DependencyError, match=f"apt install .*{name}.*tts=piper"):
            Command(**options)
        pytest.skip(f"needs the program {options['command'][0]}")
    command = Command(**options)
    pieces = list(command.speak("Hello, how are you today? --version"))
    assert len(pieces) == 2
    assert 1 < len(pieces[0]) / command.sample_rate < 4
    assert np.abs(pieces[0]).max() > 0.1
    with pytest.raises(UsageError, match=rf"tts\.voice=nobody: .*\b{voice}\b"):
        Command(**{**options, "voice": "nobody"})
