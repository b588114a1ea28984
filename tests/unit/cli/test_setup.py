"""Tests of `talkinghead setup`."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from talkinghead.cli.main import main
from talkinghead.cli.shared import installer
from talkinghead.paths import NODEPS_REQUIREMENTS, OFFLINE_REQUIREMENTS


@pytest.mark.parametrize(("file", "count"), [(NODEPS_REQUIREMENTS, 2), (OFFLINE_REQUIREMENTS, 1)])
def test_every_requirement_is_pinned_and_hashed(file, count):
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == count
    assert all(re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


@pytest.mark.parametrize("offline", [False, True])
def test_pip_installs_hashed_files_without_dependencies(monkeypatch, capsys, offline):
    commands = []
    status = 0

    def run(command, *, check, stdout):
        commands.append(command)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", run)
    arguments = ["setup", *["offline"] * offline, "--index-url", "https://example.invalid"]
    assert main(arguments) == 0
    files = [NODEPS_REQUIREMENTS, *[OFFLINE_REQUIREMENTS] * offline]
    assert commands == [
        [
            *(sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes"),
            *(f"--requirement={file}" for file in files),
            *("--index-url", "https://example.invalid"),
        ]
    ]
    assert "set up" in capsys.readouterr().out
    status = 1
    assert main(arguments) == 1
    assert "pip failed" in capsys.readouterr().err


def test_messages_of_pip_are_not_mixed_with_json(monkeypatch, capfd):
    monkeypatch.setattr("talkinghead.cli.setup.installer_command", lambda: ["echo", "pip text"])
    assert main(["setup", "output_format=json"]) == 0
    shown = capfd.readouterr()
    assert json.loads(shown.out)["exit_status"] == 0
    assert "pip text" in shown.err


def test_uv_replaces_a_missing_pip(monkeypatch, capsys):
    monkeypatch.setattr(installer, "find_spec", lambda name: None)
    monkeypatch.setattr(installer.shutil, "which", lambda name: "/bin/uv")
    assert installer.installer_command()[:4] == ["/bin/uv", "pip", "install", "--python"]
    monkeypatch.setattr(installer.shutil, "which", lambda name: None)
    assert main(["setup"]) == 1
    assert "ensurepip" in capsys.readouterr().err


def test_help_is_shown_and_wrong_arguments_are_refused(capsys):
    assert main(["setup", "--help"]) == 0
    assert "usage: talkinghead setup" in capsys.readouterr().out
    assert main(["setup", "everything"]) == 2
    assert "got 'everything'; expected \"offline\" or options of pip" in capsys.readouterr().err
