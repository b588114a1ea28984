"""`talkinghead serve` checks its options before it loads a model."""

import pickle
import socket
import subprocess
import sys

import pytest
from helpers.live_parts import write_face

from talkinghead.cli.main import main
from talkinghead.live.server.server_settings import ServerSettings
from talkinghead.speech.protocols import Message


@pytest.fixture
def served(monkeypatch):
    """Return the arguments of `run_server` instead of serving."""
    pytest.importorskip("aiortc")
    calls = []
    monkeypatch.setattr(
        "talkinghead.live.server.run_server.run_server", lambda *given: calls.append(given)
    )
    return calls


def test_defaults_serve_the_demonstration_face_on_this_machine(served):
    assert main(["serve"]) == 0
    ((settings, pool),) = served
    assert (settings.host, settings.port, settings.token) == ("127.0.0.1", 8000, None)
    assert settings.face.is_file()
    assert (settings.voices, settings.llms) == (("piper",), ("llama", "echo"))
    assert settings.label == pool.factory.label == "AI generated"
    assert pool.options.max_sessions == 2
    # The factory and the renderer of videos are sent to other processes.
    pickle.dumps((pool.factory, settings.video_runner))


def test_values_of_the_command_line_reach_the_settings(served, tmp_path):
    face = write_face(tmp_path)
    arguments = ["max_sessions=5", "idle_timeout_s=10", "end_silence_s=0.4", f"avatars={tmp_path}"]
    more = ["+llm@llms.gpt=openai", "token=secret", "host=0.0.0.0", "system_prompt=Be brief."]
    assert main(["serve", f"face={face}", *arguments, *more]) == 0
    ((settings, pool),) = served
    assert settings.llms == ("llama", "echo", "gpt")
    assert (settings.token, str(settings.avatars), settings.face) == ("secret", str(tmp_path), face)
    assert "secret" not in repr(settings)
    assert settings.personas["Conversation partner"] == "Be brief."
    options = pool.options
    assert (options.max_sessions, options.idle_timeout_s) == (5, 10)
    dialogue = pool.factory.dialogue
    assert (dialogue.end_silence_s, dialogue.system_prompt) == (0.4, "Be brief.")


def test_factory_builds_the_configured_parts(served):
    assert main(["serve", "llms.echo.template=Yes.", "lip_prior=none"]) == 0
    ((_, pool),) = served
    assert "".join(pool.factory.llms["echo"]().reply([Message("user", "No?")])) == "Yes."
    assert pool.factory.predictor().lip_prior is None


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["host=0.0.0.0"], 2, "give token="),
        (["face=missing.jpg"], 1, "missing.jpg is not a file"),
        (["prot=9000"], 2, "port"),
        (["host=256.0.0.1", "token=a"], 2, "cannot be used"),
        (["port=99999"], 2, "port=99999: expected a whole number from 0 to 65535"),
    ],
)
def test_errors_are_reported_in_one_line(arguments, status, expected, capsys):
    pytest.importorskip("aiortc")
    assert main(["serve", *arguments]) == status
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_used_port_is_named(capsys):
    pytest.importorskip("aiortc")
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        assert main(["serve", f"port={port}"]) == 2
    assert f"port={port} cannot be used" in capsys.readouterr().err


@pytest.mark.slow
def test_missing_extra_is_named():
    program = "import sys; sys.modules['fastapi'] = None; from talkinghead.cli.main import main; "
    command = [sys.executable, "-c", program + "sys.exit(main(['serve']))"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'talkinghead[live]'" in done.stderr


def test_server_with_a_token_may_listen_on_all_addresses():
    assert ServerSettings(host="::1").is_local
    assert not ServerSettings(host="0.0.0.0", token="secret").is_local
