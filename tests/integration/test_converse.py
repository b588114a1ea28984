"""The commands `converse`, and `predict` with a text, offline and by OpenAI's API."""

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
from helpers.openai_server import (
    END,
    KEY,
    SPEECH,
    chat_response,
    error_response,
    pcm_response,
    run_openai_server,
    transcript_response,
)
from helpers.predict_command import make_files, messages, predict
from helpers.speech_services import word_error_rate

from talkinghead.cli.main import main
from talkinghead.errors import DependencyError
from talkinghead.media.reader import probe, read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.runtime.packaged_weights import voice, whisper_base
from talkinghead.speech.stt.whisper import Whisper

TESTS = Path(__file__).parents[1]
TONES = ("~tts", "+tts={_target_: helpers.speech_services.ToneTextToSpeech}")
QUICK = ("lip_prior=none", "motion=none")
TRANSCRIPT = (
    "~stt",
    "+stt={_target_: helpers.speech_services.FixedSpeechToText, "
    "transcript: {_target_: talkinghead.speech.protocols.Transcript, text: 'Who is it?'}}",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("inputs"))


def converse(files, *overrides):
    keys = (f"checkpoint={files / 'good.safetensors'}", f"face={files / 'face.png'}")
    return main(["converse", *keys, *TONES, *QUICK, *overrides])


def test_spoken_question_is_answered(files, tmp_path, capfd):
    output = tmp_path / "it's, (a) = b.mp4"
    assert converse(files, f"audio={files / 'speech.wav'}", f"output={output}", *TRANSCRIPT) == 0
    assert abs(probe(output).duration_s - Fraction("0.85")) <= Fraction(1, 25)
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4", ".srt", ".json"}
    log = capfd.readouterr().out
    assert "question: Who is it?" in log
    assert "answer: You said: Who is it?" in log
    assert "first frame" in log


@pytest.mark.parametrize(
    ("overrides", "named", "status"),
    [
        ([], "audio=... and output=...", 2),
        (["output=a.mp4", "audio={files}/nothing.wav"], "nothing.wav", 1),
        (["output={files}/video.mp4", "audio={files}/video.mp4"], "would be overwritten", 2),
    ],
)
def test_wrong_arguments_give_a_one_line_error(
    files, tmp_path, monkeypatch, capfd, overrides, named, status
):
    monkeypatch.chdir(tmp_path)
    given = [override.format(files=files) for override in overrides]
    assert converse(files, *given, *TRANSCRIPT) == status
    (line,) = messages(capfd)
    assert named in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_each_typed_line_gives_a_clip(files, tmp_path, monkeypatch, capfd):
    (tmp_path / "turn_007.mp4").write_text("existing")
    lines = ("One, two.", "", "😀", "Three $HOME?")
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    assert converse(files, "interactive=true", f"output={tmp_path}", "llm.template={}") == 1
    captured = capfd.readouterr()
    assert "nothing that can be spoken" in captured.out
    assert "1 of 3 turns failed" in captured.err
    for name, line in (("turn_008", "One, two."), ("turn_010", "Three $HOME?")):
        written = json.loads((tmp_path / f"{name}.json").read_text())
        assert [sentence["text"] for sentence in written["reply"]] == [line]


@pytest.mark.slow
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
    killer, clips = threading.Timer(60, process.kill), tmp_path / "clips"
    killer.start()

    def wait_for(pattern):
        while not list(clips.glob(pattern)):
            assert process.poll() is None
            time.sleep(0.05)

    try:
        process.stdin.write("This is a long one. " * 100 + "\n")
        process.stdin.flush()
        wait_for(".*.tmp.mp4")
        time.sleep(2)
        interrupted_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        wait_for("turn_001.json")
        assert time.monotonic() - interrupted_s < 3
        log, _ = process.communicate("And now?\n")
    finally:
        killer.cancel()
        process.kill()
    assert process.returncode == 0, log
    assert "answer (interrupted): This is a long one." in log
    assert "answer: And now?" in log
    assert Fraction(1, 2) < probe(clips / "turn_001.mp4").duration_s < 10


