"""Tests of the training benchmark."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from talkinghead.paths import conf_dir

SCRIPT = str(Path(__file__).parents[3] / "scripts" / "bench_training.py")
TINY = [
    "model.generator.dim=32",
    "model.generator.audio_channels=[4,8,8,16]",
    "model.generator.num_layers=1",
    "model.generator.decoder_channels=[24,16,16,8]",
    "model.generator.context_channels=[4,8,8,8]",
    "loss.weights.perceptual=0",
    "data.clips_per_speaker=4",
]


@pytest.mark.slow
def test_variant_changes_only_named_settings() -> None:
    script = runpy.run_path(SCRIPT)
    args = argparse.Namespace(
        corpus=None, batch_size=8, workers=0, steps=3, warmup=1, overrides=["seed=7"]
    )
    plain = script["make_job"]("plain", "base", args, "drawn")
    assert (plain.fused, plain.environment) == (False, {})
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for choice in script["CHOICES"]:
            job = script["make_job"](choice, "base", args, "drawn")
            cfg = compose("train", job.overrides)
            halves = 2 if choice == "accumulate" else 1
            assert (cfg.model.accumulate, job.accumulate) == (halves, halves)
            assert cfg.data.batch_size == 8 // halves
            assert cfg.model.max_iterations == cfg.data.iterations_per_epoch == 4 * halves
            assert {k for k, on in cfg.model.speed.items() if on} == {choice} & {*script["SPEED"]}
            assert job.fused == (choice == "fused")
            assert bool(job.environment) == (choice in ("malloc", "thp"))
            assert (cfg.data.corpus_dir, cfg.seed) == ("drawn", 7)
        args.corpus = "corpora/mine"
        cfg = compose("train", script["make_job"]("fused+compile", "base", args, "").overrides)
        assert cfg.data.corpus_dir == "corpora/mine"
    with pytest.raises(ValueError, match="unknown choice fuzed: combine channels_last"):
        script["make_job"]("malloc+fuzed", "base", args, "")


def test_table_compares_variants_within_each_round() -> None:
    script = runpy.run_path(SCRIPT)
    timing = script["Timing"]
    # All steps take twice as long in the second round; "quick" takes half as long as "plain".
    first = [timing([2.0, 2.0, 9.0], [0.5, 0.5, 0.5], 100), timing([4.0] * 3, [1.0] * 3, 120)]
    second = [timing([1.0] * 3, [0.0] * 3, 90), timing([2.0] * 3, [0.0] * 3, 80)]
    results = {("a", "plain"): first, ("a", "quick"): second, ("b", "plain"): ["no compiler"]}
    assert script["table"](results, 12)[2:] == [
        "| a | plain | 3.00 (3.00 to 6.00) | 1.00 | 25.0% | 120 |",
        "| a | quick | 8.00 (6.00 to 12.00) | 2.00 | 0.0% | 90 |",
        "| b | plain | failed: no compiler | | | |",
    ]


@pytest.mark.slow
def test_training_steps_are_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--models", "compact", "--variants", "plain", "fused+malloc+accumulate"]
    counts = ["--batch-size", "4", "--steps", "2", "--warmup", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", [SCRIPT, *TINY, *options, *counts])
    runpy.run_path(SCRIPT, run_name="__main__")
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split(" | ")[1] for row in rows] == ["plain", "fused+malloc+accumulate"]
    for row in rows:
        rate, share, memory = (row.split(" | ")[column].split()[0] for column in (2, 4, 5))
        assert float(rate) > 0
        assert 0 < float(share.rstrip("%")) < 100
        assert float(memory) > 100
