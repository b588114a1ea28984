"""The script that scores ground-truth lip motion, on drawn faces."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import GENERATOR, SPEC

from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.models.checkpoint import build, save_release

SCRIPT = str(Path(__file__).parents[3] / "scripts" / "upper_bound_lip_motion.py")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
    runpy.run_path(SCRIPT, run_name="__main__")


def test_true_lip_motion_distinguishes_audio_that_the_model_ignores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_synthetic_corpus(tmp_path / "corpus", SPEC, 1, clips_per_speaker=6, seconds=1.6)
    torch.manual_seed(0)
    model = build("generator", GENERATOR, SPEC)
    torch.nn.init.normal_(model.lip_head.weight, std=1e-4)
    meta = {"generator": GENERATOR, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "-"}
    save_release(tmp_path / "small.safetensors", "generator", model, meta)
    run(monkeypatch, str(tmp_path / "corpus"), "--checkpoint", str(tmp_path / "small.safetensors"))
    seen, unseen = capsys.readouterr().out.splitlines()
    assert unseen == "unseen speakers: no clips"
    predicted, true = (float(ratio) for ratio in re.findall(r"ratio ([\d.]+)", seen))
    assert predicted == pytest.approx(1, abs=0.02)
    assert true > predicted + 0.05


def test_missing_corpus_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        run(monkeypatch, str(tmp_path))
    assert raised.value.code == 1
    assert capsys.readouterr().err.startswith("upper_bound_lip_motion: ")