def test_printed_configuration_shows_no_api_key(monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    groups = ("stt=openai", "llm=openai", "tts=openai")
    assert main(["converse", "--cfg", "job", "--resolve", *groups]) == 0
    log = capfd.readouterr().out
    assert "api_key_env: OPENAI_API_KEY" in log
    assert "sk-secret" not in log


def test_openai_conversation_does_not_reveal_api_key(files, tmp_path, monkeypatch, capfd):
    for package in ("openai", "faster_whisper", "pyloudnorm"):
        pytest.importorskip(package, reason="needs the extra speech")
    monkeypatch.chdir(tmp_path)
    speech = np.rint(SPEECH.samples[:8000] * 32_767).astype("<i2").tobytes()
    options = [f"checkpoint={files / 'good.safetensors'}", f"face={files / 'face.png'}"]
    options += [f"audio={DEMO_SPEECH}", "output=answer.mp4", "hydra.verbose=true", *QUICK]
    with run_openai_server() as server:
        server.responses += [
            transcript_response("Who are you?"),
            error_response(500, f"oh: {KEY}"),
            chat_response("I am ", "Ada. ", "And you?", *END),
            pcm_response(speech[:9999], speech[9999:]),
            pcm_response(speech),
        ]
        for group in ("stt", "llm", "tts"):
            options += [f"{group}=openai", f"{group}.base_url={server.url}"]
        assert main(["converse", *options]) == 0
    output = "".join(capfd.readouterr())
    assert "Sending HTTP Request" in output  # The log includes the debug messages of the library.
    assert KEY not in output
    assert not [path for path in tmp_path.iterdir() if KEY.encode() in path.read_bytes()]
    transcription, _, reply, *speech_requests = server.requests
    assert transcription.path.endswith("/transcriptions")
    assert reply.json["messages"][-1] == {"role": "user", "content": "Who are you?"}
    assert [request.json["input"] for request in speech_requests] == ["I am Ada.", "And you?"]
    assert probe(tmp_path / "answer.mp4").duration_s > 0.5
    written = json.loads((tmp_path / "answer.json").read_text())
    assert written["question"]["text"] == "Who are you?"


def test_text_is_spoken_and_rendered(files, tmp_path):
    output = tmp_path / "hello.mp4"
    text = "text=Hello, Dr. Smith! How are you today? 😀"
    assert predict(files, f"output={output}", text, *TONES, audio=None) == 0
    assert abs(probe(output).duration_s - (0.7 + 2 * 0.35)) < 0.1


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_job_list_may_contain_texts(files, tmp_path, capfd, workers):
    listed, face = tmp_path / "jobs.csv", files / "face.png"
    rows = (f"a.mp4,Hello there.,,{face}", f"b.mp4,,{files / 'speech.wav'},{face}")
    listed.write_text("\n".join(("output,text,audio,face", *rows)))
    checkpoint = f"checkpoint={files / 'good.safetensors'}"
    for num_existing in (0, 2):
        options = (f"workers={workers}", checkpoint, *TONES, *QUICK)
        assert main(("predict", f"jobs={listed}", *options)) == 0
        assert {path.name for path in tmp_path.iterdir()} == {"jobs.csv", "a.mp4", "b.mp4"}
        assert capfd.readouterr().out.count("exists already") == num_existing


@pytest.mark.parametrize(
    ("text", "audio", "named", "status"),
    [
        ("", None, "text= is empty", 2),
        ("Hello.", "speech.wav", "give one of them", 2),
        ("😀 ...", None, "ended before its first sample", 1),
    ],
)
def test_wrong_texts_give_a_one_line_error(files, tmp_path, capfd, text, audio, named, status):
    output = f"output={tmp_path / 'out.mp4'}"
    assert predict(files, output, f"text={text}", *TONES, audio=audio) == status
    (line,) = messages(capfd)
    assert named in line
    assert not list(tmp_path.iterdir())


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
def test_packaged_models_speak_and_hold_a_conversation(files, tmp_path):
    try:
        voice("joe"), whisper_base()
    except DependencyError as error:
        pytest.skip(str(error))
    asked, face = "Could you tell me where the nearest railway station is?", files / "face.png"
    question, output = tmp_path / "question.mp4", tmp_path / "answer.mp4"
    assert main(["predict", f"face={face}", f"text={asked}", f"output={question}"]) == 0
    assert main(["converse", f"face={face}", f"audio={question}", f"output={output}"]) == 0
    written = json.loads(output.with_suffix(".json").read_text())
    question = written["question"]
    assert word_error_rate(question["text"], asked) <= 0.1
    assert question["language"] == "en"
    starts = [word["start_s"] for word in question["words"]]
    assert len(starts) == 10
    assert starts == sorted(starts)
    reply = " ".join(sentence["text"] for sentence in written["reply"])
    assert reply == f"You said: {question['text']}"
    transcript = Whisper().transcribe(read_audio(output, 16_000))
    assert word_error_rate(transcript.text, reply) <= 0.1
    assert probe(output).duration_s == pytest.approx(written["reply"][-1]["end_s"], abs=0.04)
