"""A short fault campaign: generated inputs, full disks, kills and environments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "campaign.py"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "counts",
    [
        ("--inputs", "9", "--disk", "6", "--kills", "0", "--terminations", "0"),
        ("--inputs", "0", "--disk", "0", "--kills", "1", "--terminations", "1"),
    ],
)
def test_short_campaign_finds_no_fault(tmp_path: Path, counts: tuple[str, ...]) -> None:
    folder = tmp_path / "campaign"
    options = ("--commands", "predict", "prepare", "--no-environments")
    command = [sys.executable, SCRIPT, "--folder", folder, *counts, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    report = json.loads((folder / "report.json").read_text())
    assert report["faults"] == []
    assert done.returncode == 0
    assert sum(row["tried"] for row in report["rows"]) > 0
    assert done.stdout.startswith("| part | tried | faults |")
