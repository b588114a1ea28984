"""The benchmark of prediction with a small model, a photo and a short video."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from helpers.predict_command import write_checkpoint

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_predict.py"
STAGES = ("decode", "detect", "encode face", "mel", "generate", "composite", "encode")


@pytest.mark.slow
def test_benchmark_times_every_stage(tmp_path):
    write_checkpoint(tmp_path / "a.safetensors")
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(tmp_path / "a.safetensors")]
    command += ["--seconds", "0.6", "--height", "240", "--precisions", "32", "bf16-mixed"]
    command += ["--media", "photo", "video", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "end to end, frames/s" in done.stdout
    columns = json.loads((tmp_path / "out.json").read_text())
    names = product(("photo", "video"), ("torch",), ("32", "bf16-mixed"))
    assert list(columns) == ["\n".join(name) for name in names]
    for name, figures in columns.items():
        assert all(figures[f"{stage}, ms"] > 0 for stage in STAGES)
        assert figures["real-time factor"] > 0
        assert figures["peak memory, MiB"] > 100
        psnr = figures.get("mouths relative to torch in fp32, PSNR dB")
        assert psnr is None if name.endswith("32") else psnr > 30
