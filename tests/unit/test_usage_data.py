"""Dependencies send no usage data unless the user has allowed it."""

import os
import subprocess
import sys

import pytest


def run(code, **variables):
    """Return the output of Python code in a process with the environment of a user."""
    automatic = ("ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in automatic}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_onnxruntime_creates_no_device_identifier(tmp_path):
    pytest.importorskip("onnxruntime")
    run("import talkinghead, onnxruntime", HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_choice_of_the_user_is_kept():
    code = "import os, talkinghead; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(code) == "1"
    assert run(code, ORT_DISABLE_TELEMETRY="0") == "0"
