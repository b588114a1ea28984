"""The benchmark of prediction with a small model, a photo and a short video."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.small_predictor import GENERATOR

from talkinghead.models.checkpoint import build, save_release
from talkinghead.types import AVSpec

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_predict.py"
STAGES = ("decode", "detect", "encode face", "mel", "generate", "composite", "encode")


@pytest.mark.slow
def test_benchmark_times_every_stage(tmp_path):
    torch.manual_seed(0)
    meta = {"generator": GENERATOR, "av": AVSpec().to_dict(), "license": "", "trained_on": ""}
    save_release(
        tmp_path / "a.safetensors", "generator", build("generator", GENERATOR, AVSpec()), meta
    )
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(tmp_path / "a.safetensors")]
    command += ["--seconds", "0.6", "--height", "240", "--precisions", "32", "bf16-mixed"]
    command += ["--media", "photo", "video", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    columns = json.loads((tmp_path / "out.json").read_text())
    assert [name.split("\n") for name in columns] == [
        [medium, "torch", precision]
        for medium in ("photo", "video")
        for precision in ("32", "bf16-mixed")
    ]
    for name, figures in columns.items():
        assert all(figures[f"{stage}, ms"] > 0 for stage in STAGES)
        assert figures["real-time factor"] > 0
        assert figures["peak memory, MiB"] > 100
        psnr = figures.get("mouths relative to torch in fp32, PSNR dB")
        assert (psnr is None) == name.endswith("32")
        assert psnr is None or psnr > 30
    assert "end to end, frames/s" in done.stdout
