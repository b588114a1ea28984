"""Tests of the completion scripts, run by the shells that are installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from talkinghead.cli.environment.shell_completion import command_keys
from talkinghead.cli.main import COMMANDS, main


@pytest.fixture
def script(capsys, tmp_path):
    def write(shell):
        assert main(["completion", shell]) == 0
        path = tmp_path / f"completion.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return write


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected", "absent"),
    [
        (["pre"], {"prepare", "predict"}, {"train"}),
        (["predict", "fac"], {"face=", "face_select=", "face_index="}, {"audio="}),
        (["predict", "style.s"], {"style.smile="}, set()),
        (["predict", "renderer", "=", "po"], {"poisson"}, {"laplacian"}),
        (["predict", "output_format", "="], {"text", "json"}, set()),
        (["predict", "face", "=", "ph"], {"photo.jpg"}, {"speech.wav"}),
        (["doctor", ""], {"output_format="}, {"face="}),
    ],
)
def test_bash_completes_commands_keys_choices_and_files(script, tmp_path, words, expected, absent):
    for name in ("photo.jpg", "speech.wav"):
        (tmp_path / name).touch()
    code = (
        f'source {script("bash")}; COMP_WORDS=(talkinghead "$@"); COMP_CWORD=$#; _talkinghead; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code, "bash", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = set(done.stdout.split())
    assert expected <= found
    assert not absent & found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_script_of_other_shells_is_valid_and_complete(script, shell):
    path = script(shell)
    text = path.read_text()
    assert all(command in text for command in COMMANDS)
    assert "face=" in text
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(path)], check=True)


def test_keys_of_all_commands_are_found():
    assert {"face", "checkpoint", "style.opening", "renderer"} <= set(command_keys("predict"))
    assert command_keys("doctor") == []


def test_unknown_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "choose bash, zsh, fish" in capsys.readouterr().err
    assert main(["completion"]) == 2
