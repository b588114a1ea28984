"""The commands `converse`, and `predict` with a text, offline and with a voice of tones."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.predict_command import make_files, messages, predict, write_speech
from helpers.speech_services import word_error_rate

from talkinghead.cli.main import main
from talkinghead.errors import DependencyError
from talkinghead.media.reader import probe, read_audio
from talkinghead.media.writer import write_audio_file
from talkinghead.runtime.packaged_weights import voice, whisper_base
from talkinghead.speech.sentence_speech import speak_text
from talkinghead.speech.stt.whisper import Whisper
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.voice import Voice
from talkinghead.types import AudioClip

TESTS = Path(__file__).parents[1]
TONES = ("~tts", "+tts={_target_: helpers.speech_services.ToneTextToSpeech}")
TRANSCRIPT = (
    "~stt",
    "+stt={_target_: helpers.speech_services.FixedSpeechToText, "
    "transcript: {_target_: talkinghead.speech.protocols.Transcript, text: 'Who is it?'}}",
)


def is_packaged():
    """Return whether the extra `offline` is installed."""
    try:
        return bool(voice("joe") and whisper_base())
    except DependencyError:
        return False


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("inputs"))


def converse(files, *overrides):
    keys = (f"checkpoint={files / 'good.safetensors'}", f"face={files / 'face.png'}")
    return main(["converse", *keys, *TONES, *overrides])


def set_stdin(monkeypatch, *lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_spoken_question_is_answered(files, tmp_path, capfd):
    output = tmp_path / "it's, (a) = b.mp4"
    assert converse(files, f"audio={files / 'speech.wav'}", f"output={output}", *TRANSCRIPT) == 0
    assert abs(probe(output).duration_s - Fraction("0.85")) <= Fraction(1, 25)
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4", ".srt", ".json"}
    log = capfd.readouterr().out
    assert "question: Who is it?" in log
    assert "answer: You said: Who is it?" in log
    assert "first frame" in log


def test_silence_gets_the_configured_reply(files, tmp_path):
    write_speech(tmp_path / "silence.wav", 1.0, level=0)
    output = tmp_path / "answer.mp4"
    audio = f"audio={tmp_path / 'silence.wav'}"
    reply = "no_speech_reply=Pardon, sir?"
    assert converse(files, audio, f"output={output}", reply, *TRANSCRIPT) == 0
    reply = json.loads(output.with_suffix(".json").read_text())["reply"]
    assert [sentence["text"] for sentence in reply] == ["Pardon, sir?"]


@pytest.mark.parametrize(
    ("overrides", "named", "status"),
    [
        ([], "audio=... and output=...", 2),
        (["interactive=true"], "output=...", 2),
        (["output=a.mp4", "audio={files}/nothing.wav"], "nothing.wav", 1),
        (["output=a.mp4", "audio={files}/speech.wav", "max_question_s=1"], "max_question_s", 1),
        (["output={files}/video.mp4", "audio={files}/video.mp4"], "would be overwritten", 2),
        (["output={files}/face.png", "audio={files}/speech.wav"], "would be overwritten", 2),
    ],
)
def test_wrong_arguments_give_one_line(
    files, tmp_path, monkeypatch, capfd, overrides, named, status
):
    monkeypatch.chdir(tmp_path)
    given = [override.format(files=files) for override in overrides]
    assert converse(files, *given, *TRANSCRIPT) == status
    lines = messages(capfd)
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_each_typed_line_gives_a_clip(files, tmp_path, monkeypatch):
    (tmp_path / "turn_007.mp4").write_text("existing")
    set_stdin(monkeypatch, "One, two.", "", "Three $HOME?")
    assert converse(files, "interactive=true", f"output={tmp_path}") == 0
    replies = [
        json.loads((tmp_path / f"turn_00{number}.json").read_text())["reply"] for number in (8, 9)
    ]
    assert [[sentence["text"] for sentence in reply] for reply in replies] == [
        ["You said: One, two."],
        ["You said: Three $HOME?"],
    ]


def test_failed_turn_is_reported_and_the_next_continues(files, tmp_path, monkeypatch, capfd):
    set_stdin(monkeypatch, "😀", "I am well.")
    assert converse(files, "interactive=true", f"output={tmp_path}", "llm.template={}") == 1
    captured = capfd.readouterr()
    assert "nothing that can be spoken" in captured.out
    assert "1 of 2 turns failed" in captured.err
    assert (tmp_path / "turn_002.mp4").is_file()


def test_ctrl_c_interrupts_the_turn_and_ctrl_d_ends(files, tmp_path):
    command = (
        *(sys.executable, "-m", "talkinghead", "converse", *TONES, "interactive=true"),
        *(f"checkpoint={files / 'good.safetensors'}", f"face={files / 'face.png'}"),
        *("output=clips", "llm.template={}", "llm.tokens_per_second=8", "max_reply_chars=9999"),
    )
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killer = threading.Timer(60, process.kill)
    killer.start()
    try:
        process.stdin.write("This is a long one. " * 100 + "\n")
        process.stdin.flush()
        while not list((tmp_path / "clips").glob(".*.tmp.mp4")):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(2)
        interrupted_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        while not (tmp_path / "clips" / "turn_001.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert time.monotonic() - interrupted_s < 3
        log, _ = process.communicate("And now?\n")
    finally:
        killer.cancel()
        process.kill()
    assert process.returncode == 0, log
    assert "answer (interrupted): This is a long one." in log
    assert "answer: And now?" in log
    assert Fraction(1, 2) < probe(tmp_path / "clips" / "turn_001.mp4").duration_s < 10


def test_printed_configuration_shows_no_key(monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    groups = ("stt=openai", "llm=openai", "tts=openai")
    assert main(["converse", "--cfg", "job", "--resolve", *groups]) == 0
    log = capfd.readouterr().out
    assert "api_key_env: OPENAI_API_KEY" in log
    assert "sk-secret" not in log


def test_text_is_spoken_and_rendered(files, tmp_path):
    output = tmp_path / "hello.mp4"
    text = "text=Hello, Dr. Smith! How are you today? 😀"
    assert predict(files, f"output={output}", text, *TONES, audio=None) == 0
    assert abs(probe(output).duration_s - (0.7 + 2 * 0.35)) < 0.1


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_job_list_may_hold_texts(files, tmp_path, capfd, workers):
    rows = ("a.mp4,Hello there.,", f"b.mp4,,{files / 'speech.wav'}")
    listed = tmp_path / "jobs.csv"
    listed.write_text(
        "output,text,audio,face\n" + "".join(f"{row},{files / 'face.png'}\n" for row in rows)
    )
    checkpoint = f"checkpoint={files / 'good.safetensors'}"
    arguments = ("predict", f"jobs={listed}", f"workers={workers}", checkpoint, *TONES)
    assert main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.csv", "a.mp4", "b.mp4"}
    capfd.readouterr()
    assert main(arguments) == 0
    assert capfd.readouterr().out.count("is there already") == 2


@pytest.mark.parametrize(
    ("keys", "named", "status"),
    [
        ({"text": "", "audio": None}, "text= is empty", 2),
        ({"text": "Hello."}, "give one of them", 2),
        ({"text": "😀 ...", "audio": None}, "nothing in it can be heard", 1),
    ],
)
def test_wrong_texts_give_one_line(files, tmp_path, capfd, keys, named, status):
    text = f"text={keys.pop('text')}"
    assert predict(files, f"output={tmp_path / 'out.mp4'}", text, *TONES, **keys) == status
    lines = messages(capfd)
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def transcribe(path):
    return Whisper().transcribe(read_audio(path, 16_000)).text


@pytest.mark.slow
def test_benchmark_times_every_stage(files, tmp_path):
    script = TESTS.parent / "scripts" / "bench_conversation.py"
    times = tmp_path / "times.json"
    command = (sys.executable, script, "--turns", "2", "--json", times, *TONES, *TRANSCRIPT)
    checkpoint = f"checkpoint={files / 'good.safetensors'}"
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    subprocess.run([*command, checkpoint], env=environment, check=True)
    turns = json.loads(times.read_text())
    assert len(turns) == 3
    stages = "transcript first_token first_sentence first_audio first_frame end reply"
    assert all(list(turn) == [f"{stage}_s" for stage in stages.split()] for turn in turns)


@pytest.mark.slow
@pytest.mark.skipif(not is_packaged(), reason="needs the extra offline")
def test_text_is_recognised_in_its_video(files, tmp_path):
    text = "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised."
    output = tmp_path / "speech.mp4"
    face = ("predict", f"face={files / 'face.png'}")
    assert main([*face, f"text={text}", f"output={output}"]) == 0
    assert word_error_rate(transcribe(output), text) <= 0.1


@pytest.mark.slow
@pytest.mark.skipif(not is_packaged(), reason="needs the extra offline")
def test_packaged_models_hold_a_conversation(files, tmp_path):
    asked = "Could you tell me where the nearest railway station is?"
    file, output = tmp_path / "question.wav", tmp_path / "answer.mp4"
    spoken = speak_text(asked, Voice(Piper()))
    samples = np.concatenate(list(spoken.read(16_000)))
    write_audio_file(file, AudioClip(samples, 16_000))
    arguments = (f"face={files / 'face.png'}", f"audio={file}", f"output={output}")
    assert main(["converse", *arguments]) == 0
    written = json.loads(output.with_suffix(".json").read_text())
    question = written["question"]
    assert word_error_rate(question["text"], asked) <= 0.1
    assert question["language"] == "en"
    starts = [word["start_s"] for word in question["words"]]
    assert len(starts) == 10
    assert starts == sorted(starts)
    reply = " ".join(sentence["text"] for sentence in written["reply"])
    assert reply == f"You said: {question['text']}"
    assert word_error_rate(transcribe(output), reply) <= 0.1
    assert probe(output).duration_s == pytest.approx(written["reply"][-1]["end_s"], abs=0.04)
