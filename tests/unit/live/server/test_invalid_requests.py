"""Test of all routes with generated requests, valid and invalid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.live_sessions import FakePool, FakeRunner, serve


@pytest.mark.slow
def test_invalid_requests_cause_no_server_error(tmp_path):
    settings = {"face": Path("photo.jpg"), "voices": ("joe",), "video_runner": FakeRunner()}
    with serve(FakePool(10**6), max_video_jobs=10**6, **settings) as port:
        command = [
            *(Path(sys.executable).with_name("schemathesis"), "run"),
            *(f"http://localhost:{port}/openapi.json", "--checks=not_a_server_error"),
            *("--max-examples=20", "--seed=1", "--suppress-health-check=all", "--no-color"),
        ]
        fuzzed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert fuzzed.returncode == 0, fuzzed.stdout[-5000:]
    assert "Tested: 21" in fuzzed.stdout
